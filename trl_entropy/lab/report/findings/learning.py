"""Check whether a run was still learning, and from what."""

import math
from statistics import fmean, variance

from ..facts import bonuses, off_policy
from ..runs import Run
from ..statistics import ends
from .finding import BAD, GOOD, MIN_LOGS, NOTE, Finding, enough


# All of these are ours
ERRORS = 2.0  # standard errors that a change of reward must exceed
SMALL_REWARD = 0.01
NO_SIGNAL, GROWTH = 0.5, 0.2  # share of groups whose rewards are all equal, and its least growth
CLIPPED, ONE_SIDED = 1e-3, 0.8  # share of tokens that are clipped at all; share of these on one side
WORSE = 0.05  # least fall of a held-out score
WATCHED = ("entropy", "reward", "loss", "grad_norm")
NEARLY_ALL = 0.95  # share of the groups, or of the completions, that makes a run dead
EQUAL_GROUPS_TEACH = "w_reinforce"  # the bonus with which groups of equal rewards still train
CUT, RIGHT = "completions/clipped_ratio", "groups/all_correct"
SIGNS_OF_DEATH = {
    "frac_reward_zero_std": "of the groups have equal rewards",
    RIGHT: "of the groups are all correct",
    CUT: "of the completions were cut at max_completion_length",
}


def dead(run: Run) -> list[Finding]:
    """A run that had nothing to learn from since its start."""
    rewards, equal = (run.series.get(key) for key in ("reward", "frac_reward_zero_std"))
    if rewards is None or rewards.steps[-1] < MIN_LOGS:
        return []
    if EQUAL_GROUPS_TEACH in bonuses(run):
        return []
    start, end = ends(rewards.values)
    still = start is None or abs(end - start) <= SMALL_REWARD
    if equal is None:
        silent = start is not None and min(rewards.values) == max(rewards.values)
    else:
        silent = still and min(fmean(equal.values), ends(equal.values)[1]) >= NEARLY_ALL
    if not silent:
        return []
    known = {key: fmean(run.series[key].values) for key in SIGNS_OF_DEATH if key in run.series}
    evidence = [f"reward {end:.2f}" if start is None else f"reward {start:.2f} → {end:.2f}"]
    evidence += [f"{known[key]:.0%} {what}" for key, what in SIGNS_OF_DEATH.items() if key in known]
    text = "Nothing to learn from since the start: in nearly every group all rewards are equal"
    return [Finding(text, "; ".join(evidence), BAD, _revive(end, known))]


def _revive(reward: float, known: dict[str, float]) -> str:
    """Advice for a dead run, from its last reward and the known shares."""
    if known.get(RIGHT, 0.0) >= NEARLY_ALL:
        return "All answers are right: use harder problems."
    if known.get(CUT, 0.0) >= NEARLY_ALL:
        return "Completions are cut before they end: raise max_completion_length, or ask for shorter answers."
    look = "read some completions (log_completions), and try the reward with trl-entropy check-rewards."
    if reward > 0 and RIGHT in known:
        return f"The reward does not tell the answers apart: {look}"
    if reward > 0:
        return f"Either all answers are right: use harder problems. Or the reward does not tell them apart: {look}"
    return f"Either the answers lack the format that the reward reads: {look} Or the problems are too hard."


def not_finite(run: Run) -> list[Finding]:
    """A metric that is NaN or infinite."""
    found = []
    for key in WATCHED:
        steps, values = run.series.get(key, ([], []))
        broken = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
        if broken:
            evidence = f"{len(broken)} of {len(steps)} logged values"
            advice = "Resume from an earlier checkpoint with a smaller learning_rate; check max_grad_norm."
            if key == "reward":
                advice = "A reward function returned NaN, or all of them returned None: try trl-entropy check-rewards."
            found.append(Finding(f"{key} was not finite, first at step {broken[0]}", evidence, BAD, advice))
    return found


def reward(run: Run) -> list[Finding]:
    """Whether the reward was still moving over the last half."""
    values = enough(run, "reward", least=2 * MIN_LOGS)
    if not values:
        return []
    third, last = (values[len(values) * part // 4 : len(values) * (part + 1) // 4] for part in (2, 3))
    change = fmean(last) - fmean(third)
    error = math.sqrt(variance(third) / len(third) + variance(last) / len(last))
    evidence = f"{ends(values)[0]:.2f} at the start, {fmean(third):.2f} in the third quarter, "
    evidence += f"{fmean(last):.2f} in the last"
    if abs(change) <= max(ERRORS * error, SMALL_REWARD):
        return [Finding("Reward was flat over the last half", evidence, NOTE)]
    if change > 0:
        return [Finding("Reward was still rising at the end", evidence, GOOD, "More steps may help.")]
    return [
        Finding("Reward was falling at the end", evidence, BAD, "Check the steps before the fall, and the entropy.")
    ]


def groups(run: Run) -> list[Finding]:
    """Groups whose completions all have the same reward, which teach nothing."""
    values = enough(run, "frac_reward_zero_std")
    if not values or EQUAL_GROUPS_TEACH in bonuses(run):
        return []
    start, end = ends(values)
    if end < NO_SIGNAL or end - start < GROWTH:
        return []
    kinds = {kind: enough(run, f"groups/all_{kind}") for kind in ("correct", "wrong")}
    last = {kind: ends(shares)[1] for kind, shares in kinds.items() if shares}
    evidence = f"{start:.0%} of the groups at the start, {end:.0%} at the end"
    evidence += "".join(f"; all {kind} {share:.0%}" for kind, share in last.items())
    advice = "Add problems that the policy solves sometimes, or raise num_generations."
    if last and max(last, key=last.get) == "correct":
        advice = "Add harder problems, or leave out those that the policy always solves."
    return [Finding("Few groups still teach: in the others all rewards are equal", evidence, NOTE, advice)]


SIDES = {
    "high": "These tokens were rising: a larger epsilon_high lets them rise further, which raises entropy.",
    "low": "These tokens were falling: a larger epsilon_low lets them fall further, which lowers entropy.",
}


def clipping(run: Run) -> list[Finding]:
    """Clipping on one side only, or a turned clip range at which nothing was ever clipped."""
    low, high = (enough(run, f"clip_ratio/{side}_mean") for side in ("low", "high"))
    if not low or not high:
        return []
    turned = [name for name in ("epsilon_low", "epsilon_high") if len(set(enough(run, f"knobs/{name}"))) > 1]
    if not any(low) and not any(high):
        advice = "With one update per rollout batch, ratios are 1: set off_policy_updates or num_iterations > 1."
        if off_policy(run):
            advice = "The updates of a rollout batch stay inside the range: narrow it, or turn another knob."
        text = f"No token was clipped, so {' and '.join(turned)} had no effect"
        return [Finding(text, f"{len(low)} logged steps", BAD, advice)] if turned else []
    shares = {"low": fmean(low), "high": fmean(high)}
    side, total = max(shares, key=shares.get), sum(shares.values())
    if total < CLIPPED or shares[side] < ONE_SIDED * total:
        return []
    text = f"{shares[side] / total:.0%} of the clipped tokens were clipped at the {side} end"
    evidence = f"{shares['low']:.2%} of the tokens at the low end, {shares['high']:.2%} at the high end"
    return [Finding(text, evidence, NOTE, SIDES[side])]


def held_out(run: Run) -> list[Finding]:
    """A score on held-out problems that fell."""
    found = []
    before, after = run.scores.get("before", {}), run.scores.get("after", {})
    both = [name for name in before if name in after]
    entropy = enough(run, "entropy")
    fell = bool(entropy) and ends(entropy)[1] < ends(entropy)[0]
    for name in both:
        if before[name] - after[name] > WORSE:
            evidence = ", ".join(f"{key} {before[key]:.2f} → {after[key]:.2f}" for key in both)
            alike = "The policy's answers may have become alike: keep more entropy, or stop earlier."
            found.append(Finding(f"Held-out {name} fell", evidence, BAD, alike if "pass" in name and fell else ""))
    return found
