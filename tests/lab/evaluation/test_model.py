"""Models by their name: whole ones, and the adapters that a run with `use_peft` leaves."""

import importlib.machinery
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from trl_entropy.commands import cli
from trl_entropy.lab.evaluation.folder import read_lines
from trl_entropy.lab.evaluation.model import context_of, load, source_of, tokenizer_of, weights_of


IDS = torch.tensor([[4, 5, 6, 7, 8, 1, 0, 9]])


pytestmark = pytest.mark.usefixtures("alone")


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def adapted(base: str, **settings):
    """A model whose adapter changes what it says."""
    torch.manual_seed(1)
    settings = {"target_modules": ["q_proj"], **settings}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


# Adapters


@pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|tied weights|save_embedding_layers)")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("settings", "merged"),
    [
        ({}, True),
        ({"use_dora": True}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}, False),
        ({"modules_to_save": ["embed_tokens"]}, True),
        ({"trainable_token_indices": [4, 5]}, True),
    ],
)
def test_loaded_adapter_says_what_it_said_in_training(model_dir, tied, settings, merged):
    config = AutoConfig.from_pretrained(model_dir)
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config)
    base.save_pretrained("base")
    trained = adapted("base", **settings)
    trained.save_pretrained("adapter")
    found = load(source_of("adapter"), "float32")
    torch.testing.assert_close(logits(found), logits(trained), rtol=0, atol=2e-5)  # merged in float32
    assert (logits(found) - logits(base)).abs().max() > 1
    assert merged == (not any("lora" in name or "delta" in name for name, _ in found.named_parameters()))
    assert found.dtype == torch.float32


def test_source_of_a_model_is_itself(model_dir):
    source = source_of(model_dir)
    assert source.base is None
    assert context_of(source) == AutoConfig.from_pretrained(model_dir).max_position_embeddings
    found = load(source, "bfloat16")
    assert found.dtype == torch.bfloat16


def test_tokenizer_is_that_of_the_adapter_or_else_of_its_base(model_dir):
    adapted(model_dir).save_pretrained("adapter")
    source = source_of("adapter")
    assert tokenizer_of(source).chat_template is None
    assert tokenizer_of(source)("12=")["input_ids"] == AutoTokenizer.from_pretrained(model_dir)("12=")["input_ids"]
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained("adapter")
    assert tokenizer_of(source).chat_template == tokenizer.chat_template
    assert context_of(source) == context_of(source_of(model_dir))


def test_weights_are_those_of_adapter_and_base(model_dir):
    shutil.copytree(model_dir, "base")
    adapted("base").save_pretrained("adapter")
    before = weights_of(source_of("adapter"))
    assert before != weights_of(source_of("base"))
    for name in ("base/model.safetensors", "adapter/adapter_model.safetensors"):
        content = bytearray(Path(name).read_bytes())
        content[-1] ^= 1
        Path(name).write_bytes(content)
        assert weights_of(source_of("adapter")) != before
        before = weights_of(source_of("adapter"))


# The command


FLAGS = ["--dataset", "problems.jsonl", "--num_samples", "4", "--max_new_tokens", "4", "--answer_from", "last_number"]
FLAGS += ["--grading_workers", "1", "--resamples", "50"]


def evaluate(model: str, output_dir: str, *more: str) -> None:
    cli.main(["eval", "--model", model, "--output_dir", output_dir, *FLAGS, *more])


@pytest.fixture
def problems() -> str:
    rows = [{"prompt": f"{n}+1=", "solution": str(n + 1)} for n in range(8)]
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "problems.jsonl"


def test_adapter_that_a_run_leaves_is_evaluated_as_the_merged_model(model_dir, problems):
    run = ["--model_name_or_path", model_dir, "--dataset_name", problems, "--output_dir", "run", "--use_peft", "true"]
    run += ["--report_to", "none", "--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false"]
    run += ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "4"]
    run += ["--max_steps", "2", "--save_steps", "1", "--learning_rate", "0.1", "--lr_scheduler_type", "constant"]
    cli.main(["grpo", *run, "--reward_funcs", "last_number_reward", "--disable_tqdm", "true", "--lora_dropout", "0"])
    scores = {}
    for name in ("run", "run/checkpoint-1"):
        merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), name).merge_and_unload()
        merged.save_pretrained("merged")
        AutoTokenizer.from_pretrained(model_dir).save_pretrained("merged")
        for model in (name, "merged"):
            evaluate(model, f"of_{model}/{name}")
        lines, expected = (read_lines(Path(f"of_{model}", name, "samples.jsonl")) for model in (name, "merged"))
        assert [line.response for line in lines] == [line.response for line in expected]
        assert [line.logprob for line in lines] == pytest.approx([line.logprob for line in expected], abs=1e-6)
        results = (json.loads(Path(f"of_{model}", name, "results.json").read_text()) for model in (name, "merged"))
        found, whole = (result["results"]["problems.jsonl"] for result in results)
        assert found == pytest.approx(whole, abs=1e-6, nan_ok=True)
        scores[name] = found["response_entropy,none"]
    evaluate(model_dir, "of_base")
    base = json.loads(Path("of_base/results.json").read_text())["results"]["problems.jsonl"]
    assert len({*scores.values(), base["response_entropy,none"]}) == 3  # two checkpoints and the base differ


def refusal(capsys, model: str, *more: str) -> str:
    with pytest.raises(SystemExit) as ended:
        evaluate(model, "out", *more)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("a model is loaded"))


def test_adapter_whose_base_is_not_there_is_refused_with_one_line(model_dir, problems, capsys, request):
    shutil.copytree(model_dir, "base")
    adapted("base").save_pretrained("adapter")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained("adapter")
    shutil.rmtree("base")
    request.getfixturevalue("no_model")
    line = refusal(capsys, "adapter")
    assert line.startswith("trl-entropy eval: error: the base 'base' of the adapter 'adapter' cannot be loaded: ")


def test_adapter_that_adds_tokens_to_the_prompt_is_refused_with_one_line(model_dir, problems, capsys, request):
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    settings = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(model, settings).save_pretrained("adapter")
    request.getfixturevalue("no_model")
    assert refusal(capsys, "adapter").endswith(
        "the adapter 'adapter' does not consist of weights, but is PROMPT_TUNING: it cannot be merged"
    )


def test_vllm_gets_no_adapter(model_dir, problems, capsys, monkeypatch, request):
    adapted(model_dir).save_pretrained("adapter")
    request.getfixturevalue("no_model")
    module = ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", module)
    line = refusal(capsys, "adapter", "--engine", "vllm")
    assert (
        "engine=vllm needs a whole model, but 'adapter' is an adapter: save the result of peft's merge_and_unload()"
        in line
    )
