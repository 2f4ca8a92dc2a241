r"""
Agreement of math graders with labelled answers, and with their own golds.

Three tables: agreement on labelled pairs, the verdicts on each gold as its own answer (`\boxed{gold}`), and the
verdicts on wrong answers that some graders take for right. Other frameworks are stood for by math-verify with their
settings, re-created from their documentation and source.

    python benchmarks/grader_agreement.py --cases cases.jsonl --golds math500.jsonl --column answer
    python benchmarks/grader_agreement.py --tables

A row of the cases is {"gold", "answer", "expected": 0 or 1, "form", "source"}; answers of the form "bare" are boxed
for all graders, the others are completions and stay as they are.
"""

import argparse
import json
import logging
import runpy
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from latex2sympy2_extended import NormalizationConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from trl.rewards import accuracy_reward

from trl_entropy.rewards import MathVerifyReward


# A grader takes golds and completions, and gives 1.0, 0.0 or None (skipped) for each
Verdicts = list[float | None]
Grader = Callable[[list[str], list[str]], Verdicts]

ANY_TEXT = (ExprExtractionConfig(), LatexExtractionConfig())
LATEX = (LatexExtractionConfig(),)
BOXED_FIRST = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True, boxed="all"),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    ),
)
FALL_BACKS = ("all_boxed", "hashes", "announced", "last_maths")

strict = MathVerifyReward()
lenient = MathVerifyReward(answer_from=FALL_BACKS)


def boxed(gold: str) -> str:
    """The gold in a box, whatever it has of boxes or dollars itself: math-verify takes those off."""
    return rf"\boxed{{{gold}}}"


def trl(golds: list[str], completions: list[str]) -> Verdicts:
    """TRL's reward, which parses the gold as plain text or LaTeX."""
    return accuracy_reward([[{"role": "assistant", "content": text}] for text in completions], golds)


def trl_boxed(golds: list[str], completions: list[str]) -> Verdicts:
    """TRL's reward, by a user who knows that golds should be boxed."""
    return trl([boxed(gold) for gold in golds], completions)


def open_r1(golds: list[str], completions: list[str]) -> Verdicts:
    """The gold as given, the completion as LaTeX with the box first."""
    return [
        _by_math_verify(gold, text, ANY_TEXT, BOXED_FIRST, unparsable_gold=None, mode="first_match")
        for gold, text in zip(golds, completions, strict=True)
    ]


def areal(golds: list[str], completions: list[str]) -> Verdicts:
    """Gold and completion as plain text or LaTeX."""
    return [
        _by_math_verify(gold, text, ANY_TEXT, ANY_TEXT, unparsable_gold=0.0)
        for gold, text in zip(golds, completions, strict=True)
    ]


def verl(golds: list[str], completions: list[str]) -> Verdicts:
    """The gold in a box, the completion as plain text or LaTeX."""
    return [
        _by_math_verify(boxed(gold), text, LATEX, ANY_TEXT, unparsable_gold=0.0)
        for gold, text in zip(golds, completions, strict=True)
    ]


def _by_math_verify(
    gold: str,
    completion: str,
    gold_targets: Sequence,
    answer_targets: Sequence,
    unparsable_gold: float | None,
    mode: str = "any_match",
) -> float | None:
    wanted = parse(gold, gold_targets, extraction_mode=mode)
    if not wanted:
        return unparsable_gold
    return float(verify(wanted, parse(completion, answer_targets, extraction_mode=mode)))


GRADERS: dict[str, Grader] = {
    "TRL accuracy_reward, gold as given": trl,
    r"TRL accuracy_reward, gold in `\boxed{}`": trl_boxed,
    "open-r1 style": open_r1,
    "AReaL style": areal,
    "verl style": verl,
    "`math_verify_reward`": lambda golds, completions: strict(completions, golds),
    '`MathVerifyReward(answer_from=("' + '", "'.join(FALL_BACKS) + '"))`': lambda golds, completions: lenient(
        completions, golds
    ),
}

# Wrong answers that math-verify takes for right with some settings
WRONG = (
    ("2k+2", "2"),
    ("6 - 5i", "5"),
    (r"(3, \frac{\pi}{2})", "3"),
    ("1331 and 1728", "1728"),
    ("50", r"50\%"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
)


def completion_of(case: dict) -> str:
    """What the graders are given: the answer, in a box if the case is of the form "bare"."""
    return rf"\boxed{{{case['answer']}}}" if case["form"] == "bare" else case["answer"]


def agreement(cases: list[dict]) -> None:
    """Print agreement with the labels, for all cases and for those with a box, and where the last grader disagrees."""
    golds, completions = [case["gold"] for case in cases], [completion_of(case) for case in cases]
    verdicts = {name: grade(golds, completions) for name, grade in GRADERS.items()}
    with_box = [row for row, text in enumerate(completions) if r"\boxed" in text or r"\fbox" in text]
    for title, rows in ("All pairs", range(len(cases))), ("Pairs with a boxed or bare answer", with_box):
        print(f"\n### {title} ({len(rows)})\n")
        header("grader", "agreement", "false positives", "false negatives", "skipped")
        for name, given in verdicts.items():
            counts = Counter((given[row], bool(cases[row]["expected"])) for row in rows)
            right = counts[1.0, True] + counts[0.0, False]
            skipped = counts[None, True] + counts[None, False]
            share = f"{right} ({100 * right / len(rows):.2f} %)"
            row_of(name, share, counts[1.0, False], counts[0.0, True], skipped)
    answers, reasons = lenient.verdicts(completions, golds)
    print("\n### Disagreements of the last grader\n")
    header("gold", "end of the answer", "answer found", "expected", "verdict", "form")
    for case, answer, reason in zip(cases, answers, reasons, strict=True):
        if (reason == "correct") != bool(case["expected"]) or reason == "unparsable_gold":
            end = code(case["answer"][-80:])
            row_of(code(case["gold"][-80:]), end, code(answer or ""), case["expected"], reason, case["form"])


def self_echo(path: Path, column: str) -> None:
    """Print the verdicts on each gold as its own answer."""
    golds = [row.get(column) for row in read(path)]
    golds = [gold for gold in golds if isinstance(gold, str) and gold.strip()]
    print(f"\n### {path.name}: each of {len(golds)} golds as its own answer\n")
    header("grader", "1.0", "0.0", "None")
    for name, grade in GRADERS.items():
        counts = Counter(grade(golds, [rf"So the final answer is \boxed{{{gold}}}." for gold in golds]))
        row_of(name, counts[1.0], counts[0.0], counts[None])
    # This package compares texts first, so that a gold always equals itself: what it reads is the harder question
    reasons = strict.verifier.self_check(golds)
    unread = sorted({(gold, reason) for gold, reason in zip(golds, reasons, strict=True) if reason != "correct"})
    row_of("`math_verify_reward`, by what it reads alone", reasons.count("correct"), *_wrong_and_unread(reasons))
    if unread:
        print()
        header("gold that is not read as itself", "verdict")
    for gold, reason in unread:
        row_of(code(gold), reason)


def _wrong_and_unread(reasons: list[str]) -> tuple[int, int]:
    unread = reasons.count("unparsable_gold") + reasons.count("equal_text") + reasons.count("bare_letters")
    return len(reasons) - reasons.count("correct") - unread, unread


def wrong_answers() -> None:
    """Print the verdicts on wrong answers."""
    print("\n### Wrong answers\n")
    header("grader", *(f"{code(gold)} / {code(answer)}" for gold, answer in WRONG))
    for name, grade in GRADERS.items():
        row_of(name, *grade([gold for gold, _ in WRONG], [rf"\boxed{{{answer}}}" for _, answer in WRONG]))


def header(*names: str) -> None:
    """Print the head of a table."""
    row_of(*names)
    row_of(*("---" for _ in names))


def row_of(*cells) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def code(text: str) -> str:
    """The text as code in a cell of a table."""
    return "`" + " ".join(text.split()).replace("|", r"\|").replace("`", "'") + "`" if text.strip() else ""


def of_tables() -> list[dict]:
    """The verdicts on bare text that the tests hold, decided by hand."""
    tables = runpy.run_path(str(Path(__file__).parent.parent / "tests" / "rewards" / "verdict_tables.py"))
    kinds = ("UNITS", "FUNCTIONS", "WORDS", "NUMBERS", "MIXED", "INTERVALS", "FREEFORM", "ATTACKS")
    return [
        {"gold": gold, "answer": answer, "expected": int(right), "form": "bare"}
        for kind in kinds
        for gold, answer, right in tables[kind]
    ]


def read(path: Path) -> list[dict]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, help="labelled pairs, as JSON lines")
    parser.add_argument("--tables", action="store_true", help="the pairs of tests/rewards/verdict_tables.py")
    parser.add_argument("--golds", type=Path, nargs="*", default=[], help="files of golds, as JSON lines")
    parser.add_argument("--column", default="answer", help="the column of the golds")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # math-verify reports each text that it cannot read
    if arguments.cases or arguments.tables:
        agreement([*(read(arguments.cases) if arguments.cases else []), *(of_tables() if arguments.tables else [])])
    for path in arguments.golds:
        self_echo(path, arguments.column)
    wrong_answers()


if __name__ == "__main__":
    main()
