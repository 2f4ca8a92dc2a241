import math

import pytest
import torch
from toy import chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import EntropyGRPOConfig, Tokens
from trl_entropy.rules.weights import DPPOKl


def tokens(now: list[float], old: list[float], advantages: list[float], said: list[float] | None = None) -> Tokens:
    now, old = torch.tensor([now]).log(), torch.tensor([old]).log()
    said = None if said is None else torch.tensor([said]).log()
    return Tokens(now, old, now, torch.tensor([advantages]), now < 1, sampling_logps=said)


def divergence(now: float, old: float) -> float:
    return old * math.log(old / now) + (1 - old) * math.log((1 - old) / (1 - now))


def test_weights_by_hand():
    # 0.0866 up and 0.0872 down are above 0.05, 0.0204 is not
    now, old = [0.7, 0.3, 0.6, 0.4], [0.5] * 4
    assert [divergence(*pair) > 0.05 for pair in zip(now, old, strict=True)] == [True, True, False, False]
    assert DPPOKl()(tokens(now, old, [1.0] * 4)).tolist() == [[0.0, 1.0, 1.0, 1.0]]
    assert DPPOKl()(tokens(now, old, [-1.0] * 4)).tolist() == [[1.0, 0.0, 1.0, 1.0]]
    assert DPPOKl()(tokens(now, old, [0.0] * 4)).tolist() == [[1.0] * 4]
    assert DPPOKl(outside=0.5)(tokens(now, old, [1.0] * 4)).tolist() == [[0.5, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(("now", "old"), [(0.9, 0.2), (0.02, 0.6), (0.999, 0.99), (1e-5, 1e-3), (0.5, 0.49)])
def test_bound_is_the_binary_divergence(now, old):
    at, sign = divergence(now, old), 1.0 if now > old else -1.0
    given = tokens([now], [old], [sign])
    # float32 logarithms
    assert DPPOKl(low=at * 1.01, high=at * 1.01)(given).item() == 1
    assert DPPOKl(low=at * 0.99, high=at * 0.99)(given).item() == 0
    bound = {"high" if sign > 0 else "low": 0.0, "low" if sign > 0 else "high": 9.0}
    assert DPPOKl(**bound)(given).item() == 0


def test_sure_tokens_have_a_finite_divergence():
    sure = Tokens(
        *(torch.tensor([values]) for values in ([0.0, -40.0], [-40.0, 0.0], [0.0, 0.0], [1.0, -1.0])),
        torch.ones(1, 2).bool(),
    )
    assert DPPOKl()(sure).tolist() == [[0.0, 0.0]]


def test_it_is_about_what_the_sampler_has_said_where_that_is_known():
    given = tokens([0.6] * 3, [0.5] * 3, [1.0] * 3, said=[0.3, 0.55, math.nan])
    assert DPPOKl()(given).tolist() == [[0.0, 1.0, 1.0]]
    assert DPPOKl(high=0.01)(given).tolist() == [[0.0, 1.0, 0.0]]


def test_it_is_the_loss_of_verl():
    given, logits = table_case()
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    of_verl = logits.clone().requires_grad_()
    logps, old, advantages = chosen_logps(of_verl, ids), given["old_per_token_logps"], given["advantages"].unsqueeze(1)
    p, q = logps.detach().exp(), old.exp()
    kl = q * (old - logps.detach()) + (1 - q) * torch.log((1 - q + 1e-8) / (1 - p + 1e-8))
    valid = torch.where(advantages > 0, (kl <= 0.01) | (p <= q), (kl <= 0.02) | (p >= q))
    assert 0 < valid[mask].double().mean() < 1
    objective = (advantages * (p / q).clamp(max=20.0) * logps * valid)[mask].mean()
    (expected,) = torch.autograd.grad(objective, of_verl)
    rule = {"dppo_kl": {"low": 0.02, "high": 0.01}}
    actual = table_gradient(table(logits, loss_type="cispo", epsilon_high=20.0, token_weights=rule), given)
    assert distance(actual, expected) < 1e-6  # float32 probabilities


def test_clip_before_it_is_refused():
    settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
    with pytest.raises(ValueError, match="token_weights.dppo_kl has its own bounds"):
        EntropyGRPOConfig(**settings, token_weights={"dppo_kl": {}})


@pytest.mark.parametrize("value", [-0.1, math.nan])
@pytest.mark.parametrize("name", ["low", "high"])
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        DPPOKl(**{name: value})


def test_defaults_are_those_of_the_script():
    assert DPPOKl() == DPPOKl(low=0.05, high=0.05, outside=0.0)
