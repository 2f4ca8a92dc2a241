"""What the command line says about itself, and that each of its errors is one line."""

import argparse

import pytest

from trl_entropy import __version__
from trl_entropy.checks import check_is_number, minutes
from trl_entropy.commands import cli


def said(arguments: list[str], capsys) -> tuple[int, str]:
    """The exit status, and what is printed."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    written = capsys.readouterr()
    return ended.value.code, written.out + written.err


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        ([], f"usage: trl-entropy {{{','.join(cli.VERBS)}}} [flags]"),
        (["data"], "usage: trl-entropy data {deduplicate,decontaminate,diversify,semantic-entropy} [flags]"),
        (
            ["compare"],
            "usage: trl-entropy compare RECIPE [RECIPE ...] [--output_dir FOLDER] [--jobs N] [--threads N] "
            "[--overwrite] [flags of trl-entropy grpo]",
        ),
    ],
)
def test_usage_is_a_line_that_can_be_typed(capsys, arguments, usage):
    status, text = said([*arguments, "--help"], capsys)
    assert status == 0
    assert " ".join(text.partition("\n\n")[0].split()) == usage


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(capsys, flag):
    assert said([flag], capsys) == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["grp"], "trl-entropy: error: unknown verb 'grp'. Did you mean 'grpo'? Available: check-rewards, "),
        (["--config", "a.yaml"], "trl-entropy: error: unknown verb '--config'. Available: check-rewards, compare, "),
        (["data", "dedup"], "trl-entropy data: error: unknown verb 'dedup'. Did you mean 'deduplicate'? Available: "),
        (["compare", "a.yaml", "--jobs", "two"], "trl-entropy compare: error: argument --jobs: invalid int value"),
        (["compare"], "trl-entropy compare: error: the following arguments are required: RECIPE"),
        (["ls", "a", "b"], "trl-entropy ls: error: 'b' is neither a flag nor the value of one: `trl-entropy ls "),
        (["check-rewards", "--dataset", "a", "--grading_deadline", "nan"], "trl-entropy check-rewards: error: gradin"),
        (["eval", "--temperature", "nan"], "trl-entropy eval: error: temperature must be a number, got nan"),
        (["grpo", "--logging_steps", "nan"], "trl-entropy grpo: error: logging_steps must be a number, got nan"),
        (["grpo", "--grading_deadline", "nan"], "trl-entropy grpo: error: grading_deadline must be a number, got nan"),
        (["etpo", "--num_train_epochs", "nan"], "trl-entropy etpo: error: num_train_epochs must be a number, got nan"),
    ],
)
def test_error_is_one_line(capsys, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    on_cpu = ["--use_cpu", "--bf16", "false", "--report_to", "none"] if arguments[0] in ("grpo", "etpo") else []
    status, text = said([*arguments, *on_cpu], capsys)
    assert (status, text.count("\n")) == (2, 1)
    assert text.startswith(line)


def test_nan_is_not_a_number():
    check_is_number({"a": 1, "b": float("inf"), "c": None, "d": "nan"})
    with pytest.raises(ValueError, match="b must be a number, got nan"):
        check_is_number({"a": 1.0, "b": float("nan")})
    with pytest.raises(ValueError, match="b must be a number, got nan"):
        check_is_number({"a": [1.0], "b": [1.0, float("nan")]})


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon"])
def test_minutes_are_a_finite_number(text):
    assert minutes("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a number >= 0, got '{text}'"):
        minutes(text)
