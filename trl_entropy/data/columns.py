"""Columns of a dataset, also those inside of others: `reward_model.ground_truth`, `prompt.0.content`."""

from collections.abc import Iterable, Mapping, Sequence

from datasets import Dataset, IterableDataset


# What TRL takes the images of a prompt from
IMAGES = ("image", "images")


def is_there(row: Mapping[str, object], name: str) -> bool:
    """Whether a row has a column of this name, or one inside of another by a dotted name."""
    try:
        value_at(row, name)
    except (KeyError, IndexError):
        return False
    return True


def value_at(row: Mapping[str, object], name: str) -> object:
    """What stands at a name, dotted or not; raises `KeyError` or `IndexError` if there is nothing."""
    if name in row:
        return row[name]
    column, *path = name.split(".")
    return _inside(row[column], path)


def values_at(dataset: Dataset, name: str) -> list:
    """What stands at a name, dotted or not, in every row; `None` in a row that has nothing there."""
    if name in dataset.column_names:
        return list(dataset[name])
    column, *path = name.split(".")
    return [_inside_if_there(cell, path) for cell in dataset[column]]


def renamed(
    dataset: Dataset | IterableDataset, names: Mapping[str, str], row: Mapping[str, object]
) -> Dataset | IterableDataset:
    """
    The dataset with columns under other names; one of that name that stood there is gone.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        names (`Mapping[str, str]`):
            New name to old one, which may be dotted; the column that it is inside of stays, and a row that has
            nothing there gets `None`.
        row (`Mapping[str, object]`):
            One of the rows.
    """
    nested = {new: old for new, old in names.items() if old not in row}
    # before anything is renamed or removed: what they are inside of may be
    for new, old in nested.items():
        column, *path = old.split(".")
        dataset = _with_inside(dataset, f"{new}.{old}", column, path)
    for new, old in names.items():
        old = f"{new}.{old}" if new in nested else old
        if new != old:
            if new in row:
                dataset = dataset.remove_columns(new)
            dataset = dataset.rename_column(old, new)
    return dataset


def column_names(row: Mapping[str, object]) -> Iterable[str]:
    """The names of all columns of a row, dotted for those inside of a mapping."""
    for name, value in row.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in column_names(value))


def _with_inside(dataset, name: str, column: str, path: Sequence[str]):
    return dataset.map(lambda cell: {name: _inside_if_there(cell, path)}, input_columns=[column])


def _inside_if_there(value: object, path: Sequence[str]) -> object:
    try:
        return _inside(value, path)
    except (KeyError, IndexError):
        return None


def _inside(value: object, path: Sequence[str]) -> object:
    for part in path:
        if isinstance(value, Mapping):
            value = value[part]
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        else:
            raise KeyError(part)
    return value
