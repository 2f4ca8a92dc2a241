"""
Floor 3: the seam into TRL, and the only file that names a private attribute of TRL or transformers.

`GRPOTrainer._compute_loss` runs the policy first and reads `inputs["advantages"]` after it. The seam lends it a batch
whose advantages are decided at the moment they are read, from the log-probs and entropies of that very forward.
`docs/architecture.md` lists what it relies on.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Set
from contextlib import contextmanager, nullcontext
from math import gcd
from types import SimpleNamespace
from typing import NamedTuple

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer import grpo_trainer, utils
from trl.trainer.utils import pad

from .compact import Compaction, compacted, picked
from .pool import Pool
from .rollouts import RolloutPlan
from .rollouts.batch import Collected, padding_of, refill
from .supported import GRPO, Family
from .tokens import Tokens, mixed
from .vocabulary import HiddenStates, RowTemperatures, entropy_at, expected_discriminator, prompt_entropies


logger = logging.getLogger(__name__)

# The rows that a micro-batch leaves out, beside TRL's columns
LEFT_OUT = "left_out"
# Losses that are a mean over the rows of a micro-batch; the others are a sum over a number that is given
MEAN_OVER_ROWS = ("dr_grpo", "grpo", "luspo", "sapo")
# The share of live tokens above which copying them costs more than it spares
MOSTLY_LIVE = 0.7
# What needs the hidden states and a pass of the LM head of its own
VOCABULARY = {"expected_discriminator", "prompt_entropies", "entropies_at_one"}

STATE_FILE = "entropy_control.json"
UNSUPPORTED = "This TRL version is not supported; see docs/architecture.md for what is relied on"
UNREAD = f"TRL computed a loss without reading `advantages`, so no weight could act. {UNSUPPORTED}"


class SeamError(RuntimeError):
    """TRL no longer computes its loss in the order the seam relies on, so that the rules could not act."""


class _Seen(Exception):
    """The facts of a micro-batch are known: the rest of its loss is not wanted."""


class LateAdvantages(dict):
    """TRL's batch, except that `advantages` is decided when it is first read."""

    def __init__(self, inputs: dict, decide: Callable[[Tensor], Tensor]):
        super().__init__(inputs)
        self._decide = decide
        self._decided: Tensor | None = None

    def __getitem__(self, key):
        if key != "advantages":
            return super().__getitem__(key)
        if self._decided is None:
            self._decided = self._decide(super().__getitem__(key))
        return self._decided


class Rollout(NamedTuple):
    """What was sampled: TRL's batch of this rank, and of all ranks the rewards `(groups, G)` and the completions."""

    batch: dict
    rewards: Tensor
    completions: list


class RolloutSeam:
    """Mixed in before a TRL trainer that samples as `GRPOTrainer` does: a plan decides about training rollouts."""

    plan = RolloutPlan({}, 0, {}.__getitem__, 0)
    # The temperatures of the rows that are sampled or scored, over the run's; None if they have that one
    _temperatures: Tensor | None = None
    _row_temperatures: RowTemperatures | None = None
    # The rows that are sampled, and which of their completions are stored solutions
    _rows: list[dict] | None = None
    _offline: Tensor | None = None
    _rewards: Tensor | None = None

    def use_plan(self, plan: RolloutPlan) -> None:
        """Sample by this plan. Raises `ValueError` if the model or the trainer cannot."""
        self.plan = plan
        if self.args.torch_compile:
            torch.compiler.reset()  # a graph of an earlier policy would be taken, which has not the hooks of this one
        if plan.sets_temperatures:
            models = [model for model in (self.model, self.ref_model) if model is not None]
            self._row_temperatures = RowTemperatures([self.accelerator.unwrap_model(model) for model in models])
        if plan.replaces_completions and (self.tools or self.rollout_func is not None):
            raise ValueError("rollout_rules cannot replace completions that tools or a rollout_func have a part in")

    def _sample(self, rows: list[dict]) -> Rollout:
        """Sample and score these rows of this rank."""
        training, columns = self.model.training, {}
        if training and self.plan.sets_temperatures:
            values = self.plan.temperatures([row["prompt"] for row in rows], self.temperature)
            columns["temperatures"] = torch.tensor(values, device=self.accelerator.device) / self.temperature
            self._log_mean("rollout/temperature", columns["temperatures"] * self.temperature)
        self._rows = rows
        with self._at(columns.get("temperatures")):
            batch = super()._generate_and_score_completions(rows)
        if training and self.plan.replaces_completions:
            columns["offline"] = self._offline
            self._log_mean("rollout/injected", self._offline)
        rewards = self._groups()
        size = rewards.numel()  # TRL has gathered what it logs
        if training and self.plan.sets_temperatures:
            self.plan.visited(gather_object([row["prompt"] for row in rows])[:: rewards.shape[1]], rewards)
        self._rows = self._offline = self._rewards = None
        return Rollout({**batch, **columns}, rewards, list(self._logs["completion"])[-size:])

    def _sample_planned(self, inputs: list[dict]) -> Rollout:
        """A training rollout of the size of `inputs`, which are TRL's rows of this rank."""
        ranks, size = self.accelerator.num_processes, self.num_generations
        whole = len(inputs) * ranks // size
        self.plan.begin()
        rollout = self._sample(self._planned_rows(inputs, whole))
        if not self.plan.keeps_groups:
            return rollout
        collected = Collected(whole)
        for rounds in range(self.plan.rounds + 1):
            if rounds:
                more = refill(collected, multiple=ranks // gcd(ranks, size))
                rollout = self._sample(self._planned_rows(inputs, more))
            keep = self.plan.keep(rollout.rewards)
            collected.add(self._everywhere(rollout.batch), rollout.rewards, rollout.completions, keep)
            if not collected.missing:
                break
        self.log_means(collected.means())
        batch, rewards, completions = collected.rollout(self._tokenizer.pad_token_id)
        trained = batch["completion_mask"] * batch.get("tool_mask", 1)
        batch = picked(batch, self._of_this_rank(len(inputs)))
        batch["num_items_in_batch"] = trained.sum()
        return Rollout(batch, rewards, completions)

    def _planned_rows(self, inputs: list[dict], groups: int) -> list[dict]:
        """The rows of this rank, of so many groups on all ranks; `inputs` if no rule chooses problems."""
        if not self.plan.chooses_problems:
            return inputs
        progress = self.state.global_step / self.state.max_steps
        problems, means = self.plan.problems(groups, progress, self._perplexities)
        self.log_means({f"rollout/{name}": value for name, value in means.items()})
        problems = [problem for problem in problems for _ in range(self.num_generations)]
        mine = problems[self._of_this_rank(len(problems) // self.accelerator.num_processes)]
        return [self.train_dataset[problem] for problem in mine]

    def _of_this_rank(self, count: int) -> slice:
        """The rows of this rank among those of all ranks, which have `count` each."""
        start = self.accelerator.process_index * count
        return slice(start, start + count)

    @torch.no_grad()
    def _perplexities(self, problems: list[int]) -> list[float]:
        """The perplexity of the prompts of these problems under the policy as it is, at the sampling temperature."""
        share = -(-len(problems) // self.accelerator.num_processes)
        filled = problems + problems[: share * self.accelerator.num_processes - len(problems)]
        mine = filled[self._of_this_rank(share)]
        ids = self._tokenize_prompts([self.train_dataset[problem]["prompt"] for problem in mine])[0]
        mask = pad([torch.ones(len(row), dtype=torch.long) for row in ids], 0, padding_side="left")
        ids = pad([torch.tensor(row) for row in ids], self._tokenizer.pad_token_id, padding_side="left")
        device, size = self.accelerator.device, self.args.per_device_train_batch_size
        ids, mask = ids.to(device), mask.to(device)
        logps = self._get_per_token_logps_and_entropies(self.model, ids, mask, ids.shape[1] - 1, batch_size=size)[0]
        scored = (mask[:, 1:] * mask[:, :-1]).bool()
        means = torch.where(scored, logps.float(), 0.0).sum(1) / scored.sum(1).clamp(min=1)
        return self.accelerator.gather((-means).exp())[: len(problems)].tolist()

    def _everywhere(self, batch: dict) -> dict:
        """The rows of all ranks, one after another."""
        whole = {}
        for name, values in batch.items():
            if values.dim() > 1:
                fill, left = padding_of(name, self._tokenizer.pad_token_id)
                values = self.accelerator.pad_across_processes(values, dim=1, pad_index=fill, pad_first=left)
            whole[name] = self.accelerator.gather(values) if values.dim() else values
        return whole

    def _generate(self, prompts):
        if not self.model.training:
            return super()._generate(prompts)
        with self._tempered():
            outputs = super()._generate(prompts)
        return self._injected(prompts, list(outputs)) if self.plan.replaces_completions else outputs

    def _injected(self, prompts: list, outputs: list) -> tuple:
        """What TRL has generated, with stored solutions in the places that the plan gives to them."""
        completion_ids, completions, logps = list(outputs[1]), list(outputs[3]), outputs[4]
        self._calculate_rewards(self._rows, prompts, completions, completion_ids)
        self._pending_extra_logs.clear()  # what the rewards log is of the completions that are trained on
        self._pending_metrics.clear()
        may_go, mine = self.plan.replace(self._groups()), self._of_this_rank(len(prompts))
        before = (may_go.cumsum(1) - 1).flatten()[mine].tolist()  # in the row's group
        may_go = may_go.flatten()[mine].tolist()
        offline = [False] * len(prompts)
        for row, solutions in enumerate(map(self._solutions, self._rows)):
            if may_go[row] and before[row] < len(solutions):
                completion_ids[row], text = solutions[before[row]]
                as_message = isinstance(completions[row], list)
                completions[row] = [{"role": "assistant", "content": text}] if as_message else text
                offline[row] = True
                if logps is not None:
                    logps[row] = [float("nan")] * len(completion_ids[row])
        self._offline = torch.tensor(offline, device=self.accelerator.device)
        outputs[1], outputs[3] = completion_ids, completions
        return tuple(outputs)

    def _solutions(self, row: dict) -> list[tuple[list[int], str]]:
        """The stored solutions of a problem that are not too long, as tokens and as text."""
        tokenizer, found = self._tokenizer, []
        for text in self.plan.solutions(row):
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            if self.max_completion_length is None or len(ids) <= self.max_completion_length:
                found.append((ids, text))
        return found

    @contextmanager
    def _at(self, temperatures: Tensor | None):
        """Sample and score rows at these temperatures over the run's."""
        self._temperatures = temperatures
        try:
            yield
        finally:
            self._temperatures = None

    def _tempered(self):
        return nullcontext() if self._temperatures is None else self._row_temperatures.over(self._temperatures)

    def _log_mean(self, name: str, values: Tensor) -> None:
        self.log_means({name: self.accelerator.gather(values.float()).mean().item()})

    def _calculate_rewards(self, *args, **kwargs):
        self._rewards = super()._calculate_rewards(*args, **kwargs)
        return self._rewards

    def _groups(self) -> Tensor:
        """`(groups, G)`: the rewards of a rollout on all ranks."""
        weighted = self._rewards * self.reward_weights.to(self._rewards.device)
        rewards = torch.where(self._rewards.isnan().all(1), torch.nan, weighted.nansum(1))
        return rewards.view(-1, self.num_generations if self.model.training else self.num_generations_eval)

    def log_means(self, means: dict[str, float]) -> None:
        """Log values of one optimizer step beside TRL's; TRL averages them over `logging_steps`."""
        log_means(self, means)


class LossSeam(RolloutSeam):
    """Mixed in before a TRL trainer that computes its loss as `GRPOTrainer` does."""

    # How the trainer behind it reads a batch and scales its loss
    family: Family = GRPO
    # None while no loss is being computed; then what the forward has given
    _facts: dict[str, Tensor] | None = None
    # Whether the loss of this training step came through the seam
    _reached = False
    _hidden: HiddenStates | None = None
    # The tokens of this optimizer step, and those of the last one if pooling is lagged
    _pool: Pool | None = None
    _next_pool: Pool | None = None
    # While completions are generated: log-probs and entropies under the policy that generates them
    _old: tuple[Tensor, Tensor] | None = None
    # What the next rollout is sampled at; None if it stays as it is
    _next_temperature: float | None = None
    # What `observe` reads besides the facts that are always there
    measured_needs: Set[str] = frozenset()
    # What is done to the micro-batches of an optimizer step before they are trained on
    compaction = Compaction()
    # Optimizer steps since completions were generated
    _updates = 0

    def needs(self) -> set[str]:
        """What the active rules read besides the facts that are always there."""
        return set()

    def effective_advantages(self, raw: Tensor, tokens: Tokens) -> Tensor:
        """What TRL's loss gets instead of `raw`: `(B, T)`, or `raw` itself."""
        raise NotImplementedError

    def extra_loss(self, tokens: Tokens) -> Tensor | None:
        """Sum over tokens to be added to the loss, or `None`."""
        raise NotImplementedError

    def observe(self, tokens: Tokens, effective: Tensor) -> None:
        """See the raw tokens of a training micro-batch, and their effective advantages `(B, T)`."""
        raise NotImplementedError

    def observe_rollout(self, rewards: Tensor, completions: list) -> None:
        """See the rewards `(groups, G)` and the completions, group by group, of a training rollout on all ranks."""
        raise NotImplementedError

    def control_state(self) -> dict:
        """What has to stand beside a checkpoint."""
        raise NotImplementedError

    def load_control_state(self, state: dict, source: str) -> None:
        """Continue from `control_state()`, read from the file `source`."""
        raise NotImplementedError

    def training_step(self, *args, **kwargs):
        """TRL's, and a `SeamError` if it took its loss from elsewhere."""
        self._reached = False
        loss = super().training_step(*args, **kwargs)
        if not self._reached:
            raise SeamError(
                "TRL trained without calling `_compute_loss`, so no rule could act: set use_liger_kernel=False"
            )
        if self.accelerator.sync_gradients:
            self._pool, self._next_pool = self._next_pool, None
            self.log_means({"staleness/updates": self._updates})
            self._updates += 1
        return loss

    def compact_steps(self, compaction: Compaction) -> None:
        """Compute optimizer steps in this way. Raises `ValueError` for a mixture of experts and for images."""
        self.compaction = compaction
        if any(compaction[:3]) and (getattr(self, "aux_loss_enabled", False) or getattr(self, "_is_vlm", False)):
            raise ValueError(
                "trim_padding, sort_by_length and skip_zero_advantage are for text without the auxiliary loss of a "
                "mixture of experts, which is taken over each micro-batch: drop them"
            )
        if compaction.head:
            skip_lm_head_tokens()

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is before or not any(self.compaction[:3]):
            return inputs
        batches, size = self._buffered_inputs, self.args.gradient_accumulation_steps
        windows = [batches[start : start + size] for start in range(0, len(batches), size)]
        most = self._rows_to_train(windows) if self.compaction.skip else [0] * len(windows)
        self._buffered_inputs = [
            batch if left_out is None else {**batch, LEFT_OUT: left_out}
            for window, least in zip(windows, most, strict=True)
            for batch, left_out in compacted(window, self.compaction, least)
        ]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _rows_to_train(self, windows: list[list[dict]]) -> list[int]:
        """How many rows of each optimizer step have an advantage, on the rank where most have."""
        counts = torch.stack([sum((batch["advantages"] != 0).sum() for batch in window) for window in windows])
        return self.accelerator.gather(counts.unsqueeze(0)).amax(0).tolist()

    def _compute_loss(self, model, inputs):
        if self.compaction.skip and self.model.training:
            self._observe_left_out(inputs)
        tokens = seen = effective = None
        needs = self.needs()
        if "entropy_gradient" in needs:
            self._entropy_bonus_enabled = True  # without its bonus TRL < 1.15 takes entropies without gradient
        if "pool" in needs and self.model.training and self._pool is None and self.args.pooling == "exact":
            self._pool = self._look_ahead(model)
        if self.model.training:
            needs = needs | self.measured_needs

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens, seen, effective
            tokens = self._tokens(inputs, raw, needs)
            seen = tokens.detach()
            effective = self.effective_advantages(raw, seen)
            if effective is not raw and not self.family.per_token:
                effective = seen.mean_over_row(effective)
            return effective

        with self._capture(needs), self._at(inputs.get("temperatures")):
            loss = super()._compute_loss(model, LateAdvantages(inputs, decide))
        if tokens is None:
            raise SeamError(UNREAD)
        self._reached = True
        if self.model.training:
            as_given = effective is inputs["advantages"]
            self.observe(seen, seen.advantages if as_given else _per_token(effective, seen.mask))
        if self.compaction.skip and self.model.training and self.args.loss_type in MEAN_OVER_ROWS:
            loss = loss * (len(seen.mask) / self.args.per_device_train_batch_size)
        extra = self.extra_loss(tokens)
        return loss if extra is None else loss + extra / self._tokens_per_update(inputs)

    def _observe_left_out(self, inputs: dict) -> None:
        """Measure the rows that a micro-batch leaves out: from the log-probs of the old policy, or a forward pass."""
        rows = inputs.get(LEFT_OUT)
        if rows is None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return
        measured = self.measured_needs | {"group_rewards"} & self.needs()
        if rows is not None and "old_entropies" in rows and not measured & VOCABULARY:
            self._facts = {"logps": rows["old_per_token_logps"], "entropies": rows["old_entropies"]}
            try:
                tokens = self._tokens(rows, rows["advantages"], set())
            finally:
                self._facts = None
        else:  # where ranks share the parameters each takes the pass, with or without rows of its own
            tokens = self._facts_of(self.model, inputs if rows is None else rows, measured)
        if rows is not None:
            self.observe(tokens, torch.zeros_like(tokens.logps))

    @contextmanager
    def _capture(self, needs: set[str]):
        """While a loss is computed, keep what its forward gives."""
        self._facts = {}
        wanted = VOCABULARY - {"entropies_at_one"}
        if self.temperature != 1.0 or self.plan.sets_temperatures:
            wanted = VOCABULARY
        hidden = HiddenStates(self.accelerator.unwrap_model(self.model)) if needs & wanted else None
        self._hidden = hidden
        try:
            yield
        finally:
            self._facts = self._hidden = None
            if hidden is not None:
                hidden.remove()

    def _look_ahead(self, model) -> Pool | None:
        """The pool of all micro-batches of the optimizer step; None if there is but one."""
        steps = self.current_gradient_accumulation_steps
        if steps == 1:
            return None
        ahead = [(self._step + offset) % self.args.steps_per_generation for offset in range(steps)]
        needs = self.needs() - {"pool"} | {"completions"}
        facts = [self._facts_of(model, self._buffered_inputs[index], needs) for index in ahead]
        return Pool(facts, self._sum_over_ranks)

    def _facts_of(self, model, inputs: dict, needs: set[str]) -> Tokens:
        """The facts of a micro-batch without its loss: TRL's own computation up to where it reads the advantages."""
        tokens = None

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens
            tokens = self._tokens(inputs, raw, needs)
            raise _Seen

        try:
            with torch.no_grad(), self._capture(needs), self._at(inputs.get("temperatures")):
                super()._compute_loss(model, LateAdvantages(inputs, decide))
        except _Seen:
            return tokens.detach()
        raise SeamError(UNREAD)

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        # Also called, outside of a loss, for the old and the reference policy. TRL < 1.7 returns two values.
        of_policy = bool(args) and args[0] is self.model  # the head of the reference model gives no entropies
        wants_old_entropies = "old_entropies" in self.needs() or self.compaction.skip
        wants_old = self._facts is None and of_policy and (wants_old_entropies or not self.family.keeps_old_logps)
        if wants_old and wants_old_entropies:
            kwargs["compute_entropy"] = True
        with self._tempered():
            outputs = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._facts is not None:
            self._facts = {"logps": outputs[0], "entropies": outputs[1]}
        elif wants_old and self._old is None:
            self._old = outputs[0], outputs[1]
        return outputs

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            return self._sample(inputs).batch
        if self._next_temperature is not None:
            set_temperature(self, self._next_temperature)
            self._next_temperature = None
        check_finite(self.model, self.state.global_step, self.accelerator)
        rollout = self._sample_planned(inputs)
        self._updates = 0
        self.observe_rollout(rollout.rewards, rollout.completions)
        return rollout.batch

    def _sample(self, rows):
        self._old = None
        rollout = super()._sample(rows)
        # What is added here is shuffled and split with the rest of the batch
        batch, groups = rollout.batch, rollout.rewards
        mine = self._of_this_rank(len(rows))
        batch["rewards"] = groups.flatten()[mine]
        if "group_rewards" in self.needs():
            batch["group_rewards"] = groups.repeat_interleave(groups.shape[1], dim=0)[mine]
        if "num_items_in_batch" not in batch:
            batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        old_logps, old_entropies = self._old or (None, None)
        if not self.family.keeps_old_logps:
            if old_logps is None:
                raise SeamError(f"{self.family.name} took no log-probs of the policy that sampled. {UNSUPPORTED}")
            batch["old_per_token_logps"] = old_logps
        if old_entropies is not None and batch.get("old_per_token_logps") is old_logps:
            batch["old_entropies"] = old_entropies
        self._old = None
        return rollout

    def _tokens(self, inputs: dict, raw_advantages: Tensor, needs: set[str]) -> Tokens:
        logps, entropies = self._facts.get("logps"), self._facts.get("entropies")
        if logps is None or entropies is None:
            raise SeamError(
                f"TRL read `advantages` before the forward had given log-probs and entropies. {UNSUPPORTED}"
            )
        if "entropy_gradient" in needs and torch.is_grad_enabled() and not entropies.requires_grad:
            raise SeamError(
                f"a loss term needs the gradient of the entropies, and {self.family.name} takes them without: drop "
                "the term, or install a newer TRL"
            )
        mask = inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask = mask * inputs["tool_mask"]
        if needs & {"pool", "completions"} and "completions" not in inputs:
            inputs["completions"] = _completions(inputs)  # the same at every look at this micro-batch
        tokens = Tokens(
            logps=logps,
            old_logps=inputs.get("old_per_token_logps"),
            entropies=entropies,
            advantages=_per_token(raw_advantages, logps),
            mask=mask.bool(),
            step=self.state.global_step,
            clip_range=self.family.clip_range(self.epsilon_low, self.epsilon_high),
            pool=self._pool if self.model.training else None,
            completions=inputs.get("completions"),
            old_entropies=inputs.get("old_entropies"),
            ref_logps=inputs.get("ref_per_token_logps"),
            rewards=inputs.get("rewards"),
            group_rewards=inputs.get("group_rewards"),
            offline=inputs.get("offline"),
            **self._of_vocabulary(needs, entropies, inputs),
        )
        if "pool" not in needs:
            return tokens
        if self.model.training and self.args.pooling == "lagged":
            self._next_pool = self._next_pool or Pool([], self._sum_over_ranks)
            self._next_pool.batches.append(tokens.detach())
        has_pool = self.model.training and self._pool is not None
        return tokens if has_pool else tokens.with_pool(Pool([tokens.detach()], self._sum_over_ranks))

    def _of_vocabulary(self, needs: set[str], entropies: Tensor, inputs: dict) -> dict[str, Tensor]:
        facts, hidden, length = {}, self._hidden, entropies.shape[1]
        if "expected_discriminator" in needs:
            facts["expected_discriminator"] = expected_discriminator(
                hidden.model, hidden.states, length, self.temperature
            )
        if "entropies_at_one" in needs:
            row_temperatures = inputs.get("temperatures")
            at_one = self.temperature == 1.0 and row_temperatures is None
            states = None if at_one else hidden.states
            if row_temperatures is not None:
                states = states * row_temperatures.to(states.dtype).view(-1, 1, 1)
            facts["entropies_at_one"] = (
                entropies.detach() if at_one else entropy_at(hidden.model, states, length, temperature=1.0)
            )
        if "prompt_entropies" in needs:
            facts["prompt_entropies"] = prompt_entropies(
                hidden.model, hidden.states, inputs["prompt_mask"], self.temperature
            )
        return facts

    def plan_temperature(self, value: float) -> None:
        """Sample the next rollout at this temperature, and score it at that."""
        self._next_temperature = value

    def _tokens_per_update(self, inputs: dict) -> Tensor:
        # Tokens of one optimizer step, divided by the ranks because DDP averages gradients: what TRL's dapo loss
        # divides by, so that a term does not depend on how the batch is split. transformers divides a loss that TRL
        # has not scaled by the number of micro-batches
        total = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if not self.model.training:  # an evaluation batch is neither split nor accumulated
            return total
        micro_batches = self.current_gradient_accumulation_steps if self.family.scales_loss else 1
        return total * micro_batches / self.args.steps_per_generation

    def _save_checkpoint(self, model, trial):
        folder = os.path.join(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # what torch and safetensors raise on a full disk
            free = shutil.disk_usage(self.args.output_dir).free / 1e9
            raise OSError(
                f"{folder} could not be written ({error}); {free:.1f} GB are free. resume_from_checkpoint=true goes "
                "on from the checkpoint before it, once there is room"
            ) from error
        self.accelerator.wait_for_everyone()  # the state file says that the checkpoint is whole
        if self.args.should_save:
            path = os.path.join(folder, STATE_FILE)
            with open(f"{path}.part", "w") as file:
                json.dump(self.control_state(), file, indent=2)
            os.replace(f"{path}.part", path)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = os.path.join(checkpoint, STATE_FILE)
        state = {"controllers": {}}
        if os.path.exists(path):
            with open(path) as file:
                try:
                    state = json.load(file)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path} is damaged ({error}): resume from another checkpoint") from error
        self.load_control_state(state, path)


def _per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """Advantages `(B,)` or `(B, T)` as `(B, T)`."""
    return (advantages.unsqueeze(1) if advantages.dim() == 1 else advantages).expand_as(like)


def log_means(trainer, means: dict[str, float]) -> None:
    """Log values of one optimizer step beside TRL's; TRL averages them over `logging_steps`."""
    for name, value in means.items():
        trainer._metrics["train"][name].append(value)


def check_finite(model, step: int, accelerator) -> None:
    """Raise `FloatingPointError` on all ranks if a parameter is not finite; sampling would fail without saying why."""
    faults = torch.stack([~_shard(parameter).isfinite().all() for parameter in model.parameters()]).sum()
    if accelerator.reduce(faults.to(accelerator.device), reduction="sum") > 0:
        raise FloatingPointError(
            f"the policy has parameters that are not finite after step {step}: resume from an earlier checkpoint "
            "with a smaller learning_rate or max_grad_norm, or in bf16 instead of fp16"
        )


def _shard(parameter: Tensor) -> Tensor:
    """What this rank holds of a parameter."""
    parameter = getattr(parameter, "ds_tensor", parameter)  # DeepSpeed ZeRO-3
    shard = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # FSDP2
    return shard.detach()


def last_checkpoint(output_dir: str) -> str | None:
    """
    The last checkpoint of a run that is whole, or `None` if no checkpoint has a state of ours.

    One without it, after one with it, was not written to its end: the run was killed, or the disk was full.
    """
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
    steps = sorted(int(name.removeprefix(prefix)) for name in names if name.removeprefix(prefix).isdecimal())
    found = [os.path.join(output_dir, f"{prefix}{step}") for step in steps]
    whole = [path for path in found if os.path.exists(os.path.join(path, STATE_FILE))]
    if not whole:
        return None
    for path in found[found.index(whole[-1]) + 1 :]:
        logger.warning("%s was not written to its end, and is passed over", path)
    return whole[-1]


def use_small_tiles() -> bool:
    """
    Let TRL's LM head work on tiles of 1024 tokens x 1024 entries of the vocabulary; whether this TRL has tiles.

    On a CPU its own, 4096 x 32768, spend most of their time on getting memory: twice as slow or worse, with outputs
    equal to rounding. It holds for the whole process.
    """
    head = sys.modules.get("trl.kernels.chunked_logprob")
    if head is None:  # TRL < 1.15
        return False
    utils._CHUNKED_LOGPROB_CHUNK_SIZE = head.TOKEN_CHUNK_SIZE = 1024
    return True


def skip_lm_head_tokens() -> None:
    """
    Let the backward pass of TRL's LM head leave out the tokens that get no gradient, for the whole process.

    It asks the device how many there are, once for each micro-batch. Raises `ValueError` for a TRL without such a
    head.
    """
    head = getattr(utils, "_ChunkedLogProbFunction", None)
    if head is None:
        raise ValueError(
            "skip_lm_head_tokens needs TRL >= 1.15, whose LM head has a backward pass of its own: drop it"
        )
    if not hasattr(head, "of_all_tokens"):
        utils._ChunkedLogProbFunction = _of_live_tokens(head)


def _of_live_tokens(head: type) -> type:
    class OfLiveTokens(head):
        of_all_tokens = head

        @staticmethod
        def backward(ctx, *gradients):
            given = [gradient for gradient in gradients[:2] if gradient is not None]
            live = torch.stack([gradient != 0 for gradient in given]).any(0).nonzero().flatten()
            hidden, weight, bias, *of_tokens = ctx.saved_tensors
            if len(live) > MOSTLY_LIVE * len(hidden):
                return head.backward(ctx, *gradients)
            part = SimpleNamespace(
                saved_tensors=(hidden[live], weight, bias, *(values[live] for values in of_tokens)),
                compute_dtype=ctx.compute_dtype,
                chunk_size=ctx.chunk_size,
                kernel_args=ctx.kernel_args,
                needs_input_grad=ctx.needs_input_grad,
            )
            of_live = (None if gradient is None else gradient[live] for gradient in gradients[:2])
            of_hidden, *others = head.backward(part, *of_live, *gradients[2:])
            if of_hidden is not None:
                of_hidden = torch.zeros_like(hidden).index_copy(0, live, of_hidden)
            return of_hidden, *others

    return OfLiveTokens


def set_logged_entropy(trainer, value: float) -> None:
    """Log this as TRL's `entropy` of the optimizer step that has just ended."""
    steps = trainer.current_gradient_accumulation_steps
    trainer._metrics["train"]["entropy"][-steps:] = [value] * steps


def set_entropy_coef(trainer, value: float) -> None:
    """Set TRL's entropy bonus, also in a run that began without one."""
    trainer.entropy_coef = value
    trainer._entropy_bonus_enabled = True


def set_temperature(trainer, value: float) -> None:
    """
    Sample and score at another temperature from now on.

    Raises [`SeamError`] if the place where TRL divides the logits by it cannot be found.
    """
    trainer.temperature = value
    if trainer.use_vllm:
        trainer.vllm_generation.temperature = value
    else:
        trainer.generation_config.temperature = trainer.generation_kwargs["temperature"] = value
    if not hasattr(grpo_trainer, "add_fused_lm_head"):
        return  # TRL < 1.15 divides the logits by trainer.temperature
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            _fused_temperature(trainer.accelerator.unwrap_model(model)).cell_contents = value


def _fused_temperature(model):
    """The cell in which TRL's fused LM head keeps its temperature."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    forward = model.__dict__.get("_original_forward", model.forward)  # accelerate wraps it for mixed precision
    while forward is not None:
        function = getattr(forward, "__func__", forward)
        if "temperature" in function.__code__.co_freevars:
            return function.__closure__[function.__code__.co_freevars.index("temperature")]
        forward = getattr(function, "__wrapped__", None)
    raise SeamError(
        "the temperature of TRL's fused LM head was not found, so completions would be scored at another temperature "
        "than they were sampled at: drop the controller of temperature; this TRL version is not supported"
    )


def logged_signal(trainer, name: str) -> float | None:
    """A signal of the optimizer step that has just ended, from what TRL logs; `None` if it logged none in it."""
    if name == "entropy":
        return logged_entropy(trainer)
    if name == "reward" and not _crosses_rollout(trainer, trainer._step - 1):
        return None  # TRL logs it where it generates
    logged = trainer._metrics["train"].get(name, [])
    logged = logged[-1:] if name == "reward" else logged[-trainer.current_gradient_accumulation_steps :]
    if not logged:
        raise SeamError(
            f"TRL has logged no {name} for this optimizer step, so there is nothing to control: it depends on "
            f"loss_type={getattr(trainer.args, 'loss_type', None)!r}, and on no callback before calling trainer.log"
        )
    return sum(logged) / len(logged)


def rollout_ends(trainer) -> bool:
    """Whether the optimizer step that has just ended was the last of its rollout batch."""
    return _crosses_rollout(trainer, trainer._step)


def _crosses_rollout(trainer, micro_batch: int) -> bool:
    """Whether a rollout batch begins at one of the last micro-batches up to this one, an optimizer step of them."""
    size = trainer.args.steps_per_generation * trainer.args.num_iterations
    return micro_batch // size > (micro_batch - trainer.current_gradient_accumulation_steps) // size


def logged_entropy(trainer) -> float | None:
    """
    The `entropy` (nats) that TRL logs for the optimizer step that has just ended, the same on every rank.

    TRL takes the mean over tokens and ranks in each micro-batch, and the mean of those. `None` if no token was trained
    on. Raises [`SeamError`] if TRL has logged none.
    """
    micro_batches = trainer._metrics["train"].get("entropy", [])[-trainer.current_gradient_accumulation_steps :]
    if not micro_batches:
        raise SeamError(
            "TRL has logged no entropy for this optimizer step, so there is nothing to control: set "
            "use_liger_kernel=False, and do not call trainer.log in a callback that comes before"
        )
    if trainer.mask_truncated_completions:
        # of a micro-batch in which no completion ended TRL logs 0
        micro_batches = [entropy for entropy in micro_batches if entropy != 0]
    return sum(micro_batches) / len(micro_batches) if micro_batches else None


def lower_learning_rate(optimizer, scheduler, factor: float) -> list[float]:
    """Multiply the learning rate of all parameter groups, now and as scheduled; the new ones."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    if hasattr(scheduler, "base_lrs"):  # one that follows a metric has none, and goes on from the groups
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    scheduler._last_lr = rates  # what is logged for the next step
    return rates


def _completions(inputs: dict) -> Tensor:
    """`(B,)`: a hash of prompt and completion, whatever the padding."""
    parts = []
    for ids, mask, start in (
        (inputs["prompt_ids"], inputs["prompt_mask"], -inputs["prompt_ids"].shape[1]),  # padded on the left
        (inputs["completion_ids"], inputs["completion_mask"], 0),
    ):
        places = torch.arange(start, start + ids.shape[1], device=ids.device)
        parts.append(torch.where(mask.bool(), mixed(mixed(ids.long()) + places), 0).sum(-1))
    return mixed(parts[0] + parts[1])
