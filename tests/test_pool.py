"""Statistics over a step against the same over one flat tensor, however the step is split."""

import math
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from test_tokens import rows
from toy import random_tokens

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool, _key, _value


def entropies(tokens: Tokens) -> torch.Tensor:
    return tokens.entropies


def of_values(values: list[float], **changes) -> Tokens:
    row = torch.tensor([values])
    return Tokens(row, row, row, row, torch.ones_like(row, dtype=torch.bool), **changes)


def split_in(tokens: Tokens, sizes: list[int]) -> list[Tokens]:
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [rows(tokens, slice(start, start + size)).detach() for start, size in zip(starts, sizes, strict=True)]


class Ranks:
    """Pools of several ranks, run in turn: a sum over ranks is known once every rank has come to it."""

    def __init__(self, ranks: list[list[Tokens]]):
        self.ranks = ranks

    def ask(self, question):
        """The answer of every rank to `question(pool)`, with as many rounds as there are reductions."""
        known: list[torch.Tensor] = []
        while True:
            asked, answers = [], []
            for batches in self.ranks:
                with suppress(StopIteration):
                    answers.append(question(Pool(batches, self._reduction(known, asked))))
            if len(answers) == len(self.ranks):
                return answers
            known.append(torch.stack(asked).sum(0))

    def _reduction(self, known, asked):
        remaining = iter(known)

        def reduce(values):
            total = next(remaining, None)
            if total is None:
                asked.append(values)
                raise StopIteration
            return total

        return reduce


# Statistics


@pytest.mark.parametrize("sizes", [[12], [1, 11], [4, 4, 4], [1] * 12])
def test_statistics_are_those_of_all_trained_tokens(sizes):
    tokens = random_tokens(rows=12)
    flat = tokens.entropies[tokens.mask].double()
    pool = Pool(split_in(tokens, sizes))
    assert pool.count() == len(flat)
    torch.testing.assert_close(pool.sum(entropies), flat.sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(pool.mean(entropies), flat.mean().float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(pool.std(entropies), flat.std(correction=0).float(), rtol=1e-6, atol=0)
    by_size = flat.float().sort(descending=True).values
    for rank in range(1, len(flat) + 1):
        assert pool.largest(entropies, rank) == by_size[rank - 1]  # exactly
    assert pool.largest(entropies, 0) == math.inf
    assert pool.largest(entropies, len(flat) + 1) == -math.inf


def test_mean_of_rows_counts_every_completion_once():
    # means of the rows are 2 and 5; the third has no trained token
    values = torch.tensor([[1.0, 3.0, 0.0], [5.0, 0.0, 0.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    tokens = Tokens(values, values, values, values, mask)
    assert tokens.mean_over_row(tokens.entropies).tolist() == [2.0, 5.0, 0.0]
    assert tokens.pool.mean_of_rows(lambda batch: batch.mean_over_row(batch.entropies)) == 3.5


@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_quantile_selects_what_torch_quantile_selects(q):
    for seed in range(5):
        tokens = random_tokens(seed, rows=9)
        values = tokens.entropies[tokens.mask]
        assert torch.equal(values >= tokens.pool.quantile(entropies, q), values >= torch.quantile(values, q))


def test_statistics_may_be_over_some_of_the_tokens():
    tokens = of_values([1.0, 2.0, 3.0, 4.0])
    even = {"among": lambda batch: batch.entropies % 2 == 0}
    assert tokens.pool.largest(entropies, 2, **even) == 2.0
    assert tokens.pool.quantile(entropies, 0.5, **even) == 4.0
    assert tokens.pool.top(tokens, entropies, 1, **even).tolist() == [[False, False, False, True]]


def test_pool_without_a_trained_token():
    tokens = replace(of_values([1.0, 2.0]), mask=torch.zeros(1, 2, dtype=torch.bool), pool=None)
    pool = tokens.pool
    assert pool.count() == pool.mean(entropies) == pool.std(entropies) == 0
    assert pool.largest(entropies, 1) == -math.inf
    assert not pool.top(tokens, entropies, 1).any()


def test_keys_are_in_the_order_of_the_numbers():
    tiny = 1e-45
    numbers = [-math.inf, -3e38, -2.0, -1.0, -tiny, 0.0, tiny, 1.0, 1.0000001, 2.0, 3e38, math.inf]
    keys = _key(torch.tensor(numbers))
    assert (keys.diff() > 0).all()
    assert keys.min() >= 0
    assert keys.max() < 2**32
    assert torch.equal(_value(keys), torch.tensor(numbers))
    assert _key(torch.tensor([-0.0])) == _key(torch.tensor([0.0]))


@pytest.mark.parametrize("size", [3, 40])
def test_what_goes_over_ranks_for_a_value_does_not_depend_on_the_tokens(size):
    sent = []
    Pool([random_tokens(rows=size)], lambda values: sent.append(values) or values).largest(entropies, 2)
    assert [values.numel() for values in sent] == [2048, 2048, 1024]
    assert {values.dtype for values in sent} == {torch.float64}


# Selection


def test_top_takes_exactly_that_many():
    tokens = random_tokens(rows=12)
    count = int(tokens.mask.sum())
    for number in (0, 1, 3, count - 1, count, count + 5):
        chosen = tokens.pool.top(tokens, entropies, number)
        assert chosen.sum() == min(number, count)
        assert not (chosen & ~tokens.mask).any()
        if 0 < number < count:
            assert tokens.entropies[chosen].min() >= tokens.entropies[tokens.mask & ~chosen].max()


def test_ties_are_split_the_same_way_wherever_a_token_stands():
    ones = torch.ones(6, 4)
    tokens = Tokens(-ones, -ones, ones, ones, ones.bool(), completions=torch.arange(6) * 1000003)
    chosen = tokens.pool.top(tokens, entropies, 10)
    assert chosen.sum() == 10
    order = torch.tensor([5, 2, 0, 4, 1, 3])
    shuffled = rows(tokens, order)
    assert torch.equal(shuffled.pool.top(shuffled, entropies, 10), chosen[order])


def test_copies_of_a_completion_stay_together():
    tokens = of_values([1.0, 1.0])
    twice = rows(tokens, torch.tensor([0, 0]))
    chosen = twice.pool.top(twice, entropies, 1)
    assert torch.equal(chosen[0], chosen[1])


@pytest.mark.parametrize("seed", range(3))
def test_ranks_agree_with_one_process(seed):
    tokens = random_tokens(seed, rows=12)
    tokens = replace(tokens, entropies=(tokens.entropies * 3).round(), pool=None)  # with ties
    ranks = Ranks([split_in(rows(tokens, slice(0, 5)), [2, 3]), split_in(rows(tokens, slice(5, 12)), [4, 3])])
    for question in (
        lambda pool: pool.mean(entropies),
        lambda pool: pool.std(entropies),
        lambda pool: pool.largest(entropies, 4),
        lambda pool: pool.quantile(entropies, 0.7),
        lambda pool: pool.mean_of_rows(lambda batch: batch.mean_over_row(batch.entropies)),
    ):
        expected = question(tokens.pool)
        for answer in ranks.ask(question):
            torch.testing.assert_close(answer, expected, rtol=1e-6, atol=0)
    expected = tokens.pool.top(tokens, entropies, 7)
    first, second = ranks.ask(lambda pool: [pool.top(batch, entropies, 7) for batch in pool.batches])
    assert torch.equal(torch.cat(first + second), expected)


def test_a_pool_of_one_rank_alone_would_choose_otherwise():
    parts = split_in(random_tokens(rows=12), [6, 6])
    together = [Pool(parts).top(part, entropies, 4) for part in parts]
    alone = [Pool([part]).top(part, entropies, 4) for part in parts]
    assert not torch.equal(torch.cat(together), torch.cat(alone))


# Randomness


def test_noise_is_uniform_and_differs_by_step_completion_and_place():
    mask = torch.ones(200, 50, dtype=torch.bool)
    zeros = torch.zeros(200, 50)
    tokens = Tokens(zeros, zeros, zeros, zeros, mask, completions=torch.arange(200))
    noise = tokens.noise()
    assert noise.dtype == torch.float32
    assert (noise >= 0).all()
    assert (noise < 1).all()
    # 10,000 numbers: the mean of uniform ones has a deviation of 0.0029, a tenth of them one of 0.003
    assert abs(noise.mean() - 0.5) < 0.015
    assert all(abs(((noise >= k / 10) & (noise < (k + 1) / 10)).float().mean() - 0.1) < 0.015 for k in range(10))
    assert noise.unique().numel() > 9900
    later = replace(tokens, step=1, pool=None).noise()
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), later.flatten()]))[0, 1]) < 0.05


def test_noise_follows_the_completion():
    tokens = random_tokens(rows=6)
    order = torch.tensor([5, 2, 0, 4, 1, 3])
    assert torch.equal(rows(tokens, order).noise(), tokens.noise()[order])


def test_sums_are_those_of_each_function_by_one_reduction():
    tokens = random_tokens()
    parts, asked = split_in(tokens, [1, 3]), []
    pool = Pool(parts, lambda values: asked.append(values) or 2 * values)
    functions = [entropies, lambda batch: batch.logps]
    actual = pool.sums(functions)
    expected = [2 * function(tokens)[tokens.mask].double().sum().item() for function in functions]
    assert actual.tolist() == pytest.approx(expected, rel=1e-12)
    assert len(asked) == 1
    assert torch.equal(Pool(parts).sums(functions[:1])[0], Pool(parts).sum(entropies))
