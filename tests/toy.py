"""What several test files share: trainers on the tiny model, ready-made batches, a trainer on a table of logits."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer, Rule, Tokens
from trl_entropy._seam import Seam
from trl_entropy.measures import StepMeasures
from trl_entropy.objective import Objective
from trl_entropy.rules.looks import (
    NAMED,
    Distributions,
    IsTop1,
    KeptMass,
    Look,
    TopKLogp,
    TopPEntropy,
    TopTwoRatio,
    looks_among,
)


# The looks at the vocabulary that rules of the catalogue take by default
LOOKS = (IsTop1(), KeptMass(0.02), TopKLogp(3), TopPEntropy(0.8, reaching=False), TopPEntropy(0.8), TopTwoRatio())
LOSS_TYPES = ("bnpo", "cispo", "dapo", "dr_grpo", "grpo", "luspo", "sapo", "vespo")


def few(cases, number: int = 1) -> list:
    """The first of some cases; the others run in `make test-slow` alone."""
    return [case if at < number else pytest.param(case, marks=pytest.mark.slow) for at, case in enumerate(cases)]


def sums() -> Dataset:
    """Sixteen prompts with a number as solution."""
    return Dataset.from_dict({"prompt": [f"{n}=" for n in range(16)], "solution": [str(n) for n in range(16)]})


def sums_with_columns() -> Dataset:
    """The same with what rollout rules read: how hard a prompt is, and what may be put in the place of completions."""
    stored = [[f"{n}a", "a" * 9, f"{n}ab"] if n % 2 == 0 else [] for n in range(16)]
    return sums().add_column("hard", [float(n * 5 % 16) for n in range(16)]).add_column("stored", stored)


def even_length(completions, **kwargs) -> list[float]:
    """A reward that a random policy gets about half of the time."""
    return [float(len(completion) % 2 == 0) for completion in completions]


def number(prompt: str) -> int:
    """The number in a prompt."""
    return int(prompt.removesuffix("="))


def halves(prompts, completions, **kwargs) -> list[float]:
    """Prompts below 8 are solved by every completion, the others by those of even length."""
    even = even_length(completions)
    return [1.0 if number(prompt) < 8 else reward for prompt, reward in zip(prompts, even, strict=True)]


def build_trainer(
    model,
    dataset,
    output_dir,
    plain=False,
    trainer_class=None,
    config_class=None,
    reward_funcs=even_length,
    **arguments,
):
    """A trainer on the CPU; `plain` for TRL's own. What `GRPOTrainer` takes besides `args` goes to it."""
    settings = {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "bf16": False,
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "seed": 3,
        **arguments,
    }
    of_trainer = {"callbacks", "eval_dataset", "peft_config", "rollout_func", "tools", "environment_factory"}
    of_trainer = (of_trainer | {"processing_class"}) & settings.keys()
    own = {name: settings.pop(name) for name in of_trainer}
    default_config, default_class = (GRPOConfig, GRPOTrainer) if plain else (EntropyGRPOConfig, EntropyGRPOTrainer)
    args = (config_class or default_config)(**settings)
    trainer = (trainer_class or default_class)(
        model=model, reward_funcs=reward_funcs, args=args, train_dataset=dataset, **own
    )
    # The training loop sets these before it asks for a loss; a test may ask for one without the loop
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    return trainer


def parameters(trainer) -> dict[str, torch.Tensor]:
    """A copy of every parameter of the model that a trainer has trained."""
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of named tensors are equal, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logged(trainer, name: str) -> list[float]:
    """The values of one metric, log by log."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def batch(seed: int = 0, rows: int = 8, prompt: int = 3, length: int = 6, vocabulary: int = 22) -> dict:
    """Inputs of `_compute_loss`: ragged completions, advantages of both signs and zero."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length) < lengths).int()
    advantages = torch.randn(rows, generator=generator)
    advantages[rows // 2] = 0.0
    return {
        "prompt_ids": torch.randint(2, vocabulary, (rows, prompt), generator=generator),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.int),
        "completion_ids": torch.randint(2, vocabulary, (rows, length), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": advantages,
        "num_items_in_batch": mask.sum(),
    }


def fresh_logps(trainer, inputs: dict) -> torch.Tensor:
    """The model's log-probabilities of a batch's completions, by TRL's forward."""
    with torch.no_grad():
        return GRPOTrainer._get_per_token_logps_and_entropies(
            trainer,
            trainer.model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].size(1),
        )[0]


def moved(logps: torch.Tensor, by: float, seed: int = 1) -> torch.Tensor:
    """Log-probabilities of another policy, about `by` away and still at most 0."""
    noise = torch.randn(logps.shape, generator=torch.Generator().manual_seed(seed), dtype=logps.dtype)
    return (logps + by * noise).clamp(max=0.0)


def loss_and_gradients(trainer, inputs: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One loss, and its gradient by every parameter."""
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm of `b`."""
    return ((a - b).norm() / b.norm()).item()


def random_tokens(seed: int = 0, rows: int = 4, length: int = 5, dtype=torch.float32, **changes) -> Tokens:
    """Tokens of a ragged batch, with confident and unlikely ones, advantages of both signs and zero."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return (torch.rand(rows, length, generator=generator) * (high - low) + low).to(dtype)

    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    lengths[0] = length
    logps = torch.where(uniform(0, 1) < 0.4, uniform(-0.05, 0.0), uniform(-4.0, -0.1))
    advantages = torch.randn(rows, 1, generator=generator).to(dtype)
    advantages[:1], advantages[1:2] = advantages[:1].abs(), -advantages[1:2].abs()
    advantages[-1] = 0.0
    entropies = uniform(0.0, 3.0)
    group_rewards = torch.randint(0, 2, (rows, 5), generator=generator).to(dtype)
    group_rewards[:, 0], group_rewards[:, 1] = 1.0, 0.0
    group_rewards[-1] = 1.0  # all correct, so without advantage
    facts = {
        "logps": logps,
        "old_logps": (logps + uniform(-0.5, 0.5)).clamp(max=0.0),
        "entropies": entropies,
        "advantages": advantages.expand(rows, length).clone(),
        "mask": torch.arange(length) < lengths,
        "completions": torch.randint(2**62, (rows,), generator=generator),
        "old_entropies": (entropies + uniform(-0.2, 0.2)).clamp(min=0.0),
        "ref_logps": (logps + uniform(-0.5, 0.5)).clamp(max=0.0),
        "group_rewards": group_rewards,
        "expected_discriminator": uniform(-0.2, 0.2),
        "entropies_at_one": uniform(0.0, 3.0),
        "rewards": group_rewards[:, 2],
        "prompt_entropies": torch.where(uniform(0, 1) < 0.3, torch.nan, uniform(0.0, 3.0)),
        "offline": torch.arange(rows) % 4 == 1,
        "group_logps": uniform(-3.0, 0.0),
        "sampling_logps": torch.where(uniform(0, 1) < 0.2, torch.nan, (logps + uniform(-0.5, 0.5)).clamp(max=0.0)),
        "vocabulary": seen_in(uniform(1.0, 5.0).unsqueeze(-1) * torch.randn(9, generator=generator).to(dtype)),
    }
    return Tokens(**{**facts, **changes})


def seen_in(logits: torch.Tensor, sampled: torch.Tensor | None = None, looks=LOOKS) -> dict[Look, torch.Tensor]:
    """Looks at the distributions of logits `(B, T, V)`; the sampled tokens are some if none are given."""
    rows, length, words = logits.shape
    if sampled is None:
        sampled = torch.arange(rows * length).view(rows, length) % words
    logps = logits.log_softmax(-1).flatten(0, 1)
    at = Distributions(logps, sampled.long().flatten(), logps.new_ones(len(logps), 1))
    seen = {look: look(at).view(rows, length) for look in looks}
    return {look: value if look.has_gradient else value.detach() for look, value in seen.items()}


def entropies_by_model(model, inputs: dict, temperature: float) -> torch.Tensor:
    """`(B, T)` entropies of the completions of TRL's batch, float64, from a forward of their own."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention).logits
    length = inputs["completion_ids"].size(1)
    logps = (logits[:, -length - 1 : -1].double() / temperature).log_softmax(-1)
    return -(logps.exp() * logps).sum(-1)


class Given(GRPOTrainer):
    """Instead of what the model would generate, completions that the prompt and its repetition decide."""

    truncated_at = ()  # optimizer steps at which no completion ends

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        completions, before = [], self.accelerator.process_index * len(prompt_ids)
        for row, ids in enumerate(prompt_ids, start=before):
            generator = torch.Generator().manual_seed(hash((*ids, row % self.num_generations + 1)))
            length = int(torch.randint(1, self.max_completion_length, (), generator=generator))
            words = torch.randint(2, 22, (length,), generator=generator).tolist()
            completions.append(words if self.state.global_step in self.truncated_at else [*words, 1])
        return completions, None


class PlainGiven(Given):
    """TRL's trainer on given completions."""


class EntropyGiven(EntropyGRPOTrainer, Given):
    """The package's trainer on given completions."""


class OfItsStep(Rule):
    """A weight of 1, and an error for a micro-batch that is not among those of its optimizer step."""

    needs = frozenset({"pool", "completions"})

    def __call__(self, tokens):
        assert any(torch.equal(tokens.completions, batch.completions) for batch in tokens.pool.batches)
        return torch.ones_like(tokens.logps)


class Forward(GRPOTrainer):
    """TRL's trainer whose policy is `self.logits`, `(B, T, V)`: a table, one row per position."""

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
        logps = self.logits.log_softmax(-1)
        chosen = logps.gather(-1, input_ids[:, -logits_to_keep:].unsqueeze(-1)).squeeze(-1)
        return chosen, -(logps.exp() * logps).sum(-1), None


class PlainTable(Forward):
    """TRL's loss on a table of logits."""


class EntropyTable(EntropyGRPOTrainer, Forward):
    """The package's loss on a table of logits."""

    def needs(self):
        needs = super().needs()
        return needs - looks_among(needs) - NAMED.keys()  # there is no model to look at

    def of_vocabulary(self, needs, entropies, inputs):
        looks = looks_among(super().needs()) | {NAMED["expected_discriminator"]}  # which measures may ask for
        seen = seen_in(self.logits, inputs["completion_ids"], looks)
        return {name: seen[look].detach() for name, look in NAMED.items() if look in seen} | {"vocabulary": seen}


def table(logits: torch.Tensor, plain: bool = False, **arguments):
    """A trainer that has only what a loss reads: TRL's real `_compute_loss`, one process, no model."""
    trainer = object.__new__(PlainTable if plain else EntropyTable)
    settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none", **arguments}
    settings = {"max_completion_length": logits.shape[1], **settings}
    args = (GRPOConfig if plain else EntropyGRPOConfig)(**settings)
    trainer.logits = logits.detach().clone().requires_grad_()
    trainer.args = args
    for name in ("beta", "loss_type", "importance_sampling_level", "top_entropy_quantile", "max_completion_length"):
        setattr(trainer, name, getattr(args, name))
    trainer.off_policy_mask_threshold = args.off_policy_mask_threshold
    trainer.epsilon_low = args.epsilon
    trainer.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    trainer.entropy_coef, trainer.temperature = args.entropy_coef, args.temperature
    trainer.use_adaptive_entropy = args.use_adaptive_entropy
    trainer._entropy_bonus_enabled = args.entropy_coef != 0.0 or args.use_adaptive_entropy
    trainer.use_vllm = trainer.aux_loss_enabled = False
    trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
    trainer.controllers = []
    trainer.model = SimpleNamespace(training=True)
    trainer.state = SimpleNamespace(global_step=0)
    trainer.accelerator = SimpleNamespace(
        num_processes=1,
        sync_gradients=True,
        gather=lambda values: values,
        reduce=lambda values, reduction: values,
    )
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    if not plain:
        trainer.rules = Objective(args.control.sections, [], set())
        trainer.measures = StepMeasures(args.entropy_measures)
        trainer.measured_needs, trainer.seam = frozenset(), Seam(trainer)
        trainer.seam.facts._of_vocabulary = trainer.of_vocabulary
    return trainer


def table_gradient(trainer, inputs: dict) -> torch.Tensor:
    """`dJ / dlogits` of the objective J, the negative loss."""
    loss = trainer._compute_loss(trainer.model, inputs)
    (gradient,) = torch.autograd.grad(-loss, trainer.logits)
    return gradient


def entropy_of_table(logits: torch.Tensor) -> torch.Tensor:
    logps = logits.log_softmax(-1)
    return -(logps.exp() * logps).sum(-1)


def chosen_logps(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, ids.long().unsqueeze(-1)).squeeze(-1)


def table_case(seed: int = 5, words: int = 7, scale: float = 1.0) -> tuple[dict, torch.Tensor]:
    """An off-policy batch with a reference policy, and the table of logits of the current one, in float64."""
    given = batch(seed=seed, vocabulary=words)
    logits = torch.randn(8, 6, words, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits *= scale
    logps = chosen_logps(logits, given["completion_ids"])
    given["advantages"] = given["advantages"].double()
    given["old_per_token_logps"] = moved(logps, by=0.4)
    given["ref_per_token_logps"] = moved(logps, by=0.3, seed=2)
    return given, logits
