"""The verb that grades every solution of a dataset against itself."""

import json

import datasets
import pytest

from trl_entropy.commands import cli
from trl_entropy.lab.check_rewards import graded, read
from trl_entropy.rewards import Verifier


READABLE = ["24", r"\frac{1}{3}", "#### 1,000", r"So it is $\boxed{2k+2}$.", r"\text{Friday}", "$(1, x)$"]
SHARED = Verifier(10.0, workers=1)
UNREADABLE = ["", "only words ####", r"\boxed{", "}{"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    """Status and output of the verb on rows: `check(rows, *flags)`. With the default deadline all share processes."""

    def verifier(deadline: float, *arguments, **named) -> Verifier:
        made = Verifier(deadline, *arguments, **named)
        return SHARED if deadline == 3.0 else made

    monkeypatch.setattr("trl_entropy.lab.check_rewards.Verifier", verifier)

    def run(rows: list, *flags: str, column: str = "solution") -> tuple[int, str, str]:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps({"prompt": "?", column: row}) + "\n" for row in rows))
        return status(["--dataset_name", str(file), "--grading_workers", "1", *flags])

    def status(flags: list[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["check-rewards", *flags])
        return ended.value.code, *capsys.readouterr()

    run.flags = status
    return run


def rows_of(output: str) -> list[list[str]]:
    """The cells of the tables."""
    lines = [line.replace("┃", "│") for line in output.splitlines()]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_readable_solutions_pass(check):
    status, output, errors = check(READABLE)
    assert status == 0
    assert errors == ""
    assert rows_of(output)[1:] == [["correct", "6", "100.00%"]]
    assert output.splitlines()[-1] == ("0 of 6 solutions cannot be read (0.00%); at most the 1.00% of max_failures")


def test_failing_rows_are_listed_with_number_reason_and_solution(check):
    status, output, _ = check([*READABLE, *UNREADABLE])
    assert status == 1
    reasons, failing = rows_of(output)[1:3], rows_of(output)[4:]
    assert reasons == [["correct", "6", "60.00%"], ["unparsable_gold", "4", "40.00%"]]
    assert failing == [[str(6 + i), "unparsable_gold", repr(solution)] for i, solution in enumerate(UNREADABLE)]
    assert "Failing rows" in output
    assert output.splitlines()[-1] == (
        "4 of 10 solutions cannot be read (40.00%); more than the 1.00% of max_failures"
    )


@pytest.mark.parametrize(("max_failures", "status"), [("0", 1), ("0.39", 1), ("0.4", 0), ("0.5", 0), ("1", 0)])
def test_share_that_may_fail_decides_the_exit_status(check, max_failures, status):
    found, output, errors = check([*READABLE, *UNREADABLE], "--max_failures", max_failures)
    assert found == status
    assert rows_of(output)[-1] == ["9", "unparsable_gold", "'}{'"]
    assert errors == ""


@pytest.mark.parametrize(("max_rows", "listed"), [("1", ["6"]), ("3", ["6", "7", "8"]), ("0", [])])
def test_no_more_rows_are_listed_than_asked_for(check, max_rows, listed):
    _, output, _ = check([*READABLE, *UNREADABLE], "--max_rows", max_rows)
    tables = rows_of(output)
    assert [cells[0] for cells in tables if cells[0].isdigit()] == listed
    assert ["unparsable_gold", "4", "40.00%"] in tables


def test_hostile_solution_times_out_and_the_others_are_checked(check):
    status, output, _ = check(["9^{9^{9^{9}}}", "k+1"], "--grading_deadline", "0.5", "--max_failures", "0.5")
    assert status == 0
    assert ["0", "timeout", "'9^{9^{9^{9}}}'"] in rows_of(output)
    assert ["correct", "1", "50.00%"] in rows_of(output)


def test_other_column_can_be_named(check):
    assert check(READABLE, "--solution_column", "answer", column="answer")[0] == 0
    nested = [{"ground_truth": solution} for solution in READABLE]
    flags = ["--solution_column", "reward_model.ground_truth"]
    assert check(nested, *flags, column="reward_model")[0] == 0
    status, output, _ = check([*nested, None], *flags, column="reward_model")
    assert status == 1
    assert ["6", "unparsable_gold", "None"] in rows_of(output)


def test_end_of_a_long_solution_is_shown(check):
    _, output, _ = check(["So it is " + "x" * 300 + "####"])
    assert rows_of(output)[-1] == ["0", "unparsable_gold", "x" * 195 + "####'"]


def test_brackets_in_a_solution_are_shown_as_they_are(check):
    solutions = ["[/bold] ####", "[red]x[/red] ####", "[link=x]#### "]
    _, output, _ = check(solutions)
    assert [cells[2] for cells in rows_of(output)[-3:]] == [repr(solution) for solution in solutions]


def test_long_solution_is_folded_in_a_narrow_terminal(check, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, output, _ = check(["x" * 100 + "y" * 20 + "####"])
    assert "".join(cells[2] for cells in rows_of(output)[3:]) == "'" + "x" * 100 + "y" * 20 + "####'"


def test_numbers_and_lists_as_solutions_are_checked(check):
    assert check([24, -3, 10**12])[0] == 0
    assert check([0.5, 24.0])[0] == 0
    assert check([["24", r"\frac{1}{2}"], ["k+1"]])[0] == 0


def test_row_with_several_solutions_fails_by_the_one_that_cannot_be_read(check):
    status, output, _ = check([["24", "}{"], ["24", ""], []])
    assert status == 1
    assert [cells[:2] for cells in rows_of(output)[4:]] == [["0", "unparsable_gold"], ["2", "unparsable_gold"]]


def test_cell_without_a_value_fails():
    verifier = Verifier(workers=1)
    assert [row.verdict for row in graded(["24", None, ["24", None]], verifier)] == [
        "correct",
        "unparsable_gold",
        "correct",
    ]


def test_solution_is_read_and_not_only_compared_letter_by_letter():
    verifier = Verifier(0.5, workers=1)
    written_alike = ["24 25", r"\frac{1}{0}", "k+1+", "?", "k+1"]
    verdicts = [row.verdict for row in graded(written_alike, verifier)]
    assert verdicts == [*["equal_text"] * 3, "unparsable_gold", "correct"]
    verifier.close()


@pytest.mark.parametrize(
    ("solution", "verdict"),
    [
        *((text, "correct") for text in ("12 dollars", "60 km/h", "3e8", "2*pi", "7*sin(pi*x/5)+1", "12 people")),
        *((text, "correct") for text in ("xy", "3abc", "no", "BCA", "Ax+By=C", "NaCl", "2 sqrt(3)", 0.00001)),
        *((text, "correct") for text in ("ABCD=5", "T_{total} = 5", "Area = 5", "x**2 + y**2", "10⁵")),
        *((text, "bare_letters") for text in ("foo(x)+1", "Eq(x, 1)", "3 + 2xyzzy", "7speed")),
        ("local max. $(2,2)$; saddle $(0,0)$", "equal_text"),
        ("236 adult, 342 child", "equal_text"),
        (r"x \neq \pm 5", "equal_text"),
        *((text, "unparsable_gold") for text in ("N/A", "", "$$", float("nan"))),
    ],
)
def test_reason_says_how_a_solution_can_be_met(solution, verdict):
    assert graded([solution], SHARED)[0].verdict == verdict


# Wrong flags


def refused(outcome: tuple[int, str, str]) -> str:
    """The reason in the one line of a refusal."""
    status, output, errors = outcome
    assert status == 2
    assert output == ""
    (line,) = errors.splitlines()
    start, _, reason = line.partition(": error: ")
    assert start == "trl-entropy check-rewards"
    return reason


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--max_failures", "3"], "max_failures must be a share from 0 to 1, got 3.0"),
        (["--max_failures", "-0.1"], "max_failures must be a share from 0 to 1, got -0.1"),
        (["--max_failures", "nan"], "max_failures must be a number, got nan"),
        (["--grading_workers", "0"], "grading_workers must be a whole number >= 1, got 0"),
        (["--grading_deadline", "0"], "grading_deadline must be above 0 seconds, got 0.0"),
        (["--solution_column", "solutoin"], "unknown dataset column 'solutoin'. Did you mean 'solution'? Available: "),
        (["--max_failure", "0.1"], "unknown flag 'max_failure'. Did you mean 'max_failures'?"),
        (["--max_rows", "many"], "argument --max_rows: invalid int value: 'many'"),
        (["--max_failures"], "argument --max_failures: expected one argument"),
        (["extra"], "'extra' is neither a flag nor the value of one"),
    ],
)
def test_wrong_flag_is_refused_in_one_line(check, flags, reason):
    assert refused(check(["24"], *flags)).startswith(reason)


def test_missing_column_is_refused(check):
    reason = "unknown dataset column 'solution'. Available: answer, prompt; set solution_column"
    assert refused(check(["24"], column="answer")) == reason


def test_missing_file_is_refused(check, tmp_path):
    file = str(tmp_path / "none.jsonl")
    assert refused(check.flags(["--dataset_name", file])) == f"there is no file {file!r}"


def test_dataset_must_be_named(check):
    assert refused(check.flags([])) == "the following arguments are required: --dataset_name/--dataset"


def test_empty_file_is_refused(check, tmp_path):
    assert refused(check([])) == f"the file {str(tmp_path / 'rows.jsonl')!r} is empty"


def test_dataset_without_rows_is_refused(check, tmp_path):
    file = tmp_path / "rows.parquet"
    datasets.Dataset.from_dict({"solution": []}).to_parquet(file)
    reason = refused(check.flags(["--dataset_name", str(file)]))
    assert reason.startswith(f"the dataset {str(file)!r} cannot be loaded: ")


def test_split_without_rows_is_refused(check, monkeypatch):
    empty = datasets.Dataset.from_dict({"solution": []})
    monkeypatch.setattr("trl_entropy.lab.check_rewards.load", lambda name, config, split: empty)
    assert refused(check.flags(["--dataset_name", "problems"])) == "the dataset is empty"


def test_file_that_is_no_json_is_refused(check, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("not json\n")
    status, _, errors = check.flags(["--dataset_name", str(file)])
    assert status == 2
    assert errors.splitlines()[-1].startswith(
        f"trl-entropy check-rewards: error: the dataset {str(file)!r} cannot be loaded: "
    )


def test_every_flag_has_its_default():
    given = vars(read(["--dataset_name", "rows.jsonl"]))
    assert given == {
        "dataset_name": "rows.jsonl",
        "dataset_config": None,
        "dataset_train_split": "train",
        "solution_column": "solution",
        "max_failures": 0.01,
        "max_rows": 20,
        "grading_deadline": 3.0,
        "grading_workers": None,
    }
