import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.metrics import at_powers_of_two, powers_of_two, scores


PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"
NAMES = [
    *("avg@6", "pass@1", "pass@2", "pass@4", "pass@6"),
    *("maj@1", "maj@2", "maj@4", "maj@6", "distinct_answers", "vote_entropy"),
    *("distinct_1", "distinct_2", "distinct_3", "distinct_4", "self_bleu"),
    *("response_length", "response_entropy", "prompt_entropy"),
    *("ece_logprob", "brier_logprob", "auroc_logprob", "ece_vote", "brier_vote", "auroc_vote"),
]


def test_names_and_their_order():
    assert list(scores(drawn(num_samples=6), resamples=2)) == NAMES


def documented() -> list[str]:
    section = PAGE.read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.M)


def test_every_metric_is_on_its_page():
    general = [re.sub(r"_\d$", "_{n}", re.sub(r"@\d+", "@{k}", name)) for name in NAMES]
    assert documented() == list(dict.fromkeys(general))


@pytest.mark.parametrize(
    ("num_samples", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_default_ks(num_samples, ks):
    assert powers_of_two(num_samples) == ks


def test_other_k_are_for_the_asking_and_left_out_of_a_table():
    found = scores(drawn(num_samples=6), range(1, 7), resamples=2)
    assert [name for name in found if name.startswith("maj@")] == [f"maj@{k}" for k in range(1, 7)]
    assert [name for name in found if name.startswith("avg@")] == ["avg@6"]
    shown = at_powers_of_two(found, 6)
    assert list(shown) == NAMES
    assert all(shown[name] is found[name] for name in shown)


def test_values_are_means_over_problems():
    samples = drawn(num_problems=2, num_samples=2, answers=np.array([[0, 1], [0, 0]]))
    found = scores(samples)
    assert (found["avg@2"].value, found["pass@2"].value, found["maj@2"].value) == (0.75, 1.0, 0.75)
    assert found["distinct_answers"].value == 1.5
    assert found["vote_entropy"].value == pytest.approx(math.log(2) / 2)
    assert found["response_length"].value == pytest.approx(samples.lengths.mean())
    assert found["response_entropy"].value == pytest.approx(samples.entropies.mean())
    assert found["prompt_entropy"].value == pytest.approx(samples.prompt_entropies.mean())
    # confidences 1/2, 1/2, 1, 1
    assert found["brier_vote"].value == pytest.approx((0.25 + 0.25 + 0 + 0) / 4)
    assert found["ece_vote"].value == pytest.approx(0.0)
    assert found["auroc_vote"].value == pytest.approx((0.5 + 1 + 1) / 3)


def test_standard_errors_are_those_of_problems_not_of_samples():
    samples = drawn(num_problems=200, num_samples=8)
    found = scores(samples, resamples=4000)
    for name, values in {"avg@8": samples.correct.mean(1), "pass@8": samples.correct.any(1)}.items():
        assert found[name].stderr == pytest.approx(values.std() / math.sqrt(200), rel=0.06)


def test_same_seed_same_standard_errors():
    samples = drawn()
    assert scores(samples, seed=3) == scores(samples, seed=3)
    assert scores(samples, seed=3)["avg@8"].value == scores(samples, seed=4)["avg@8"].value
    assert scores(samples, seed=3)["avg@8"].stderr != scores(samples, seed=4)["avg@8"].stderr


def undefined(samples) -> set[str]:
    return {name for name, score in scores(samples, resamples=10).items() if math.isnan(score.value)}


@pytest.mark.parametrize("correct", [True, False])
def test_all_correct_or_none_leaves_only_auroc_undefined(correct):
    samples = drawn(answers=np.zeros((6, 8), dtype=int), correct=np.full((6, 8), correct))
    assert undefined(samples) == {"auroc_logprob", "auroc_vote"}
    found = scores(samples)
    assert {found[f"{name}@{k}"].value for name in ("pass", "maj") for k in (1, 2, 4, 8)} == {float(correct)}
    assert found["avg@8"].value == correct
    assert math.isnan(found["auroc_vote"].stderr)


def test_single_sample_has_no_self_bleu():
    samples = drawn(num_samples=1, texts=[["a b c d"]] * 6, answers=np.array([[0], [0], [1], [1], [2], [0]]))
    assert undefined(samples) == {"self_bleu"}
    assert scores(samples)["maj@1"].value == scores(samples)["pass@1"].value == 0.5


def test_no_answer_at_all():
    samples = drawn(answers=np.full((6, 8), -1))
    assert undefined(samples) == {"vote_entropy", "auroc_logprob", "auroc_vote"}
    found = scores(samples)
    assert found["distinct_answers"].value == found["maj@8"].value == found["ece_vote"].value == 0.0


def test_empty_responses():
    assert undefined(drawn(texts=[[""] * 8] * 6)) == {f"distinct_{n}" for n in (1, 2, 3, 4)}
    assert scores(drawn(texts=[[""] * 8] * 6))["self_bleu"].value == 1.0


def test_single_problem_has_no_standard_error():
    found = scores(drawn(num_problems=1, answers=np.array([[0, 0, 1, 1, 2, -1, 0, 0]])))
    assert all(math.isnan(score.stderr) for score in found.values())
    assert found["avg@8"].value == 0.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"correct": np.ones(4, dtype=bool)}, r"correct must have the shape \(problems, samples\)"),
        ({"correct": np.ones((0, 8), dtype=bool)}, r"got \(0, 8\)"),
        ({"correct": np.ones((6, 8))}, "correct must be an array of bool, got float64"),
        ({"answers": np.ones((6, 7), dtype=int)}, r"answers must have the shape of correct, \(6, 8\), got \(6, 7\)"),
        ({"prompt_entropies": np.ones((6, 8))}, r"prompt_entropies must have the shape \(6,\)"),
        ({"texts": [["a"] * 7] * 6}, "texts must hold 6 lists of 8 responses"),
        ({"logprobs": np.full((6, 8), -np.inf)}, "logprobs must be finite"),
        ({"entropies": np.full((6, 8), np.nan)}, "entropies must be finite"),
    ],
)
def test_wrong_samples_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        scores(replace(drawn(), **changed))
