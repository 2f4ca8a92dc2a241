"""What a type checker knows of the public names; `make check` reads this, nothing runs it."""

from typing import Any, assert_type

from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig

from trl_entropy import (
    EntropyCallback,
    EntropyController,
    EntropyGRPOConfig,
    EntropyGRPOTrainer,
    EntropyWatchdog,
    Law,
    LiveView,
    PassAtKCallback,
    Pool,
    Recorder,
    RolloutRule,
    Rule,
    SeamError,
    Tokens,
    knob,
    with_entropy_control,
)
from trl_entropy.build import Control


args = EntropyGRPOConfig(output_dir="out", entropy_control="hold", positive_advantage_coef=0.5, num_generations=4)


def reward(completions: list[str], **columns: Any) -> list[float | None]:
    return [float(len(completion)) for completion in completions]


trainer = EntropyGRPOTrainer("model", [reward], args, callbacks=[EntropyWatchdog(), Recorder()])
EntropyGRPOTrainer("model", no_such_argument=1)  # type: ignore[call-arg]
EntropyGRPOConfig(entropy_contol="hold")  # type: ignore[call-arg]

assert_type(args, EntropyGRPOConfig)
assert_type(args.control, Control)
assert_type(trainer, EntropyGRPOTrainer)
assert_type(trainer.step_entropy(), float | None)
assert_type(with_entropy_control(GRPOTrainer), type[EntropyGRPOTrainer])
assert_type(with_entropy_control(GRPOConfig), type[EntropyGRPOConfig])
assert_type(with_entropy_control(RLOOConfig), type[RLOOConfig])
assert_type(knob(0.5, low=0.0), float)
assert_type(EntropyWatchdog(floor=0.1).attach(trainer), EntropyWatchdog)
assert_type(EntropyCallback("pi", "entropy_coef", target=0.3), EntropyCallback)

classes: list[type] = [EntropyController, Law, LiveView, PassAtKCallback, RolloutRule, Rule, SeamError]


def facts(tokens: Tokens) -> Tensor:
    """A rule, as a function."""
    assert_type(tokens.entropies, Tensor)
    assert_type(tokens.pool, Pool | None)
    return tokens.entropies
