import math

import pytest
import torch
from toy import chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import EntropyGRPOConfig, Tokens
from trl_entropy.rules.weights import DPPOTv


SETTINGS = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
RULE = {"dppo_tv": {"low": 0.1, "high": 0.05}}


def tokens(now: list[float], old: list[float], advantages: list[float], said: list[float] | None = None) -> Tokens:
    now, old = torch.tensor([now]).log(), torch.tensor([old]).log()
    said = None if said is None else torch.tensor([said]).log()
    return Tokens(now, old, now, torch.tensor([advantages]), now < 1, sampling_logps=said)


def test_weights_by_hand():
    # bounds 0.15: a rise of 0.2 and of 0.1, a fall of 0.2 and of 0.1; of either sign, and of none
    now, old = [0.7, 0.6, 0.3, 0.4], [0.5] * 4
    rule = DPPOTv()
    assert rule(tokens(now, old, [1.0] * 4)).tolist() == [[0.0, 1.0, 1.0, 1.0]]
    assert rule(tokens(now, old, [-1.0] * 4)).tolist() == [[1.0, 1.0, 0.0, 1.0]]
    assert rule(tokens(now, old, [0.0] * 4)).tolist() == [[1.0] * 4]
    assert DPPOTv(outside=0.5)(tokens(now, old, [1.0] * 4)).tolist() == [[0.5, 1.0, 1.0, 1.0]]


def test_bounds_are_of_their_sign():
    rule = DPPOTv(low=0.3, high=0.05)
    assert rule(tokens([0.6, 0.3], [0.5, 0.5], [1.0, -1.0])).tolist() == [[0.0, 1.0]]


def test_rare_token_may_grow_a_hundredfold():
    assert DPPOTv()(tokens([0.1], [0.001], [1.0])).item() == 1


def test_it_is_about_what_the_sampler_has_said_where_that_is_known():
    # by the old policy all three have risen by 0.1
    given = tokens([0.6] * 3, [0.5] * 3, [1.0] * 3, said=[0.3, 0.55, math.nan])
    assert DPPOTv()(given).tolist() == [[0.0, 1.0, 1.0]]
    assert DPPOTv(high=0.09)(given).tolist() == [[0.0, 1.0, 0.0]]


def of_verl(logits, given, cap: float) -> torch.Tensor:
    """The gradient of verl's loss: the policy gradient with a capped ratio, and the mask; mean over tokens."""
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    logits = logits.clone().requires_grad_()
    logps, old, advantages = chosen_logps(logits, ids), given["old_per_token_logps"], given["advantages"].unsqueeze(1)
    change = logps.detach().exp() - old.exp()
    valid = torch.where(advantages > 0, change <= 0.05, change >= -0.1)
    ratio = (logps.detach() - old).exp().clamp(max=cap)
    objective = (advantages * ratio * logps * valid)[mask].mean()
    return torch.autograd.grad(objective, logits)[0]


def test_it_is_the_loss_of_verl_with_cispo():
    given, logits = table_case()
    given["old_per_token_logps"] = given["old_per_token_logps"].clone()
    given["old_per_token_logps"][:, 0] -= 1.0
    actual = table_gradient(table(logits, loss_type="cispo", epsilon_high=1.5, token_weights=RULE), given)
    assert distance(actual, of_verl(logits, given, cap=1.5)) < 1e-6  # float32 probabilities
    assert distance(of_verl(logits, given, cap=20.0), actual) > 1e-2  # some ratios are capped
    without = table_gradient(table(logits, plain=True, loss_type="cispo", epsilon_high=1.5), given)
    assert distance(without, actual) > 1e-2


def test_it_is_the_loss_of_verl_with_a_clip_that_never_acts():
    given, logits = table_case()
    wide = {"loss_type": "dapo", "epsilon": 1.0, "epsilon_high": 9999.0}
    actual = table_gradient(table(logits, **wide, token_weights=RULE), given)
    assert distance(actual, of_verl(logits, given, cap=10000.0)) < 1e-6


def test_clip_before_it_is_refused():
    with pytest.raises(
        ValueError,
        match="token_weights.dppo_tv has its own bounds.* epsilon=0.2 and epsilon_high=0.2: set "
        "epsilon to at least 1 and epsilon_high to at least 19",
    ):
        EntropyGRPOConfig(**SETTINGS, token_weights={"dppo_tv": {}})
    with pytest.raises(ValueError, match="epsilon=1 and epsilon_high=1:"):
        EntropyGRPOConfig(**SETTINGS, epsilon=1.0, token_weights={"dppo_tv": {}})
    EntropyGRPOConfig(**SETTINGS, token_weights={"dppo_tv": {"outside": 1.0}})
    EntropyGRPOConfig(**SETTINGS, loss_type="cispo", epsilon_high=20.0, token_weights={"dppo_tv": {}})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["low", "high", "outside"])
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0 and <= 1, got"):
        DPPOTv(**{name: value})


def test_defaults_are_those_of_the_script():
    assert DPPOTv() == DPPOTv(low=0.15, high=0.15, outside=0.0)
