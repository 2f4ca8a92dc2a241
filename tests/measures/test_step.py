"""What every measure holds to, and what a step makes of them."""

import math
from dataclasses import replace

import pytest
import torch
from test_tokens import HostSyncs, rows, with_padding
from toy import random_tokens

from trl_entropy.measures import Means, StepMeasures
from trl_entropy.measures.entropy import entropy_of_prompt
from trl_entropy.measures.step import OF_SLOPES, OF_TOKENS
from trl_entropy.measures.surrogate import surrogate_slopes
from trl_entropy.rules.rule import PlainFunction


def no_contexts() -> torch.Tensor:
    return torch.zeros(0, 0, dtype=torch.int64)


every_seed = pytest.mark.parametrize("seed", range(3))
MEASURES = {measure.__name__: measure for measure in (*OF_TOKENS, entropy_of_prompt)}
MEASURES |= {
    measure.__name__: lambda tokens, measure=measure: measure(tokens, surrogate_slopes(tokens, effective(tokens)))
    for measure in OF_SLOPES
}
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())


def alone(values):
    return values


def effective(tokens):
    """Advantages in the loss that rules may have made of the raw ones."""
    return torch.where(tokens.logps < -1, -0.5, 1.5) * tokens.advantages + 0.1


def means_of(measure, tokens) -> dict[str, float]:
    means = Means()
    means.add_values(measure(tokens))
    return means.reduce(alone)


def step(*batches, measures=None, over_ranks=alone) -> dict[str, float]:
    measures = measures or StepMeasures("full")
    for tokens in batches:
        measures.add_tokens(tokens, effective(tokens))
    return measures.end_step(over_ranks)


# Every measure


@every_measure
def test_all_that_is_measured_of_these_tokens_is_there(measure):
    assert means_of(measure, random_tokens())


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
@every_seed
@every_measure
def test_padding_does_not_matter(measure, seed, garbage):
    tokens = random_tokens(seed)
    assert not tokens.mask.all()
    assert means_of(measure, with_padding(tokens, garbage)) == means_of(measure, tokens)


@every_seed
@every_measure
def test_longer_padding_does_not_matter(measure, seed):
    tokens = random_tokens(seed)
    names = ("logps", "old_logps", "sampling_logps", "entropies", "advantages")
    names = (*names, "staleness", "expected_discriminator", "entropies_at_one")
    longer = {name: torch.nn.functional.pad(getattr(tokens, name), (0, 3), value=math.nan) for name in names}
    mask = torch.nn.functional.pad(tokens.mask, (0, 3), value=False)
    padded = replace(tokens, mask=mask, pool=None, old_entropies=None, ref_logps=None, vocabulary={}, **longer)
    # float32 sums of another order
    assert means_of(measure, padded) == pytest.approx(means_of(measure, tokens), abs=1e-6)


@every_measure
def test_measure_does_not_make_the_host_wait(measure):
    tokens = random_tokens()
    effective(tokens)
    with HostSyncs() as syncs:
        measure(tokens)
    assert syncs.found == []


# A step


@every_seed
def test_split_into_micro_batches_does_not_matter(seed):
    tokens = random_tokens(seed, rows=8)
    whole = step(tokens)
    parts = step(*(rows(tokens, slice(start, stop)) for start, stop in ((0, 1), (1, 2), (2, 6), (6, 8))))
    assert parts == pytest.approx(whole, abs=1e-6)  # float32 sums of another order
    assert len(whole) > 25


@every_seed
def test_order_of_the_batch_does_not_matter(seed):
    tokens = random_tokens(seed)
    assert step(rows(tokens, torch.tensor([2, 0, 3, 1]))) == pytest.approx(step(tokens), abs=1e-6)


def test_ranks_are_added_up_by_one_call():
    tokens = random_tokens(rows=8)
    calls = []

    def other_half():
        measures = StepMeasures("full")
        step(rows(tokens, slice(4, 8)), measures=measures, over_ranks=lambda sums: calls.append(sums) or sums)
        return calls[0]

    others = other_half()
    both = step(rows(tokens, slice(0, 4)), over_ranks=lambda sums: calls.append(sums) or sums + others)
    assert len(calls) == 2
    assert both == pytest.approx(step(tokens), abs=1e-6)


def test_adding_and_deriving_do_not_make_the_host_wait():
    tokens, measures = random_tokens(), StepMeasures("full", signals={"entropy/token_weights.mine"})
    advantages = effective(tokens)
    with HostSyncs() as syncs:
        measures.add_tokens(tokens, advantages)
        measures.add_tokens(tokens, advantages)
        measures.add_rules("token_weights", {"mine": PlainFunction(None)}, {"mine": tokens.logps}, tokens)
    assert syncs.found == []
    with HostSyncs() as syncs:
        measures.end_step(alone)
    assert len(syncs.found) <= 1  # the one transfer of a step


def test_tokens_and_effective_advantages_go_to_the_measures_that_are_of_them():
    tokens = random_tokens(clip_range=(9.0, 9.0))
    means = step(tokens)
    pairs = torch.stack([tokens.logps, tokens.advantages])[:, tokens.mask]
    covariance = torch.cov(pairs, correction=0)[0, 1].item()
    assert means["covariance/logp_advantage"] == pytest.approx(covariance, abs=1e-6)
    pulls = tokens.ratios * effective(tokens) * (1 - tokens.logps.exp())
    expected = pulls[tokens.mask].clamp(min=0).sum() / tokens.mask.sum()
    assert means["gradient_mass/positive"] == pytest.approx(expected.item(), rel=1e-5)
    positive = tokens.mask & (tokens.advantages > 0)
    assert means["entropy/positive_advantage"] == pytest.approx(tokens.entropies[positive].mean().item(), rel=1e-5)


def test_change_is_that_since_the_step_before():
    measures = StepMeasures("basic")
    first, second = (random_tokens(seed, expected_discriminator=None) for seed in (0, 1))
    before = step(first, measures=measures)
    assert not [name for name in before if name.startswith("entropy_change")]
    after = step(second, measures=measures)
    assert after["entropy_change/observed"] == pytest.approx(after["entropy"] - before["entropy"], abs=1e-9)
    # predicted by the first tokens
    measures = StepMeasures("basic")
    step(first, measures=measures)
    again = step(random_tokens(7), measures=measures)
    names = [f"entropy_change/predicted{sign}" for sign in ("", "_positive", "_negative")]
    assert [after[name] for name in names] == [again[name] for name in names]


def test_step_without_tokens_has_no_change_before_and_after():
    measures = StepMeasures("basic")
    tokens = random_tokens()
    nothing = replace(tokens, mask=torch.zeros_like(tokens.mask), prompt_entropies=None, pool=None)
    step(tokens, measures=measures)
    assert step(nothing, measures=measures) == {}
    assert "entropy_change/observed" not in step(tokens, measures=measures)
    assert "entropy_change/observed" in step(tokens, measures=measures)


def test_what_serves_for_a_derived_mean_alone_is_dropped():
    tokens = random_tokens()
    for given in (tokens, replace(tokens, expected_discriminator=None)):
        means = step(given)
        assert not [name for name in means if name.startswith("_")]
        assert "covariance/logp_advantage" in means


def test_facts_that_only_full_asks_for():
    assert StepMeasures("basic").needs == set()
    assert StepMeasures("full").needs == {"entropies_at_one", "expected_discriminator", "prompt_entropies"}
    assert StepMeasures("full", slopes=None).needs == {"entropies_at_one", "prompt_entropies"}


def test_without_slopes_what_is_made_of_them_is_left_out():
    with_slopes, without = (StepMeasures("full", slopes=slopes) for slopes in (surrogate_slopes, None))
    tokens = random_tokens()
    for _ in range(2):
        both = step(tokens, measures=with_slopes), step(tokens, measures=without)
    dropped = {name for name in both[0] if name.startswith(("gradient_mass/", "entropy_change/predicted"))}
    assert len(dropped) == 6
    assert both[1] == {name: value for name, value in both[0].items() if name not in dropped}


def test_answers_are_read_by_full_alone_and_contexts_not_by_none():
    rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    outcomes = {"groups/all_correct": 0.5, "groups/all_wrong": 0.0}
    assert StepMeasures("none").of_rollout(rewards, pytest.fail, pytest.fail) == outcomes
    assert StepMeasures("basic").of_rollout(rewards, pytest.fail, no_contexts) == outcomes
    assert StepMeasures("full").of_rollout(rewards, lambda: ["1", "2", "3", "3"], no_contexts) == {
        **outcomes,
        "groups/distinct_answers": 1.5,
        "groups/vote_entropy": pytest.approx(math.log(2) / 2),
    }


def test_rules_are_measured_with_the_entropy_of_their_tokens():
    tokens = random_tokens()
    measures = StepMeasures("basic", signals={"entropy/advantage_bonuses.mine"})
    values = torch.where(tokens.entropies > 1.0, 0.5, 0.0)
    rules = dict.fromkeys(("mine", "other"), PlainFunction(None))
    measures.add_rules("advantage_bonuses", rules, {"mine": values, "other": values}, tokens)
    chosen = tokens.mask & (tokens.entropies > 1.0)
    share = chosen.sum().item() / tokens.mask.sum().item()
    assert measures.end_step(alone) == pytest.approx(
        {
            "advantage_bonuses/mine/mean": share / 2,
            "advantage_bonuses/mine/share": share,
            "advantage_bonuses/other/mean": share / 2,
            "advantage_bonuses/other/share": share,
            "entropy/advantage_bonuses.mine": tokens.entropies[chosen].mean().item(),
        },
        rel=1e-6,
    )
