"""TRL's asynchronous trainer with entropy control, from wherever the installed TRL has it."""

from .families import ASYNC_GRPO
from .wrap import with_entropy_control


EntropyAsyncGRPOConfig = with_entropy_control(ASYNC_GRPO.config_class())
EntropyAsyncGRPOTrainer = with_entropy_control(ASYNC_GRPO.trainer_class())
