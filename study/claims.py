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


class Measure(NamedTuple):
    """A number of a run, and what it is called, with its unit."""

    name: str
    of: Metric


FINAL_ENTROPY = Measure("entropy at the end, nats", ENTROPY)
FINAL_REWARD = Measure("reward at the end", REWARD)
ACCURACY = Measure("avg@8", AVG)
COVERAGE = Measure("pass@8", PASS)


class Claim(NamedTuple):
    """
    Something that a paper says, as a number whose sign it predicts.

    Args:
        text (`str`):
            The claim.
        source (`str`):
            The paper, as a link.
        sign (`int`):
            1 if it should be above 0, -1 if below, 0 if near it.
        measure ([`Measure`]):
            The number.
        arm (`str`):
            The arm.
        against (`str`, *optional*):
            Of each seed, the number of this arm is subtracted.
        margin (`float`, *optional*):
            With `sign=0`: how near.
    """

    text: str
    source: str
    sign: int
    measure: Measure
    arm: str
    against: str | None = None
    margin: float | None = None

    @property
    def values(self) -> list[float]:
        if self.against is None:
            return values(self.arm, self.measure.of)
        return differences(self.arm, self.against, self.measure.of)

    @property
    def effect(self) -> Effect:
        return effect(self.values)

    @property
    def verdict(self) -> str:
        return verdict(self.effect, self.sign, self.margin)


COLLAPSE = [
    Claim(
        "Plain GRPO loses its entropy", PAR, -1, Measure("entropy, end less start, nats", of.change("entropy")), "grpo"
    ),
    Claim("while it learns", PAR, 1, Measure("training reward, end less start", of.change("reward")), "grpo"),
    Claim("Held-out accuracy rises", PAR, 1, Measure("avg@8, end less start", of.gain("avg@8")), "grpo"),
    Claim(
        "pass@k falls below that before training",
        "widely held",
        -1,
        Measure("pass@8, end less start", of.gain("pass@8")),
        "grpo",
    ),
    Claim(
        "Answers become alike: fewer different ones",
        PAR,
        -1,
        Measure("distinct answers of 8", of.gain("distinct_answers")),
        "grpo",
    ),
    Claim("N-gram diversity falls", PAR, -1, Measure("distinct 2-grams, share", of.gain("distinct_2")), "grpo"),
    Claim(
        "Entropy and N-gram diversity rank alike along training",
        PAR,
        1,
        Measure("Spearman", of.ranks("response_entropy", "distinct_2")),
        "grpo",
    ),
    Claim("Self-BLEU rises", PAR, 1, Measure("Self-BLEU", of.gain("self_bleu")), "grpo"),
    Claim(
        "Confidence is calibrated worse, by log-probability",
        PAR,
        1,
        Measure("ECE, end less start", of.gain("ece_logprob")),
        "grpo",
    ),
    Claim("and by votes", PAR, 1, Measure("ECE, end less start", of.gain("ece_vote")), "grpo"),
    Claim("Entropy of the prompts falls too", PAR, -1, Measure("nats per token", of.gain("prompt_entropy")), "grpo"),
    Claim(
        "More than half of the groups have no advantage in the end",
        DISSECTING,
        1,
        Measure("share less 0.5", lambda run: ZERO(run) - 0.5),
        "grpo",
    ),
]
CLIP_RANGES = [
    Claim("Clip-Higher keeps more entropy", PAR, 1, FINAL_ENTROPY, "clip_higher", "grpo"),
    Claim("Clip-Lower (0.28) keeps less", PAR, -1, FINAL_ENTROPY, "clip_lower", "grpo"),
    Claim("Clip-Tighter (0.12) keeps more", PAR, 1, FINAL_ENTROPY, "clip_tighter", "grpo"),
    Claim("Clip-Free keeps more", PAR, 1, FINAL_ENTROPY, "clip_free", "grpo"),
    Claim("and is at least as accurate", PAR, 1, ACCURACY, "clip_free", "grpo"),
]
UPDATES = [
    Claim("16 updates for a rollout lose more entropy than one", PAR, -1, FINAL_ENTROPY, "updates_16", "updates_1"),
    Claim("4 lose more than one", PAR, -1, FINAL_ENTROPY, "grpo", "updates_1"),
    Claim("They raise the training reward", PAR, 1, FINAL_REWARD, "grpo", "updates_1"),
    Claim("and lower pass@k", PAR, -1, COVERAGE, "grpo", "updates_1"),
    Claim(
        "Stale rollouts lose more entropy than fresh ones, at as many updates",
        "ours",
        -1,
        FINAL_ENTROPY,
        "grpo",
        "fresh",
    ),
]
DATA = [
    Claim("16 problems lose more entropy than 100", PAR, -1, FINAL_ENTROPY, "problems_16", "problems_100"),
    Claim("A subset is as accurate as all problems: 32 of 100", PAR, 0, ACCURACY, "grpo", "problems_100", NEAR),
    Claim("16 by K-means end with less entropy than 16 at random", PAR, -1, FINAL_ENTROPY, "kmeans_16", "problems_16"),
    Claim(
        "16 neighbours, the least diverse ones, end with less than 16 at random",
        "ours",
        -1,
        FINAL_ENTROPY,
        "narrow_16",
        "problems_16",
    ),
]
SIGNS = [
    Claim("Positive advantages alone: less entropy", PAR, -1, FINAL_ENTROPY, "positive_only", "grpo"),
    Claim("Negative advantages alone: more entropy", PAR, 1, FINAL_ENTROPY, "negative_only", "grpo"),
    Claim("Both: lower accuracy than plain GRPO, positive ones alone", PAR, -1, ACCURACY, "positive_only", "grpo"),
    Claim("and negative ones alone", PAR, -1, ACCURACY, "negative_only", "grpo"),
    Claim(
        "A random tenth of the positive tokens left out: more accurate",
        PAR,
        1,
        ACCURACY,
        "random_positive_clip",
        "grpo",
    ),
    Claim(
        "To first order, positive tokens lower entropy",
        PAR,
        -1,
        Measure("sum of the predicted change", of.total("entropy_change/predicted_positive")),
        "grpo",
    ),
    Claim(
        "and negative tokens raise it",
        PAR,
        1,
        Measure("sum of the predicted change", of.total("entropy_change/predicted_negative")),
        "grpo",
    ),
]
METHODS = [
    Claim(
        "Entropy-guided reweighting is more accurate than GRPO", PAR, 1, ACCURACY, "tuned_entropy_guided", "tuned_grpo"
    ),
    Claim("So is the stage schedule", PAR, 1, ACCURACY, "tuned_stage", "tuned_grpo"),
    Claim("and the epoch schedule", PAR, 1, ACCURACY, "tuned_epoch", "tuned_grpo"),
    Claim("Entropy-guided beats both schedules: stage", PAR, 1, ACCURACY, "tuned_entropy_guided", "tuned_stage"),
    Claim("epoch", PAR, 1, ACCURACY, "tuned_entropy_guided", "tuned_epoch"),
    Claim("and Clip-Higher", PAR, 1, ACCURACY, "tuned_entropy_guided", "tuned_clip_higher"),
    Claim("and Skywork's controller", PAR, 1, ACCURACY, "tuned_entropy_guided", "tuned_skywork"),
    Claim("It keeps more entropy than GRPO", PAR, 1, FINAL_ENTROPY, "tuned_entropy_guided", "tuned_grpo"),
    Claim(
        "A controlled bonus keeps pass@k",
        "[Skywork-OR1](https://huggingface.co/papers/2505.22312)",
        1,
        COVERAGE,
        "tuned_skywork",
        "tuned_grpo",
    ),
]
CONTROL = [
    *(
        Claim(
            f"The PI law holds {target:g} nats {where}",
            ENTROPIC,
            -1,
            Measure("distance from the target less 0.05, nats", lambda run, t=target: of.miss(t)(run) - NEAR),
            f"entropic_pi_{target:g}_{name}",
        )
        for name, where in (("on_policy", "on-policy"), ("off_policy", "off-policy"))
        for target in (0.25, 0.5)
    ),
    *(
        Claim(
            f"Off-policy, P alone ends farther from {target:g} nats than PI",
            ENTROPIC,
            1,
            Measure("distance from the target, nats", of.miss(target)),
            f"entropic_p_{target:g}_off_policy",
            f"entropic_pi_{target:g}_off_policy",
        )
        for target in (0.25, 0.5)
    ),
    Claim(
        "The same on the entropy bonus, at 0.35 nats",
        "ours",
        1,
        Measure("distance from the target, nats", of.miss(0.35)),
        "bonus_p_0.35",
        "bonus_pi_0.35",
    ),
]
CHANCE = [
    Claim(
        "A reward by chance lowers entropy at equal clip ranges",
        CLIP,
        -1,
        Measure("entropy, end less start, nats", of.change("entropy")),
        "chance_symmetric",
    ),
    Claim("Clip-low alone ends higher than no clip", CLIP, 1, FINAL_ENTROPY, "chance_low_only", "chance_free"),
    Claim("A tight clip-low ends higher than 0.2", CLIP, 1, FINAL_ENTROPY, "chance_tight_low_only", "chance_low_only"),
    Claim("Clip-high alone ends lower than no clip", CLIP, -1, FINAL_ENTROPY, "chance_high_only", "chance_free"),
    Claim("Clip-low added to clip-high ends higher", CLIP, 1, FINAL_ENTROPY, "chance_symmetric", "chance_high_only"),
    Claim("Clip-high added to clip-low ends lower", CLIP, -1, FINAL_ENTROPY, "chance_symmetric", "chance_low_only"),
]
LINK = [
    Claim(
        "The first-order prediction and the change of the same tokens go together, with SGD",
        DYNAMICS,
        1,
        Measure("Pearson", of.link(1)),
        "dynamics_sgd",
    ),
    Claim("and with Adam", PAR, 1, Measure("Pearson", of.link(1)), "dynamics_adam"),
    Claim("more weakly than with SGD", PAR, -1, Measure("Pearson", of.link(1)), "dynamics_adam", "dynamics_sgd"),
]
NEIGHBOURS = [
    Claim("SENT keeps more entropy than GRPO", SENT, 1, FINAL_ENTROPY, "sent", "grpo"),
    Claim("and is more accurate", SENT, 1, ACCURACY, "sent", "grpo"),
    Claim(
        "PREPO has fewer groups without advantage than random problems",
        PREPO,
        -1,
        Measure("share at the end", ZERO),
        "prepo",
        "problems_100",
    ),
    Claim("and keeps more entropy", PREPO, 1, FINAL_ENTROPY, "prepo", "problems_100"),
    Claim("at the same accuracy", PREPO, 0, ACCURACY, "prepo", "problems_100", NEAR),
    Claim(
        "Its weights slow the fall of entropy that its window leaves",
        PREPO,
        1,
        FINAL_ENTROPY,
        "prepo",
        "perplexity_window",
    ),
    Claim("ERPO is more accurate than GRPO", ERPO, 1, ACCURACY, "erpo", "grpo"),
    Claim("Late positions weighted up: more accurate", EXCHANGE, 1, ACCURACY, "position", "grpo"),
    Claim(
        "Low perplexity weighted up: more accurate, with the released constants",
        EXCHANGE,
        1,
        ACCURACY,
        "perplexity",
        "grpo",
    ),
    Claim("and with twenty times the constant", EXCHANGE, 1, ACCURACY, "perplexity_strong", "grpo"),
    Claim("Negatives first, then both: more accurate", DISSECTING, 1, ACCURACY, "neg_to_pos", "grpo"),
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
