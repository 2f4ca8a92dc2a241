"""The micro-batches of an optimizer step: the same rows, with less padding."""

import pytest
import torch

from trl_entropy._seam.trimming import Trimming, compacted, trimmed


PAD = 0


def window(
    lengths: list[list[int]], advantages: list[list[float]] | None = None, prompts=3, completions=6
) -> list[dict]:
    """Micro-batches whose ids and log-probs name their row: row r has ids 10 r + 1, 10 r + 2, ..."""
    batches, row = [], 0
    for place, sizes in enumerate(lengths):
        ids, prompt_ids = torch.zeros(len(sizes), completions).long(), torch.zeros(len(sizes), prompts).long()
        for at, size in enumerate(sizes):
            row += 1
            ids[at, :size] = 10 * row + torch.arange(1, size + 1)
            prompt_ids[at, prompts - 1 - row % 2 :] = row
        batches.append(
            {
                "prompt_ids": prompt_ids,
                "prompt_mask": (prompt_ids != PAD).long(),
                "completion_ids": ids,
                "completion_mask": (ids != PAD).long(),
                "old_per_token_logps": ids.float(),
                "advantages": torch.tensor(advantages[place] if advantages else [1.0] * len(sizes)),
                "group_rewards": torch.arange(6).float().expand(len(sizes), 6),
                "num_items_in_batch": torch.tensor(17),
            }
        )
    return batches


def rows(batch: dict | None) -> list[int]:
    """Which rows a batch has."""
    return [] if batch is None else (batch["completion_ids"][:, 0] // 10).tolist()


def test_trimmed_batch_keeps_every_token():
    (batch,) = window([[2, 4, 1]])
    cut = trimmed(batch)
    assert cut["completion_ids"].tolist() == [[11, 12, 0, 0], [21, 22, 23, 24], [31, 0, 0, 0]]
    assert cut["prompt_ids"].tolist() == [[1, 1], [0, 2], [3, 3]]
    assert cut["prompt_mask"].shape == (3, 2)
    assert cut["completion_mask"].shape == cut["old_per_token_logps"].shape == (3, 4)
    # six rewards of a group are as wide as the completions were, and are no tokens
    assert cut["group_rewards"].shape == (3, 6)
    assert cut["num_items_in_batch"] == 17


def test_one_column_stays_where_all_completions_are_masked():
    (batch,) = window([[2, 2]])
    batch["completion_mask"].zero_()
    assert trimmed(batch)["completion_ids"].shape == (2, 1)


def test_nothing_asked_for_changes_nothing():
    batches = window([[2, 6], [1, 3]])
    assert compacted(batches, Trimming()) == [(batch, None) for batch in batches]


def test_sorted_rows_of_similar_length_stand_together():
    made = compacted(window([[5, 1], [2, 6], [3, 3]]), Trimming(sort=True, trim=True))
    assert [rows(batch) for batch, _ in made] == [[2, 3], [5, 6], [1, 4]]
    assert [batch["completion_ids"].shape[1] for batch, _ in made] == [2, 3, 6]
    assert all(left is None for _, left in made)


def test_rows_without_advantage_are_left_out():
    batches = window([[5, 1], [2, 6]], [[0.0, 1.0], [-1.0, 0.0]])
    made = compacted(batches, Trimming(skip=True))
    assert [rows(batch) for batch, _ in made] == [[2], [3]]
    assert [rows(left) for _, left in made] == [[1], [4]]
    made = compacted(batches, Trimming(skip=True, sort=True, trim=True))
    assert [rows(batch) for batch, _ in made] == [[2], [3]]
    assert [batch["completion_ids"].shape[1] for batch, _ in made] == [1, 2]


def test_row_with_an_advantage_at_one_trained_token_is_trained_on():
    batches = window([[5, 2], [2, 6]])
    for batch in batches:
        batch["advantages"] = torch.zeros(2, 6)
        batch["tool_mask"] = batch["completion_mask"].clone()
    batches[0]["advantages"][0, 4] = -1.0  # the last token of row 1
    batches[0]["advantages"][1, 2] = 1.0  # padding
    batches[1]["advantages"][0, 1] = 1.0  # not trained
    batches[1]["tool_mask"][0, 1] = 0
    batches[1]["advantages"][1, 0] = 0.5
    made = compacted(batches, Trimming(skip=True, trim=True))
    assert [rows(batch) for batch, _ in made] == [[1], [4]]
    assert [rows(left) for _, left in made] == [[2], [3]]
    assert [batch["advantages"].shape for batch, _ in made] == [(1, 5), (1, 6)]


def test_columns_of_a_subclass_are_trimmed_with_the_completions():
    (batch,) = window([[2, 4, 1]])
    own = {
        "mine": torch.rand(3, 6),
        "vectors": torch.rand(3, 6, 2),
        "of_rows": torch.rand(3),
        "wide": torch.rand(3, 7),
    }
    cut = trimmed({**batch, **own})
    assert torch.equal(cut["mine"], own["mine"][:, :4])
    assert torch.equal(cut["vectors"], own["vectors"][:, :4])
    assert cut["of_rows"] is own["of_rows"]
    assert cut["wide"] is own["wide"]


@pytest.mark.parametrize(
    ("advantages", "trained"),
    [
        ([[0.0] * 3] * 2, [[1], [2]]),
        ([[0.0, 0.0, 1.0], [0.0] * 3], [[3], [1]]),
        ([[0.0, 1.0, 1.0], [1.0] * 3], [[2, 3, 4], [5, 6]]),
    ],
)
def test_every_micro_batch_keeps_a_row(advantages, trained):
    made = compacted(window([[2] * 3] * 2, advantages), Trimming(skip=True))
    assert [rows(batch) for batch, _ in made] == trained
    everything = [row for batch, left in made for row in rows(batch) + rows(left)]
    assert sorted(everything) == [1, 2, 3, 4, 5, 6]


def test_rank_with_fewer_rows_to_train_on_has_as_many_as_the_others():
    advantages = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    made = compacted(window([[2] * 3] * 2, advantages), Trimming(skip=True), least=4)
    assert [rows(batch) for batch, _ in made] == [[2, 1], [3, 4]]
    assert [rows(left) for _, left in made] == [[5], [6]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", [Trimming(*(bool(n & bit) for bit in (1, 2, 4))) for n in range(8)])
def test_no_row_is_lost_and_columns_stay_together(seed, how):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (4, 3), generator=generator).tolist()
    advantages = torch.randint(-1, 2, (4, 3), generator=generator).float().tolist()
    made = compacted(window(lengths, advantages), how)
    flat = [value for part in advantages for value in part]
    assert len(made) == 4
    seen = []
    for batch, left in made:
        assert len(batch["advantages"]) > 0
        for part in (batch, left):
            for at, row in enumerate(rows(part)):
                seen.append(row)
                assert part["advantages"][at] == flat[row - 1]
                ids = part["completion_ids"][at]
                assert torch.equal(part["old_per_token_logps"][at], ids.float())
                assert ids[ids != PAD].tolist() == [10 * row + n for n in range(1, int((ids != PAD).sum()) + 1)]
                assert part["prompt_ids"][at].max() == row
    assert sorted(seen) == list(range(1, 13))


def test_facts_of_a_group_are_not_cut_however_wide_the_completions_are():
    (batch,) = window([[2, 4, 1]])  # of 6 tokens
    own = {"group_rewards": torch.rand(3, 6), "group_logps": torch.rand(3, 6), "prompt_difficulty": torch.rand(3)}
    cut = trimmed({**batch, **own})
    assert all(cut[name] is value for name, value in own.items())
