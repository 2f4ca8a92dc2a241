import collections
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from toy import random_tokens

from trl_entropy import Rule
from trl_entropy.checks import bind, unknown
from trl_entropy.rules.compose import active, build, combined, evaluate, faults, term_sums
from trl_entropy.rules.rule import PlainFunction, knob
from trl_entropy.rules.terms import AerEntropy, KlCov
from trl_entropy.rules.weights import WEIGHTS, ConfidentSign, Sign


@dataclass(frozen=True)
class Half(Rule):
    """A rule of one's own."""

    strength: float = knob(0.5, low=0.0)

    def __call__(self, tokens):
        return torch.full_like(tokens.logps, self.strength)


def doubled(tokens):
    return torch.full_like(tokens.logps, 2.0)


NOT_CALLABLE = "a string"


# Names


def test_unknown_name_comes_with_the_nearest_and_with_all():
    error = unknown("fruit", "aple", ["pear", "apple"])
    assert isinstance(error, ValueError)
    assert str(error) == "unknown fruit 'aple'. Did you mean 'apple'? Available: apple, pear"


def test_unknown_name_far_from_all_comes_without_a_guess():
    assert str(unknown("fruit", "xyz", ["pear"])) == "unknown fruit 'xyz'. Available: pear"
    assert str(unknown("fruit", "xyz", [])) == "unknown fruit 'xyz'. Available: none"


def test_rules_are_built_by_name_with_their_parameters():
    rules = build("token_weights", WEIGHTS, {"sign": None, "confident_sign": {"alpha": -0.5}})
    assert rules == {"sign": Sign(), "confident_sign": ConfidentSign(alpha=-0.5)}
    assert build("token_weights", WEIGHTS, {}) == {}


def test_rule_class_of_ones_own_is_built_by_its_path():
    assert build("token_weights", WEIGHTS, {f"{__name__}.Half": {"strength": 0.25}}) == {
        f"{__name__}.Half": Half(strength=0.25)
    }


def test_plain_function_of_ones_own_is_a_rule():
    path = f"{__name__}.doubled"
    rule = build("token_weights", WEIGHTS, {path: {}})[path]
    assert rule == PlainFunction(doubled)
    assert not rule.neutral
    assert rule.token_selective
    assert (rule(random_tokens()) == 2.0).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"confident_sgn": {}}, r"unknown name in token_weights 'confident_sgn'\. Did you mean 'confident_sign'\?"),
        ({"confident_sign": {"alfa": 1}}, r"unknown parameter of token_weights\.confident_sign 'alfa'\. Did you mean"),
        ({"confident_sign": {"alpha": 3}}, r"alpha must be .* got 3 \(in token_weights\.confident_sign\)"),
        ({"confident_sign": 0.5}, r"token_weights\.confident_sign must be a mapping of parameters to values"),
        (["confident_sign"], r"token_weights must be a mapping of names to parameters, got \['confident_sign'\]"),
        ({"no.such.module.Rule": {}}, r"token_weights 'no\.such\.module\.Rule' cannot be imported: No module named"),
        ({"math.nothing": {}}, r"token_weights 'math\.nothing' cannot be imported: .*nothing"),
        ({f"{__name__}.doubled": {"x": 1}}, r"must be a subclass of trl_entropy\.Rule, or a function"),
        ({f"{__name__}.NOT_CALLABLE": {}}, r"must be a subclass of trl_entropy\.Rule, or a function"),
    ],
)
def test_wrong_mapping_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build("token_weights", WEIGHTS, spec)


def test_bind_gives_the_parameters():
    assert bind("a counter", collections.namedtuple("Pair", "x y"), {"x": 1, "y": 2}) == (1, 2)


# The algebra


def test_effective_advantage_is_the_product_of_weights_and_advantage():
    tokens = random_tokens()
    a, b = Sign(positive_advantage_coef=0.5)(tokens), ConfidentSign(alpha=-0.5)(tokens)
    expected = torch.where(tokens.mask, a * b * tokens.advantages, 0.0)
    torch.testing.assert_close(combined(tokens, {"a": a, "b": b}, {}), expected, rtol=1e-6, atol=0)


def test_product_commutes():
    tokens = random_tokens()
    rules = {"sign": Sign(positive_advantage_coef=0.3), "confident_sign": ConfidentSign(alpha=-0.7)}
    values = evaluate("token_weights", rules, tokens) | {"third": torch.rand(4, 5)}
    results = [combined(tokens, dict(order), {}) for order in itertools.permutations(values.items())]
    for result in results:
        torch.testing.assert_close(result, results[0], rtol=1e-6, atol=0)


def test_product_of_none_is_the_advantage():
    tokens = random_tokens()
    assert torch.equal(combined(tokens, {}, {}), tokens.advantages)


def test_rules_see_raw_tokens_whatever_stands_before_them():
    tokens = random_tokens()
    first = {"sign": Sign(positive_advantage_coef=0.0), "confident_sign": ConfidentSign(alpha=1.0)}
    alone = ConfidentSign(alpha=1.0)(tokens)
    assert torch.equal(evaluate("token_weights", first, tokens)["confident_sign"], alone)


def test_weights_pass_no_gradient():
    tokens = random_tokens()
    weight = torch.ones(4, 5, requires_grad=True)
    assert not combined(tokens, {"a": weight * 2}, {}).requires_grad


def test_terms_are_added_up_by_their_mean_and_outside_of_the_mask_they_are_0():
    tokens = random_tokens(rows=1, length=3, logps=torch.zeros(1, 3), mask=torch.tensor([[True, True, False]]))
    terms = {"a": torch.tensor([[1.0, 2.0, math.nan]]), "b": torch.tensor([[10.0, 20.0, math.inf]])}
    rules = {"a": KlCov(), "b": KlCov(), "c": AerEntropy()}
    sums = term_sums(tokens, rules, terms | {"c": -tokens.logps})
    assert sums[True].tolist() == [[11.0, 22.0, 0.0]]
    assert sums[False].tolist() == [[0.0, 0.0, 0.0]]
    assert term_sums(tokens, {}, {}) == {}


def test_neutral_rules_are_not_active():
    rules = {"sign": Sign(), "confident_sign": ConfidentSign(alpha=0.1)}
    assert active(rules) == {"confident_sign": ConfidentSign(alpha=0.1)}


@pytest.mark.parametrize("shape", [(4,), (4, 1), (5, 4), ()])
def test_rule_that_returns_another_shape_is_refused(shape):
    rules = {"mine": PlainFunction(lambda tokens: torch.ones(shape))}
    with pytest.raises(ValueError, match=r"token_weights\.mine must return a value per token, \(4, 5\), got \("):
        evaluate("token_weights", rules, random_tokens())


def test_faults_are_trained_tokens_with_a_weight_that_is_negative_or_not_finite():
    mask = torch.tensor([[True, True, True, True, True, False]])
    tokens = random_tokens(rows=1, length=6, mask=mask)
    bad = torch.tensor([[-0.1, math.nan, math.inf, -math.inf, 1.0, -5.0]])
    assert faults(tokens, {"bad": bad}, {}) == 4
    assert faults(tokens, {"bad": bad, "worse": -torch.ones(1, 6)}, {}) == 9
    assert faults(tokens, {"good": torch.rand(1, 6), "zero": torch.zeros(1, 6)}, {}) == 0


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (
            frozenset({"group_reward"}),
            r"unknown entry of Wrong\.needs 'group_reward'\. Did you mean 'group_rewards'\?",
        ),
        ("pool", r"Wrong\.needs must be a frozenset of names, got 'pool'"),
        (property(lambda self: frozenset({"pol"})), r"unknown entry of Wrong\.needs 'pol'\. Did you mean 'pool'\?"),
    ],
)
def test_wrong_needs_are_refused(needs, message):
    class Wrong(Rule):
        def __call__(self, tokens):
            return tokens.logps

    Wrong.needs = needs
    with pytest.raises(ValueError, match=message):
        Wrong()
