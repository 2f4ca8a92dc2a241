"""
The facts for TRL's asynchronous trainer, whose micro-batch is one row of packed tokens and reads advantages early.

Rules see the tokens of every completion as a row of `(B, T)`, as with other trainers.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass

import torch
from accelerate.utils import broadcast
from torch import Tensor
from torch.nn.functional import pad as padded
from trl.trainer.utils import pad

from ..rules.pool import Pool
from ..rules.tokens import Tokens, mixed, token_hashes
from .error import UNSUPPORTED, SeamError
from .facts import Facts, Step


COPIED = f"TRL computed a loss from a copy of `advantages`, so no rule could act. {UNSUPPORTED}"
UNVERSIONED = f"a completion does not say which version of the policy sampled it. {UNSUPPORTED}"


class Lent:
    """
    Placeholder for `advantages` in a batch: a selection of them is NaN until it is filled.

    So a loss that is computed from earlier values is NaN too, not a wrong number.
    """

    def __init__(self, raw: Tensor):
        self._raw = raw
        self._selected: Tensor | None = None
        self._lent: Tensor | None = None
        self._decide: Callable[[Tensor], Tensor] | None = None

    def __getitem__(self, selected) -> Tensor:
        self._selected = self._raw[selected]
        self._lent = torch.full_like(self._selected, torch.nan)
        self._fill()
        return self._lent

    def decide(self, decide: Callable[[Tensor], Tensor]) -> None:
        """Fill past and future selections with the results of `decide`."""
        self._decide = decide
        self._fill()

    def _fill(self) -> None:
        if self._lent is not None and self._decide is not None:
            self._lent.copy_(self._decide(self._selected))


@dataclass
class Layout:
    """
    The places of a micro-batch's `M` trained tokens.

    Args:
        selected (`torch.Tensor`):
            Bool: which places of its flat columns are tokens, not padding.
        index (`torch.Tensor`):
            `(M,)`: the place in the forward pass that predicts each token.
        rows, columns (`torch.Tensor`):
            `(M,)`: the completion of each token, and its place in the completion, counted from the first trained
            token.
        shape (`tuple[int, int]`):
            `(B, T)`.
    """

    selected: Tensor
    index: Tensor
    rows: Tensor
    columns: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, inputs: dict) -> "Layout":
        """The layout of TRL's batch."""
        selected = inputs["token_index"] >= 0
        index, rows = inputs["token_index"][selected], inputs["segment_id"][selected]
        places = inputs["position_ids"][inputs["attention_mask"].bool()][index]
        number = inputs["sampled_by"].shape[1]
        first = places.new_zeros(number).scatter_reduce(0, rows, places, "amin", include_self=False)
        columns = places - first[rows]
        return cls(selected, index, rows, columns, (number, int(columns.max()) + 1))

    def spread(self, values: Tensor) -> Tensor:
        """`(M, ...)` as `(B, T, ...)`, 0 where there is no token."""
        return values.new_zeros(*self.shape, *values.shape[1:]).index_put((self.rows, self.columns), values)

    def flat(self, values: Tensor) -> Tensor:
        """`(B, T)` as `(M,)`."""
        return values[self.rows, self.columns]


class PackedFacts(Facts):
    """
    Collects the facts of packed micro-batches.

    Attributes:
        batches (`list[dict]`): the micro-batches of the current optimizer step.
        layout ([`Layout`]): the layout of the current micro-batch.
    """

    batches: list[dict]
    layout: Layout
    _checked = False

    def loss(self, compute_loss: Callable, model, inputs: dict, decide: Callable[[Tensor], Tensor]) -> Tensor:
        """TRL's loss of a batch whose advantages are filled in once the forward pass has given the facts."""
        lent, forward = Lent(inputs["advantages"]), self.results
        self.layout = layout = Layout.of(inputs)

        def effective(raw: Tensor) -> Tensor:
            decided = decide(raw)
            return decided if decided is raw else layout.flat(decided)

        def forward_ends(module, args, outputs) -> None:
            forward.logps, forward.entropies = (
                layout.spread(values.flatten()[layout.index]) for values in (outputs.log_probs, outputs.entropy)
            )
            if forward.hidden is not None:  # at the predicting places; Facts leaves out the last one
                forward.hidden.states = padded(layout.spread(forward.hidden.states[0, layout.index]), (0, 0, 0, 1))
            lent.decide(effective)

        hook = model.register_forward_hook(forward_ends)
        try:
            loss = compute_loss(model, {**inputs, "advantages": lent})
        finally:
            hook.remove()
        if not self._checked and forward.logps is not None and loss.isnan() and not forward.logps.isnan().any():
            raise SeamError(COPIED)
        self._checked = True
        return loss

    def tokens(self, inputs: dict, raw: Tensor, needs: Set[str], step: Step | None = None) -> Tokens:
        """The facts of a micro-batch by completion, once the forward pass has given log-probs and entropies."""
        layout = self.layout
        ids = inputs["input_ids"][inputs["attention_mask"].bool()]
        columns = {
            "completion_ids": layout.spread(ids[layout.index + 1]),
            "completion_mask": layout.spread(torch.ones_like(layout.rows)),
            "old_per_token_logps": layout.spread(inputs["old_log_probs"][layout.selected]),
            "staleness": layout.spread((self._version() - inputs["sampled_by"][0])[layout.rows]),
            "rewards": inputs["rewards"][0],
            "completions": inputs["completions"][0],
        }
        return super().tokens(columns, layout.spread(raw), needs, step)

    def staleness(self, inputs: dict, mask: Tensor) -> Tensor:
        """`(B, T)`: how many versions the policy is ahead of the one that sampled; 0 outside the mask."""
        return inputs["staleness"].float()

    def _version(self) -> Tensor:
        """The version of the policy, which TRL only counts on the main process."""
        return broadcast(torch.tensor(self.trainer.model_version, device=self.trainer.accelerator.device))

    def num_tokens_of_step(self, inputs: dict) -> Tensor:
        """The number of trained tokens in the optimizer step, over all ranks."""
        return sum(batch["global_n_tokens"][0] for batch in self.batches).clamp(min=1.0)

    def micro_batch_mean(self, loss_type: str, values: Tensor, tokens: Tokens, inputs: dict) -> Tensor:
        """The mean over the trained tokens of a micro-batch over all ranks, which average their gradients."""
        of_rank = inputs["global_n_tokens"][0] / self.trainer.accelerator.num_processes
        return values.sum() / of_rank.clamp(min=1.0)

    def look_ahead(self, model, needs: Set[str]) -> Pool | None:
        """The pool of all micro-batches of the optimizer step; `None` if there is only one."""
        if len(self.batches) == 1:
            return None
        needs = needs - {"pool"} | {"completions"}
        batches = map(self.trainer._prepare_inputs, self.batches)
        return Pool([self.look(model, batch, needs) for batch in batches], self.sum_over_ranks)


# Facts about its completions that are added to a batch, `(1, B)`


class Versioned(dict):
    """A completion's metrics, which TRL passes on unchanged, with the version of the policy that sampled it."""

    def __init__(self, metrics: dict, version: int):
        super().__init__(metrics)
        self.version = version


class VersioningQueue:
    """TRL's queue of completions, in which each keeps its version."""

    def __init__(self, queue):
        self._queue = queue

    def get(self, *args, **kwargs):
        """The next completion."""
        sample = self._queue.get(*args, **kwargs)
        sample.metrics = Versioned(sample.metrics, sample.model_version)
        return sample

    def __getattr__(self, name: str):
        return getattr(self._queue, name)


def versioned_dataloader(trainer, make: Callable):
    """TRL's dataloader, with the version, the reward and an identifier of every completion added to its batches."""
    if not trainer.accelerator.is_main_process:
        return make()
    queue, trainer.rollout_queue = trainer.rollout_queue, VersioningQueue(trainer.rollout_queue)
    try:
        loader = make()
    finally:
        trainer.rollout_queue = queue
    inner = getattr(loader, "base_dataloader", loader)  # accelerate wraps it
    collate = inner.collate_fn

    def collated(examples: list) -> dict:
        (rows,) = examples
        told = {"sampled_by": _version, "rewards": _reward, "completions": _completion}
        return collate(examples) | {
            name: pad([torch.tensor([of(sample) for sample in row.samples]) for row in rows])
            for name, of in told.items()
        }

    inner.collate_fn = collated
    return loader


def _version(sample: dict) -> int:
    if not isinstance(sample["metrics"], Versioned):
        raise SeamError(UNVERSIONED)
    return sample["metrics"].version


def _reward(sample: dict) -> float:
    return float(sample["metrics"].get("reward", torch.nan))


def _completion(sample: dict) -> int:
    ids = torch.as_tensor(sample["input_ids"]).unsqueeze(0)
    return int(mixed(token_hashes(ids, torch.ones_like(ids), 0).sum()))
