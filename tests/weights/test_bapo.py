import math

import pytest
import torch
from toy import chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import EntropyGRPOConfig, Tokens
from trl_entropy.rules.weights import BAPO


SETTINGS = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}


def tokens(ratios: list[float], advantages: list[float]) -> Tokens:
    logps = torch.full((1, len(ratios)), -3.0)
    advantages = torch.tensor([advantages])
    return Tokens(logps, logps - torch.tensor([ratios]).log(), logps, advantages, torch.ones_like(logps).bool())


def balance(ratio, advantages, mask, low: float, high: float) -> float:
    """The two sums of the released code, the positive by the negative one."""
    effective = torch.where(advantages >= 0, ratio.clamp(max=high), ratio.clamp(min=low)) * advantages * mask
    return (effective.clamp(min=0).sum() / (-effective.clamp(max=0)).sum()).item()


def released(ratio, advantages, mask, share: float) -> tuple[float, float]:
    """The bounds by the loops of the released code, at the default bounds of the rule."""
    low, high, target = 0.6, 1.2, share / (1 - share)
    while balance(ratio, advantages, mask, low, high) < target and low < 0.9:
        low = min(low + 0.05, 0.9)
    while balance(ratio, advantages, mask, low, high) < target and high < 3.0:
        high = min(high + 0.05, 3.0)
    return low, high


def test_weights_by_hand():
    # P = 1.2 at the start, N = 2 max(0.7, c-) = 1.4: short, so c- is 0.9 and N 1.8. P = min(2, c+) is 1.8 at c+ = 1.8
    given = tokens([2.0, 0.7, 0.7, 1.0], [1.0, -1.0, -1.0, 0.0])
    assert BAPO()(given).tolist() == [[0.0, 0.0, 0.0, 1.0]]
    # out of reach, so c+ is at its end
    assert BAPO(share=0.6)(given).tolist() == [[1.0, 0.0, 0.0, 1.0]]
    assert BAPO(share=0.6, high_end=1.5)(given).tolist() == [[0.0, 0.0, 0.0, 1.0]]
    # balanced where it starts
    assert BAPO(share=0.4)(given).tolist() == [[0.0, 1.0, 1.0, 1.0]]
    assert BAPO(share=0.4, outside=0.25)(given).tolist() == [[0.25, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize("share", [0.2, 0.45, 0.5, 0.55, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_those_of_the_released_search(seed, share):
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.exp(0.6 * torch.randn(200, generator=generator, dtype=torch.float64))
    advantages = torch.randn(200, generator=generator, dtype=torch.float64)
    low, high = released(ratios, advantages, 1.0, share)
    outside = ((advantages > 0) & (ratios > high)) | ((advantages < 0) & (ratios < low))
    weights = BAPO(share=share)(tokens(ratios.tolist(), advantages.tolist()))
    assert torch.equal(weights[0] == 0, outside)


def test_it_is_the_clip_of_trl_at_the_bounds_that_it_finds():
    given, logits = table_case()
    given["old_per_token_logps"] = given["old_per_token_logps"] - 0.6 * (given["advantages"] > 0).unsqueeze(1)
    ratio = (chosen_logps(logits, given["completion_ids"]) - given["old_per_token_logps"]).exp()
    advantages, mask = given["advantages"].unsqueeze(1), given["completion_mask"].double()
    ends = [balance(ratio, advantages, mask, *bounds) for bounds in ((0.6, 1.2), (0.9, 3.0))]
    middle = sum(end / (1 + end) for end in ends) / 2  # a share between that of the first bounds and that of the last
    found = set()
    for share in (0.02, middle, 0.9):
        low, high = released(ratio, advantages, mask, share)
        found.add((low, high))
        rule = {"bapo": {"share": share}}
        actual = table_gradient(table(logits, epsilon=0.4, epsilon_high=2.0, token_weights=rule), given)
        expected = table_gradient(table(logits, plain=True, epsilon=1 - low, epsilon_high=high - 1), given)
        assert distance(actual, expected) < 1e-9
    assert len(found) == 3


def test_balance_from_step_to_step_turns_both_bounds():
    args = EntropyGRPOConfig(**SETTINGS, entropy_control="balance", num_iterations=2)
    high, low = args.control.fresh_controllers()
    for share, bounds in (
        (0.3, (0.3, 0.35)),
        (0.3, (0.4, 0.3)),
        (0.7, (0.3, 0.35)),
        (0.9, (0.2, 0.4)),
        (0.9, (0.2, 0.4)),
    ):
        for controller in (high, low):
            controller.update(share, progress=0.0, epoch=0.0, num_epochs=1)
        assert (high.value, low.value) == pytest.approx(bounds)


def test_strictly_on_policy_it_does_nothing():
    assert BAPO()(tokens([1.0] * 3, [1.0, -1.0, -1.0])).tolist() == [[1.0] * 3]


def test_only_tokens_of_one_sign():
    assert BAPO()(tokens([1.5, 0.5], [1.0, 1.0])).tolist() == [[0.0, 1.0]]
    assert BAPO()(tokens([1.5, 0.8], [-1.0, -1.0])).tolist() == [[1.0, 0.0]]


def test_clip_before_it_is_refused():
    message = "token_weights.bapo has its own bounds.* epsilon to at least 0.4 and epsilon_high to at least 2$"
    for narrow in ({"epsilon": 0.4}, {"epsilon": 0.2, "epsilon_high": 2.0}):
        with pytest.raises(ValueError, match=message):
            EntropyGRPOConfig(**SETTINGS, **narrow, token_weights={"bapo": {}})
    EntropyGRPOConfig(**SETTINGS, epsilon=0.4, epsilon_high=2.0, token_weights={"bapo": {}})


def test_loss_without_a_clip_is_refused():
    with pytest.raises(ValueError, match="bapo acts on tokens whose gradient the clip range has stopped"):
        EntropyGRPOConfig(**SETTINGS, loss_type="cispo", token_weights={"bapo": {}})


@pytest.mark.parametrize(
    "wrong", [{"low_start": 0.95}, {"low_end": 1.1}, {"high_start": 0.9}, {"high_end": 1.1}, {"high_end": math.inf}]
)
def test_bounds_out_of_order_are_refused(wrong):
    with pytest.raises(ValueError, match="must be numbers in increasing order"):
        BAPO(**wrong)


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_step_that_does_not_move_is_refused(value):
    with pytest.raises(ValueError, match="step must be a number > 0"):
        BAPO(step=value)
