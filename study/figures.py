"""The figures of docs/study.md, from the runs."""

import hashlib
from pathlib import Path

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .arms import GRIDS, SEEDS
from .claims import AVG, ENTROPY, PASS
from .results import over_seeds, predictions, values
from .runs import load
from .statistics import effect
from .tables import ARMS


FOLDER = Path(__file__).parent.parent / "docs" / "images" / "study"
COLORS = plt.get_cmap("tab10").colors


def band(
    axis, arm: str, name: str, of: str = "series", label: str | None = None, share: bool = False, **style
) -> None:
    """Mean over the seeds with its 95 % interval, over steps or over the share of the run."""
    steps, effects = over_seeds(arm, name, of)
    x = [step / steps[-1] for step in steps] if share else steps
    (line,) = axis.plot(x, [e.mean for e in effects], label=label or arm, **style)
    axis.fill_between(x, [e.low for e in effects], [e.high for e in effects], color=line.get_color(), alpha=0.15, lw=0)


def _finish(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
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
    for axis in axes:
        axis.set(xlabel="optimizer step", ylim=(0, None))
    return _finish(figure)


def factors() -> Figure:
    """Entropy by clip range, by updates for each rollout, and by problems."""
    figure, axes = _axes(3)
    for axis, section in zip(axes, ("clip_ranges", "updates", "data"), strict=True):
        for arm in ARMS[section]:
            band(axis, arm, "entropy", share=True)
        axis.set(xlabel="share of the run", ylabel="entropy (nats per token)", ylim=(0, None))
    return _finish(figure)


def signs() -> Figure:
    """Entropy and held-out scores by the sign of the advantages, and the predicted parts."""
    figure, axes = _axes(3)
    for arm in ARMS["signs"]:
        band(axes[0], arm, "entropy")
        band(axes[1], arm, "avg@8", "scores")
    axes[0].set(xlabel="optimizer step", ylabel="entropy (nats per token)", ylim=(0, None))
    axes[1].set(xlabel="optimizer step", ylabel="held-out avg@8", ylim=(0, None))
    for part in ("positive", "negative"):
        band(axes[2], "grpo", f"entropy_change/predicted_{part}", label=f"{part} advantages")
    axes[2].axhline(0, color="black", lw=0.8)
    axes[2].set(xlabel="optimizer step", ylabel="predicted change of entropy")
    return _finish(figure)


def methods() -> Figure:
    """Entropy at the end against held-out scores, by method."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    for axis, metric, name in zip(axes, (AVG, PASS), ("avg@8", "pass@8"), strict=True):
        for place, method in enumerate(GRIDS):
            x, y = (effect(values(f"tuned_{method}", of)) for of in (ENTROPY, metric))
            style = {"color": COLORS[place % 10], "marker": "os^"[place // 10], "capsize": 2, "lw": 1}
            axis.errorbar(x.mean, y.mean, y.high - y.mean, x.high - x.mean, **style)
            axis.annotate(
                method, (x.mean, y.mean), xytext=(4, (4, -10)[place % 2]), textcoords="offset points", fontsize=8
            )
        axis.set(xlabel="entropy at the end (nats per token)", ylabel=f"held-out {name}")
    return _finish(figure)


def control() -> Figure:
    """Entropy under EntroPIC and under the PI law on the bonus."""
    figure, axes = _axes(3)
    for axis, name in zip(axes, ("on_policy", "off_policy"), strict=False):
        for place, target in enumerate((0.25, 0.5)):
            axis.axhline(target, color=COLORS[place], lw=1, ls=":")
            for law, dashes in (("p", "--"), ("pi", "-")):
                label = f"{law.upper()}, target {target}"
                band(axis, f"entropic_{law}_{target}_{name}", "entropy", label=label, color=COLORS[place], ls=dashes)
        axis.set(title=f"EntroPIC, {name.replace('_', '-')}")
    for law, dashes in (("p", "--"), ("pi", "-")):
        band(axes[2], f"bonus_{law}_0.35", "entropy", label=f"{law.upper()}, target 0.35", color=COLORS[2], ls=dashes)
    axes[2].axhline(0.35, color=COLORS[2], lw=1, ls=":")
    axes[2].set(title="entropy bonus, off-policy")
    for axis in axes:
        axis.set(xlabel="optimizer step", ylabel="entropy (nats per token)", ylim=(0, None))
    return _finish(figure)


def chance() -> Figure:
    """Entropy under a reward by chance."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for arm in ("symmetric", "low_only", "tight_low_only", "high_only", "free"):
        band(axis, f"chance_{arm}", "entropy", label=arm)
    axis.set(xlabel="optimizer step", ylabel="entropy (nats per token)")
    return _finish(figure)


def dynamics() -> Figure:
    """Predicted and observed change of entropy of the same tokens, a color for each seed."""
    figure, axes = _axes(2)
    for axis, optimizer in zip(axes, ("sgd", "adam"), strict=True):
        for seed in SEEDS:
            points = predictions(load(f"dynamics_{optimizer}", seed), updates=1)
            axis.plot(*zip(*points, strict=True), ".", ms=3, alpha=0.6)
        axis.set(title=optimizer, xlabel="predicted (nats per unit step)", ylabel="observed (nats)")
        axis.locator_params(axis="x", nbins=5)
    return _finish(figure)


FIGURES = {f.__name__: f for f in (collapse, factors, signs, methods, control, chance, dynamics)}


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
    """Write all figures, each with the fingerprint of its numbers."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(FOLDER / f"{name}.png", dpi=110, metadata={"Description": fingerprint(figure)})
        plt.close(figure)
