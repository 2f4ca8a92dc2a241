"""Tables of markdown between the markers of a page, `<!-- study: name -->` or `<!-- bench: name -->` and an end."""

import re
from collections.abc import Callable, Mapping


BLOCK = re.compile(r"(<!-- (?:bench|study): (\w+) -->\n).*?(<!-- end -->\n)", re.S)


def table(*rows: list) -> list[str]:
    """Lines of markdown; the first row is the head."""
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return [head, "|" + "---|" * len(rows[0]), *body]


def filled(page: str, tables: Mapping[str, Callable[[], list[str]]]) -> str:
    """The page with its tables made anew, by the names of their markers."""
    return BLOCK.sub(lambda found: found[1] + "\n" + "\n".join(tables[found[2]]()) + "\n\n" + found[3], page)
