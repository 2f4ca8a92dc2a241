"""What vLLM is asked for, by a stand-in: it needs a GPU."""

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

import pytest

from trl_entropy.lab.evaluation.sampling import SampleId, Sampling, VLLMEngine, check_vllm


class LLM:
    """Answers with the prompt's tokens and the seed."""

    def __init__(self, **settings):
        self.settings = settings

    def generate(self, prompts, params, use_tqdm):
        self.params = params
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=(*prompt["prompt_token_ids"], one.seed))])
            for prompt, one in zip(prompts, params, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)


def test_rows_are_asked_for_with_their_own_seeds(vllm):
    engine = VLLMEngine("model", "main", "bfloat16", 0.4)
    assert engine.llm.settings == {
        "model": "model",
        "revision": "main",
        "dtype": "bfloat16",
        "gpu_memory_utilization": 0.4,
        "generation_config": "vllm",
    }
    ids = [SampleId(0, 0), SampleId(0, 1), SampleId(1, 0)]
    sampling = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=9)
    responses = engine([[4, 5], [6]], ids, sampling)
    assert [response[:-1] for response in responses] == [[4, 5], [4, 5], [6]]
    assert len({response[-1] for response in responses}) == 3
    assert engine([[4, 5], [6]], ids, sampling) == responses
    assert engine([[4, 5], [6]], ids, Sampling(seed=1)) != responses
    assert vars(engine.llm.params[0]) | {"seed": 0} == {
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 256,
        "seed": 0,
        "skip_special_tokens": False,
    }


def test_absence_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="engine=vllm needs vLLM, which is not installed: pip install vllm"):
        check_vllm()
