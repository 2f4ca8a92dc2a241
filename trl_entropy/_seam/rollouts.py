"""Sample a trainer's rollouts as a plan decides."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.utils import pad

from ..rewards.messages import policy_texts
from ..rollouts import RolloutPlan
from ..rollouts.batch import Collected, padding_of, picked, refill
from ..rollouts.rule import check_sources, given_images
from .trimming import trained_mask
from .vocabulary import RowTemperatures


@dataclass
class Sampling:
    """
    The rows of this rank while TRL samples and scores them.

    Attributes:
        rows: the rows that TRL samples.
        old: log-probs and entropies under the sampling policy, if TRL computes them.
        env_mask: whether the policy wrote each token, if an environment may write too.
        offline: which completions are stored solutions, if a rule replaces any.
        rewards: the rewards of all ranks, `(rows, functions)`.
        texts: the policy's texts.
    """

    rows: list[dict]
    old: tuple[Tensor, Tensor | None] | None = None
    env_mask: list[list[int]] | None = None
    offline: Tensor | None = None
    rewards: Tensor | None = None
    texts: list[str] | None = None


@dataclass
class Rollout:
    """
    A sampled rollout.

    Attributes:
        batch: TRL's batch of this rank.
        rewards: the rewards of all ranks, `(groups, G)`.
        completions: the policy's texts, on all ranks, row by row.
        by_function: the rewards `(groups, G)` of each reward function.
        old: log-probs and entropies under the policy that sampled, on this rank, if TRL computed them.
    """

    batch: dict
    rewards: Tensor
    completions: list[str]
    by_function: dict[str, Tensor]
    old: tuple[Tensor, Tensor | None] | None


class Rollouts:
    """
    The rollouts of a trainer.

    Args:
        trainer: the trainer.
        add_facts (`Callable[[Rollout], None]`): adds facts to the batch of a rollout, before TRL shuffles it.
    """

    def __init__(self, trainer, add_facts: Callable[[Rollout], None]):
        self.trainer = trainer
        self.add_facts = add_facts
        self.plan = RolloutPlan({}, 0, {}.__getitem__, 0)
        self.sampling: Sampling | None = None  # None while nothing is sampled
        self._row_temperatures: RowTemperatures | None = None
        # The temperature of each sampled or scored row, divided by the run's; None if all rows have the run's
        self._temperatures: Tensor | None = None

    def use(self, plan: RolloutPlan) -> None:
        """Sample by this plan. Raises `ValueError` if the model or the trainer does not support it."""
        trainer, self.plan = self.trainer, plan
        if trainer.args.torch_compile:
            torch.compiler.reset()  # otherwise an earlier policy's graph would be used, without this policy's hooks
        if plan.sets_temperatures:
            models = [model for model in (trainer.model, trainer.ref_model) if model is not None]
            self._row_temperatures = RowTemperatures([trainer.accelerator.unwrap_model(model) for model in models])
        given = ("tools", "rollout_func", "environment_factories")  # RLOOTrainer has none of them
        check_sources(plan.rules, *(getattr(trainer, name, None) for name in given))

    def planned(self, generate_and_score: Callable[[list[dict]], dict], inputs: list[dict]) -> Rollout:
        """A training rollout with the size of `inputs`, TRL's rows of this rank."""
        trainer, plan = self.trainer, self.plan
        ranks, size = trainer.accelerator.num_processes, trainer.num_generations
        whole = len(inputs) * ranks // size
        plan.begin()
        rollout = self.sample(generate_and_score, self._planned_rows(inputs, whole))
        if not plan.keeps_groups:
            return rollout
        collected = Collected(whole)
        for rounds in range(plan.rounds + 1):
            if rounds:
                more = refill(collected, multiple=ranks // gcd(ranks, size))
                rollout = self.sample(generate_and_score, self._planned_rows(inputs, more))
            keep = plan.keep(rollout.rewards, rollout.by_function)
            collected.add(self._everywhere(rollout.batch), rollout.rewards, rollout.completions, keep)
            if not collected.missing:
                break
        trainer.metrics.add(collected.means())
        batch, rewards, completions = collected.rollout(trainer._tokenizer.pad_token_id)
        trained = trained_mask(batch)
        batch = picked(batch, self.of_this_rank(len(inputs)))
        batch["num_items_in_batch"] = trained.sum()
        return replace(rollout, batch=batch, rewards=rewards, completions=completions)

    def sample(self, generate_and_score: Callable[[list[dict]], dict], rows: list[dict]) -> Rollout:
        """Sample and score these rows of this rank."""
        trainer, plan = self.trainer, self.plan
        training, columns = trainer.model.training, {}
        tempered = training and plan.sets_temperatures
        if tempered:
            values = plan.temperatures([row["prompt"] for row in rows], trainer.temperature)
            columns["temperatures"] = torch.tensor(values, device=trainer.accelerator.device) / trainer.temperature
            self._log_mean("rollout/temperature", columns["temperatures"] * trainer.temperature)
        self.sampling = sampling = Sampling(rows)
        try:
            with self.at(columns.get("temperatures")):
                batch = generate_and_score(rows)
        finally:
            self.sampling = None
        if training and plan.rules and "pixel_values" in batch:  # images of prompts, in a stream or from a tool
            raise given_images(plan.rules)
        if sampling.offline is not None:
            columns["offline"] = sampling.offline
            self._log_mean("rollout/injected", sampling.offline)
        rewards = self._groups(sampling.rewards)
        by_function = {
            name: values.view(rewards.shape)
            for name, values in zip(trainer.reward_func_names, sampling.rewards.T.contiguous(), strict=True)
        }
        texts = gather_object(sampling.texts) if training else []
        if tempered:
            prompts = gather_object([row["prompt"] for row in rows])[:: rewards.shape[1]]
            plan.visited(prompts, rewards, trainer.temperature)
        rollout = Rollout({**batch, **columns}, rewards, texts, by_function, sampling.old)
        self.add_facts(rollout)
        return rollout

    def _planned_rows(self, inputs: list[dict], groups: int) -> list[dict]:
        """The rows of this rank, for `groups` groups over all ranks; `inputs` if no rule chooses problems."""
        trainer = self.trainer
        if not self.plan.chooses_problems:
            return inputs
        progress = trainer.state.global_step / trainer.state.max_steps
        problems, means = self.plan.problems(groups, progress, self.perplexities)
        trainer.metrics.add({f"rollout/{name}": value for name, value in means.items()})
        problems = [problem for problem in problems for _ in range(trainer.num_generations)]
        mine = problems[self.of_this_rank(len(problems) // trainer.accelerator.num_processes)]
        return [trainer.train_dataset[problem] for problem in mine]

    def of_this_rank(self, count: int) -> slice:
        """The rows of this rank among those of all ranks, which have `count` rows each."""
        start = self.trainer.accelerator.process_index * count
        return slice(start, start + count)

    @torch.no_grad()
    def perplexities(self, problems: list[int]) -> list[float]:
        """The perplexity of these problems' prompts under the current policy, at the sampling temperature."""
        trainer = self.trainer
        share = -(-len(problems) // trainer.accelerator.num_processes)
        filled = problems + problems[: share * trainer.accelerator.num_processes - len(problems)]
        mine = filled[self.of_this_rank(share)]
        ids = trainer._tokenize_prompts([trainer.train_dataset[problem]["prompt"] for problem in mine])[0]
        mask = pad([torch.ones(len(row), dtype=torch.long) for row in ids], 0, padding_side="left")
        ids = pad([torch.tensor(row) for row in ids], trainer._tokenizer.pad_token_id, padding_side="left")
        ids, mask = ids.to(trainer.accelerator.device), mask.to(trainer.accelerator.device)
        size = trainer.args.per_device_train_batch_size
        forward = trainer._get_per_token_logps_and_entropies
        logps = forward(trainer.model, ids, mask, ids.shape[1] - 1, batch_size=size)[0]
        scored = (mask[:, 1:] * mask[:, :-1]).bool()
        means = torch.where(scored, logps.float(), 0.0).sum(1) / scored.sum(1).clamp(min=1)
        return trainer.accelerator.gather((-means).exp())[: len(problems)].tolist()

    def _everywhere(self, batch: dict) -> dict:
        """The rows of all ranks, in the order of ranks."""
        accelerator, whole = self.trainer.accelerator, {}
        for name, values in batch.items():
            if values.dim() > 1:
                fill, left = padding_of(name, self.trainer._tokenizer.pad_token_id)
                values = accelerator.pad_across_processes(values, dim=1, pad_index=fill, pad_first=left)
            whole[name] = accelerator.gather(values) if values.dim() else values
        return whole

    def generate(self, generate: Callable[[list], tuple], prompts: list) -> tuple:
        """TRL's completions, some of which a rule may replace by stored solutions."""
        trainer = self.trainer
        with self.tempered():
            outputs = generate(prompts)
        writes = getattr(trainer, "tools", None) or getattr(trainer, "rollout_func", None) is not None
        if writes and self.sampling is not None:
            self.sampling.env_mask = outputs[2]
        injects = trainer.model.training and self.plan.replaces_completions
        return self._injected(prompts, list(outputs)) if injects else outputs

    def _injected(self, prompts: list, outputs: list) -> tuple:
        """TRL's generated completions, with stored solutions in the places that the plan chooses."""
        trainer, sampling = self.trainer, self.sampling
        completion_ids, completions, logps = list(outputs[1]), list(outputs[3]), outputs[4]
        trainer._calculate_rewards(sampling.rows, prompts, completions, completion_ids)
        trainer._pending_extra_logs.clear()  # rewards should only log the completions that are trained on
        trainer._pending_metrics.clear()
        may_go, mine = self.plan.replace(self._groups(sampling.rewards)), self.of_this_rank(len(prompts))
        before = (may_go.cumsum(1) - 1).flatten()[mine].tolist()  # number of such rows before it in its group
        may_go = may_go.flatten()[mine].tolist()
        offline = [False] * len(prompts)
        for row, solutions in enumerate(map(self._solutions, sampling.rows)):
            if may_go[row] and before[row] < len(solutions):
                completion_ids[row], text = solutions[before[row]]
                as_message = isinstance(completions[row], list)
                completions[row] = [{"role": "assistant", "content": text}] if as_message else text
                offline[row] = True
                if logps is not None:
                    logps[row] = [float("nan")] * len(completion_ids[row])
        sampling.offline = torch.tensor(offline, device=trainer.accelerator.device)
        outputs[1], outputs[3] = completion_ids, completions
        return tuple(outputs)

    def _solutions(self, row: dict) -> list[tuple[list[int], str]]:
        """The stored solutions of a problem that are not too long, as tokens and as text."""
        tokenizer, longest, found = self.trainer._tokenizer, self.trainer.max_completion_length, []
        for text in self.plan.solutions(row):
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            if longest is None or len(ids) <= longest:
                found.append((ids, text))
        return found

    def score(self, calculate: Callable, inputs, prompts, completions, completion_ids) -> Tensor:
        """TRL's rewards; functions with `reads_rollout` get more facts about the rollout."""
        trainer = self.trainer
        facts = self._facts_for_rewards(completion_ids)
        functions = trainer.reward_funcs
        trainer.reward_funcs = [_told(one, facts) if _reads_rollout(one) else one for one in functions]
        try:
            rewards = calculate(inputs, prompts, completions, completion_ids)
        finally:
            trainer.reward_funcs = functions
        if self.sampling is not None:
            self.sampling.rewards, self.sampling.texts = rewards, policy_texts(completions, facts["policy_text"])
        return rewards

    def _facts_for_rewards(self, completion_ids: list[list[int]]) -> dict[str, list | None]:
        """The additional arguments of rewards with `reads_rollout`."""
        trainer, mask = self.trainer, self.sampling and self.sampling.env_mask
        first = trainer.accelerator.process_index * len(completion_ids)
        groups = [(first + place) // self._group_size for place in range(len(completion_ids))]
        texts = None
        if mask is not None and not trainer.tools:  # with tools, the messages say who wrote them
            last = [_last_run(*row) for row in zip(completion_ids, mask, strict=True)]
            texts = trainer.processing_class.batch_decode(last, skip_special_tokens=True)
        return {"rollout_group": groups, "env_mask": mask, "policy_text": texts}

    @property
    def _group_size(self) -> int:
        return self.trainer.num_generations if self.trainer.model.training else self.trainer.num_generations_eval

    def _groups(self, rewards: Tensor) -> Tensor:
        """`(groups, G)`: the summed rewards of a rollout on all ranks, from those of each function."""
        weighted = rewards * self.trainer.reward_weights.to(rewards.device)
        return torch.where(rewards.isnan().all(1), torch.nan, weighted.nansum(1)).view(-1, self._group_size)

    @contextmanager
    def at(self, temperatures: Tensor | None) -> Iterator[None]:
        """Sample and score rows at these temperatures, given as factors on the run's."""
        self._temperatures = temperatures
        try:
            yield
        finally:
            self._temperatures = None

    def tempered(self) -> AbstractContextManager:
        """A context for one pass over the rows, in which each row is divided by its temperature."""
        return nullcontext() if self._temperatures is None else self._row_temperatures.over(self._temperatures)

    def _log_mean(self, name: str, values: Tensor) -> None:
        self.trainer.metrics.add({name: self.trainer.accelerator.gather(values.float()).mean().item()})


def _reads_rollout(reward: Callable) -> bool:
    of = reward.func if isinstance(reward, partial) else reward
    return getattr(of, "reads_rollout", None) is True


def _told(reward: Callable, facts: dict) -> Callable:
    def told(**given):  # a fact takes precedence over a dataset column of the same name
        return reward(**{**given, **facts})

    async def told_async(**given):
        return await told(**given)

    is_async = any(map(inspect.iscoroutinefunction, (reward, getattr(reward, "__call__", None))))  # noqa: B004
    return told_async if is_async else told


def _last_run(ids: list[int], mask: list[int]) -> list[int]:
    """The last run of consecutive tokens that the policy wrote."""
    end = max((place + 1 for place, own in enumerate(mask) if own), default=0)
    start = max((place + 1 for place, own in enumerate(mask[:end]) if not own), default=0)
    return ids[start:end]
