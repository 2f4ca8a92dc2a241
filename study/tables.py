"""The tables of docs/study.md from the runs; the text around them is written by hand."""

import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from benchmarks.pages import filled, table

from . import language
from . import results as of
from .arms import (
    CLIP_RANGES,
    CLIP_RANGES_16,
    FIRST_SEEDS,
    FIXED,
    GRIDS,
    HELD_AT,
    KNOBS,
    LAMBDAS,
    LAWS,
    LEARNING_RATES,
    RATES,
    SEEDS,
    law_arm,
)
from .claims import AVG, ENTROPY, MAIN, MAJ, PASS, REWARD, SECTIONS, Claim
from .results import Metric, differences, values
from .statistics import NOT_REPRODUCED, REPRODUCED, REVERSED, effect, kept_together, p_value
from .store import every
from .testbed import NOISE, SIGNS
from .tuning import chosen, chosen_rate, quality, tried


DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "study.md", *sorted((DOCS / "study").glob("*.md"))]
LEVEL = 0.7  # training reward that methods are compared at

COLUMNS: dict[str, Metric] = {"reward": REWARD, "entropy": ENTROPY, "avg@8": AVG, "maj@8": MAJ, "pass@8": PASS}
CLIPPED = {
    "clipped low": of.at_end("clip_ratio/low_mean"),
    "clipped high": of.at_end("clip_ratio/high_mean"),
}
# By baseline: PREPO and its window choose from all problems
NEIGHBOURS = {
    "grpo": ("sent", "erpo", "position", "perplexity", "perplexity_strong", "neg_to_pos", "dynamic_sampling"),
    "problems_100": ("prepo", "perplexity_window"),
}
ARMS = {
    "clip_ranges": ["grpo", *CLIP_RANGES],
    "clip_ranges_16": ["updates_16", *CLIP_RANGES_16],
    "updates": ["updates_1", "updates_2", "grpo", "updates_16", "fresh"],
    "data": ["problems_16", "grpo", "problems_100", "kmeans_16", "narrow_16"],
    "signs": ["grpo", "positive_only", "negative_only", "random_positive_clip"],
    "lambdas": ["negative_only", *LAMBDAS, "grpo"],
    "rates": ["grpo", *LEARNING_RATES],
    "methods": [f"tuned_{method}" for method in GRIDS],
    "methods_shared": [f"shared_{method}" for method in GRIDS],
    "neighbours": [arm for base, others in NEIGHBOURS.items() for arm in (base, *others)],
    "language_model": list(language.CPU_ARMS),
    "language_model_gpu": list(language.GPU_ARMS),
}
# Scores that the entropy of the responses is ranked with, and what the papers found
RANKED = {
    "distinct_2": "0.88, N-gram diversity",
    "distinct_answers": "",
    "self_bleu": "",
    "avg@8": "0.42 (AIME24), 0.63 (IF-Eval), -0.89 (LiveCodeBench)",
    "pass@8": "",
    "ece_logprob": "",
    "ece_vote": "",
    "prompt_entropy": "",
}
# Plain GRPO, positive and negative advantages alone
TESTBEDS = {
    "embedded": ("grpo", "positive_only", "negative_only"),
    "SmolLM2": ("smollm2_grpo", "smollm2_positive_only", "smollm2_negative_only"),
} | {f"reasoner, {percent} % random rewards": tuple(f"noise_{percent}_{sign}" for sign in SIGNS) for percent in NOISE}
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


def bold(verdict: str) -> str:
    """A verdict with its weight."""
    return verdict if verdict == NOT_REPRODUCED else f"**{verdict}**"


def claims(section: str) -> list[str]:
    """The claims of a section with their effects and verdicts."""
    rows = [["claim", "of", "measured", "effect (95 % interval)", "seeds", "verdict"]]
    known = any(claim.theirs for claim in SECTIONS[section])
    rows[0] += ["theirs"] * known
    for claim in SECTIONS[section]:
        if claim.is_run:
            found = claim.effect
            row = [claim.text, claim.source, _measured(claim), f"{found}", found.n, bold(claim.verdict)]
            rows.append(row + [claim.theirs] * known)
    return table(*rows) if len(rows) > 1 else ["Not run."]


def _measured(claim: Claim) -> str:
    arms = f"`{claim.arm}`" if claim.against is None else f"`{claim.arm}` minus `{claim.against}`"
    return f"{claim.measure.name}: {arms}"


def _cell(found: list[float], form: str = ".2f") -> str:
    if not found:
        return "-"
    if len(found) == 1:
        return f"{found[0]:{form}}"
    e = effect(found)
    return f"{e.mean:{form}} ± {e.high - e.mean:{form.lstrip('+')}}"


def _interval(found: list[float]) -> str:
    return f"{effect(found)}" if len(found) > 1 else "-"


def arms(section: str) -> list[str]:
    """What the arms of a section end with; how many tokens were clipped where that is the question."""
    clipped = CLIPPED if section in ("clip_ranges", "clip_ranges_16", "updates") else {}
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


def main() -> list[str]:
    """The main claims on both policies."""
    rows = [["claim", "of", "embedded policy", "SmolLM2-135M", "theirs"]]
    for pair in MAIN:
        rows.append([pair[0].text, pair[0].source, *map(_found, pair), pair[0].theirs])
    return table(*rows)


def _found(claim: Claim) -> str:
    if not claim.is_run:
        return "too few seeds yet"
    return f"{bold(claim.verdict)}: {claim.effect}, {claim.effect.n} seeds"


def authority() -> list[str]:
    """What the signs do to entropy by the share of the rewards that is a coin."""
    columns = {
        "entropy at the start": (of.at_start("entropy"), ".2f"),
        "at the end": (ENTROPY, ".2f"),
        "reward at the end": (REWARD, ".2f"),
        "clipped low": (CLIPPED["clipped low"], ".2%"),
        "clipped high": (CLIPPED["clipped high"], ".2%"),
        "predicted change, positive": (of.total("entropy_change/predicted_positive"), "+.2f"),
        "negative": (of.total("entropy_change/predicted_negative"), "+.2f"),
    }
    rows = [["random rewards", "signs", "seeds", *columns]]
    for percent in NOISE:
        for sign in SIGNS:
            arm = f"noise_{percent}_{sign}"
            if found := values(arm, ENTROPY):
                cells = [_cell(values(arm, metric), form) for metric, form in columns.values()]
                rows.append([f"{percent} %", sign.replace("_", " "), len(found), *cells])
    return table(*rows) if len(rows) > 1 else ["Not run."]


def testbed() -> list[str]:
    """What GRPO does on each policy that was tried as a testbed, and what each sign alone does against it."""
    rows = [["policy", "seeds", "GRPO: entropy, share lost", "reward, start", "end", "positive only", "negative only"]]
    for name, arms in TESTBEDS.items():
        plain, positive, negative = arms
        if all(values(arm, ENTROPY) for arm in arms):
            lost = values(plain, lambda run: 1 - ENTROPY(run) / of.at_start("entropy")(run))
            rewards = (_cell(values(plain, metric)) for metric in (of.at_start("reward"), REWARD))
            apart = (_interval(differences(sign, plain, ENTROPY)) for sign in (positive, negative))
            rows.append([name, len(lost), _cell(lost, ".0%"), *rewards, *apart])
    return table(*rows)


def laws() -> list[str]:
    """Where each law on each knob ends; bold where every seed is within a tenth of the target."""
    rows = [["knob, range", *LAWS]]
    for name, knob in KNOBS.items():
        cells = []
        for law in LAWS:
            found = values(law_arm(law, name), ENTROPY, FIRST_SEEDS)
            held = found and max(abs(value - HELD_AT) for value in found) <= HELD_AT / 10
            cells.append(f"**{_cell(found)}**" if held else _cell(found))
        rows.append([f"`{name}`, {knob.low:g} to {knob.high:g}", *cells])
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


def correlations() -> list[str]:
    """Spearman's of entropy with the other scores: along the runs of plain GRPO, and over the arms at their end."""
    arms = [name for name in FIXED if len(values(name, of.score("avg@8"))) == len(SEEDS)]
    rows = [
        ["entropy of the responses with", "along training, `grpo`", f"over {len(arms)} arms, at the end", "theirs"]
    ]
    for name, theirs in RANKED.items():
        along = values("grpo", of.ranks("response_entropy", name))
        over = of.ranks_over(arms, of.score("response_entropy"), of.score(name))
        rows.append([name, f"{effect(along)}", f"{effect(over)}", theirs])
    return table(*rows)


def grids() -> list[str]:
    """The constants that each method chose from, then the rates; what it chose is bold."""
    rows = [["method", f"constant: score at {RATES['shared']:g}", *(f"at {rate:g}" for rate in RATES.values())]]
    for method in tried():
        grid = GRIDS[method]
        at, best = chosen(method), chosen_rate(method)
        settings = [_setting(flags, grid) for flags in grid]
        scores = [f"{setting}: {quality(method, place):.3f}" for place, setting in enumerate(settings) if setting]
        if scores:
            scores[at] = f"**{scores[at]}**"
        rates = [f"{quality(method, at, rate):.3f}" for rate in RATES]
        cells = [f"**{found}**" if rate == best else found for rate, found in zip(RATES, rates, strict=True)]
        rows.append([f"`{method}`", ", ".join(scores) or "-", *cells])
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
    """All methods at one rate, and plain GRPO at smaller ones: at the end, and at one training reward."""
    rows = [
        [
            *("method", "seeds", "entropy", "avg@8", "pass@8", "minus GRPO: avg@8", "minus GRPO: pass@8"),
            *(f"reward {LEVEL} reached", "there avg@8", "there pass@8"),
        ]
    ]
    methods = [f"shared_{method}" for method in tried()] + [*LEARNING_RATES, *NEIGHBOURS["grpo"]]
    for arm in sorted(methods, key=lambda arm: -fmean(values(arm, PASS))):
        n = len(values(arm, AVG))
        at = [values(arm, of.at_reward(LEVEL, name)) for name in ("avg@8", "pass@8")]
        less = (f"{effect(differences(arm, 'shared_grpo', metric))}" for metric in (AVG, PASS))
        rows.append(
            [
                f"`{arm.removeprefix('shared_')}`" + (" (not tuned)" if arm in NEIGHBOURS["grpo"] else ""),
                n,
                *(_cell(values(arm, metric)) for metric in (ENTROPY, AVG, PASS)),
                *(("-", "-") if arm == "shared_grpo" else less),
                f"{len(at[0])} of {n}",
                *map(_cell, at),
            ]
        )
    return table(*rows)


def summary() -> list[str]:
    """How many claims got which verdict, by section."""
    rows = [["section", REPRODUCED, NOT_REPRODUCED, REVERSED]]
    counts = {section: [c.verdict for c in found if c.is_run] for section, found in SECTIONS.items()}
    for section, verdicts in counts.items():
        if verdicts:
            rows.append([section.replace("_", " "), *(verdicts.count(kind) for kind in rows[0][1:])])
    rows.append(["all", *(sum(verdicts.count(kind) for verdicts in counts.values()) for kind in rows[0][1:])])
    return table(*rows)


def together() -> list[str]:
    """How many of the verdicts stand if all claims are tried at once."""
    tried = [claim for found in SECTIONS.values() for claim in found if claim.is_run and claim.sign != 0]
    stand = kept_together([p_value(claim.values) for claim in tried])
    decided = [kept for claim, kept in zip(tried, stand, strict=True) if claim.verdict != NOT_REPRODUCED]
    return [
        f"Of {len(tried)} claims of a change, {len(decided)} were reproduced or reversed; {sum(decided)} of them "
        "stand if at most one in twenty of those that do may be false (Benjamini-Hochberg over all claims)."
    ]


def machine() -> list[str]:
    """How many different runs there are, and of which versions."""
    runs = list({tuple(run["flags"]): run for run in every()}.values())  # some are kept under two names
    versions = sorted({", ".join(f"{name} {value}" for name, value in run["versions"].items()) for run in runs})
    hours = sum(run["seconds"] for run in runs) / 3600
    return [f"{len(runs)} runs, {hours:.1f} hours of one core in all; {'; '.join(versions)}."]


TABLES: dict[str, Callable[[], list[str]]] = {
    **{f"claims_{section}": lambda section=section: claims(section) for section in SECTIONS},
    **{f"arms_{section}": lambda section=section: arms(section) for section in ARMS},
    "main": main,
    "authority": authority,
    "testbed": testbed,
    "laws": laws,
    "correlations": correlations,
    "control": control,
    "chance": chance,
    "grids": grids,
    "choice": choice,
    "summary": summary,
    "together": together,
    "machine": machine,
}


def updated(text: str) -> str:
    """The page with its tables made anew."""
    return filled(text, TABLES)
