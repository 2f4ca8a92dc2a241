"""What `--dry_run` prints of every recipe, without weights."""

import json
from pathlib import Path

import pytest
import yaml

import trl_entropy.commands.grpo
from trl_entropy import EntropyGRPOConfig
from trl_entropy.commands.cli import main
from trl_entropy.commands.dry_run import geometry
from trl_entropy.commands.recipe import read_recipe


REPOSITORY = Path(__file__).parents[1]
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

    monkeypatch.setattr(trl_entropy.commands.grpo, "build_trainer", refuse)
    monkeypatch.chdir(tmp_path)


def write_rows(path: str, row: dict, count: int) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row)
    Path(path).write_text("\n".join(text.replace("{}", str(number)) for number in range(count)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_dry_run(no_weights, chatty, path, capsys):
    recipe = read_recipe(str(path))
    if recipe["dataset_name"].startswith("reasoning-gym:"):
        pytest.importorskip("reasoning_gym", reason='pip install "trl-entropy[data]"')
    here = {"bf16": False, "use_cpu": True, "report_to": "none"}
    if recipe["dataset_name"] in ROWS:
        write_rows("rows.jsonl", ROWS[recipe["dataset_name"]], 700 + recipe.get("subset_size", 0))
        here |= {"dataset_name": "rows.jsonl", "dataset_config": None, "eval_dataset_name": None}
    if recipe["model_name_or_path"].startswith("out/") or path.stem == "qwen2.5_7b_clip_v":  # its config is read
        here |= {"model_name_or_path": chatty}
    for benchmark in recipe.get("decontaminate", []):
        write_rows(f"benchmarks/{benchmark}.jsonl", {"problem": "Who was it?", "answer": "1"}, 1)
        here |= {"benchmarks_dir": "benchmarks"}
    if "subset_size" in recipe:
        here |= {"subset_by": "random"}
    Path("recipe.yaml").write_text(yaml.safe_dump({**recipe, **here}))
    main(["grpo", "--config", "recipe.yaml", "--dry_run", "true"])
    printed = capsys.readouterr().out
    for part in ("model  ", "problems  ", "rewards  ", "rollout  ", "step  ", "steps  "):
        assert part in printed
    for section in ("token_weights", "loss_terms", "rollout_rules"):
        assert (section in printed) or not recipe.get(section)
    for name in recipe.get("controllers") or {}:
        assert f"controller  {name}: " in printed


def test_geometry(tmp_path):
    def of(ranks, problems, **flags):
        sizes = {"per_device_train_batch_size": 4, "num_generations": 4, "num_train_epochs": 1}
        config = EntropyGRPOConfig(str(tmp_path), **sizes, use_cpu=True, bf16=False, **flags)
        return dict(geometry(config, problems, ranks))

    # 2 ranks x 4 rows x 8 micro-batches
    assert of(2, None, gradient_accumulation_steps=8, max_steps=5) == {
        "rollout": "16 prompts, 4 completions of each",
        "step": "64 completions on 2 ranks; 1 step per rollout",
        "steps": "5",
    }
    # 32 completions are trained on in 4 steps of 8, twice; 16 problems x 4 completions / 8 x 2 passes
    assert of(1, 16, gradient_accumulation_steps=2, steps_per_generation=8, num_iterations=2) == {
        "rollout": "8 prompts, 4 completions of each",
        "step": "8 completions on 1 rank; 8 steps per rollout",
        "steps": "16",
    }
    # 6 prompts per rollout, so 2 rollouts of 16 problems, of 6 micro-batches each, 3 in a step: TRL takes 4 steps
    assert of(1, 16, gradient_accumulation_steps=3, steps_per_generation=6)["steps"] == "4"
    assert "steps" not in of(1, None)  # a stream


def test_config_that_cannot_be_read_is_one_line(no_weights, capsys):
    Path("empty").mkdir()
    Path("empty/config.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(
            ["grpo", "--model_name_or_path", "empty", "--dataset_name", "embedded", "--output_dir", "out"]
            + ["--entropy_measures", "full", "--token_weights", '{"clip_v": {"mu": 2.0}}', "--dry_run", "true"]
        )
    assert ended.value.code == 2
    assert "config" in capsys.readouterr().err
