"""The verb: what it trains with, and what it refuses before a model loads."""

import pytest
import yaml
from test_package import REPOSITORY
from toy import logged

from trl_entropy.commands import cli
from trl_entropy.commands.etpo import prepare, train


ON_CPU = ["--use_cpu", "--bf16", "false", "--report_to", "none", "--gradient_checkpointing", "false"]
SMALL = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "12"]
RECIPES = sorted((REPOSITORY / "recipes" / "etpo").glob("*.yaml"))


class Silent:
    """An environment of a user, without problems of its own."""

    def reset(self, row):
        return row["prompt"]

    def step(self, text):
        return "", 0.0, True


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_recipe_trains(tmp_path):
    recipe = str(REPOSITORY / "recipes" / "etpo" / "arithmetic.yaml")
    flags = ["--output_dir", str(tmp_path), "--max_steps", "2", "--logging_steps", "1", "--disable_tqdm", "true"]
    trainer = train(prepare(["--config", recipe, *flags, *SMALL, "--environment_settings", '{"attempts": 3}']))
    assert len(logged(trainer, "etpo/q_loss")) == 2
    assert max(logged(trainer, "env/attempts")) > 2
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_read(path, tmp_path):
    job = prepare(["--config", str(path), "--output_dir", str(tmp_path), "--model_name_or_path", "embedded"])
    assert job.training.output_dir == str(tmp_path)
    assert yaml.safe_load(path.read_text())["output_dir"].startswith("out/etpo")
    assert job.script.environment == yaml.safe_load(path.read_text())["environment"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--environment", "arithmetc"], "unknown environment 'arithmetc'. Did you mean 'arithmetic'?"),
        (["--environment", "no.such"], "environment 'no.such' cannot be imported"),
        (["--environment", "math.pi"], "environment 'math.pi' must be a class or a function, got 3.14"),
        (["--environment", "test_etpo_verb.Silent"], "environment 'test_etpo_verb.Silent' has no dataset(): set"),
        (["--environment_settings", '{"attemps": 2}'], "unknown parameter of environment_settings 'attemps'. Did you"),
        (["--critic", "modle"], "unknown critic 'modle'. Did you mean 'model'?"),
        (["--token_weights", '{"high_entropy": {}}'], "token_weights.high_entropy acts on advantages or on TRL"),
        (["--as_tool", "true"], "the prompts are conversations, and model_name_or_path="),
        (["--gama", "1"], "unknown flag 'gama'. Did you mean 'gamma'?"),
        (["--beta", "0"], "beta must be a number > 0, got 0.0"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_end_with_one_line(flags, line, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["etpo", "--output_dir", str(tmp_path), *ON_CPU, *SMALL, *flags])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"trl-entropy etpo: error: {line}")


def test_flags_have_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["etpo", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("Share in [0, 1] of itself that the slow copy", "the dotted path of your own", "reward per nat"):
        assert text in shown
