"""Columns of a dataset, also nested ones such as `reward_model.ground_truth` and `prompt.0.content`."""

from collections.abc import Iterable, Mapping, Sequence

from datasets import Dataset, IterableDataset


# The columns from which TRL takes a prompt's images
IMAGES = ("image", "images")


def is_there(row: Mapping[str, object], name: str) -> bool:
    """Whether a row has a column of this name; a dotted name means a nested one."""
    try:
        value_at(row, name)
    except (KeyError, IndexError):
        return False
    return True


def value_at(row: Mapping[str, object], name: str) -> object:
    """The value of a column, nested or not; raises `KeyError` or `IndexError` if there is none."""
    if name in row:
        return row[name]
    column, *path = name.split(".")
    return _inside(row[column], path)


def values_at(dataset: Dataset, name: str) -> list:
    """The values of a column, nested or not; `None` in a row without it."""
    if name in dataset.column_names:
        return list(dataset[name])
    column, *path = name.split(".")
    return [_inside_if_there(cell, path) for cell in dataset[column]]


def renamed(
    dataset: Dataset | IterableDataset, names: Mapping[str, str], row: Mapping[str, object]
) -> Dataset | IterableDataset:
    """
    The dataset with renamed columns; a new name replaces an old column of that name.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        names (`Mapping[str, str]`):
            New name to old name, which may be dotted. The outer column stays, and a row without the value gets `None`.
        row (`Mapping[str, object]`):
            One of the rows.
    """
    nested = {new: old for new, old in names.items() if old not in row}
    # before anything is renamed or removed, since that may include their outer columns
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
    """The names of all columns of a row, dotted for nested ones."""
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
