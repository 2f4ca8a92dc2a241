"""Every command of a page that needs no Hub, no GPU and no minute runs as it is written; trainings for two steps."""

import json
import logging
import multiprocessing
import re
import shlex
import shutil
import sys
from pathlib import Path

import datasets
import pytest
from processes import preloaded

from trl_entropy.commands import cli


REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
# What a command names that is not here: models and problems of the Hub, and what only an extra can make
ELSEWHERE = ("Qwen/", "qwen2.5", "smol", "gsm8k", "data_science", "make-chain-sum", "--benchmarks", "--against")
SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--num_generations", "4", "--logging_steps", "1"]
FEWER = {
    "grpo": [*SHORT, "--save_strategy", "steps", "--save_steps", "1"],
    "etpo": SHORT,
    "compare": [*SHORT, "--overwrite"],
    "report": ["--overwrite"],
    "eval": ["--limit", "4", "--num_samples", "2", "--max_new_tokens", "16", "--output_dir", "out/evaluated"],
}


def commands(text: str) -> list[str]:
    """The lines of shell code that begin with `trl-entropy`, each with its continuation lines."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text.replace("\\\n", " "), re.M | re.S)
    lines = (line.partition("#")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("trl-entropy ")]


WRITTEN = list(dict.fromkeys(line for page in PAGES for line in commands(page.read_text())))
HERE = [line for line in WRITTEN if not any(name in line for name in ELSEWHERE)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with what the commands read: recipes, problems, and a run with a checkpoint under every name."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(REPOSITORY / "recipes", folder / "recipes")
    rows = [{"prompt": f"{n}+1=", "solution": str(n + 1), "answer": str(n + 1)} for n in range(640)]
    for name in ("problems", "once", "clean", "small", "train", "held_out"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text("base: recipes/grpo.yaml\noutput_dir: out/mine\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        cli.main(["grpo", "--config", "mine.yaml", *FEWER["grpo"]])
        evaluated = ["--model_name_or_path", "out/mine", "--dataset_name", "problems.jsonl"]
        cli.main(["eval", *evaluated, *FEWER["eval"]])
    for name in ("hold", "grpo", "compare/grpo", "compare/hold"):
        shutil.copytree(folder / "out" / "mine", folder / "out" / name)
    shutil.copytree(folder / "out" / "evaluated", folder / "out" / "eval_after")
    (folder / "out" / "evaluated").rename(folder / "out" / "eval")
    return folder


def marked(line: str):
    # The first evaluates before and after, and test_compare.py does it once; of the second one form is enough
    slow = "entropy compare" in line or ("entropy report" in line and line != "trl-entropy report out/hold")
    return pytest.param(line, id=line.removeprefix("trl-entropy "), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("line", [marked(line) for line in HERE])
@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_command_of_a_page_runs(prepared, monkeypatch, tmp_path, line):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: preloaded())  # starts at once
    level = logging.getLogger("trl_entropy").level
    verb, *rest = shlex.split(line.replace("$seed", "1"))[1:]
    if "--output" in rest:
        Path(rest[rest.index("--output") + 1]).unlink(missing_ok=True)
    if "--compare" not in rest:
        rest += FEWER.get(verb, [])
    try:
        cli.main([verb, *rest])
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        logging.getLogger("trl_entropy").setLevel(level)


def test_commands_are_found():
    text = "```bash\ntrl-entropy ls  # all\ntrl-entropy eval \\\n  --limit 4\nmake\n```\n`trl-entropy ls`"
    assert [shlex.split(line) for line in commands(text)] == [
        ["trl-entropy", "ls"],
        ["trl-entropy", "eval", "--limit", "4"],
    ]
    assert {line.split()[1] for line in HERE} >= {
        "grpo",
        "etpo",
        "compare",
        "report",
        "eval",
        "data",
        "check-rewards",
        "ls",
    }
