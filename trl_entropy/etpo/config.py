"""The flags of ETPO."""

from dataclasses import dataclass
from typing import ClassVar

from ..checks import check_number, unknown
from ..config import EntropyGRPOConfig, with_help
from ..families import Family
from .critic import KINDS
from .family import ETPO


@with_help
@dataclass
class EtpoConfig(EntropyGRPOConfig):
    r"""
    [`EntropyGRPOConfig`] for [`EtpoTrainer`], whose loss does not read advantages, so rules on tokens are refused.

    `max_completion_length` limits one action.

    Parameters:
        beta (`float`, *optional*, defaults to `0.01`):
            KL penalty > 0 towards the initial policy, in reward per nat.
        gamma (`float`, *optional*, defaults to `0.99`):
            Discount in [0, 1] from one action to the next; there is none within an action.
        critic (`str`, *optional*, defaults to `"model"`):
            The network with a value for every entry of the vocabulary. model: a copy of the policy; adapters: two more
            adapters of a policy with an adapter; head: two layers on the policy's hidden states.
        critic_learning_rate (`float`, *optional*, defaults to `1e-6`):
            Constant learning rate of the critic; its optimizer is a second one with the same optim.
        critic_max_grad_norm (`float`, *optional*, defaults to `10.0`):
            Norm to which the critic's gradient is clipped; 0 turns clipping off.
        polyak (`float`, *optional*, defaults to `0.995`):
            Share in [0, 1] of itself that the slow copy of the critic keeps at every optimizer step.
        huber_delta (`float`, *optional*, defaults to `10.0`):
            Error > 0 above which the critic's loss is linear.

    Raises `ValueError` for a value out of range, a rule on tokens, or a setting that would do nothing.
    """

    own_family: ClassVar[Family] = ETPO

    beta: float = 0.01
    gamma: float = 0.99
    critic: str = "model"
    critic_learning_rate: float = 1e-6
    critic_max_grad_norm: float = 10.0
    polyak: float = 0.995
    huber_delta: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta must be a number > 0, got {self.beta!r}: without it there is no reference policy")
        if self.critic not in KINDS:
            raise unknown("critic", self.critic, KINDS)
        check_number("gamma", self.gamma, 0.0, 1.0)
        check_number("polyak", self.polyak, 0.0, 1.0)
        check_number("critic_learning_rate", self.critic_learning_rate, 0.0)
        check_number("critic_max_grad_norm", self.critic_max_grad_norm, 0.0)
        if not self.huber_delta > 0:
            raise ValueError(f"huber_delta must be a number > 0, got {self.huber_delta!r}")
        self._refuse_what_does_nothing()

    def _refuse_plain(self, cls: type) -> None:
        raise TypeError(f"an EtpoConfig needs an EtpoTrainer: {cls.__name__} would not read its flags")

    def _refuse_what_does_nothing(self) -> None:
        control = self.control
        turned = {controller.knob.name for controller in control.controllers if controller.knob.section}
        given = {f"{section}.{name}" for section, rules in control.sections.items() for name in getattr(self, section)}
        acting = {
            f"{section}.{name}" for section, rules in control.sections.items() for name, rule in rules.items()
            if not rule.neutral
        }  # fmt: skip
        for name in sorted(turned | given | acting):
            raise ValueError(f"{name} acts on advantages or on TRL's loss, which ETPO does not use: drop it")
        if self.fp16:
            raise ValueError("fp16 only scales the policy's loss, and the critic has its own: set bf16")
        if self.sync_ref_model:
            raise ValueError("sync_ref_model would change the initial policy, which ETPO keeps: drop it")
