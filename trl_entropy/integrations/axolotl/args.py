"""The flags in an Axolotl config and in its training arguments."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from ...config import EntropyFlags
from ...families import GRPO, Family


_NO_BONUS = "Axolotl's asynchronous loss has no entropy bonus"
_SAMPLED_BESIDE = "it may sample while it trains"
ASYNC = replace(
    GRPO,
    name="AxolotlAsyncGRPOTrainer",
    config="AxolotlAsyncGRPOConfig",
    homes=("axolotl.core.trainers.grpo",),
    lacks={
        "entropy_coef": _NO_BONUS,
        "entropy_gradient": "Axolotl's asynchronous loss takes entropies without their gradient",
        "temperature": _SAMPLED_BESIDE,
        **{f"acts.{what}": _SAMPLED_BESIDE for what in ("problems", "temperatures", "completions", "groups")},
    },
    idle=dict.fromkeys(("entropy_coef", "use_adaptive_entropy"), _NO_BONUS),
)


# Settings of the block `trl` with which the facts about a rollout are not those of its batch
_OWN_ROLLOUTS = {
    "streaming_partial_batch": (False, "a rollout is scored in parts, and the facts are of the whole of it"),
    "reward_num_workers": (1, "rewards are taken in other processes, which do not hand them to the batch"),
    "replay_buffer_size": (0, "it puts completions of earlier rollouts into the batch, without their rewards"),
}


@dataclass
class AxolotlFlags(EntropyFlags):
    """[`EntropyFlags`] as Axolotl mixes them into the training arguments of all its trainers."""

    own_family: ClassVar[Family] = GRPO

    def __init_subclass__(cls, **kwargs):
        cls.own_family = ASYNC if cls.__name__ == ASYNC.config else GRPO
        super().__init_subclass__(**kwargs)


Block = create_model(
    "Block",
    __config__=ConfigDict(extra="forbid"),
    **{
        flag.name: (flag.type | None, Field(default=None, description=flag.metadata["help"]))
        for flag in fields(EntropyFlags)
    },
)


class EntropyArgs(BaseModel):
    """The block `trl_entropy`. Raises `ValueError` for Axolotl settings that entropy control does not work with."""

    trl_entropy: Block | None = None

    @model_validator(mode="after")
    def check_trl_entropy(self):
        if self.trl_entropy is None:
            return self
        if self.rl not in ("grpo", "gdpo"):
            raise ValueError(f"trl_entropy needs rl: grpo or gdpo, got {self.rl}: drop the block")
        if (self.context_parallel_size or 1) > 1:
            raise ValueError("trl_entropy does not work with context_parallel_size > 1: set it to 1")
        twice = self.trl_entropy.model_fields_set & (self.trl.model_fields_set if self.trl else set())
        if twice:
            raise ValueError(f"{', '.join(twice)} is set in both trl and trl_entropy: set it in one of them")
        if self.trl and (self.trl.async_prefetch or self.trl.use_data_producer):
            self._check_async()
        return self

    def _check_async(self):
        if self.trl.skip_zero_advantage_batches is not False:
            raise ValueError(
                "with trl_entropy the asynchronous trainer must not read advantages before its forward pass: set "
                "trl.skip_zero_advantage_batches: false"
            )
        if self.batch_flattening:
            raise ValueError(
                "trl_entropy does not work with batch_flattening, which runs its own forward pass: turn it off"
            )
        for name, (off, why) in _OWN_ROLLOUTS.items():
            if (value := getattr(self.trl, name)) not in (None, off):
                raise ValueError(f"trl_entropy does not act with trl.{name}={value}: {why}. Set it to {off}")
