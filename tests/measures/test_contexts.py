import pytest
import torch

from trl_entropy.measures import contexts
from trl_entropy.measures.contexts import samples_per_context


def ragged(seed: int, rows: int = 24, prompt: int = 2, length: int = 6, words: int = 3):
    """Prompts padded on the left and completions padded on the right, of so few words that many are alike."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator)

    prompts, prompt_mask = draw(2, rows, prompt), torch.arange(prompt) >= draw(prompt, rows, 1)
    return prompts, prompt_mask.int(), draw(words, rows, length), (torch.arange(length) <= draw(length, rows, 1)).int()


def by_counting(prompts, prompt_mask, ids, mask, trained) -> float:
    """Of every trained token, how many trained tokens have the same prompt and the same tokens before them."""
    seen = []
    for row in range(len(ids)):
        prompt = tuple(prompts[row][prompt_mask[row].bool()].tolist())
        own = ids[row][mask[row].bool()].tolist()
        seen += [(prompt, tuple(own[:place])) for place in range(len(own)) if trained[row, place]]
    return sum(map(seen.count, seen)) / len(seen)


def measured(prompts, prompt_mask, ids, mask, trained) -> float:
    hashes = contexts(prompts, prompt_mask, ids, mask).masked_fill(~trained, 0)
    return samples_per_context(hashes)["authority/samples_per_context"]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_counting_gives(seed):
    given = ragged(seed)
    trained = given[-1].bool()
    assert measured(*given, trained) == pytest.approx(by_counting(*given, trained), rel=1e-12)
    assert measured(*given, trained) > 1.5
    # an environment wrote some of them, which are context and not trained
    trained &= torch.rand(trained.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    assert measured(*given, trained) == pytest.approx(by_counting(*given, trained), rel=1e-12)


def test_value_by_hand():
    # three rows of one prompt: all have the first context, two the second, and the third word is alone in each
    prompts, ids = torch.tensor([[5], [5], [5]]), torch.tensor([[1, 2, 3], [1, 4, 3], [2, 2, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0]])
    expected = (3 * 3 + 2 * 2 + 1 + 1 + 1) / 8
    assert measured(prompts, torch.ones_like(prompts), ids, mask, mask.bool()) == pytest.approx(expected)
    # of other prompts every context is seen once
    assert measured(torch.tensor([[5], [6], [7]]), torch.ones_like(prompts), ids, mask, mask.bool()) == 1.0


def test_padding_does_not_matter():
    prompts, prompt_mask, ids, mask = ragged(0)
    wider = torch.nn.functional.pad
    hashes = contexts(
        wider(prompts, (3, 0), value=9), wider(prompt_mask, (3, 0)), wider(ids, (0, 2)), wider(mask, (0, 2))
    )
    assert torch.equal(hashes[:, :-2], contexts(prompts, prompt_mask, ids, mask))


def test_of_nothing_there_is_none():
    assert samples_per_context(torch.zeros(4, 3, dtype=torch.int64)) == {}
