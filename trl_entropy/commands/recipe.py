"""Read the flags of a recipe and of the recipe it is based on."""

import os

import yaml


def read_recipe(path: str, what: str = "--config", above: tuple[str, ...] = ()) -> dict:
    """
    Read the flags in a YAML file.

    The key `base` names another recipe, relative to the file. The file's flags override those of that recipe; a flag
    that is a mapping is replaced as a whole.

    Args:
        path (`str`):
            The file.
        what (`str`, *optional*), above (`tuple[str, ...]`, *optional*):
            What names the file, and the files that are based on it; for the messages.

    Raises `ValueError` for a file that does not exist, does not contain a YAML mapping, or is based on itself.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{what} must be a YAML file, but {path!r} does not exist")
    if os.path.realpath(path) in above:
        raise ValueError(f"{what} is {path!r}, which is itself based on that file: a recipe cannot be based on itself")
    try:
        with open(path, encoding="utf-8") as file:
            own = yaml.safe_load(file)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{what} {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
        raise ValueError(f"{what} {path} must contain a YAML mapping of flags")
    base = own.pop("base", None)
    if base is None:
        return own
    file_of_base = os.path.join(os.path.dirname(path), str(base))
    return read_recipe(file_of_base, f"{path}: base", (*above, os.path.realpath(path))) | own
