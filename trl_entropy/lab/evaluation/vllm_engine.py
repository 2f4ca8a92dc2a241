"""Drawing responses with vLLM, where it is installed."""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from .sampling import Row, Sampling


class VLLMEngine:
    """
    An engine for [`~evaluation.drawing.Policy`]; vLLM keeps what it has read of a prompt for the prompt's other rows.

    Args:
        model (`str`):
            Folder, or name on the hub.
        revision (`str`, *optional*):
            Of a model of the hub.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Of weights and activations.
        memory (`float`, *optional*, defaults to `0.5`):
            Share of the GPU's memory for vLLM; the rest is for the model that scores the responses.
    """

    def __init__(self, model: str, revision: str | None = None, dtype: str = "auto", memory: float = 0.5):
        check_vllm()
        from vllm import LLM

        # "vllm": what the model's own settings do to the distribution is left out
        self.llm = LLM(
            model=model, revision=revision, dtype=dtype, gpu_memory_utilization=memory, generation_config="vllm"
        )

    def __call__(self, prompts: Sequence[list[int]], rows: Sequence[Row], sampling: Sampling) -> list[list[int]]:
        """Tokens of a response for each row."""
        from vllm import SamplingParams

        outputs = self.llm.generate(
            [{"prompt_token_ids": prompts[row.problem]} for row in rows],
            [
                SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=int(np.random.SeedSequence((sampling.seed, *row)).generate_state(1)[0]),
                    skip_special_tokens=False,
                )
                for row in rows
            ],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]


def check_vllm() -> None:
    """Raise `ValueError` where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ValueError(
            "engine=vllm needs vLLM, which is not installed: pip install vllm, or take engine=transformers"
        )
