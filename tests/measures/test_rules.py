import logging

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.measures.rules import PATIENCE, WHY_KNOBS, WHY_RULES, Idle, rule_means, touched


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_means_and_shares_by_hand():
    # of the trained 0.5, 1, 1, 0 the mean is 2.5 / 4 = 0.625, and two of four are not 1
    mask = torch.tensor([[True, True, True], [True, False, False]])
    values = torch.tensor([[0.5, 1.0, 1.0], [0.0, 9.0, 9.0]])
    tokens = Tokens(values, values, values, values, mask)
    means = rule_means("token_weights", {"mine": values}, tokens)
    assert {name: (total.item(), count.item()) for name, (total, count) in means.items()} == {
        "token_weights/mine/mean": (2.5, 4),
        "token_weights/mine/share": (2, 4),
    }


def test_rule_that_touches_nothing_is_warned_about_once(caplog):
    idle = Idle(WHY_RULES)
    for _ in range(3 * PATIENCE):
        means = {"loss_terms/kl_cov/share": 0.0, "loss_terms/kl_cov/mean": 0.0, "token_weights/sign/share": 0.5}
        idle.look(touched(means))
    (warning,) = warnings_in(caplog)
    assert warning.startswith(f"loss_terms.kl_cov changed no token in its first {PATIENCE} steps")
    assert warning.endswith(WHY_RULES)


@pytest.mark.parametrize("step", [0, PATIENCE - 1])
def test_rule_that_touched_a_token_in_its_first_steps_is_not_warned_about(caplog, step):
    idle = Idle(WHY_KNOBS)
    for number in range(3 * PATIENCE):
        idle.look({"epsilon_high": number == step})
    assert warnings_in(caplog) == []


def test_trainer_warns_about_a_rule_without_effect(run, caplog):
    # strictly on-policy, the old policy is the new one
    run(loss_terms={"kl_cov": {}}, max_steps=PATIENCE + 2)
    assert len([text for text in warnings_in(caplog) if text.startswith("loss_terms.kl_cov changed no token")]) == 1
    caplog.clear()
    run(loss_terms={"kl_cov": {}}, max_steps=PATIENCE + 2, num_iterations=2)
    assert not [text for text in warnings_in(caplog) if "changed no token" in text]
