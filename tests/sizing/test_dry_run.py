"""Every recipe is parsed, built without weights and planned; and the verb plan."""

import json
import re
from pathlib import Path

import pytest
import yaml

import trl_entropy.grpo
from trl_entropy.cli import main
from trl_entropy.sizing.command import launched_as


REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
MESSAGES = [{"role": "user", "content": "What is {} + 1?"}]
# A row of each dataset that is not in the package, with its own columns
ROWS = {
    "openai/gsm8k": {"question": "What is {} + 1?", "answer": "#### 2"},
    "BytedTsinghua-SIA/DAPO-Math-17k": {"prompt": MESSAGES, "reward_model": {"ground_truth": "2", "style": "rule"}},
    "DigitalLearningGmbH/MATH-lighteval": {"problem": "What is {} + 1?", "solution": "\\boxed{2}"},
    "AI-MO/NuminaMath-TIR": {"problem": "What is {} + 1?", "solution": "\\boxed{2}", "messages": MESSAGES},
    "agentica-org/DeepScaleR-Preview-Dataset": {"problem": "What is {} + 1?", "answer": "2", "solution": "so 2"},
    "hard_problems.jsonl": {"prompt": "What is {} + 1?", "solution": "2", "solutions": ["so \\boxed{2}"]},
    "out/dapo_math_17k_entropy.jsonl": {"prompt": "What is {} + 1?", "solution": "2", "semantic_entropy": 0.5},
    "out/chain_sum/train.jsonl": {"prompt": "{} + 1 =", "solution": "2"},
}


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """Nothing may load a model, and files are looked for in an empty folder."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(trl_entropy.grpo, "build_trainer", refuse)
    monkeypatch.chdir(tmp_path)


def write_rows(path: str, row: dict, count: int) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row)
    Path(path).write_text("\n".join(text.replace("{}", str(number)) for number in range(count)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_dry_run(no_weights, path, capsys):
    recipe = yaml.safe_load(path.read_text())
    if recipe["dataset_name"].startswith("reasoning-gym:"):
        pytest.importorskip("reasoning_gym", reason='pip install "trl-entropy[data]"')
    here = {"bf16": False, "use_cpu": True, "report_to": "none"}
    if recipe["dataset_name"] in ROWS:
        write_rows("rows.jsonl", ROWS[recipe["dataset_name"]], 700 + recipe.get("subset_size", 0))
        here |= {"dataset_name": "rows.jsonl", "dataset_config": None, "eval_dataset_name": None}
    if recipe["model_name_or_path"].startswith("out/"):  # fetched, as a folder
        here |= {"model_name_or_path": "embedded"}
    for benchmark in recipe.get("decontaminate", []):
        write_rows(f"benchmarks/{benchmark}.jsonl", {"problem": "Who was it?", "answer": "1"}, 1)
        here |= {"benchmarks_dir": "benchmarks"}
    if "subset_size" in recipe:
        here |= {"subset_by": "random"}
    Path("recipe.yaml").write_text(yaml.safe_dump({**recipe, **here}))
    main(["grpo", "--config", "recipe.yaml", "--dry_run", "true"])
    printed = capsys.readouterr().out
    for part in ("problems  ", "rewards  ", "Memory of one of 1 GPUs", "optimizer steps of", "an optimizer step"):
        assert part in printed
    for section in ("token_weights", "loss_terms", "rollout_rules"):
        assert (section in printed) or not recipe.get(section)
    for name in recipe.get("controllers") or {}:
        assert f"controller  {name}: " in printed


def test_plan_needs_no_problems(no_weights, capsys):
    recipe = str(REPOSITORY / "recipes" / "qwen2.5_math_7b_dapo_math.yaml")
    main(["plan", "--config", recipe, "--gpus", "8", "--sharding", "fsdp", "--problems", "17398"])
    printed = capsys.readouterr().out
    assert "7.62B x 4 B / 8" in printed
    # 17398 problems in steps of 8 x 16 x 4 / 8 prompts
    assert "272 optimizer steps of 64 prompts: " in printed
    assert "fits into 80 GB (h100)" in printed
    main(["plan", "--config", recipe, "--gpu", "a10g"])
    printed = capsys.readouterr().out
    assert "does not fit into 24 GB (a10g)" in printed
    assert "--problems gives the hours of the run" in printed


def test_plan_of_an_adapter_counts_what_it_trains(no_weights, capsys):
    main(["plan", "--config", str(REPOSITORY / "recipes" / "qwen2.5_1.5b_math_lora.yaml")])
    # rank 32 on q, k, v, o and the three of the MLP, in 28 layers
    hidden, key_values, intermediate = 1536, 256, 8960
    pairs = 2 * (hidden + hidden) + 2 * (hidden + key_values) + 3 * (hidden + intermediate)
    assert 28 * 32 * pairs == 36_929_536
    assert "36.9M x 2 B" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--gpu", "h1000"], "unknown gpu 'h1000'. Did you mean 'h100'?"),
        (["--sharding", "zero4"], "unknown sharding 'zero4'. Did you mean 'zero3'?"),
        (["--gpus", "0"], "gpus must be at least 1, got 0"),
        (["--problems", "-3"], "problems must be at least 1, got -3"),
        (["--model_name_or_path", "nobody/nothing", "--dataset_name", "x"], "the config of model 'nobody/nothing'"),
        (["--entropy_control", "entropyguided"], "Did you mean 'entropy_guided'?"),
    ],
)
def test_wrong_flag_is_one_line(no_weights, capsys, given, message):
    with pytest.raises(SystemExit) as ended:
        main(["plan", *given])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("trl-entropy plan: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "launched"),
    [
        ({}, (1, "none")),
        ({"WORLD_SIZE": "4", "ACCELERATE_USE_FSDP": "true"}, (4, "fsdp")),
        ({"WORLD_SIZE": "16", "ACCELERATE_USE_DEEPSPEED": "true"}, (16, "zero2")),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, (1, "zero3")),
    ],
)
def test_dry_run_knows_how_it_was_launched(environment, launched):
    assert launched_as(environment) == launched


SIZED = re.compile(r"^# size: (\d+) x ([\w-]+), (?:(\w+), )?(\d+) problems: (\d+) GB each, ([\d.]+) hours", re.M)
LARGE = [path for path in RECIPES if SIZED.search(path.read_text())]


def test_recipes_of_other_models_say_what_they_were_sized_for():
    hubs = [path for path in RECIPES if yaml.safe_load(path.read_text())["model_name_or_path"].count("/") == 1]
    assert set(hubs) - set(LARGE) == {path for path in hubs if "smollm2" in path.stem}
    assert len(LARGE) > 20


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_the_size_of_a_recipe_is_that_of_its_plan(no_weights, path, capsys):
    gpus, gpu, sharding, problems, memory, hours = SIZED.search(path.read_text()).groups()
    size = ["--gpus", gpus, "--gpu", gpu, "--sharding", sharding or "none", "--problems", problems]
    main(["plan", "--config", str(path), *size])
    printed = capsys.readouterr().out
    assert "\nfits into" in printed
    worst = re.search(r"at the worst moment │ +([\d.e+]+)", printed)[1]
    assert float(worst) == pytest.approx(float(memory), abs=0.51)  # rounded to a GB
    assert float(re.search(r"prompts: ([\d.]+) hours", printed)[1]) == pytest.approx(float(hours), rel=0.05)
