"""The claims: what each says, which arms show it, and what is measured."""

from typing import NamedTuple

from . import results as of
from .results import Metric, differences, values
from .statistics import Effect, effect, verdict


PAR = "[PAR](https://huggingface.co/papers/2511.05993)"
CLIP = "[clip-low/clip-high](https://huggingface.co/papers/2509.26114)"
ENTROPIC = "[EntroPIC](https://huggingface.co/papers/2511.15248)"
DYNAMICS = "[entropy dynamics](https://huggingface.co/papers/2602.03392)"
SENT = "[SENT](https://huggingface.co/papers/2512.04359)"
PREPO = "[PREPO](https://huggingface.co/papers/2511.00794)"
ERPO = "[ERPO](https://huggingface.co/papers/2511.04800)"
EXCHANGE = "[entropy-performance exchange](https://huggingface.co/papers/2508.02260)"
DISSECTING = "[Dissecting Long-CoT](https://huggingface.co/papers/2506.04913)"

ENTROPY, REWARD = of.at_end("entropy"), of.at_end("reward")
AVG, PASS, MAJ = of.score("avg@8"), of.score("pass@8"), of.score("maj@8")
ZERO = of.at_end("frac_reward_zero_std")
NEAR = 0.05  # nats or share of problems: what counts as no difference


class Claim(NamedTuple):
    """
    Something that a paper says, as a number whose sign it predicts.

    Args:
        text (`str`):
            The claim.
        source (`str`):
            The paper, as a link.
        what (`str`):
            The number, with its unit.
        sign (`int`):
            1 if it should be above 0, -1 if below, 0 if near it.
        metric (`Callable[[dict], float | None]`):
            The number of a run.
        arm (`str`):
            The arm.
        against (`str`, *optional*):
            Of each seed, the number of this arm is subtracted.
        margin (`float`, *optional*):
            With `sign=0`: how near.
    """

    text: str
    source: str
    what: str
    sign: int
    metric: Metric
    arm: str
    against: str | None = None
    margin: float | None = None

    @property
    def values(self) -> list[float]:
        if self.against is None:
            return values(self.arm, self.metric)
        return differences(self.arm, self.against, self.metric)

    @property
    def effect(self) -> Effect:
        return effect(self.values)

    @property
    def verdict(self) -> str:
        return verdict(self.effect, self.sign, self.margin)


COLLAPSE = [
    Claim("Plain GRPO loses its entropy", PAR, "entropy, end less start, nats", -1, of.change("entropy"), "grpo"),
    Claim("while it learns", PAR, "training reward, end less start", 1, of.change("reward"), "grpo"),
    Claim("Held-out accuracy rises", PAR, "avg@8, end less start", 1, of.gain("avg@8"), "grpo"),
    Claim(
        "pass@k falls below that before training",
        "widely held",
        "pass@8, end less start",
        -1,
        of.gain("pass@8"),
        "grpo",
    ),
    Claim(
        "Answers become alike: fewer different ones",
        PAR,
        "distinct answers of 8",
        -1,
        of.gain("distinct_answers"),
        "grpo",
    ),
    Claim("N-gram diversity falls", PAR, "distinct 2-grams, share", -1, of.gain("distinct_2"), "grpo"),
    Claim(
        "Entropy and N-gram diversity rank alike along training",
        PAR,
        "Spearman",
        1,
        of.ranks("response_entropy", "distinct_2"),
        "grpo",
    ),
    Claim("Self-BLEU rises", PAR, "Self-BLEU", 1, of.gain("self_bleu"), "grpo"),
    Claim(
        "Confidence is calibrated worse, by log-probability",
        PAR,
        "ECE, end less start",
        1,
        of.gain("ece_logprob"),
        "grpo",
    ),
    Claim("and by votes", PAR, "ECE, end less start", 1, of.gain("ece_vote"), "grpo"),
    Claim("Entropy of the prompts falls too", PAR, "nats per token", -1, of.gain("prompt_entropy"), "grpo"),
    Claim(
        "More than half of the groups have no advantage in the end",
        DISSECTING,
        "share less 0.5",
        1,
        lambda run: ZERO(run) - 0.5,
        "grpo",
    ),
]
CLIP_RANGES = [
    Claim("Clip-Higher keeps more entropy", PAR, "entropy at the end, nats", 1, ENTROPY, "clip_higher", "grpo"),
    Claim("Clip-Lower (0.28) keeps less", PAR, "entropy at the end, nats", -1, ENTROPY, "clip_lower", "grpo"),
    Claim("Clip-Tighter (0.12) keeps more", PAR, "entropy at the end, nats", 1, ENTROPY, "clip_tighter", "grpo"),
    Claim("Clip-Free keeps more", PAR, "entropy at the end, nats", 1, ENTROPY, "clip_free", "grpo"),
    Claim("and is at least as accurate", PAR, "avg@8", 1, AVG, "clip_free", "grpo"),
]
UPDATES = [
    Claim(
        "16 updates for a rollout lose more entropy than one",
        PAR,
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "updates_16",
        "updates_1",
    ),
    Claim("4 lose more than one", PAR, "entropy at the end, nats", -1, ENTROPY, "grpo", "updates_1"),
    Claim("They raise the training reward", PAR, "reward at the end", 1, REWARD, "grpo", "updates_1"),
    Claim("and lower pass@k", PAR, "pass@8", -1, PASS, "grpo", "updates_1"),
    Claim(
        "Stale rollouts lose more entropy than fresh ones, at as many updates",
        "ours",
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "grpo",
        "fresh",
    ),
]
DATA = [
    Claim(
        "16 problems lose more entropy than 100",
        PAR,
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "problems_16",
        "problems_100",
    ),
    Claim("A subset is as accurate as all problems: 32 of 100", PAR, "avg@8", 0, AVG, "grpo", "problems_100", NEAR),
    Claim(
        "16 by K-means end with less entropy than 16 at random",
        PAR,
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "kmeans_16",
        "problems_16",
    ),
    Claim(
        "16 neighbours, the least diverse ones, end with less than 16 at random",
        "ours",
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "narrow_16",
        "problems_16",
    ),
]
SIGNS = [
    Claim(
        "Positive advantages alone: less entropy",
        PAR,
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "positive_only",
        "grpo",
    ),
    Claim(
        "Negative advantages alone: more entropy", PAR, "entropy at the end, nats", 1, ENTROPY, "negative_only", "grpo"
    ),
    Claim("Both: lower accuracy than plain GRPO, positive ones alone", PAR, "avg@8", -1, AVG, "positive_only", "grpo"),
    Claim("and negative ones alone", PAR, "avg@8", -1, AVG, "negative_only", "grpo"),
    Claim(
        "A random tenth of the positive tokens left out: more accurate",
        PAR,
        "avg@8",
        1,
        AVG,
        "random_positive_clip",
        "grpo",
    ),
    Claim(
        "To first order, positive tokens lower entropy",
        PAR,
        "sum of the predicted change",
        -1,
        of.total("entropy_change/predicted_positive"),
        "grpo",
    ),
    Claim(
        "and negative tokens raise it",
        PAR,
        "sum of the predicted change",
        1,
        of.total("entropy_change/predicted_negative"),
        "grpo",
    ),
]
METHODS = [
    Claim(
        "Entropy-guided reweighting is more accurate than GRPO",
        PAR,
        "avg@8",
        1,
        AVG,
        "tuned_entropy_guided",
        "tuned_grpo",
    ),
    Claim("So is the stage schedule", PAR, "avg@8", 1, AVG, "tuned_stage", "tuned_grpo"),
    Claim("and the epoch schedule", PAR, "avg@8", 1, AVG, "tuned_epoch", "tuned_grpo"),
    Claim("Entropy-guided beats both schedules: stage", PAR, "avg@8", 1, AVG, "tuned_entropy_guided", "tuned_stage"),
    Claim("epoch", PAR, "avg@8", 1, AVG, "tuned_entropy_guided", "tuned_epoch"),
    Claim("and Clip-Higher", PAR, "avg@8", 1, AVG, "tuned_entropy_guided", "tuned_clip_higher"),
    Claim("and Skywork's controller", PAR, "avg@8", 1, AVG, "tuned_entropy_guided", "tuned_skywork"),
    Claim(
        "It keeps more entropy than GRPO",
        PAR,
        "entropy at the end, nats",
        1,
        ENTROPY,
        "tuned_entropy_guided",
        "tuned_grpo",
    ),
    Claim(
        "A controlled bonus keeps pass@k",
        "[Skywork-OR1](https://huggingface.co/papers/2505.22312)",
        "pass@8",
        1,
        PASS,
        "tuned_skywork",
        "tuned_grpo",
    ),
]
CONTROL = [
    *(
        Claim(
            f"The PI law holds {target:g} nats {where}",
            ENTROPIC,
            "distance from the target less 0.05, nats",
            -1,
            lambda run, t=target: of.miss(t)(run) - NEAR,
            f"entropic_pi_{target:g}_{name}",
        )
        for name, where in (("on_policy", "on-policy"), ("off_policy", "off-policy"))
        for target in (0.25, 0.5)
    ),
    *(
        Claim(
            f"Off-policy, P alone ends farther from {target:g} nats than PI",
            ENTROPIC,
            "distance from the target, nats",
            1,
            of.miss(target),
            f"entropic_p_{target:g}_off_policy",
            f"entropic_pi_{target:g}_off_policy",
        )
        for target in (0.25, 0.5)
    ),
    Claim(
        "The same on the entropy bonus, at 0.35 nats",
        "ours",
        "distance from the target, nats",
        1,
        of.miss(0.35),
        "bonus_p_0.35",
        "bonus_pi_0.35",
    ),
]
CHANCE = [
    Claim(
        "A reward by chance lowers entropy at equal clip ranges",
        CLIP,
        "entropy, end less start, nats",
        -1,
        of.change("entropy"),
        "chance_symmetric",
    ),
    Claim(
        "Clip-low alone ends higher than no clip",
        CLIP,
        "entropy at the end, nats",
        1,
        ENTROPY,
        "chance_low_only",
        "chance_free",
    ),
    Claim(
        "A tight clip-low ends higher than 0.2",
        CLIP,
        "entropy at the end, nats",
        1,
        ENTROPY,
        "chance_tight_low_only",
        "chance_low_only",
    ),
    Claim(
        "Clip-high alone ends lower than no clip",
        CLIP,
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "chance_high_only",
        "chance_free",
    ),
    Claim(
        "Clip-low added to clip-high ends higher",
        CLIP,
        "entropy at the end, nats",
        1,
        ENTROPY,
        "chance_symmetric",
        "chance_high_only",
    ),
    Claim(
        "Clip-high added to clip-low ends lower",
        CLIP,
        "entropy at the end, nats",
        -1,
        ENTROPY,
        "chance_symmetric",
        "chance_low_only",
    ),
]
LINK = [
    Claim(
        "The first-order prediction and the change of the same tokens go together, with SGD",
        DYNAMICS,
        "Pearson",
        1,
        of.link(1),
        "dynamics_sgd",
    ),
    Claim("and with Adam", PAR, "Pearson", 1, of.link(1), "dynamics_adam"),
    Claim("more weakly than with SGD", PAR, "Pearson", -1, of.link(1), "dynamics_adam", "dynamics_sgd"),
]
NEIGHBOURS = [
    Claim("SENT keeps more entropy than GRPO", SENT, "entropy at the end, nats", 1, ENTROPY, "sent", "grpo"),
    Claim("and is more accurate", SENT, "avg@8", 1, AVG, "sent", "grpo"),
    Claim(
        "PREPO has fewer groups without advantage than random problems",
        PREPO,
        "share at the end",
        -1,
        ZERO,
        "prepo",
        "problems_100",
    ),
    Claim("and keeps more entropy", PREPO, "entropy at the end, nats", 1, ENTROPY, "prepo", "problems_100"),
    Claim("at the same accuracy", PREPO, "avg@8", 0, AVG, "prepo", "problems_100", NEAR),
    Claim(
        "Its weights slow the fall of entropy that its window leaves",
        PREPO,
        "entropy at the end, nats",
        1,
        ENTROPY,
        "prepo",
        "perplexity_window",
    ),
    Claim("ERPO is more accurate than GRPO", ERPO, "avg@8", 1, AVG, "erpo", "grpo"),
    Claim("Late positions weighted up: more accurate", EXCHANGE, "avg@8", 1, AVG, "position", "grpo"),
    Claim(
        "Low perplexity weighted up: more accurate, with the released constants",
        EXCHANGE,
        "avg@8",
        1,
        AVG,
        "perplexity",
        "grpo",
    ),
    Claim("and with twenty times the constant", EXCHANGE, "avg@8", 1, AVG, "perplexity_strong", "grpo"),
    Claim("Negatives first, then both: more accurate", DISSECTING, "avg@8", 1, AVG, "neg_to_pos", "grpo"),
]

LANGUAGE_MODEL = [
    claim._replace(arm=f"smollm2_{claim.arm}", against=claim.against and f"smollm2_{claim.against}")
    for claim in (
        *COLLAPSE[:5],
        *COLLAPSE[7:9],
        *(claim for claim in UPDATES if claim.arm == "grpo" and claim.against == "updates_1"),
        *SIGNS[:4],
        METHODS[0]._replace(arm="entropy_guided", against="grpo"),
        METHODS[7]._replace(arm="entropy_guided", against="grpo"),
    )
]

SECTIONS: dict[str, list[Claim]] = {
    "collapse": COLLAPSE,
    "clip_ranges": CLIP_RANGES,
    "updates": UPDATES,
    "data": DATA,
    "signs": SIGNS,
    "methods": METHODS,
    "control": CONTROL,
    "chance": CHANCE,
    "dynamics": LINK,
    "neighbours": NEIGHBOURS,
    "language_model": LANGUAGE_MODEL,
}
