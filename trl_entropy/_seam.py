"""
Floor 3: the seam into TRL, and the only file that names a private attribute of TRL or transformers.

`GRPOTrainer._compute_loss` runs the policy first and reads `inputs["advantages"]` after it. The seam lends it a batch
whose advantages are decided at the moment they are read, from the log-probs and entropies of that very forward.
`docs/architecture.md` lists what it relies on.
"""

import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .pool import Pool
from .tokens import Tokens, mixed
from .vocabulary import HiddenStates, expected_discriminator


STATE_FILE = "entropy_control.json"
UNREAD = (
    "TRL computed a loss without reading `advantages`, so no weight could act. This TRL version is not supported; see "
    "docs/architecture.md for what is relied on"
)


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


class LossSeam:
    """Mixed in before a TRL trainer that computes its loss as `GRPOTrainer` does."""

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
    _rewards: Tensor | None = None

    def needs(self) -> set[str]:
        """What the active rules read besides the facts that are always there."""
        return set()

    def effective_advantages(self, raw: Tensor, tokens: Tokens) -> Tensor:
        """What TRL's loss gets instead of `raw`: `(B, T)`, or `raw` itself."""
        raise NotImplementedError

    def extra_loss(self, tokens: Tokens) -> Tensor | None:
        """Sum over tokens to be added to the loss, or `None`."""
        raise NotImplementedError

    def observe(self, tokens: Tokens) -> None:
        """See the raw tokens of a training micro-batch."""
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
        return loss

    def _compute_loss(self, model, inputs):
        tokens = None
        needs = self.needs()
        if "pool" in needs and self.model.training and self._pool is None and self.args.pooling == "exact":
            self._pool = self._look_ahead(model)

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens
            tokens = self._tokens(inputs, raw, needs)
            return self.effective_advantages(raw, tokens.detach())

        with self._capture(needs):
            loss = super()._compute_loss(model, LateAdvantages(inputs, decide))
        if tokens is None:
            raise SeamError(UNREAD)
        self._reached = True
        if self.model.training:
            self.observe(tokens.detach())
        extra = self.extra_loss(tokens)
        return loss if extra is None else loss + extra / self._tokens_per_update(inputs)

    @contextmanager
    def _capture(self, needs: set[str]):
        """While a loss is computed, keep what its forward gives."""
        self._facts = {}
        hidden = HiddenStates(self.accelerator.unwrap_model(self.model)) if "expected_discriminator" in needs else None
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
        return Pool([self._facts_of(model, self._buffered_inputs[index]) for index in ahead], self._sum_over_ranks)

    def _facts_of(self, model, inputs: dict) -> Tokens:
        """The facts of a micro-batch without its loss: TRL's own computation up to where it reads the advantages."""
        tokens = None

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens
            tokens = self._tokens(inputs, raw, self.needs() - {"pool"} | {"completions"})
            raise _Seen

        try:
            with torch.no_grad(), self._capture(self.needs()):
                super()._compute_loss(model, LateAdvantages(inputs, decide))
        except _Seen:
            return tokens.detach()
        raise SeamError(UNREAD)

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        # Also called, outside of a loss, for the old and the reference policy. TRL < 1.7 returns two values.
        of_policy = bool(args) and args[0] is self.model  # the head of the reference model gives no entropies
        wants_old = self._facts is None and of_policy and "old_entropies" in self.needs()
        if wants_old:
            kwargs["compute_entropy"] = True
        outputs = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._facts is not None:
            self._facts = {"logps": outputs[0], "entropies": outputs[1]}
        elif wants_old and self._old is None:
            self._old = outputs[0], outputs[1]
        return outputs

    def _calculate_rewards(self, *args, **kwargs):
        self._rewards = super()._calculate_rewards(*args, **kwargs)
        return self._rewards

    def _generate_and_score_completions(self, inputs):
        self._old = None
        outputs = super()._generate_and_score_completions(inputs)
        # What is added here is shuffled and split with the rest of the batch
        if "group_rewards" in self.needs():
            outputs["group_rewards"] = self._group_rewards(len(inputs))
        if self._old is not None and outputs.get("old_per_token_logps") is self._old[0]:
            outputs["old_entropies"] = self._old[1]
        self._old = self._rewards = None
        return outputs

    def _group_rewards(self, rows: int) -> Tensor:
        """`(B, G)`: for each completion of this rank, the rewards of its group."""
        weighted = self._rewards * self.reward_weights.to(self._rewards.device)
        rewards = torch.where(self._rewards.isnan().all(1), torch.nan, weighted.nansum(1))
        size = self.num_generations if self.model.training else self.num_generations_eval
        of_every_row = rewards.view(-1, size).repeat_interleave(size, dim=0)
        start = self.accelerator.process_index * rows
        return of_every_row[start : start + rows]

    def _tokens(self, inputs: dict, raw_advantages: Tensor, needs: set[str]) -> Tokens:
        logps, entropies = self._facts.get("logps"), self._facts.get("entropies")
        if logps is None or entropies is None:
            raise SeamError(
                "TRL read `advantages` before the forward had given log-probs and entropies. This TRL version is not "
                "supported; see docs/architecture.md for what is relied on"
            )
        old_logps = inputs.get("old_per_token_logps")
        mask = inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask = mask * inputs["tool_mask"]
        if raw_advantages.dim() == 1:
            raw_advantages = raw_advantages.unsqueeze(1)
        tokens = Tokens(
            logps=logps,
            old_logps=logps.detach() if old_logps is None else old_logps,
            entropies=entropies,
            advantages=raw_advantages.expand_as(logps),
            mask=mask.bool(),
            step=self.state.global_step,
            clip_range=(self.epsilon_low, self.epsilon_high),
            pool=self._pool if self.model.training else None,
            completions=_completions(inputs) if needs & {"pool", "completions"} else None,
            old_entropies=inputs.get("old_entropies"),
            ref_logps=inputs.get("ref_per_token_logps"),
            group_rewards=inputs.get("group_rewards"),
            expected_discriminator=self._expected_discriminator(logps.shape[1]),
        )
        if "pool" not in needs:
            return tokens
        if self.model.training and self.args.pooling == "lagged":
            self._next_pool = self._next_pool or Pool([], self._sum_over_ranks)
            self._next_pool.batches.append(tokens.detach())
        has_pool = self.model.training and self._pool is not None
        return tokens if has_pool else replace(tokens, pool=Pool([tokens.detach()], self._sum_over_ranks))

    def _expected_discriminator(self, length: int) -> Tensor | None:
        if self._hidden is None:
            return None
        return expected_discriminator(self._hidden.model, self._hidden.states, length, self.temperature)

    def _tokens_per_update(self, inputs: dict) -> Tensor:
        # Tokens of one optimizer step, divided by the ranks because DDP averages gradients: what TRL's dapo loss
        # divides by, so that a term does not depend on how the batch is split
        total = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if not self.model.training:  # an evaluation batch is neither split nor accumulated
            return total
        return total * self.current_gradient_accumulation_steps / self.args.steps_per_generation

    def log_means(self, means: dict[str, float]) -> None:
        """Log values of one optimizer step beside TRL's; TRL averages them over `logging_steps`."""
        log_means(self, means)

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = os.path.join(
                self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            )
            with open(os.path.join(folder, STATE_FILE), "w") as file:
                json.dump(self.control_state(), file, indent=2)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = os.path.join(checkpoint, STATE_FILE)
        state = {"controllers": {}}
        if os.path.exists(path):
            with open(path) as file:
                state = json.load(file)
        self.load_control_state(state, path)


def log_means(trainer, means: dict[str, float]) -> None:
    """Log values of one optimizer step beside TRL's; TRL averages them over `logging_steps`."""
    for name, value in means.items():
        trainer._metrics["train"][name].append(value)


def set_entropy_coef(trainer, value: float) -> None:
    """Set TRL's entropy bonus, also in a run that began without one."""
    trainer.entropy_coef = value
    trainer._entropy_bonus_enabled = True


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
