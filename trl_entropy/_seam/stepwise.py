"""`GRPOTrainer` for methods with a reward at every environment step, and with their own loss and networks."""

import os
from collections.abc import Sequence

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from .trimming import trained_mask
from .vocabulary import HiddenStates


class StepwiseGRPOTrainer(GRPOTrainer):
    """
    Overrides the methods of TRL that this needs; in the class order it comes after [`~hooks.Hooks`].

    TRL's loss gets advantages of 0 and no KL penalty, so it is 0, and only `own_loss` is trained on. The trainer must
    have `rewards_of_steps(...)`, `prepared_batch(batch, rewards)`, `own_loss(...)`, `save_networks(folder)` and
    `load_networks(folder)`.
    """

    def _generate(self, prompts):
        outputs = super()._generate(prompts)
        self._rewards = self.rewards_of_steps(*(outputs[place] for place in (1, 2, 3, 5)))
        return outputs

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        batch["advantages"] = torch.zeros_like(batch["advantages"])
        rewards = torch.zeros(batch["completion_ids"].shape, device=self.accelerator.device)
        for row, values in zip(rewards, self._rewards, strict=True):
            row[: len(values)] = torch.tensor(values)
        return self.prepared_batch(batch, rewards)

    def _compute_loss(self, model, inputs):
        with HiddenStates(self.accelerator.unwrap_model(self.model)) as hidden:
            loss = super()._compute_loss(model, inputs)
        # Divided by the number of ranks, because gradients are averaged: the loss is a mean over the optimizer step on
        # all ranks
        of_rank = self.seam.facts.num_tokens_of_step(inputs) / self.accelerator.num_processes
        states = hidden.before(inputs["completion_ids"].shape[1])
        return loss + self.own_loss(inputs, states, trained_mask(inputs).bool(), of_rank)

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self.save_networks(os.path.join(self._get_output_dir(trial=trial), name))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.load_networks(checkpoint)


def sampled_actions(trainer, contexts: list[list[int]]) -> tuple[list[list[int]], Sequence[list[float] | None]]:
    """The policy's continuations of these tokens, from TRL's own sampler, and their log-probs if vLLM gives them."""
    ids, logps = trainer._generate_single_turn(contexts, None, {}, 1)
    return [list(row) for row in ids], [None] * len(ids) if logps is None else logps


def sampled_rows(trainer) -> list[dict]:
    """This rank's dataset rows that are currently sampled; `rollout_func` only gets their prompts."""
    return trainer.seam.rollouts.sampling.rows
