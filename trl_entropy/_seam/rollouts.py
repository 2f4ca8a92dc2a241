"""What is sampled for training: a plan decides about the rollouts of a trainer."""

import inspect
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from math import gcd
from typing import NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.utils import pad

from ..rewards.math_verify import written
from ..rollouts import RolloutPlan
from ..rollouts.batch import Collected, padding_of, picked, refill
from ..rollouts.rule import check_sources, given_images
from .state import log_means
from .trimming import trained_tokens
from .vocabulary import RowTemperatures


class Rollout(NamedTuple):
    """
    What was sampled: TRL's batch of this rank; of all ranks the rewards `(groups, G)`, what the policy wrote, row by
    row, and the rewards `(groups, G)` of each reward function.
    """

    batch: dict
    rewards: Tensor
    completions: list[str]
    by_function: dict[str, Tensor]


class RolloutSeam:
    """Mixed in before a TRL trainer that samples as `GRPOTrainer` does: a plan decides about training rollouts."""

    plan = RolloutPlan({}, 0, {}.__getitem__, 0)
    # The temperatures of the rows that are sampled or scored, over the run's; None if they have that one
    _temperatures: Tensor | None = None
    _row_temperatures: RowTemperatures | None = None
    # The rows that are sampled, and which of their completions are stored solutions
    _rows: list[dict] | None = None
    _offline: Tensor | None = None
    # Of each of their tokens whether the policy wrote it, if an environment may write too
    _env_mask: list[list[int]] | None = None
    # What their rewards are, on all ranks, and what the policy wrote in them, on this one
    _rewards: Tensor | None = None
    _texts: list[str] | None = None

    def use_plan(self, plan: RolloutPlan) -> None:
        """Sample by this plan. Raises `ValueError` if the model or the trainer cannot."""
        self.plan = plan
        if self.args.torch_compile:
            torch.compiler.reset()  # a graph of an earlier policy would be taken, which has not the hooks of this one
        if plan.sets_temperatures:
            models = [model for model in (self.model, self.ref_model) if model is not None]
            self._row_temperatures = RowTemperatures([self.accelerator.unwrap_model(model) for model in models])
        given = ("tools", "rollout_func", "environment_factories")  # RLOOTrainer has none of them
        check_sources(plan.rules, *(getattr(self, name, None) for name in given))

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
        if training and self.plan.rules and "pixel_values" in batch:  # of prompts, of a stream or from a tool
            raise given_images(self.plan.rules)
        if training and self.plan.replaces_completions:
            columns["offline"] = self._offline
            self._log_mean("rollout/injected", self._offline)
        rewards = self._groups()
        by_function = {
            name: values.view(rewards.shape)
            for name, values in zip(self.reward_func_names, self._rewards.T.contiguous(), strict=True)
        }
        texts = gather_object(self._texts) if training else []
        if training and self.plan.sets_temperatures:
            prompts = gather_object([row["prompt"] for row in rows])[:: rewards.shape[1]]
            self.plan.visited(prompts, rewards, self.temperature)
        self._rows = self._offline = self._env_mask = self._rewards = self._texts = None
        return Rollout({**batch, **columns}, rewards, texts, by_function)

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
            keep = self.plan.keep(rollout.rewards, rollout.by_function)
            collected.add(self._everywhere(rollout.batch), rollout.rewards, rollout.completions, keep)
            if not collected.missing:
                break
        self.log_means(collected.means())
        batch, rewards, completions = collected.rollout(self._tokenizer.pad_token_id)
        trained = trained_tokens(batch)
        batch = picked(batch, self._of_this_rank(len(inputs)))
        batch["num_items_in_batch"] = trained.sum()
        return rollout._replace(batch=batch, rewards=rewards, completions=completions)

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
        with self._tempered():
            outputs = super()._generate(prompts)
        if getattr(self, "tools", None) or getattr(self, "rollout_func", None) is not None:
            self._env_mask = outputs[2]
        injects = self.model.training and self.plan.replaces_completions
        return self._injected(prompts, list(outputs)) if injects else outputs

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

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids):
        facts = self._of_rollout(completion_ids)
        self._texts = written(completions, facts["policy_text"])
        functions = self.reward_funcs
        self.reward_funcs = [_told(one, facts) if _reads_rollout(one) else one for one in functions]
        try:
            self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
        finally:
            self.reward_funcs = functions
        return self._rewards

    def _of_rollout(self, completion_ids: list[list[int]]) -> dict[str, list | None]:
        """What rewards that have `reads_rollout` are called with, besides what TRL hands to a reward."""
        first, mask = self.accelerator.process_index * len(completion_ids), self._env_mask
        groups = [(first + place) // self._group_size for place in range(len(completion_ids))]
        texts = None
        if mask is not None and not self.tools:  # with tools the messages say who wrote them
            last = [_last_run(*row) for row in zip(completion_ids, mask, strict=True)]
            texts = self.processing_class.batch_decode(last, skip_special_tokens=True)
        return {"rollout_group": groups, "env_mask": mask, "policy_text": texts}

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _groups(self) -> Tensor:
        """`(groups, G)`: the rewards of a rollout on all ranks."""
        weighted = self._rewards * self.reward_weights.to(self._rewards.device)
        rewards = torch.where(self._rewards.isnan().all(1), torch.nan, weighted.nansum(1))
        return rewards.view(-1, self._group_size)

    def log_means(self, means: dict[str, float]) -> None:
        """Log values of one optimizer step beside TRL's; TRL averages them over `logging_steps`."""
        log_means(self, means)


def _reads_rollout(reward: Callable) -> bool:
    of = reward.func if isinstance(reward, partial) else reward
    return getattr(of, "reads_rollout", None) is True


def _told(reward: Callable, facts: dict) -> Callable:
    def told(**given):  # a column of the dataset that has the name of a fact does not reach the reward
        return reward(**{**given, **facts})

    async def told_async(**given):
        return await told(**given)

    is_async = any(map(inspect.iscoroutinefunction, (reward, getattr(reward, "__call__", None))))  # noqa: B004
    return told_async if is_async else told


def _last_run(ids: list[int], mask: list[int]) -> list[int]:
    """The last tokens in a row that the policy wrote."""
    end = max((place + 1 for place, own in enumerate(mask) if own), default=0)
    start = max((place + 1 for place, own in enumerate(mask[:end]) if not own), default=0)
    return ids[start:end]
