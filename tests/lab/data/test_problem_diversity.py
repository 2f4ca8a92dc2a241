from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from trl_entropy.lab.data.diversify import choose_kmeans, choose_random, distance_to_nearest, diversity, embed_tfidf


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors near 10 axes, 91 near the first and one near each other, and which axis."""
    random = np.random.default_rng(0)
    axes = np.array([0] * 91 + list(range(1, 10)))
    random.shuffle(axes)
    rows = np.eye(10)[axes] + 0.02 * random.random((100, 10))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), axes


def test_diversity_is_the_mean_distance_of_pairs():
    rows, _ = planted()
    expected = np.mean([1 - one @ other for one, other in combinations(rows, 2)])
    assert diversity(rows) == pytest.approx(expected, abs=1e-12)
    assert diversity(sparse.csr_matrix(rows)) == pytest.approx(expected, abs=1e-12)


def test_diversity_by_hand():
    assert diversity(np.eye(4)) == pytest.approx(1)
    assert diversity(np.ones((3, 1))) == pytest.approx(0)
    # distances 0, 1, 1
    assert diversity(np.array([[1.0, 0], [1, 0], [0, 1]])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="diversity needs at least two problems, got 1"):
        diversity(np.eye(1))


def test_distance_to_the_nearest_by_hand():
    rows = np.array([[1.0, 0], [0, 1], [0.6, 0.8]])
    # to the first alone: 0, 1, 0.4; to the first two: 0, 0, 0.2
    for chosen, expected in (([0], 1.4 / 3), ([0, 1], 0.2 / 3), ([0, 1, 2], 0)):
        assert distance_to_nearest(rows, chosen) == pytest.approx(expected, abs=1e-12)
        assert distance_to_nearest(sparse.csr_matrix(rows), chosen) == pytest.approx(expected, abs=1e-12)


def test_distance_to_the_nearest_does_not_depend_on_blocks(monkeypatch):
    rows, _ = planted()
    whole = distance_to_nearest(rows, [0, 5, 9])
    monkeypatch.setattr("trl_entropy.lab.data.diversify.BLOCK", 7)
    assert distance_to_nearest(rows, [0, 5, 9]) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kmeans_finds_every_planted_cluster_and_chance_does_not(seed):
    rows, axes = planted()
    chosen, drawn = choose_kmeans(rows, 10, seed), choose_random(100, 10, seed)
    assert sorted(set(axes[chosen])) == list(range(10))
    assert len(set(axes[drawn])) < 5
    assert diversity(rows[chosen]) > diversity(rows[drawn]) + 0.3
    assert distance_to_nearest(rows, chosen) < distance_to_nearest(rows, drawn)


def test_kmeans_takes_the_most_central_of_a_cluster():
    line = np.array([[0.0], [1], [2], [10], [11], [15]])  # means 1 and 12
    assert choose_kmeans(line, 2) == [1, 4]
    assert choose_kmeans(sparse.csr_matrix(line), 2) == [1, 4]


def test_kmeans_repeats_and_has_as_many_as_asked_for():
    rows, _ = planted()
    assert choose_kmeans(rows, 30, 1) == choose_kmeans(rows, 30, 1)
    assert len(set(choose_kmeans(rows, 30, 1))) == 30
    assert len(set(choose_kmeans(np.ones((8, 2)), 5))) == 5  # fewer different ones than clusters
    assert choose_kmeans(rows, 100) == list(range(100))


def test_kmeans_of_large_sets(monkeypatch):
    rows, axes = planted()
    monkeypatch.setattr("trl_entropy.lab.data.diversify.LARGE", 50)
    chosen = choose_kmeans(rows, 10)
    assert len(chosen) == len(set(chosen)) == 10
    assert len(set(axes[chosen])) > 5


def test_random_rows_are_different_and_repeat():
    assert choose_random(50, 20, 3) == choose_random(50, 20, 3) != choose_random(50, 20, 4)
    assert len(set(choose_random(50, 20, 3))) == 20
    assert choose_random(5, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 101])
def test_wrong_size_is_refused(size):
    rows, _ = planted()
    for choose in (lambda: choose_kmeans(rows, size), lambda: choose_random(100, size)):
        with pytest.raises(
            ValueError, match=f"the size of a subset must be from 1 to 100, the number of problems, got {size}"
        ):
            choose()


def test_tfidf_rows_have_length_one_and_equal_texts_are_equal():
    rows = embed_tfidf(["one apple", "Apple, one!", "two pears", "7"]).toarray()
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    assert rows @ rows[0] == pytest.approx([1, 1, 0, 0])
    assert diversity(rows) == pytest.approx(5 / 6)
