"""The figures of docs/study.md, from the runs."""

import hashlib
from pathlib import Path
from statistics import fmean

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from . import language
from .arms import LAMBDAS, LEARNING_RATES, RATES, SEEDS, TUNING_SEEDS, trial
from .claims import AVG, CHANGED, ENTROPY, PASS, REWARD
from .results import differences, over_seeds, predictions, runs_of, values
from .statistics import effect
from .store import load
from .tables import ARMS, NEIGHBOURS
from .testbed import NOISE, SIGNS
from .tuning import chosen, tried


FOLDER = Path(__file__).parent.parent / "docs" / "images" / "study"
COLORS = plt.get_cmap("tab10").colors
SIGN_ARMS = ("grpo", "positive_only", "negative_only")  # of the language model
HOLDING_ARMS = ("grpo", "hold", "entropy_guided", "entropic")
SCORES = {"entropy (nats per token)": ENTROPY, "held-out avg@8": AVG, "held-out pass@8": PASS}


def band(
    axis, arm: str, name: str, of: str = "series", label: str | None = None, share: bool = False, **style
) -> None:
    """Mean over the seeds with its 95 % interval, over steps or over the share of the run; nothing without runs."""
    if not runs_of(arm):
        return
    steps, effects = over_seeds(arm, name, of)
    x = [step / steps[-1] for step in steps] if share else steps
    (line,) = axis.plot(x, [e.mean for e in effects], label=label or arm, **style)
    axis.fill_between(x, [e.low for e in effects], [e.high for e in effects], color=line.get_color(), alpha=0.15, lw=0)


def threads(axis, arm: str, name: str, label: str | None = None, **style) -> None:
    """The mean over the seeds, and each seed as a thin line, over the share of the run; nothing without runs."""
    if not runs_of(arm):
        return
    steps, effects = over_seeds(arm, name, "series")
    axis.plot([step / steps[-1] for step in steps], [e.mean for e in effects], label=label or arm, lw=2.2, **style)
    for run in runs_of(arm):
        color = axis.lines[-1].get_color()
        steps = [step / run["series"]["step"][-1] for step in run["series"]["step"]]
        axis.plot(
            steps,
            [value if value is not None else float("nan") for value in run["series"][name]],
            color=color,
            lw=0.7,
            alpha=0.5,
        )


def _finish(figure: Figure, **legend) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8, **legend)
    return figure


def _axes(n: int, height: float = 3.2):
    return plt.subplots(1, n, figsize=(4 * n, height), layout="constrained")


def collapse() -> Figure:
    """What plain GRPO loses and gains."""
    figure, axes = _axes(4)
    band(axes[0], "grpo", "entropy", label="entropy (nats per token)")
    band(axes[0], "grpo", "reward", label="training reward")
    for name in ("avg@8", "maj@8", "pass@8"):
        band(axes[1], "grpo", name, "scores", label=f"held-out {name}")
    for name in ("distinct_2", "self_bleu", "response_entropy"):
        band(axes[2], "grpo", name, "scores", label=name)
    for name in ("ece_logprob", "ece_vote"):
        band(axes[3], "grpo", name, "scores", label=name)
    panels = (
        ("Entropy falls, reward rises", "nats per token; reward"),
        ("More samples are right, no more problems", "score"),
        ("Answers become alike", "share; nats per token"),
        ("Confidence fits less", "calibration error"),
    )
    for axis, (title, name) in zip(axes, panels, strict=True):
        axis.set(xlabel="optimizer step", ylabel=name, title=title, ylim=(0, None))
    return _finish(figure)


def factors() -> Figure:
    """Entropy by clip range, by updates for each rollout, and by problems."""
    figure, axes = _axes(4)
    titles = {
        "clip_ranges": "Clip range, 4 updates: none holds it",
        "clip_ranges_16": "Clip range, 16 updates: none holds it",
        "updates": "More updates per batch lose more",
        "data": "Other training problems",
    }
    for axis, (section, title) in zip(axes, titles.items(), strict=True):
        for arm in ARMS[section]:
            band(axis, arm, "entropy", share=True)
        axis.set(xlabel="share of the run", ylabel="entropy (nats per token)", ylim=(0, None), title=title)
    return _finish(figure)


def signs() -> Figure:
    """Entropy and held-out scores by the sign of the advantages, and the predicted parts."""
    figure, axes = _axes(3)
    for arm in ARMS["signs"]:
        band(axes[0], arm, "entropy")
        band(axes[1], arm, "avg@8", "scores")
    axes[0].set(title="Every sign alone loses entropy", ylabel="entropy (nats per token)", ylim=(0, None))
    axes[1].set(title="Negative ones alone learn less", ylabel="held-out avg@8", ylim=(0, None))
    for part in ("positive", "negative"):
        band(axes[2], "grpo", f"entropy_change/predicted_{part}", label=f"{part} advantages")
    axes[2].axhline(0, color="black", lw=0.8)
    axes[2].set(title="Both signs of GRPO lower it", ylabel="predicted change of entropy")
    for axis in axes:
        axis.set(xlabel="optimizer step")
    return _finish(figure)


def lambdas() -> Figure:
    """What a run ends with, by the weight of its positive advantages."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    weights = [0, *(float(arm.removeprefix("lambda_")) for arm in LAMBDAS), 1]
    names = {"entropy (nats per token)": ENTROPY, "training reward": REWARD, "held-out avg@8": AVG, "pass@8": PASS}
    for name, metric in names.items():
        found = [effect(values(arm, metric)) for arm in ARMS["lambdas"] if runs_of(arm)]
        if len(found) < len(weights):
            continue
        half = [e.high - e.mean for e in found]
        axis.errorbar(weights, [e.mean for e in found], half, label=name, capsize=2, marker="o", ms=3)
    axis.set(title="No weight of positive advantages holds the entropy", ylabel="at the end of the run")
    axis.set(xlabel="positive_advantage_coef", ylim=(0, 1))
    return _finish(figure, bbox_to_anchor=(1.02, 0.5), loc="center left")


def methods() -> Figure:
    """What each method ends with at one rate, and plain GRPO at smaller ones, by entropy."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 5), layout="constrained", sharey=True)
    arms = [f"shared_{method}" for method in tried()] + [*LEARNING_RATES]
    arms.sort(key=lambda arm: fmean(values(arm, ENTROPY)))
    for axis, (name, metric) in zip(axes, SCORES.items(), strict=True):
        plain = effect(values("shared_grpo", metric))
        axis.axvspan(plain.low, plain.high, color=COLORS[0], alpha=0.1, lw=0)
        for place, arm in enumerate(arms):
            found = effect(values(arm, metric))
            color = COLORS[0] if "grpo" in arm else "gray"
            axis.errorbar(found.mean, place, xerr=found.high - found.mean, fmt="o", color=color, capsize=2, ms=4)
        axis.set(xlabel=name)
    axes[0].set_yticks(range(len(arms)), [arm.removeprefix("shared_") for arm in arms])
    figure.suptitle("Every method at one learning rate, and plain GRPO at smaller ones (blue; band: at the same rate)")
    return _finish(figure)


def frontier() -> Figure:
    """Accuracy against pass@8 of every method by its learning rate, over the tuning seeds; the largest breaks most."""
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for rate in list(RATES)[:-1]:
        names = [trial(method, chosen(method), rate) for method in tried()]
        x, y = ([fmean(values(name, metric, TUNING_SEEDS)) for name in names] for metric in (AVG, PASS))
        (line,) = axis.plot(x, y, ".", ms=7, alpha=0.6, label=f"learning rate {RATES[rate]:g}")
        place = tried().index("grpo")
        axis.plot(x[place], y[place], "*", ms=14, color=line.get_color(), markeredgecolor="black")
    axis.plot([], [], "*", ms=10, color="white", markeredgecolor="black", label="plain GRPO")
    axis.set(title="A smaller rate does as much as most methods", xlabel="held-out avg@8", ylabel="held-out pass@8")
    return _finish(figure)


def neighbours() -> Figure:
    """What each neighbour has more or less than its baseline, of the same seeds."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained", sharey=True)
    pairs = [(arm, base) for base, others in NEIGHBOURS.items() for arm in others]
    for axis, (name, metric) in zip(axes, SCORES.items(), strict=True):
        for place, (arm, base) in enumerate(pairs):
            found = effect(differences(arm, base, metric))
            axis.errorbar(found.mean, place, xerr=found.high - found.mean, fmt="o", color=COLORS[0], capsize=2)
        axis.axvline(0, color="black", lw=0.8)
        axis.set(xlabel=f"{name}, difference")
    axes[0].set_yticks(range(len(pairs)), [f"{arm} minus {base}" for arm, base in pairs])
    axes[0].invert_yaxis()
    figure.suptitle("What each neighbour adds to its baseline, 95 % intervals over seeds")
    return _finish(figure)


def language_model() -> Figure:
    """Entropy of the language model by the sign of the advantages and under control, and held-out scores."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, kind in zip(axes, (SIGN_ARMS, HOLDING_ARMS), strict=False):
        for arm in kind:
            threads(axis, f"smollm2_{arm}", "entropy", label=arm)
        axis.set(xlabel="share of the run", ylabel="entropy (nats per token)", ylim=(0, None))
    axes[0].set(title="Negative advantages alone keep the entropy")
    axes[1].set(title=f"hold ends near its target of {language.TARGET:g} nat")
    axes[1].axhline(language.TARGET, color="black", lw=1, ls=":")
    _held_out(axes[2], ARMS["language_model"])
    return _finish(figure)


def _held_out(axis, arms: list[str]) -> None:
    arms = list(filter(runs_of, arms))
    for shift, (name, metric) in zip((-0.15, 0.15), (("avg@8", AVG), ("pass@8", PASS)), strict=True):
        found = [effect(values(arm, metric)) for arm in arms]
        places = [place + shift for place in range(len(arms))]
        axis.errorbar(places, [e.mean for e in found], [e.high - e.mean for e in found], fmt="o", label=name, ms=4)
    axis.set_xticks(
        range(len(arms)), [arm.removeprefix("smollm2_") for arm in arms], rotation=40, fontsize=8, ha="right"
    )
    axis.set(title="Held-out scores at the end", ylabel="score", ylim=(0, 1.2), yticks=[0, 0.25, 0.5, 0.75, 1])


def authority() -> Figure:
    """Change of entropy by sign and by the share of random rewards; along the runs without them and with them only."""
    figure, axes = _axes(3, 3.6)
    for place, sign in enumerate(SIGNS):
        shares = [percent for percent in NOISE if runs_of(f"noise_{percent}_{sign}")]
        found = [effect(values(f"noise_{percent}_{sign}", CHANGED.of)) for percent in shares]
        half = [e.high - e.mean for e in found]
        style = {"label": sign.replace("_", " "), "color": COLORS[place]}
        axes[0].errorbar(shares, [e.mean for e in found], half, capsize=2, marker="o", ms=3, **style)
        for axis, percent in zip(axes[1:], (NOISE[0], NOISE[-1]), strict=True):
            threads(axis, f"noise_{percent}_{sign}", "entropy", **style)
    axes[0].axhline(0, color="black", lw=0.8)
    axes[0].set(
        xlabel="% of the rewards that are random", ylabel="change of entropy (nats)", title="Noise parts the signs"
    )
    axes[1].set(title="The true reward: all lose entropy")
    axes[2].set(title="A random reward: the signs part")
    for axis in axes[1:]:
        axis.set(xlabel="share of the run", ylabel="entropy (nats per token)", ylim=(0, None))
    return _finish(figure)


def control() -> Figure:
    """Entropy under EntroPIC and under a PI law on the bonus."""
    figure, axes = _axes(3)
    for axis, name in zip(axes, ("on_policy", "off_policy"), strict=False):
        for place, target in enumerate((0.25, 0.5)):
            axis.axhline(target, color=COLORS[place], lw=1, ls=":")
            for law, dashes in (("p", "--"), ("pi", "-")):
                label = f"{law.upper()}, target {target}"
                band(axis, f"entropic_{law}_{target}_{name}", "entropy", label=label, color=COLORS[place], ls=dashes)
        axis.set(title=f"EntroPIC, {name.replace('_', '-')}: ends below")
    for law, dashes in (("p", "--"), ("pi", "-")):
        band(axes[2], f"bonus_{law}_0.35", "entropy", label=f"{law.upper()}, target 0.35", color=COLORS[2], ls=dashes)
    axes[2].axhline(0.35, color=COLORS[2], lw=1, ls=":")
    axes[2].set(title="PI on the entropy bonus: ends near it")
    for axis in axes:
        axis.set(xlabel="optimizer step", ylabel="entropy (nats per token)", ylim=(0, None))
    return _finish(figure)


def chance() -> Figure:
    """Entropy under a reward by chance."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for arm in ("symmetric", "low_only", "tight_low_only", "high_only", "free"):
        band(axis, f"chance_{arm}", "entropy", label=arm)
    axis.set(title="With a random reward the clip range decides", ylim=(0, None))
    axis.set(xlabel="optimizer step", ylabel="entropy (nats per token)")
    return _finish(figure)


def dynamics() -> Figure:
    """Predicted and observed change of entropy of the same tokens, a color for each seed."""
    figure, axes = _axes(2)
    for axis, optimizer in zip(axes, ("sgd", "adam"), strict=True):
        for seed in SEEDS:
            if (run := load(f"dynamics_{optimizer}", seed)) is not None:
                points = predictions(run, updates=1)
                axis.plot(*zip(*points, strict=True), ".", ms=3, alpha=0.6)
        axis.axhline(0, color="black", lw=0.6)
        axis.axvline(0, color="black", lw=0.6)
        axis.set(
            title=f"{optimizer}, a color for each seed",
            xlabel="predicted (nats per unit step)",
            ylabel="observed (nats)",
        )
        axis.locator_params(axis="x", nbins=5)
    return _finish(figure)


_DRAWN = (
    collapse,
    factors,
    signs,
    lambdas,
    methods,
    frontier,
    control,
    chance,
    dynamics,
    neighbours,
    language_model,
    authority,
)
FIGURES = {draw.__name__: draw for draw in _DRAWN}


def fingerprint(figure: Figure) -> str:
    """A hash of all numbers that are drawn, with the names of what they are of."""
    drawn = []
    for axis in figure.axes:
        for line in axis.lines:
            x, y = ([f"{value:.6g}" for value in values] for values in line.get_data())
            drawn.append((str(line.get_label()), x, y))
        for area in axis.collections:
            drawn.append([[f"{value:.6g}" for value in point] for path in area.get_paths() for point in path.vertices])
    return hashlib.sha256(repr(drawn).encode()).hexdigest()


def draw_all() -> None:
    """Write all figures, each with the fingerprint of its numbers; none if the runs of one are missing."""
    drawn = {name: draw() for name, draw in FIGURES.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(FOLDER / f"{name}.png", dpi=110, metadata={"Description": fingerprint(figure)})
        plt.close(figure)
