"""Evaluate a model in memory: during training, and with any reward."""

from collections.abc import Callable
from math import isnan

from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.models import unwrap_model_for_generation

from ...callbacks.attached import Attached
from ...checks import check_whole_number
from ...data.problems import problems_of
from ...families import family_of
from ...measures import pass_at_k
from ...rewards import MathVerifyReward
from ..statistics import once
from .folder import Line
from .metrics import metrics
from .model import encode
from .sampling import Policy, Sampling, all_ids, batches
from .scoring import graded_lines, samples_of


class PassAtKCallback(Attached):
    """
    Sample held-out problems while a [`~trl.GRPOTrainer`] trains, and log accuracy, diversity and calibration.

    The metrics have the names of `trl-entropy eval` with the prefix `eval_` (`eval_pass@8`); trackers show them as
    `eval/pass@8`. Without `every`, they also join the metrics of the trainer's own evaluation, so
    `metric_for_best_model="pass@8"`, `load_best_model_at_end` and [`~transformers.EarlyStoppingCallback`] work with
    them. The callback does not change training. An undefined value (NaN) is not logged.

    Args:
        problems ([`~datasets.Dataset`]):
            Held-out problems with `prompt` and `solution`.
        every (`int`, *optional*):
            Number of optimizer steps between two evaluations. By default it evaluates whenever the trainer does.
        num_samples (`int`, *optional*, defaults to `8`):
            Number of responses per problem.
        temperature (`float`, *optional*):
            Sampling temperature; by default the trainer's.
        top_p (`float`, *optional*, defaults to `1.0`):
            Total probability of the likeliest tokens to sample from.
        max_new_tokens (`int`, *optional*):
            Number of tokens after which a response is cut; by default the trainer's `max_completion_length`.
        batch_size (`int`, *optional*, defaults to `64`):
            Number of responses that a process samples at once.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the random numbers of every evaluation, so that two evaluations only differ in the policy.
        reward ([`~rewards.MathVerifyReward`], *optional*):
            The reward that finds answers and decides what is right; by default the answer is in the last box.

    Raises `ValueError` for a value out of range, a missing column or problems with images. It also raises at the start
    of training on a plain trainer if `attach` was not called, or if nothing would ever be evaluated. Under FSDP, whose
    processes would wait for each other, `attach` raises it.
    """

    first = True  # an early-stopping callback reads the values added here

    def __init__(
        self,
        problems: Dataset,
        every: int | None = None,
        num_samples: int = 8,
        temperature: float | None = None,
        top_p: float = 1.0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        reward: MathVerifyReward | None = None,
    ):
        if every is not None:
            check_whole_number("every", every)
        self.problems = problems_of(problems)
        self.every = every
        self.settings = {"num_samples": num_samples, "top_p": top_p, "batch_size": batch_size, "seed": seed}
        self.of_trainer = {"temperature": temperature, "max_new_tokens": max_new_tokens}
        Sampling(**self.settings, **{name: value for name, value in self.of_trainer.items() if value is not None})
        self.reward = MathVerifyReward() if reward is None else reward

    def take(self, trainer: Trainer) -> None:
        """Raise `ValueError` under FSDP, or for a trainer whose policy does not generate."""
        if family_of(type(trainer)).packed:
            raise ValueError(
                "PassAtKCallback generates with the policy, which AsyncGRPOTrainer only loads for packed batches: "
                "use `trl-entropy eval` on the checkpoints"
            )
        if trainer.is_fsdp_enabled:
            raise ValueError("PassAtKCallback does not work under FSDP: use `trl-entropy eval` on the checkpoints")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.attached()
        if self.every is None and args.eval_strategy == "no":
            raise ValueError(
                "nothing would be evaluated: set every in PassAtKCallback, or eval_strategy in the config"
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if self.every is not None and state.global_step % self.every == 0:
            self._log(self.evaluate(), control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs,
    ):
        if self.every is None:
            values = self.evaluate()
            metrics.update(values)  # by which the trainer picks the best model
            self._log(values, control)

    def evaluate(self) -> dict[str, float]:
        """Compute the values, the same on every process; every process must call this."""
        trainer, sampling = self.attached(), self._sampling()
        accelerator = trainer.accelerator
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        chat = trainer.args.chat_template_kwargs or {}
        prompts = encode([problem.prompt for problem in self.problems], tokenizer, "plain", **chat)
        ids = all_ids(len(prompts), sampling.num_samples)
        own = [one for one in ids if one.problem % accelerator.num_processes == accelerator.process_index]
        with unwrap_model_for_generation(
            trainer.model_wrapped, accelerator, gather_deepspeed3_params=trainer.args.ds3_gather_for_generation
        ) as model:
            batches = graded_lines(Policy(model, tokenizer), prompts, self.problems, own, sampling, self.reward)
            lines = [line for batch in batches for line in batch]
        lines = sorted(gather_object(lines), key=lambda line: line.id)
        values = [self._values(lines, sampling.num_samples) if accelerator.is_main_process else None]
        return broadcast_object_list(values)[0]

    def _sampling(self) -> Sampling:
        args = self.attached().args
        default = {"temperature": args.temperature, "max_new_tokens": args.max_completion_length}
        given = {name: default[name] if value is None else value for name, value in self.of_trainer.items()}
        return Sampling(**self.settings, **given)

    def _values(self, lines: list[Line], num_samples: int) -> dict[str, float]:
        table = metrics(samples_of(lines, num_samples, self.reward.verifier))
        weights = once(len(self.problems))
        return {f"eval_{name}": float(table[name](weights)[0]) for name in table}

    def _log(self, values: dict[str, float], control: TrainerControl) -> None:
        # TRL's own log would also flush the metrics of the training step, and a log resets the request for one
        should_log = control.should_log
        Trainer.log(self.attached(), {name: value for name, value in values.items() if not isnan(value)})
        control.should_log = should_log


def held_out_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    reward: Callable,
    num_samples: int = 8,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """
    `avg@k` and unbiased `pass@k` at `k = num_samples`, over problems with `prompt` and `solution`.

    A sample is correct if its reward is 1. The caller's random state is restored.

    Args:
        batch_size (`int`, *optional*, defaults to `256`):
            Number of responses to sample at once.
    """
    sampling = Sampling(num_samples, temperature, 1.0, max_new_tokens, batch_size, seed)
    policy = Policy(model, tokenizer)
    prompts = encode(problems["prompt"], tokenizer, "plain")
    num_correct = [0] * len(prompts)
    with policy.evaluating():
        for batch in batches(prompts, all_ids(len(prompts), num_samples), batch_size):
            texts = tokenizer.batch_decode(policy.sample(prompts, batch, sampling), skip_special_tokens=True)
            solutions = [problems[one.problem]["solution"] for one in batch]
            for one, score in zip(batch, reward(completions=texts, solution=solutions), strict=True):
                num_correct[one.problem] += score == 1.0
    return {
        f"avg@{num_samples}": sum(num_correct) / (num_samples * len(num_correct)),
        f"pass@{num_samples}": sum(pass_at_k(num_samples, c, num_samples) for c in num_correct) / len(num_correct),
    }
