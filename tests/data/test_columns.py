import pytest
from datasets import Dataset, IterableDataset

from trl_entropy.data.columns import column_names, is_there, renamed, value_at, values_at


ROW = {
    "prompt": [{"role": "user", "content": "1+1="}],
    "reward_model": {"ground_truth": "2", "style": "rule"},
    "a.b": "dotted",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("prompt.0.content", "1+1="), ("reward_model.ground_truth", "2"), ("a.b", "dotted")],
)
def test_value_at_a_dotted_name(name, value):
    assert is_there(ROW, name)
    assert value_at(ROW, name) == value


@pytest.mark.parametrize("name", ["answer", "reward_model.answer", "prompt.1.content", "prompt.user", "a.c", "a.b.c"])
def test_what_is_not_there(name):
    assert not is_there(ROW, name)


def test_column_names_are_dotted_inside_of_mappings():
    names = ["prompt", "reward_model", "reward_model.ground_truth", "reward_model.style", "a.b"]
    assert list(column_names(ROW)) == names


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_are_renamed(streaming):
    dataset = Dataset.from_list([ROW])
    dataset = dataset.to_iterable_dataset() if streaming else dataset
    names = {"prompt": "prompt.0.content", "solution": "reward_model.ground_truth", "c": "a.b"}
    (row,) = list(renamed(dataset, names, ROW))
    assert row == {"prompt": "1+1=", "solution": "2", "c": "dotted", "reward_model": ROW["reward_model"]}
    assert isinstance(dataset, IterableDataset) == streaming


@pytest.mark.parametrize("streaming", [False, True])
def test_row_that_has_nothing_at_a_dotted_name_gets_none(streaming):
    rows = [{"prompt": [{"content": "1"}], "gold": {"answer": "1"}}, {"prompt": [], "gold": None}]
    dataset = Dataset.from_list(rows)
    assert values_at(dataset, "gold.answer") == values_at(dataset, "prompt.0.content") == ["1", None]
    assert values_at(dataset, "gold") == [{"answer": "1"}, None]
    dataset = dataset.to_iterable_dataset() if streaming else dataset
    names = {"prompt": "prompt.0.content", "solution": "gold.answer"}
    found = [(row["prompt"], row["solution"]) for row in renamed(dataset, names, rows[0])]
    assert found == [("1", "1"), (None, None)]


def test_columns_can_change_places():
    dataset = Dataset.from_list([{"prompt": "old", "question": "new"}])
    row = dataset[0]
    assert renamed(dataset, {"prompt": "question"}, row)[0] == {"prompt": "new"}
    assert renamed(dataset, {"prompt": "prompt"}, row)[0] == row
