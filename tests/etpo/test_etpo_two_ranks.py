"""Two processes train as one does on the same global batch."""

import json
from pathlib import Path

import pytest
import torch
from etpo_ranks import COMMON, LOGGED, RUNS, SPLIT, train
from given_steps import build_etpo
from processes import run_script
from toy import distance


pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
every_run = pytest.mark.parametrize("name", RUNS)
every_split = pytest.mark.parametrize("name", SPLIT)


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def two(request, model_dir, tmp_path_factory) -> list[dict]:
    """What each of two ranks has seen, with 4 rows each."""
    folder, script = tmp_path_factory.mktemp(request.param), Path(__file__).parent / "etpo_ranks.py"
    done = run_script(script, request.param, model_dir, folder, ranks=2, timeout=500)
    assert done.returncode == 0, done.stderr[-6000:]
    assert (folder / "head" / "checkpoint-2" / "critic.pt").exists()
    found = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]
    return [{**results, "folder": folder} for results in found]


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


@every_split
def test_one_process_reads_the_critic_of_two(two, name, model_dir, tmp_path):
    path = two[0]["folder"] / "adam" / name / "checkpoint-3" / "critic.pt"
    critic = build_etpo(model_dir, tmp_path, **{**COMMON, **RUNS[name], "optim": "adamw_torch"}).critic
    critic.load_state_dict(torch.load(path, weights_only=True), str(path))
    whole = two[0][f"whole_{name}"]
    for part, parameters in (("critic", critic.trained), ("slow", critic.slow)):
        assert torch.cat([one.detach().flatten() for one in parameters]).tolist() == whole[part]
    assert len(critic.optimizer.state_dict()["state"]) == len(critic.trained)


@every_split
def test_weights_that_fsdp_keeps_after_a_forward_pass_change_nothing(two, name):
    if f"kept_{name}" not in two[0]:
        pytest.skip("DDP always keeps them")
    for part in ("policy", "critic", "slow"):
        assert two[0][f"kept_{name}"][part] == two[0][name][part]


@every_split
def test_resumed_run_is_the_uninterrupted_one(two, name):
    for part in ("policy", "critic", "slow"):
        assert two[0][f"resumed_{name}"][part] == two[0][f"whole_{name}"][part]
