"""Write a figure as SVG for a page, and as PNG."""

import io
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.figure import Figure

from .figures.style import COLORS, GRID, INK, MUTED, STYLE


# Colours that the page sets, for light and for dark
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"}
VARIABLES |= {color: f"--series-{index}" for index, color in enumerate(COLORS)}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@STYLE
def to_svg(figure: Figure, name: str, label: str) -> str:
    """
    A figure as an `<svg>` element in which text stays text.

    Args:
        figure (`Figure`):
            The figure.
        name (`str`):
            Prefix of every id, so that one page can have several figures.
        label (`str`):
            Its text for screen readers.
    """
    written = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts may have glyphs that matplotlib's lack
        figure.savefig(written, format="svg", transparent=True)
    root = ElementTree.fromstring(written.getvalue())
    for parent in root.iter():
        for child in [child for child in parent if _tag(child) in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _tag(element)
        element.attrib = {_local(key): _value(_local(key), value, name) for key, value in element.attrib.items()}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _tag(element: ElementTree.Element) -> str:
    return _local(element.tag)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-")
    if key != "style":
        return value
    value = re.sub(r"'DejaVu Sans'[^;]*", FONTS, value)
    return re.sub(r"#[0-9a-f]{6}", lambda found: _themed(found[0]), value)


def _themed(color: str) -> str:
    return f"var({VARIABLES[color]})" if color in VARIABLES else color


@STYLE
def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a picture on white."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a font without a letter draws a box
        figure.savefig(path, dpi=200, facecolor="white")
