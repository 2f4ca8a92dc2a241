"""A term that belongs to the surrogate is averaged as `loss_type` averages that: the released losses, loss by loss."""

import math

import pytest
import torch
from toy import LOSS_TYPES, chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import EntropyGRPOConfig
from trl_entropy._seam.means import micro_batch_mean


LONGEST = 60  # far above the completions, which have 1 to 6 tokens
CLIPPED = ("bnpo", "dapo", "dr_grpo", "grpo", "luspo")
NO_CLIP = {"epsilon": 1.0, "epsilon_high": 1e6}


def aggregated(loss_type: str, losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One micro-batch, written out from the papers of the losses."""
    rows = [(row * kept).sum() for row, kept in zip(losses, mask, strict=True)]
    lengths = mask.sum(1)
    if loss_type in ("bnpo", "dapo"):
        return sum(rows) / lengths.sum()
    if loss_type == "dr_grpo":
        return sum(rows) / (len(rows) * LONGEST)
    if loss_type == "luspo":
        return sum(rows) / len(rows)
    return sum(row / length for row, length in zip(rows, lengths, strict=True)) / len(rows)


def released(loss_of, loss_type: str, given: dict, logits: torch.Tensor) -> torch.Tensor:
    """`dJ / dlogits` of a loss per token, `loss_of(logps)`."""
    table_of_logits = logits.clone().requires_grad_()
    losses = loss_of(chosen_logps(table_of_logits, given["completion_ids"]))
    loss = aggregated(loss_type, losses, given["completion_mask"].double())
    (gradient,) = torch.autograd.grad(-loss, table_of_logits)
    return gradient


def ours(loss_type: str, given: dict, logits: torch.Tensor, **settings) -> torch.Tensor:
    return table_gradient(table(logits, loss_type=loss_type, max_completion_length=LONGEST, **settings), given)


@pytest.fixture
def case():
    given, logits = table_case()
    given["offline"] = torch.arange(8) % 4 == 1
    return given, logits


@pytest.mark.parametrize("loss_type", CLIPPED)
def test_ce_gppo(case, loss_type):
    given, logits = case
    advantages = given["advantages"].unsqueeze(1)

    def loss(logps):  # Kwai-Klear/CE-GPPO
        ratio = (logps - given["old_per_token_logps"]).exp()
        one = ratio / ratio.detach()
        low, high = (ratio < 0.8) & (advantages < 0), (ratio > 1.2) & (advantages > 0)
        return -torch.where(low, 0.75 * 0.8 * one, torch.where(high, 1.2 * one, ratio)) * advantages

    expected = released(loss, loss_type, given, logits)
    actual = ours(loss_type, given, logits, epsilon=0.2, loss_terms={"ce_gppo": {"beta_low": 0.75, "beta_high": 1.0}})
    assert distance(actual, expected) < 1e-12


@pytest.mark.parametrize("loss_type", CLIPPED)
def test_offline_shaping(case, loss_type):
    given, logits = case
    advantages, offline = given["advantages"].unsqueeze(1), given["offline"].unsqueeze(1)

    def loss(logps):  # compute_token_on_off_policy_loss of RUCAIBox/Slow_Thinking_with_LLMs
        ratio, chance = (logps - given["old_per_token_logps"]).exp(), logps.exp()
        return -advantages * torch.where(offline, chance / (chance + 0.1), ratio)

    expected = released(loss, loss_type, given, logits)
    rules = {"token_weights": {"sampled_only": {}}, "loss_terms": {"offline_shaping": {"gamma": 0.1}}}
    assert distance(ours(loss_type, given, logits, **NO_CLIP, **rules), expected) < 1e-12


@pytest.mark.parametrize("loss_type", CLIPPED)
def test_kl_cov(case, loss_type):
    given, logits = case
    mask = given["completion_mask"].bool()
    advantages = given["advantages"].unsqueeze(1).expand_as(mask)
    now = chosen_logps(logits, given["completion_ids"])
    covariance = (advantages - advantages[mask].mean()) * (now - now[mask].mean())
    chosen = torch.zeros(mask.numel(), dtype=torch.bool)
    number = int(0.2 * mask.sum())
    chosen[covariance.masked_fill(~mask, -math.inf).flatten().topk(number).indices] = True
    chosen = chosen.view_as(mask)

    def loss(logps):  # compute_policy_loss_kl_cov of PRIME-RL/Entropy-Mechanism-of-RL
        change = logps - given["old_per_token_logps"]
        return -advantages * change.exp() + torch.where(chosen, change.abs(), 0.0)

    expected = released(loss, loss_type, given, logits)
    actual = ours(loss_type, given, logits, **NO_CLIP, loss_terms={"kl_cov": {"coef": 1.0, "share": 0.2}})
    assert distance(actual, expected) < 1e-12


@pytest.mark.parametrize("loss_type", CLIPPED)
@pytest.mark.parametrize("mean_over", ["all", "confident"])
def test_confident_surrogate(case, mean_over, loss_type):
    given, logits = case
    mask = given["completion_mask"].bool()
    advantages = given["advantages"].unsqueeze(1)
    confident = mask & (chosen_logps(logits, given["completion_ids"]) > math.log(0.3))

    def ratios(logps):
        return (logps - given["old_per_token_logps"]).exp()

    def adjustment(logps):
        return torch.where(confident, 0.5 * ratios(logps) * advantages.abs(), 0.0)

    expected = released(lambda logps: -ratios(logps) * advantages, loss_type, given, logits)
    if mean_over == "all":
        expected = expected + released(adjustment, loss_type, given, logits)
    else:  # dp_actor.py of yk7333/EntroPIC: a mean of its own, whatever the loss
        expected = expected + released(adjustment, "dapo", given, logits) * mask.sum() / confident.sum()
    rule = {"alpha": -0.5, "threshold": 0.3, "mean_over": mean_over}
    actual = ours(loss_type, given, logits, **NO_CLIP, loss_terms={"confident_surrogate": rule})
    assert distance(actual, expected) < 1e-12


@pytest.mark.parametrize("loss_type", CLIPPED)
def test_sent_has_the_strength_that_trl_gives_to_its_own_divergence(case, loss_type):
    # on all tokens the paper's form is TRL's beta, without the correction by the ratio
    given, logits = case
    plain = {"use_bias_correction_kl": False}
    of_trl = ours(loss_type, given, logits, beta=0.5, **plain)
    both = {"coef": 0.4, "high_coef": 1.0, "low_coef": 1.0, "low_share": 1.0}
    of_term = ours(loss_type, given, logits, beta=0.1, loss_terms={"sent": both}, **plain)
    assert distance(of_term, of_trl) < 1e-12


@pytest.mark.parametrize("loss_type", [name for name in LOSS_TYPES if name != "luspo"])
def test_entropy_bonus_on_hard_prompts_is_a_mean_over_trained_tokens_whatever_the_loss(case, loss_type):
    given, logits = case
    given["group_rewards"] = torch.zeros(8, 4, dtype=torch.float64)
    without = ours(loss_type, given, logits)
    actual = ours(loss_type, given, logits, loss_terms={"aer_entropy": {"coef": 0.3}}) - without
    table_of_logits = logits.clone().requires_grad_()
    logps = table_of_logits.log_softmax(-1)
    mask = given["completion_mask"].bool()
    bonus = -0.3 * (logps.exp() * logps).sum(-1)[mask].mean()
    (expected,) = torch.autograd.grad(bonus, table_of_logits)
    assert distance(actual, expected) < 1e-10


def test_vllm_correction_of_the_surrogate_is_one_of_the_term_too(case):
    # without use_vllm TRL's surrogate leaves the column alone, so what differs is the term
    given, logits = case
    noise = torch.rand(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given["importance_sampling_ratio"] = noise
    rules = {"loss_terms": {"kl_cov": {"coef": 1.0, "share": 1.0}}}
    plain = dict(given)
    del plain["importance_sampling_ratio"]
    scaled = given | {"importance_sampling_ratio": 2 * given["importance_sampling_ratio"]}
    actual = [ours("dapo", inputs, logits, **rules) - ours("dapo", plain, logits) for inputs in (given, scaled)]
    assert distance(actual[1], 2 * actual[0]) < 1e-10


@pytest.mark.parametrize("loss_type", ["cispo", "sapo", "vespo"])
def test_what_the_clip_stopped_is_not_given_back_where_no_clip_stops(loss_type):
    with pytest.raises(ValueError, match=rf"loss_terms\.ce_gppo acts on .* loss_type='{loss_type}' never stops one"):
        EntropyGRPOConfig("unused", use_cpu=True, bf16=False, loss_type=loss_type, loss_terms={"ce_gppo": {}})


def test_unknown_loss_type_is_named():
    ones = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="we do not know how loss_type='tenth' averages over tokens"):
        micro_batch_mean("tenth", ones, ones.bool(), 3)
