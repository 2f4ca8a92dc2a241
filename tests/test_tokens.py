"""Tokens, and what every rule of the catalogue must hold to."""

import gc
import math
import weakref
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import random_tokens

from trl_entropy import Rule, Tokens
from trl_entropy.checks import check_number
from trl_entropy.rules.bonuses import BONUSES
from trl_entropy.rules.compose import combined, term_sums
from trl_entropy.rules.looks import IsTop1
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.rule import knob
from trl_entropy.rules.terms import TERMS
from trl_entropy.rules.tokens import PER_TOKEN
from trl_entropy.rules.weights import WEIGHTS


CATALOGUE = WEIGHTS | BONUSES | TERMS
# For every rule: parameters at which it acts on `random_tokens`, and those at which it is the identity
ACTING = {
    "a3po": {"factor": 2.0, "share": 0.4},
    "aer_entropy": {"coef": 0.5},
    "asym_grpo": {"beta_pos": 0.9, "beta_neg": 0.1},
    "bapo": {"low_start": 0.9, "low_end": 0.95, "high_end": 1.3},
    "ce_gppo": {"beta_low": 0.75, "beta_high": 1.0},
    "clip_b": {"mu": 0.3},
    "clip_cov": {"share": 0.2, "low": 0.1},
    "clip_v": {"mu": 0.0, "max_share": 0.5},
    "confident_sign": {"alpha": -0.5},
    "confident_surrogate": {"alpha": -0.5},
    "dppo_kl": {"low": 1e-3, "high": 1e-3},
    "dppo_tv": {"low": 0.01, "high": 0.01},
    "differential_smoothing": {"gamma_p": 0.05, "gamma_n": 0.02},
    "entropy_advantage": {"alpha": 0.4},
    "entropy_ratio": {"beta_low": 0.01, "beta_high": 0.01},
    "future_entropy": {"beta": 0.1},
    "high_entropy": {"fraction": 0.3},
    "kl_cov": {"share": 0.3},
    "max_rl": {},
    "offline_shaping": {"gamma": 0.2},
    "pass_k": {"k": 2},
    "lp_reg": {"share": 1.0},
    "opefo": {},
    "paec": {"coef": 0.5},
    "perplexity": {"alpha": 0.1},
    "position": {"alpha": 0.5},
    "pseudo_negative": {"coef": 0.5},
    "quantile_advantage": {"k": 0.4},
    "random_positive_clip": {"share": 0.8},
    "ratio_range": {"epsilon_low": 0.05, "epsilon_high": 0.05},
    "relative_entropy": {"strength": 0.9},
    "repo": {"beta": 0.1},
    "repo_r": {"zeta": 0.05},
    "sampled_only": {},
    "sent": {"share": 0.3},
    "sign": {"positive_advantage_coef": 0.3, "negative_advantage_coef": 1.2},
    "simko": {"alpha": 0.1, "quantile": 0.2},
    "siren": {"coef": 0.5, "quantile": 0.3},
    "steer": {"floor": 0.5},
    "w_reinforce": {"positive_coef": 0.1},
}
NEUTRAL = {
    "a3po": {"factor": 1.0},
    "aer_entropy": {"coef": 0.0},
    "asym_grpo": {"beta_pos": 0.5, "beta_neg": 0.5},
    "bapo": {"outside": 1.0},
    "ce_gppo": {"beta_low": 0.0, "beta_high": 0.0},
    "clip_b": {"max_share": 0.0},
    "clip_cov": {"share": 0.0},
    "clip_v": {"max_share": 0.0},
    "confident_sign": {"alpha": 0.0},
    "confident_surrogate": {"alpha": 0.0},
    "dppo_kl": {"outside": 1.0},
    "dppo_tv": {"outside": 1.0},
    "differential_smoothing": {"gamma_p": 0.0, "gamma_n": 0.0},
    "entropy_advantage": {"alpha": 0.0},
    "entropy_ratio": {"outside": 1.0},
    "future_entropy": {"beta": 0.0},
    "high_entropy": {"fraction": 1.0},
    "kl_cov": {"coef": 0.0},
    "max_rl": {"strength": 0.0},
    "pass_k": {"strength": 0.0},
    "lp_reg": {"coef": 0.0},
    "opefo": {"strength": 0.0},
    "paec": {"coef": 0.0},
    "perplexity": {"alpha": 0.0},
    "position": {"alpha": 0.0},
    "pseudo_negative": {"coef": 0.0},
    "quantile_advantage": {"strength": 0.0},
    "random_positive_clip": {"share": 0.0},
    "ratio_range": {"outside": 1.0},
    "relative_entropy": {"strength": 0.0},
    "repo": {"beta": 0.0},
    "repo_r": {"zeta": 0.0},
    "sent": {"coef": 0.0},
    "sign": {"positive_advantage_coef": 1.0, "negative_advantage_coef": 1.0},
    "simko": {"alpha": 0.0, "penalty": 1.0},
    "siren": {"coef": 0.0},
    "steer": {"floor": 1.0},
}
# These have no such parameters: the first two are the identity where no completion is a stored solution
OF_STORED_SOLUTIONS = ("offline_shaping", "sampled_only")
NEVER_NEUTRAL = ("w_reinforce",)
every_rule = pytest.mark.parametrize("name", sorted(CATALOGUE))
every_rule_with_a_neutral_setting = pytest.mark.parametrize("name", sorted(NEUTRAL))
every_weight = pytest.mark.parametrize("name", sorted(WEIGHTS))
every_seed = pytest.mark.parametrize("seed", range(3))


def acting(name: str) -> Rule:
    return CATALOGUE[name](**ACTING[name])


def rows(tokens: Tokens, index) -> Tokens:
    """Some of the completions, as a batch of their own."""
    facts = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    parts = {name: value[index] for name, value in facts.items() if isinstance(value, torch.Tensor) and value.dim()}
    seen = {look: value[index] for look, value in tokens.vocabulary.items()}
    return replace(tokens, pool=None, vocabulary=seen, **parts)


def with_padding(tokens: Tokens, garbage: float) -> Tokens:
    """The same tokens with garbage wherever nothing is trained."""
    dirty = {name: torch.where(tokens.mask, getattr(tokens, name), garbage) for name in PER_TOKEN}
    seen = {look: torch.where(tokens.mask, value, garbage) for look, value in tokens.vocabulary.items()}
    seen |= {look: seen[look].bool() for look in seen if isinstance(look, IsTop1)}
    return replace(tokens, pool=None, vocabulary=seen, **dirty)


def trained(tokens: Tokens, values: torch.Tensor) -> torch.Tensor:
    return torch.where(tokens.mask, values, 0.0)


def in_one_pool(rule: Rule, parts: list[Tokens]) -> list[torch.Tensor]:
    """The values of a rule on the micro-batches of a step."""
    return [rule(replace(part, pool=Pool([other.detach() for other in parts]))) for part in parts]


def effective(name: str, tokens: Tokens, value: torch.Tensor) -> torch.Tensor:
    weights, bonuses = ({name: value}, {}) if name in WEIGHTS else ({}, {name: value})
    return combined(tokens, weights, bonuses)


def test_tables_of_these_tests_name_the_whole_catalogue():
    assert set(ACTING) == {*NEUTRAL, *OF_STORED_SOLUTIONS, *NEVER_NEUTRAL} == set(CATALOGUE)
    assert len(CATALOGUE) == len(WEIGHTS) + len(BONUSES) + len(TERMS)


# Tokens


def test_pool_of_these_tests_is_that_of_all_parts():
    @dataclass(frozen=True)
    class Mean(Rule):
        def __call__(self, tokens):
            return tokens.pool.mean(lambda batch: batch.entropies).expand_as(tokens.mask)

    tokens = random_tokens()
    parts = [rows(tokens, slice(0, 1)), rows(tokens, slice(1, 4))]
    torch.testing.assert_close(torch.cat(in_one_pool(Mean(), parts)), Mean()(tokens), rtol=1e-6, atol=0)
    assert not torch.allclose(Mean()(parts[0])[0, 0], Mean()(tokens)[0, 0])


def test_padding_is_zero_whatever_it_held():
    mask = torch.tensor([[True, False]])
    nan = torch.full((1, 2), math.nan)
    tokens = Tokens(nan.clone().fill_(-1.0), nan, nan, nan, mask)
    for name in ("old_logps", "entropies", "advantages"):
        assert math.isnan(getattr(tokens, name)[0, 0])  # a trained token is shown as it is
        assert getattr(tokens, name)[0, 1] == 0
    assert tokens.logps.tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize("name", ["logps", "old_logps", "entropies", "advantages"])
def test_another_shape_than_that_of_the_mask_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must have mask's shape \(4, 5\), got \(4, 6\)"):
        random_tokens(**{name: torch.zeros(4, 6)})


@pytest.mark.parametrize("mask", [torch.ones(4, 5), torch.ones(4, 5, dtype=torch.int), torch.ones(5).bool()])
def test_mask_of_another_kind_is_refused(mask):
    with pytest.raises(ValueError, match=r"mask must be a bool tensor \(B, T\), got torch\."):
        random_tokens(mask=mask)


def test_detached_tokens_are_equal_and_carry_no_gradient():
    ones = torch.ones(4, 5, requires_grad=True)
    pool = Pool([])
    tokens = random_tokens(logps=-ones, entropies=2 * ones, step=4, pool=pool)
    assert tokens.logps.requires_grad
    detached = tokens.detach()
    assert not detached.logps.requires_grad
    assert not detached.entropies.requires_grad
    assert torch.equal(detached.logps, tokens.logps)
    assert (detached.step, detached.pool) == (4, pool)


def test_old_policy_is_the_policy_where_none_is_given():
    logps = torch.full((1, 2), -1.0, requires_grad=True)
    zeros = torch.zeros(1, 2)
    tokens = Tokens(logps, None, zeros, zeros, torch.tensor([[True, False]]))
    assert tokens.old_logps.tolist() == [[-1.0, 0.0]]
    assert not tokens.old_logps.requires_grad


def test_facts_that_nobody_gave():
    with_gradient = {name: torch.ones(4, 5, requires_grad=True) for name in ("logps", "entropies")}
    unknown = dict.fromkeys(("completions", "old_entropies", "offline", "pool"))
    tokens = random_tokens(**with_gradient, **unknown)
    assert torch.equal(tokens.old_entropies, tokens.entropies)
    assert not tokens.old_entropies.requires_grad
    assert tokens.offline.tolist() == [False] * 4
    assert tokens.completions.tolist() == [0, 1, 2, 3]
    (alone,) = tokens.pool.batches
    assert torch.equal(alone.logps, tokens.logps)
    assert not alone.logps.requires_grad
    assert not alone.entropies.requires_grad


def test_tokens_end_with_their_last_reference():
    tokens = random_tokens(pool=None)
    ended = weakref.ref(tokens)
    gc.disable()  # so that nothing waits in a circle of references
    try:
        del tokens
        assert ended() is None
    finally:
        gc.enable()


def test_another_pool_changes_nothing_else():
    tokens, pool = random_tokens(), Pool([])
    other = tokens.with_pool(pool)
    assert other.pool is pool
    assert tokens.pool is not pool
    assert all(getattr(other, field.name) is getattr(tokens, field.name) for field in fields(tokens)[:7])


def test_gradient_of_padding_is_zero():
    logps = torch.full((1, 2), -1.0, requires_grad=True)
    zeros = torch.zeros(1, 2)
    Tokens(logps, zeros, zeros, zeros, torch.tensor([[True, False]])).logps.sum().backward()
    assert logps.grad.tolist() == [[1.0, 0.0]]


# Numbers


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "x must be a number, got nan"),
        ({"low": 0.0}, "x must be a number >= 0, got nan"),
        ({"high": 2.5}, "x must be a number <= 2.5, got nan"),
        ({"low": -1.0, "high": 1.0}, "x must be a number >= -1 and <= 1, got nan"),
    ],
)
def test_error_of_a_number_names_its_range(bounds, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_number("x", math.nan, **bounds)


@pytest.mark.parametrize("value", [math.inf, -math.inf, "0.5", None, True, [0.5]])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="x must be a number, got"):
        check_number("x", value)


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.5])
def test_bounds_belong_to_the_range(value):
    check_number("x", value, low=0.0, high=1.0)


@pytest.mark.parametrize("value", [-1e-9, 1.0000001])
def test_number_beyond_the_bounds_is_refused(value):
    with pytest.raises(ValueError, match="x must be a number >= 0 and <= 1"):
        check_number("x", value, low=0.0, high=1.0)


def test_rule_checks_its_knobs():
    @dataclass(frozen=True)
    class Mine(Rule):
        strength: float = knob(0.5, low=0.0, high=1.0)
        label: str = "no knob"

        def __call__(self, tokens):
            return tokens.logps

    assert not Mine().neutral  # unless a rule says so, it acts
    with pytest.raises(ValueError, match="strength must be a number >= 0 and <= 1, got 2"):
        Mine(strength=2)


def test_rule_without_a_formula_is_refused():
    class Empty(Rule):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()


# What every rule of the catalogue holds to


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_seed
@every_rule
def test_values_are_finite_and_one_per_token(name, seed, dtype):
    tokens = random_tokens(seed, dtype=dtype)
    values = acting(name)(tokens)
    assert values.shape == tokens.mask.shape
    assert values.dtype == dtype
    assert values.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_seed
@every_weight
def test_weights_are_not_negative(name, seed, dtype):
    tokens = random_tokens(seed, dtype=dtype)
    rules = [acting(name)]
    for parameter in fields(CATALOGUE[name]):  # and at both ends of every range
        for end in ("low", "high"):
            if math.isfinite(parameter.metadata.get(end, math.inf)):
                rules.append(CATALOGUE[name](**{**ACTING[name], parameter.name: parameter.metadata[end]}))
    assert all((rule(tokens) >= 0).all() for rule in rules)


@every_seed
@every_rule
def test_rule_at_its_acting_parameters_acts(name, seed):
    tokens = random_tokens(seed)
    identity = torch.full_like(tokens.logps, 1.0 if name in WEIGHTS else 0.0)
    assert not torch.equal(trained(tokens, acting(name)(tokens)), trained(tokens, identity))
    assert not acting(name).neutral


@every_seed
@every_rule_with_a_neutral_setting
def test_neutral_rule_is_the_identity(name, seed):
    tokens = random_tokens(seed)
    rule = CATALOGUE[name](**NEUTRAL[name])
    assert rule.neutral
    assert (rule(tokens)[tokens.mask] == (1.0 if name in WEIGHTS else 0.0)).all()


@every_seed
@pytest.mark.parametrize("name", OF_STORED_SOLUTIONS)
def test_rule_of_stored_solutions_is_the_identity_without_them(name, seed):
    tokens = random_tokens(seed, offline=None)
    assert (acting(name)(tokens)[tokens.mask] == (1.0 if name in WEIGHTS else 0.0)).all()


@every_rule_with_a_neutral_setting
def test_rule_is_neutral_there_alone(name):
    for parameter, value in NEUTRAL[name].items():
        others = {parameter: value * 0.5 if value else 0.01}
        assert not CATALOGUE[name](**{**NEUTRAL[name], **others}).neutral


@every_seed
@every_rule
def test_rule_is_pure(name, seed):
    tokens = random_tokens(seed)
    before = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    copies = {key: value.clone() for key, value in before.items() if isinstance(value, torch.Tensor)}
    rule = acting(name)
    assert torch.equal(rule(tokens), rule(tokens))
    assert all(torch.allclose(copies[key], getattr(tokens, key), rtol=0, atol=0, equal_nan=True) for key in copies)
    with pytest.raises(AttributeError, match="cannot assign"):
        rule.anything = 1


@every_seed
@every_rule
def test_order_of_the_batch_does_not_matter(name, seed):
    tokens = random_tokens(seed)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = rows(tokens, order)
    expected = trained(tokens, acting(name)(tokens))[order]
    torch.testing.assert_close(trained(shuffled, acting(name)(shuffled)), expected, rtol=1e-5, atol=1e-7)


@every_seed
@every_rule
def test_split_of_the_batch_does_not_matter_in_the_same_pool(name, seed):
    tokens = random_tokens(seed)
    parts = [rows(tokens, slice(0, 1)), rows(tokens, slice(1, 4))]
    values = torch.cat(in_one_pool(acting(name), parts))
    # sums over the pool are added up in another order
    torch.testing.assert_close(trained(tokens, values), trained(tokens, acting(name)(tokens)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
@every_seed
@every_rule
def test_padding_does_not_matter(name, seed, garbage):
    tokens = random_tokens(seed)
    dirty = with_padding(tokens, garbage)
    value, dirty_value = acting(name)(tokens), acting(name)(dirty)
    assert not tokens.mask.all()
    assert torch.equal(trained(dirty, dirty_value), trained(tokens, value))
    # what a rule gives outside of the mask must not matter either
    dirty_value = torch.where(tokens.mask, dirty_value, garbage)
    if name not in TERMS:
        expected, actual = (effective(name, t, v) for t, v in ((tokens, value), (dirty, dirty_value)))
    else:
        (expected,), (actual,) = (
            term_sums(t, {name: acting(name)}, {name: v}).values() for t, v in ((tokens, value), (dirty, dirty_value))
        )
    assert torch.equal(actual, expected)


@every_rule
def test_gradient_of_padding_is_zero_for_every_rule(name):
    facts = {fact: getattr(random_tokens(), fact).clone().requires_grad_() for fact in ("logps", "entropies")}
    seen = {look: value.clone() for look, value in random_tokens().vocabulary.items()}
    seen = {look: value.requires_grad_() if look.has_gradient else value for look, value in seen.items()}
    tokens = random_tokens(**facts, vocabulary=seen)
    values = trained(tokens, acting(name)(tokens))
    if name in TERMS:
        needs = acting(name).needs
        inputs = [
            facts["entropies" if "entropy_gradient" in needs else "logps"],
            *(seen[n] for n in needs if n in seen),
        ]
        gradients = torch.autograd.grad(values.sum(), [one for one in inputs if one.requires_grad], allow_unused=True)
        gradient = sum(one for one in gradients if one is not None)
        assert gradient.isfinite().all()
        assert (gradient[~tokens.mask] == 0).all()
        assert (gradient[tokens.mask] != 0).any()
    else:
        assert not acting(name)(tokens.detach()).requires_grad


class HostSyncs(TorchDispatchMode):
    """Keeps the operations that would make the host wait for a GPU, or copy to it."""

    WAIT = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "bincount",
        "unique",
        "equal",
        "lift_fresh",
        "is_nonzero",
    )

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        by_mask = name in ("index", "index_put") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or any(name.startswith(wait) for wait in self.WAIT):
            self.found.append(name)
        return operation(*args, **(kwargs or {}))


@every_rule
def test_rule_does_not_make_the_host_wait(name):
    tokens, rule = random_tokens(), acting(name)
    tokens.pool.mean(lambda batch: batch.logps)
    with HostSyncs() as syncs:
        rule(tokens)
    assert syncs.found == []


def on_meta(tokens: Tokens, dtype: torch.dtype) -> Tokens:
    """Tokens on a device without values, which refuses tensors of a CPU as a GPU does; some facts in `dtype`."""
    facts = {field.name: getattr(tokens, field.name) for field in fields(tokens) if field.name != "pool"}
    facts = {name: fact.to("meta") if isinstance(fact, torch.Tensor) else fact for name, fact in facts.items()}
    facts["vocabulary"] = {look: value.to("meta") for look, value in tokens.vocabulary.items()}
    return Tokens(**{**facts, **{name: facts[name].to(dtype) for name in ("logps", "old_logps", "entropies")}})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_rule
def test_rule_stays_on_the_device_of_the_tokens(name, dtype):
    assert acting(name)(on_meta(random_tokens(), dtype)).device.type == "meta"


def test_tensor_of_a_cpu_is_refused_there():
    tokens = on_meta(random_tokens(), torch.float32)
    with pytest.raises(RuntimeError, match="not on the expected device"):
        tokens.logps + torch.arange(tokens.logps.shape[1])


@pytest.mark.parametrize(
    "wait",
    [
        lambda tokens: tokens.logps.sum().item(),
        lambda tokens: bool(tokens.mask.any()),
        lambda tokens: tokens.logps[tokens.mask],
        lambda tokens: tokens.logps + torch.tensor(1.0),
        lambda tokens: tokens.mask.nonzero(),
        lambda tokens: torch.as_tensor(3, device="cpu"),
    ],
)
def test_waiting_of_the_host_is_found(wait):
    tokens = random_tokens()
    with HostSyncs() as syncs:
        wait(tokens)
    assert syncs.found != []


@every_rule
def test_rule_that_is_the_same_for_a_whole_completion_says_so(name):
    tokens = random_tokens(rows=16)
    values = acting(name)(tokens)
    constant = all(row[mask].unique().numel() <= 1 for row, mask in zip(values, tokens.mask, strict=True))
    assert constant is not CATALOGUE[name].token_selective


# Direction: what a larger value does to the entropy of a softmax bandit in one exact gradient step


def bandit_entropy_change(rule: Rule, rewards: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Change of the entropy after one small step along the expected gradient, one token a sample, in float64."""
    logits = probabilities.log().requires_grad_()
    logps = logits.log_softmax(-1)
    entropy = -(logps.exp() * logps).sum()
    actions = torch.arange(len(rewards)).unsqueeze(1)  # every action is one row, weighted by its probability
    advantages = (rewards - (probabilities * rewards).sum()).unsqueeze(1)
    chosen = logps[actions]
    tokens = Tokens(
        chosen,
        chosen.detach(),
        entropy.expand(actions.shape),
        advantages,
        torch.ones_like(chosen).bool(),
        rewards=rewards,
        group_rewards=rewards.expand(len(rewards), -1),
    )
    if isinstance(rule, tuple(WEIGHTS.values())):
        objective = rule(tokens.detach()) * advantages * chosen  # its gradient is that of r A on-policy
    elif isinstance(rule, tuple(BONUSES.values())):
        objective = (advantages + rule(tokens.detach())) * chosen
    else:
        objective = advantages * chosen - rule(tokens)  # a term is added to the loss
    (slope,) = torch.autograd.grad((probabilities.unsqueeze(1) * objective).sum(), logits)
    moved = (logits.detach() + 1e-3 * slope).softmax(-1)
    return (-(moved * moved.log()).sum() - entropy).item()


# The rewarded action decides which advantages the likely action 0 gets: positive if it is 0, else negative. A weight
# by sign is declared by what it does to likely actions; a confident rule acts on those alone.
DIRECTIONS = [
    ("aer_entropy", "coef", 0),
    ("aer_entropy", "coef", 1),
    ("confident_sign", "alpha", 0),
    ("confident_sign", "alpha", 1),
    ("confident_surrogate", "alpha", 0),
    ("confident_surrogate", "alpha", 1),
    ("repo", "beta", 0),
    ("repo", "beta", 1),
    ("repo_r", "zeta", 0),
    ("repo_r", "zeta", 1),
    ("sign", "negative_advantage_coef", 1),
    ("sign", "positive_advantage_coef", 0),
    ("w_reinforce", "negative_coef", 1),
    ("w_reinforce", "positive_coef", 0),
]


def test_every_direction_that_the_catalogue_declares_is_tested():
    declared = {
        (name, parameter.name)
        for name, rule in CATALOGUE.items()
        for parameter in fields(rule)
        if parameter.metadata.get("raises_entropy") is not None
    }
    assert declared == {(name, parameter) for name, parameter, _ in DIRECTIONS}


@pytest.mark.parametrize(("name", "parameter", "rewarded"), DIRECTIONS)
def test_declared_direction_is_that_of_one_exact_gradient_step(name, parameter, rewarded):
    probabilities = torch.tensor([0.97, 0.02, 0.01], dtype=torch.float64)
    rewards = torch.zeros(3, dtype=torch.float64)
    rewards[rewarded] = 1.0
    metadata = next(field for field in fields(CATALOGUE[name]) if field.name == parameter).metadata
    low, high = (CATALOGUE[name](**{parameter: value * min(metadata["high"], 1.0)}) for value in (0.4, 0.9))
    change = bandit_entropy_change(high, rewards, probabilities) - bandit_entropy_change(low, rewards, probabilities)
    assert abs(change) > 1e-9  # rounding is 1e-15
    assert (change > 0) is metadata["raises_entropy"]
