import math

import torch

from trl_entropy.measures import Means


def pair(total: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(total), torch.tensor(count)


def test_mean_is_weighted_by_the_counts_and_not_by_micro_batches():
    means = Means()
    means.add({"a": pair(10.0, 1)})
    means.add({"a": pair(2.0, 3), "b": pair(9.0, 3)})
    # (10 + 2) / (1 + 3) = 3, where the mean of 10 and 2/3 would be 5.33
    assert means.reduce(lambda values: values) == {"a": 3.0, "b": 3.0}


def test_ranks_are_added_up_by_one_call():
    calls = []

    def over_ranks(values):  # another rank has seen the sum 5 of 2 tokens, and nothing for b
        calls.append(values)
        return values + torch.tensor([[5.0, 2.0], [0.0, 0.0]])

    means = Means()
    means.add({"a": pair(1.0, 1), "b": pair(4.0, 2)})
    assert means.reduce(over_ranks) == {"a": 2.0, "b": 2.0}
    assert len(calls) == 1


def test_mean_over_nothing_is_left_out():
    means = Means()
    means.add({"a": pair(0.0, 0), "b": pair(1.0, 1)})
    assert means.reduce(lambda values: values) == {"b": 1.0}


def test_it_is_empty_after_a_reduction():
    means = Means()
    means.add({"a": pair(1.0, 1)})
    means.reduce(lambda values: values)
    assert means.reduce(lambda values: values) == {}
    means.add({"a": pair(6.0, 2)})
    assert means.reduce(lambda values: values) == {"a": 3.0}


def test_sums_are_taken_in_float32():
    means = Means()
    for _ in range(400):
        means.add({"a": (torch.ones((), dtype=torch.bfloat16), torch.ones((), dtype=torch.int))})
    means.add({"a": pair(0.0, 400)})
    # 400 / 800; in bfloat16 a sum of ones stops at 256
    assert means.reduce(lambda values: values) == {"a": 0.5}


def test_what_is_added_is_cut_from_the_graph():
    total = torch.ones((), requires_grad=True)
    means = Means()
    means.add({"a": (total, torch.tensor(1))})
    assert means.reduce(lambda values: values) == {"a": 1.0}


def test_values_are_averaged_over_their_own_tokens():
    values = torch.tensor([[1.0, 2.0], [4.0, math.nan]])
    some, none = torch.tensor([[True, False], [True, False]]), torch.zeros(2, 2, dtype=torch.bool)
    means = Means()
    for _ in range(2):
        means.add_values({"a": (values, some), "share": (some, torch.ones(2, 2).bool()), "none": (values, none)})
    means.add({"a": pair(2.5, 1)})
    # (1 + 4 + 1 + 4 + 2.5) / 5; a token that is not chosen may be NaN
    assert means.reduce(lambda sums: sums) == {"a": 2.5, "share": 0.5}


def test_values_are_cut_from_the_graph():
    values = torch.ones(1, 2, requires_grad=True)
    means = Means()
    means.add_values({"a": (values, values > 0)})
    assert means.reduce(lambda sums: sums) == {"a": 1.0}
