"""Collect the facts about a micro-batch's tokens from TRL's own forward pass, when TRL reads the advantages."""

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rules.looks import NAMED, EntropyAtOne, Look, looks_among
from ..rules.pool import Pool
from ..rules.tokens import UNNAMED, Tokens, mixed, token_hashes
from .advantages import LateAdvantages
from .error import UNREAD, UNSUPPORTED, SeamError
from .means import micro_batch_mean
from .rollouts import Rollouts
from .trimming import trained_mask
from .vocabulary import HiddenStates, prompt_entropies, take_looks


# Facts that need the hidden states and another pass of the LM head
VOCABULARY = {*NAMED, "prompt_entropies"}


@dataclass
class Step:
    """
    An optimizer step, from its first micro-batch to its last.

    Attributes:
        needs: the facts that the rules read besides those that are always there.
        measured: the facts that the measures read besides those; empty outside training.
        pool: the tokens of the step, or of the previous step if pooling is lagged; `None` until they are known.
        next_pool: if pooling is lagged, the tokens of this step, for the next one.
        reached: whether the last micro-batch's loss came through the seam.
    """

    needs: Set[str]
    measured: Set[str] = frozenset()
    pool: Pool | None = None
    next_pool: Pool | None = None
    reached: bool = False


@dataclass
class ForwardResults:
    """The results of TRL's forward pass during a loss."""

    logps: Tensor | None = None
    entropies: Tensor | None = None
    hidden: HiddenStates | None = None


class _Known(Exception):
    """Raised when the facts of a micro-batch are known and the rest of its loss is not needed."""


class Facts:
    """
    Collects the facts of micro-batches.

    Args:
        trainer: the trainer.
        rollouts ([`~rollouts.Rollouts`]): knows the rows' temperatures.
    """

    def __init__(self, trainer, rollouts: Rollouts):
        self.trainer = trainer
        self.rollouts = rollouts
        self.results: ForwardResults | None = None  # None while no loss is computed

    @contextmanager
    def keeping_results(self, inputs: dict, needs: Set[str]) -> Iterator[ForwardResults]:
        """Keep the results of the forward pass while a loss is computed."""
        trainer, hidden = self.trainer, None
        if self._looks(inputs, needs) or "prompt_entropies" in needs:
            hidden = HiddenStates(trainer.accelerator.unwrap_model(trainer.model))
        self.results = ForwardResults(hidden=hidden)
        try:
            with self.rollouts.at(inputs.get("temperatures")), hidden or nullcontext():
                yield self.results
        finally:
            self.results = None

    def loss(self, compute_loss: Callable, model, inputs: dict, decide: Callable[[Tensor], Tensor]) -> Tensor:
        """TRL's loss of a batch whose advantages are computed once the forward pass has given the facts."""
        results = self.results
        return compute_loss(model, LateAdvantages(inputs, lambda: results.logps is not None, decide))

    def look(self, model, inputs: dict, needs: Set[str]) -> Tokens:
        """The facts of a micro-batch without its loss: runs TRL's computation up to the read of the advantages."""
        tokens = None

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens
            tokens = self.tokens(inputs, raw, needs)
            raise _Known

        try:
            with torch.no_grad(), self.keeping_results(inputs, needs):
                self.loss(self.trainer.trl_loss, model, inputs, decide)
        except _Known:
            return tokens.detach()
        raise SeamError(UNREAD)

    def under_old(self, rows: dict) -> Tokens:
        """The facts of rows, with the log-probs and entropies of the policy that generated them."""
        self.results = ForwardResults(rows["old_per_token_logps"], rows["old_entropies"])
        try:
            return self.tokens(rows, rows["advantages"], set())
        finally:
            self.results = None

    def tokens(self, inputs: dict, raw: Tensor, needs: Set[str], step: Step | None = None) -> Tokens:
        """The facts of a micro-batch, once the forward pass has given log-probs and entropies."""
        trainer, logps, entropies = self.trainer, self.results.logps, self.results.entropies
        if entropies is None:
            raise SeamError(f"TRL's forward pass returned no entropies. {UNSUPPORTED}")
        if "entropy_gradient" in needs and torch.is_grad_enabled() and not entropies.requires_grad:
            raise SeamError(
                f"a loss term needs the gradient of the entropies, but {trainer.family.name} computes them without "
                "it: drop the term, or install a newer TRL"
            )
        if (
            "sampling_logps" in needs
            and getattr(trainer.args, "use_vllm", False)
            and "sampling_per_token_logps" not in inputs
        ):
            raise SeamError(f"TRL's batch lacks vLLM's log-probs, which a rule reads. {UNSUPPORTED}")
        if needs & {"pool", "completions"} and "completions" not in inputs:
            inputs["completions"] = _completions(inputs)  # the same whenever this micro-batch is read
        mask = trained_mask(inputs).bool()
        old_logps, old_entropies = (inputs.get(name) for name in ("old_per_token_logps", "old_entropies"))
        unnamed = old_entropies is None and old_logps is not None and "old_entropies" not in needs
        counts = "num_tokens" in needs and self._knows_whole_step(step)
        loss_type = getattr(trainer, "loss_type", None)
        tokens = Tokens(
            logps=logps,
            old_logps=old_logps,
            entropies=entropies,
            advantages=per_token(raw, logps),
            mask=mask,
            step=trainer.state.global_step,
            clip_range=trainer.family.clip_range(trainer.epsilon_low, trainer.epsilon_high, loss_type),
            pool=(step.pool if step else None) if "pool" in needs else UNNAMED,
            num_tokens=self.num_tokens_of_step(inputs) if counts else None,
            completions=inputs["completions"] if needs & {"pool", "completions"} else UNNAMED,
            sampling_logps=inputs.get("sampling_per_token_logps"),
            old_entropies=UNNAMED if unnamed else old_entropies,
            ref_logps=inputs.get("ref_per_token_logps"),
            staleness=self.staleness(inputs, mask),
            rewards=inputs.get("rewards"),
            group_rewards=inputs.get("group_rewards"),
            group_logps=inputs.get("group_logps"),
            offline=inputs.get("offline") if "offline" in needs else UNNAMED,
            **self._of_vocabulary(needs, entropies, inputs),
        )
        return self._pooled(tokens, step) if "pool" in needs else tokens

    def _knows_whole_step(self, step: Step | None) -> bool:
        """Whether statistics cover a whole step: in the first step, lagged pooling only has the micro-batch."""
        one = self.trainer.current_gradient_accumulation_steps == 1
        return bool(step and step.pool) or one or not self.trainer.model.training

    def _pooled(self, tokens: Tokens, step: Step) -> Tokens:
        if self.trainer.model.training and self.trainer.args.pooling == "lagged":
            step.next_pool = step.next_pool or Pool([], self.sum_over_ranks)
            step.next_pool.batches.append(tokens.detach())
        return tokens if step.pool is not None else tokens.with_pool(Pool([tokens.detach()], self.sum_over_ranks))

    def _looks(self, inputs: dict, needs: Set[str]) -> set[Look]:
        """The needed looks at the vocabulary: at temperature 1, TRL itself gives the entropy."""
        at_one = self.trainer.temperature == 1.0 and inputs.get("temperatures") is None
        return looks_among(needs) - ({EntropyAtOne()} if at_one else set())

    def _of_vocabulary(self, needs: Set[str], entropies: Tensor, inputs: dict) -> dict:
        hidden, temperature = self.results.hidden, self.trainer.temperature
        wanted, looks, facts = looks_among(needs), self._looks(inputs, needs), {}
        seen = {look: entropies.detach() for look in wanted - looks}
        if looks:
            before = hidden.before(entropies.shape[1])
            of_rows = inputs.get("temperatures")
            seen |= take_looks(hidden.model, before, inputs["completion_ids"], temperature, of_rows, looks)
        if "prompt_entropies" in needs:
            prompts = inputs["prompt_ids"], inputs["prompt_mask"]
            facts["prompt_entropies"] = prompt_entropies(hidden.model, hidden.states, *prompts, temperature)
        named = {name: seen[look] for name, look in NAMED.items() if name in needs}
        return facts | named | {"vocabulary": {look: seen[look] for look in wanted}}

    def look_ahead(self, model, needs: Set[str]) -> Pool | None:
        """The pool of all micro-batches of the optimizer step; `None` if there is only one."""
        trainer, steps = self.trainer, self.trainer.current_gradient_accumulation_steps
        if steps == 1:
            return None
        ahead = [(trainer._step + offset) % trainer.args.steps_per_generation for offset in range(steps)]
        needs = needs - {"pool"} | {"completions"}
        return Pool([self.look(model, trainer._buffered_inputs[at], needs) for at in ahead], self.sum_over_ranks)

    def staleness(self, inputs: dict, mask: Tensor) -> Tensor:
        """`(B, T)`: how many versions the policy is ahead of the one that sampled; 0 outside the mask."""
        return mask * float(self.trainer.seam.updates if self.trainer.model.training else 0)

    def num_tokens_of_step(self, inputs: dict) -> Tensor:
        """The divisor of TRL's dapo loss for the sum over an optimizer step and all ranks."""
        total = inputs["num_items_in_batch"].clamp(min=1.0)
        if not self.trainer.model.training:  # an evaluation batch is neither split nor accumulated
            return total
        return total * self.trainer.current_gradient_accumulation_steps / self.trainer.args.steps_per_generation

    def micro_batch_mean(self, loss_type: str, values: Tensor, tokens: Tokens, inputs: dict) -> Tensor:
        """The mean over a micro-batch, as `loss_type` averages."""
        return micro_batch_mean(loss_type, values, tokens.mask, self.trainer.max_completion_length)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the ranks."""
        return self.trainer.accelerator.reduce(values, reduction="sum")


def per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """Advantages `(B,)` or `(B, T)` as `(B, T)`."""
    return (advantages.unsqueeze(1) if advantages.dim() == 1 else advantages).expand_as(like)


def _completions(inputs: dict) -> Tensor:
    """`(B,)`: a hash of prompt and completion, independent of the padding."""
    prompts = token_hashes(inputs["prompt_ids"], inputs["prompt_mask"], -inputs["prompt_ids"].shape[1])
    completions = token_hashes(inputs["completion_ids"], inputs["completion_mask"], 0)
    return mixed(prompts.sum(-1) + completions.sum(-1))
