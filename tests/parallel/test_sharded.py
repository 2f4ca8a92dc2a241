"""Under FSDP2 and DeepSpeed, two processes decide and train what one process does without."""

import pytest
import torch
from distributed_run import SHARDED, train
from ranks import launch
from test_distributed import assert_same_without_the_rows_left_out
from toy import distance


NOISE = "authority/noise_share"


@pytest.fixture(
    scope="module",
    params=["fsdp2", pytest.param("zero2", marks=pytest.mark.slow), pytest.param("zero3", marks=pytest.mark.slow)],
)
def backend(request) -> str:
    if request.param != "fsdp2":
        pytest.importorskip("deepspeed")
    return request.param


@pytest.fixture(scope="module")
def two(backend, model_dir, tmp_path_factory) -> list[dict]:
    """What each of two ranks has seen, with 8 rows each; DeepSpeed compiles at its first start."""
    return launch(backend, model_dir, tmp_path_factory.mktemp(backend), timeout=580)


@pytest.fixture(scope="module")
def one(backend, model_dir, tmp_path_factory) -> dict:
    """What one process with 16 rows has seen."""
    folder = tmp_path_factory.mktemp("one")
    results = {name: train(model_dir, folder, name, rows=16) for name in SHARDED}
    if backend != "fsdp2":  # DeepSpeed keeps the gradient to itself
        for step in (step for run in results.values() for step in run["steps"]):
            step["measures"].pop(NOISE, None)
    return results


def assert_same_decisions(actual: dict, expected: dict) -> None:
    for mine, theirs in zip(actual["steps"], expected["steps"], strict=True):
        # float32 sums of another order
        assert mine["entropy"] == pytest.approx(theirs["entropy"], rel=1e-6)
        for facts in ("knobs", "errors", "measures"):
            assert mine[facts] == pytest.approx(theirs[facts], abs=1e-5)
    for name, values in expected["groups"].items():
        assert actual["groups"][name] == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("name", SHARDED)
def test_ranks_agree_on_every_knob_at_every_step(two, name):
    first, second = (results[name] for results in two)
    assert first["ranks"] == second["ranks"] == 2
    assert len(first["steps"]) == 4
    assert first == second  # exact


@pytest.mark.parametrize("name", SHARDED)
def test_two_ranks_decide_and_train_what_one_process_does(two, one, name):
    assert_same_decisions(two[0][name], one[name])
    weights = [torch.tensor(results[name]["weights"], dtype=torch.float64) for results in (two[0], one)]
    assert distance(*weights) < 1e-6


def test_facts_of_hidden_states_are_measured_and_act(two):
    steps = two[0]["hidden"]["steps"]
    assert all(0 < step["measures"]["token_weights/clip_v/share"] <= 0.1 for step in steps)
    at_one = [step["measures"]["entropy/temperature_1"] for step in steps]
    assert all(1.05 * step["entropy"] < value for step, value in zip(steps, at_one, strict=True))  # sampled at 0.8


def test_comparison_of_decisions_can_fail(two, one):
    with pytest.raises(AssertionError):
        assert_same_decisions(two[0]["resumed"], one["hidden"])


def test_resumed_run_is_the_uninterrupted_one(two):
    for results in two:
        whole, resumed = results["whole"], results["resumed"]
        expected = whole["steps"][1:]
        expected[0]["measures"].pop(NOISE, None)  # no gradient is kept over a resume
        assert resumed["steps"] == expected  # exact
        assert resumed["weights"] == whole["weights"]


def test_policy_samples_what_it_samples_without_sharding(two):
    for results in two:
        sharded, plain = results["sampled"], results["sampled_ddp"]
        assert sharded.pop("texts") == plain.pop("texts")
        for name in plain:
            assert len(sharded[name]) == 2
            assert sharded[name] == pytest.approx(plain[name], rel=1e-5, abs=1e-7)


def test_gradient_of_a_whole_parameter_is_the_mean_over_the_ranks(two, backend):
    if backend != "fsdp2":
        pytest.skip("DeepSpeed gathers without a gradient")
    for results in two:
        assert results["gradient"] == [1.5 * number for number in range(6)]


def test_every_rank_ends_if_a_shard_of_one_is_not_finite(two, backend):
    if backend == "zero2":
        pytest.skip("every rank holds all parameters")
    for results in two:
        assert results["failed"].startswith("the policy has parameters that are not finite after step 1")


def test_ranks_that_leave_out_different_numbers_of_rows_train_what_they_do_on_all(two):
    for results in two:
        assert_same_without_the_rows_left_out(results)
