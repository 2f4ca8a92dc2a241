"""The page of a report, as self-contained HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import quote

from ... import __version__
from .figures import FIGURES
from .figures.style import look_of
from .findings import Finding, findings, findings_between
from .runs import Run
from .settings import differing
from .statistics import Arm
from .summary import CAPTION, ending, summary
from .svg import VARIABLES


NOTHING = "Nothing stands out, or too few steps are logged to tell."
MOST_NAMES = 5  # in the title
NO_SETTINGS = "Not every run has saved its settings."


def page(arms: Sequence[Arm], figures: Mapping[str, tuple[str, str]]) -> str:
    """
    The HTML of a report.

    Args:
        arms (`Sequence[Arm]`):
            The arms to report on.
        figures (`Mapping[str, tuple[str, str]]`):
            `<svg>` element and file name of the picture, by names of [`FIGURES`].
    """
    runs = [run for arm in arms for run in arm.runs]
    name = title(arms)
    told = [[run.name, ending(run), str(run.path)] for run in runs]
    return Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(name),
        subtitle=f"{_count(len(runs), 'run')}, {_count(len(arms), 'arm')} · trl-entropy {__version__}",
        summary=_table(
            *summary(arms), colors=[f"var({VARIABLES[look_of(place).color]})" for place in range(len(arms))]
        ),
        caption=CAPTION,
        findings=_all_findings(arms),
        figures="\n".join(_figure(key, svg, picture) for key, (svg, picture) in figures.items()),
        settings_title="Settings that differ" if len(arms) > 1 else "Settings that are not the default",
        settings=_settings(arms),
        endings=_table(["run", "how it ended", "folder"], told, kind="text"),
        versions=escape(_versions(runs)),
    )


def title(arms: Sequence[Arm]) -> str:
    """The title of the page."""
    return f"Entropy of {', '.join(arm.name for arm in arms) if len(arms) <= MOST_NAMES else f'{len(arms)} arms'}"


def described(name: str, arms: Sequence[Arm]) -> str:
    """The text of a figure for screen readers."""
    return f"{name.replace('_', ' ').capitalize()}: {', '.join(arm.name for arm in arms)}. {FIGURES[name].caption}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers", colors=None) -> str:
    """A table of texts, which are escaped here; `colors` become dots before its rows."""
    dots = [f'<span class="dot" style="background: {color}"></span>' for color in colors or []] or [""] * len(rows)
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [
        f"<tr><td>{dot}{'</td><td>'.join(escape(cell) for cell in row)}</td></tr>"
        for dot, row in zip(dots, rows, strict=True)
    ]
    return f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _all_findings(arms: Sequence[Arm]) -> str:
    between = findings_between(arms)
    cards = [_findings("Between the arms", between, "card all")] if between else []
    return "\n".join(cards + [_findings(arm.name, findings(arm)) for arm in arms])


def _findings(name: str, found: Sequence[Finding], kind: str = "card") -> str:
    items = [
        f'<li class="{finding.severity}"><strong>{escape(finding.text)}.</strong> {escape(finding.advice)}'
        f'<br><span class="muted">{escape(finding.evidence)}</span></li>'
        for finding in found
    ]
    told = f"<ul>{''.join(items)}</ul>" if items else f'<p class="muted">{NOTHING}</p>'
    return f'<div class="{kind}"><h3>{escape(name)}</h3>{told}</div>'


def _figure(name: str, svg: str, picture: str) -> str:
    link = f'<a href="{escape(quote(picture))}">PNG</a>'
    return f"<figure>{svg}<figcaption>{escape(FIGURES[name].caption)} {link}</figcaption></figure>"


def _settings(arms: Sequence[Arm]) -> str:
    if not all(run.settings for arm in arms for run in arm.runs):
        return f'<p class="muted">{NO_SETTINGS}</p>'
    head, rows = differing(arms)
    return f'<div class="card wide">{_table(head, rows, kind="text")}</div>' if rows else "<p>None.</p>"


def _versions(runs: Sequence[Run]) -> str:
    """The versions of packages; all versions of a package that differs between runs."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for package, version in run.versions.items():
            found.setdefault(package, {})[str(version)] = None
    return ", ".join(f"{package} {' and '.join(versions)}" for package, versions in found.items())
