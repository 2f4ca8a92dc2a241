"""What is done to the micro-batches of an optimizer step before they are trained on."""

import torch

from .head import skip_lm_head_tokens
from .trimming import Compaction, compacted, has_advantage


# The rows that a micro-batch leaves out, beside TRL's columns
LEFT_OUT = "left_out"


class CompactionSeam:
    """Mixed in before a TRL trainer that buffers micro-batches as `GRPOTrainer` does: less is computed of them."""

    compaction = Compaction()

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
        counts = torch.stack([sum(has_advantage(batch).sum() for batch in window) for window in windows])
        return self.accelerator.gather(counts.unsqueeze(0)).amax(0).tolist()
