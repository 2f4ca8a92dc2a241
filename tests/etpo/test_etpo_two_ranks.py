"""Two processes train as one does on the same global batch."""

import json
from pathlib import Path

import pytest
import torch
from etpo_ranks import LOGGED, RUNS, train
from processes import run_script
from toy import distance


pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
every_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def two(request, model_dir, tmp_path_factory) -> list[dict]:
    """What each of two ranks has seen, with 4 rows each."""
    folder, script = tmp_path_factory.mktemp(request.param), Path(__file__).parent / "etpo_ranks.py"
    done = run_script(script, request.param, model_dir, folder, ranks=2, timeout=500)
    assert done.returncode == 0, done.stderr[-6000:]
    assert (folder / "head" / "checkpoint-2" / "critic.pt").exists()
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]


@every_run
def test_ranks_agree(two, name):
    first, second = (results[name] for results in two)
    assert first["ranks"] == 2
    for part in ("policy", "critic", "slow", "knobs/beta"):
        assert first[part] == second[part]  # exact


@every_run
def test_two_ranks_train_as_one_process_does(two, name, model_dir, tmp_path):
    found, expected = two[0][name], train(model_dir, tmp_path, name, rows=8)
    for metric in LOGGED:
        assert found[metric] == pytest.approx(expected[metric], rel=1e-4, abs=1e-5), metric
    assert len({*found["knobs/beta"]}) == 3
    for part in ("policy", "critic", "slow"):
        assert distance(*(torch.tensor(one[part]) for one in (found, expected))) < 1e-5


@every_run
def test_resumed_run_is_the_uninterrupted_one(two, name):
    for part in ("policy", "critic", "slow"):
        assert two[0][f"resumed_{name}"][part] == two[0][f"whole_{name}"][part]
