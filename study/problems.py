"""The problems of the study: the embedded policy's numbers, more of them than the recipes train on."""

import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_entropy.data import EMBEDDED_POLICY, held_out_problems
from trl_entropy.data.splits import known_numbers, problem_of, prompt_of
from trl_entropy.lab.data.diversify import choose_kmeans


NARROW = 16
CHAIN_SUM = Path("out") / "chain_sum"  # of `trl-entropy make-chain-sum`
SYSTEM = {"role": "system", "content": "Solve."}  # in place of the model's own, which is twice as long


def write(folder: Path, seeds: list[int]) -> None:
    """All problems to train on, the held-out ones, and for each seed a subset by K-means and one of neighbours."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = sorted(known_numbers())
    _save(folder / "all.jsonl", numbers)
    held_out_problems().to_json(folder / "held_out.jsonl")
    embeddings = None
    for seed in seeds:
        if not (folder / f"kmeans_{seed}.jsonl").is_file():
            embeddings = _hidden_states(numbers) if embeddings is None else embeddings
            _save(folder / f"kmeans_{seed}.jsonl", [numbers[i] for i in choose_kmeans(embeddings, NARROW, seed)])
        start = random.Random(seed).randrange(len(numbers) - NARROW + 1)
        _save(folder / f"narrow_{seed}.jsonl", numbers[start : start + NARROW])


def write_language(folder: Path) -> None:
    """The language model's problems, as conversations. Raises `ValueError` if they have not been made."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        source = CHAIN_SUM / f"{split}.jsonl"
        if not source.is_file():
            raise ValueError(f"there is no file '{source}': make study-language-model makes it")
        rows = map(json.loads, source.read_text().splitlines())
        talks = ({**row, "prompt": [SYSTEM, {"role": "user", "content": row["prompt"]}]} for row in rows)
        (folder / f"smollm2_{split}.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))


def _save(path: Path, numbers: list[int]) -> None:
    path.write_text("".join(json.dumps(problem_of(number)) + "\n" for number in numbers))


def _hidden_states(numbers: list[int]):
    """The untrained policy's last hidden state at the last token of each problem, `(N, D)`, rows of length 1."""
    tokenizer = AutoTokenizer.from_pretrained(str(EMBEDDED_POLICY))
    model = AutoModelForCausalLM.from_pretrained(str(EMBEDDED_POLICY), dtype=torch.float32).eval()
    batch = tokenizer([prompt_of(n) for n in numbers], return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[-1][:, -1]
    return torch.nn.functional.normalize(states, dim=-1).numpy()
