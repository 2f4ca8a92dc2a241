"""The facts about the tokens of a micro-batch, from TRL's own forward pass, where TRL reads the advantages."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor

from ..measures import contexts
from ..rollouts import RolloutPlan
from ..rollouts.batch import picked
from ..rules.pool import Pool
from ..rules.tokens import Tokens, mixed, token_hashes
from ..trainers import GRPO, Family
from .compaction import CompactionSeam
from .error import UNREAD, UNSUPPORTED, SeamError
from .rollouts import RolloutSeam
from .trimming import trained_tokens
from .vocabulary import HiddenStates, entropy_at, expected_discriminator, prompt_entropies


# What needs the hidden states and a pass of the LM head of its own
VOCABULARY = {"expected_discriminator", "prompt_entropies", "entropies_at_one"}


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


class FactsSeam(CompactionSeam, RolloutSeam):
    """Mixed in before a TRL trainer that runs the policy before it reads advantages: the facts of its tokens."""

    # How the trainer behind it reads a batch and scales its loss
    family: Family = GRPO
    # None while no loss is being computed; then what the forward has given
    _facts: dict[str, Tensor] | None = None
    _hidden: HiddenStates | None = None
    # The tokens of this optimizer step, and those of the last one if pooling is lagged
    _pool: Pool | None = None
    _next_pool: Pool | None = None
    # While completions are generated: log-probs and entropies under the policy that generates them
    _old: tuple[Tensor, Tensor] | None = None

    def begin_run(self, plan: RolloutPlan) -> None:
        """Forget the run before, and sample by a new plan of the same rules."""
        self.plan, self._pool, self._next_pool = plan, None, None

    def needs(self) -> set[str]:
        """What the active rules read besides the facts that are always there."""
        return set()

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
        if "group_logps" in self.needs():
            means = self.accelerator.gather(self._mean_logps(batch)).view(groups.shape)
            batch["group_logps"] = means.repeat_interleave(groups.shape[1], dim=0)[mine]
        return rollout

    def _contexts(self, batch: dict) -> Tensor:
        """`(B, T)` int64, of all ranks: of every trained token a hash of its context, 0 elsewhere."""
        columns = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        known = trained_tokens(batch).bool() & ("pixel_values" not in batch)  # with images a text is no context
        hashes = contexts(*(batch[name] for name in columns)).masked_fill(~known, 0)
        return self.accelerator.gather(self.accelerator.pad_across_processes(hashes, dim=1))

    def _mean_logps(self, batch: dict) -> Tensor:
        """`(B,)`: the mean log-prob of each completion under the policy that has sampled it; NaN without a token."""
        logps = batch.get("old_per_token_logps")
        if logps is None:  # TRL takes none where the policy is not updated before it trains on all of them
            if "pixel_values" in batch:
                raise ValueError(
                    "a rule reads the log-probs of the group, which are taken of problems in text, and these have "
                    "images: drop it, or set its scope to step"
                )
            size, rows = self.args.per_device_train_batch_size, len(batch["completion_ids"])
            parts = [picked(batch, slice(start, start + size)) for start in range(0, rows, size)]
            logps = torch.cat([self._facts_of(self.model, part, set()).logps for part in parts])
        mask = trained_tokens(batch).bool()
        return torch.where(mask, logps.float(), 0.0).sum(1) / mask.sum(1)

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

    def _facts_under_old(self, rows: dict) -> Tokens:
        """The facts of rows, with the log-probs and entropies of the policy that has generated them."""
        self._facts = {"logps": rows["old_per_token_logps"], "entropies": rows["old_entropies"]}
        try:
            return self._tokens(rows, rows["advantages"], set())
        finally:
            self._facts = None

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
        if needs & {"pool", "completions"} and "completions" not in inputs:
            inputs["completions"] = _completions(inputs)  # the same at every look at this micro-batch
        tokens = Tokens(
            logps=logps,
            old_logps=inputs.get("old_per_token_logps"),
            entropies=entropies,
            advantages=per_token(raw_advantages, logps),
            mask=trained_tokens(inputs).bool(),
            step=self.state.global_step,
            clip_range=self.family.clip_range(self.epsilon_low, self.epsilon_high, getattr(self, "loss_type", None)),
            pool=self._pool if self.model.training else None,
            num_tokens=self._tokens_of_step(inputs) if "num_tokens" in needs and self._pools_whole_step else None,
            completions=inputs.get("completions"),
            old_entropies=inputs.get("old_entropies"),
            ref_logps=inputs.get("ref_per_token_logps"),
            rewards=inputs.get("rewards"),
            group_rewards=inputs.get("group_rewards"),
            group_logps=inputs.get("group_logps"),
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

    @property
    def _pools_whole_step(self) -> bool:
        """Whether statistics are of a whole step: before the first one lagged pooling has the micro-batch alone."""
        return self._pool is not None or self.current_gradient_accumulation_steps == 1 or not self.model.training

    def _tokens_of_step(self, inputs: dict) -> Tensor:
        """What TRL's dapo loss divides the sum over an optimizer step and all ranks by."""
        total = inputs["num_items_in_batch"].clamp(min=1.0)
        if not self.model.training:  # an evaluation batch is neither split nor accumulated
            return total
        return total * self.current_gradient_accumulation_steps / self.args.steps_per_generation

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

    def _fill_pool(self, model, needs: set[str]) -> None:
        """Look at all micro-batches of an optimizer step before the first, if a rule has statistics over them."""
        if "pool" in needs and self.model.training and self._pool is None and self.args.pooling == "exact":
            self._pool = self._look_ahead(model)

    def _end_pool(self) -> None:
        """The next optimizer step has the pool that was kept for it, or none yet."""
        self._pool, self._next_pool = self._next_pool, None

    def _look_ahead(self, model) -> Pool | None:
        """The pool of all micro-batches of the optimizer step; None if there is but one."""
        steps = self.current_gradient_accumulation_steps
        if steps == 1:
            return None
        ahead = [(self._step + offset) % self.args.steps_per_generation for offset in range(steps)]
        needs = self.needs() - {"pool"} | {"completions"}
        facts = [self._facts_of(model, self._buffered_inputs[index], needs) for index in ahead]
        return Pool(facts, self._sum_over_ranks)

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum")


def per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """Advantages `(B,)` or `(B, T)` as `(B, T)`."""
    return (advantages.unsqueeze(1) if advantages.dim() == 1 else advantages).expand_as(like)


def _completions(inputs: dict) -> Tensor:
    """`(B,)`: a hash of prompt and completion, whatever the padding."""
    prompts = token_hashes(inputs["prompt_ids"], inputs["prompt_mask"], -inputs["prompt_ids"].shape[1])
    completions = token_hashes(inputs["completion_ids"], inputs["completion_mask"], 0)
    return mixed(prompts.sum(-1) + completions.sum(-1))
