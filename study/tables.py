"""The tables of docs/study.md from the runs; the text around them is written by hand."""

import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

from . import language
from . import results as of
from .arms import GRIDS
from .claims import AVG, ENTROPY, MAJ, PASS, REWARD, SECTIONS, Claim
from .results import Metric, differences, values
from .runs import FOLDER, load
from .statistics import NOT_REPRODUCED, REPRODUCED, REVERSED, effect
from .tuning import chosen, quality


PAGE = Path(__file__).parent.parent / "docs" / "study.md"
BLOCK = re.compile(r"(<!-- study: (\w+) -->\n).*?(<!-- end -->\n)", re.S)
LEVEL = 0.7  # training reward that methods are compared at
COLUMNS: dict[str, Metric] = {"reward": REWARD, "entropy": ENTROPY, "avg@8": AVG, "maj@8": MAJ, "pass@8": PASS}
CLIPPED = {
    "clipped low": of.at_end("clip_ratio/low_mean"),
    "clipped high": of.at_end("clip_ratio/high_mean"),
}
ARMS = {
    "clip_ranges": ["grpo", "clip_higher", "clip_lower", "clip_tighter", "clip_free"],
    "updates": ["updates_1", "updates_2", "grpo", "updates_16", "fresh"],
    "data": ["problems_16", "grpo", "problems_100", "kmeans_16", "narrow_16"],
    "signs": ["grpo", "positive_only", "negative_only", "random_positive_clip"],
    "methods": ["grpo", *(f"tuned_{method}" for method in GRIDS)],
    "neighbours": [
        *("grpo", "sent", "erpo", "position", "perplexity", "perplexity_strong", "neg_to_pos", "dynamic_sampling"),
        *("problems_100", "prepo", "perplexity_window"),
    ],
    "language_model": list(language.CPU_ARMS),
}
# Of the neighbours: `grpo` is among the tuned ones, and the others train on other problems
APART = ("grpo", "problems_100", "prepo", "perplexity_window")
CONTROL = [
    *(
        f"entropic_{law}_{target}_{name}"
        for name in ("on_policy", "off_policy")
        for target in (0.25, 0.5)
        for law in ("p", "pi")
    ),
    "bonus_p_0.35",
    "bonus_pi_0.35",
]


def table(*rows: list) -> list[str]:
    """Lines of markdown; the first row is the head."""
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return [head, "|" + "---|" * len(rows[0]), *body]


def bold(verdict: str) -> str:
    """A verdict with its weight."""
    return verdict if verdict == NOT_REPRODUCED else f"**{verdict}**"


def claims(section: str) -> list[str]:
    """The claims of a section with their effects and verdicts."""
    rows = [["claim", "of", "measured", "effect (95 % interval)", "seeds", "verdict"]]
    for claim in SECTIONS[section]:
        if claim.values:
            found = claim.effect
            rows.append([claim.text, claim.source, _measured(claim), f"{found}", found.n, bold(claim.verdict)])
    return table(*rows) if len(rows) > 1 else ["Not run."]


def _measured(claim: Claim) -> str:
    arms = f"`{claim.arm}`" if claim.against is None else f"`{claim.arm}` less `{claim.against}`"
    return f"{claim.measure.name}: {arms}"


def _cell(found: list[float], form: str = ".2f") -> str:
    if not found:
        return "-"
    if len(found) == 1:
        return f"{found[0]:{form}}"
    e = effect(found)
    return f"{e.mean:{form}} ± {e.high - e.mean:{form}}"


def arms(section: str) -> list[str]:
    """What the arms of a section end with; how many tokens were clipped where that is the question."""
    clipped = CLIPPED if section in ("clip_ranges", "updates") else {}
    rows = [["arm", "seeds", *COLUMNS, *clipped]]
    for arm in filter(lambda arm: values(arm, ENTROPY), ARMS[section]):
        cells = [_cell(values(arm, metric)) for metric in COLUMNS.values()]
        cells += [_cell(values(arm, metric), ".2%") for metric in clipped.values()]
        rows.append([f"`{arm}`", len(values(arm, ENTROPY)), *cells])
    return table(*rows) if len(rows) > 1 else ["Not run."]


def control() -> list[str]:
    """Where controlled entropy ends, and how far from its target."""
    rows = [["arm", "seeds", "entropy", "distance from the target", "reward", "pass@8"]]
    for arm in CONTROL:
        target = float(re.search(r"0\.\d+", arm).group())
        found = values(arm, of.miss(target))
        cells = (values(arm, ENTROPY), found, values(arm, REWARD), values(arm, PASS))
        rows.append([f"`{arm}`", len(found), *map(_cell, cells)])
    return table(*rows)


def chance() -> list[str]:
    """Entropy under a reward by chance."""
    arms = ("chance_symmetric", "chance_low_only", "chance_tight_low_only", "chance_high_only", "chance_free")
    rows = [["arm", "seeds", "entropy at the start", "at the end", *CLIPPED]]
    for arm in arms:
        start = values(arm, of.at_start("entropy"))
        cells = (start, values(arm, ENTROPY))
        shares = (_cell(values(arm, metric), ".2%") for metric in CLIPPED.values())
        rows.append([f"`{arm}`", len(start), *map(_cell, cells), *shares])
    return table(*rows)


def grids() -> list[str]:
    """The settings that each method chose from."""
    rows = [["method", "settings", "mean of avg@8 and pass@8", "chosen"]]
    for method, grid in GRIDS.items():
        found = [f"{quality(method, place):.3f}" for place in range(len(grid))]
        settings = [_setting(flags, grid) for flags in grid]
        rows.append([f"`{method}`", ", ".join(settings), ", ".join(found), settings[chosen(method)]])
    return table(*rows)


def _setting(flags: dict, grid: list[dict]) -> str:
    """What differs between the settings of a grid."""
    leaves = [dict(_leaves(other)) for other in grid]
    differing = [name for name in leaves[0] if len({str(other.get(name)) for other in leaves}) > 1]
    own = dict(_leaves(flags))
    return " ".join(f"{name.rpartition('.')[2]} {own[name]:g}" for name in differing)


def _leaves(flags: dict, before: str = "") -> list[tuple[str, object]]:
    found = []
    for name, value in flags.items():
        found += _leaves(value, f"{before}{name}.") if isinstance(value, dict) else [(before + name, value)]
    return found


def choice() -> list[str]:
    """All methods: at the end, at one training reward, and what they cost."""
    base = median(values("tuned_grpo", lambda run: run["seconds"]))
    rows = [
        [
            "method",
            "seeds",
            "entropy",
            "avg@8",
            "pass@8",
            "less GRPO: avg@8",
            "less GRPO: pass@8",
            f"reward {LEVEL} reached",
            "there avg@8",
            "there pass@8",
            "time, GRPO = 1",
        ]
    ]
    methods = [f"tuned_{method}" for method in GRIDS] + [arm for arm in ARMS["neighbours"] if arm not in APART]
    for arm in sorted(methods, key=lambda arm: -fmean(values(arm, PASS) or [0])):
        n = len(values(arm, AVG))
        if n == 0:
            continue
        at = [values(arm, of.at_reward(LEVEL, name)) for name in ("avg@8", "pass@8")]
        less = [
            "-" if arm == "tuned_grpo" else f"{effect(differences(arm, 'tuned_grpo', metric))}"
            for metric in (AVG, PASS)
        ]
        rows.append(
            [
                f"`{arm.removeprefix('tuned_')}`" + ("" if arm.startswith("tuned_") else " (not tuned)"),
                n,
                *(_cell(values(arm, metric)) for metric in (ENTROPY, AVG, PASS)),
                *less,
                f"{len(at[0])} of {n}",
                *map(_cell, at),
                f"{median(values(arm, lambda run: run['seconds'])) / base:.2f}",
            ]
        )
    return table(*rows)


def summary() -> list[str]:
    """How many claims got which verdict, by section."""
    rows = [["section", REPRODUCED, NOT_REPRODUCED, REVERSED]]
    counts = {section: [c.verdict for c in found if c.values] for section, found in SECTIONS.items()}
    for section, verdicts in counts.items():
        if verdicts:
            rows.append([section.replace("_", " "), *(verdicts.count(kind) for kind in rows[0][1:])])
    rows.append(["all", *(sum(verdicts.count(kind) for verdicts in counts.values()) for kind in rows[0][1:])])
    return table(*rows)


def machine() -> list[str]:
    """How many runs there are, and of which versions."""
    runs = [load(*path.stem.rsplit("-", 1)) for path in sorted(FOLDER.glob("*.json"))]
    versions = sorted({", ".join(f"{name} {value}" for name, value in run["versions"].items()) for run in runs})
    hours = sum(run["seconds"] for run in runs) / 3600
    return [f"{len(runs)} runs, {hours:.1f} hours of one core in all; {'; '.join(versions)}."]


TABLES: dict[str, Callable[[], list[str]]] = {
    **{f"claims_{section}": lambda section=section: claims(section) for section in SECTIONS},
    **{f"arms_{section}": lambda section=section: arms(section) for section in ARMS},
    "control": control,
    "chance": chance,
    "grids": grids,
    "choice": choice,
    "summary": summary,
    "machine": machine,
}


def updated(text: str) -> str:
    """The page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + "\n" + "\n".join(TABLES[found[2]]()) + "\n\n" + found[3], text)
