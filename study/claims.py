"""The claims: what each says, which arms show it, and what is measured."""

from typing import NamedTuple

from . import language
from . import results as of
from .arms import FIRST_SEEDS, HELD_AT, LAWS, Arm, law_arm
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
BOTH = Measure("mean of avg@8 and pass@8", lambda run: (AVG(run) + PASS(run)) / 2)  # what was tuned for


def outside_a_tenth(target: float) -> Measure:
    """How much farther than a tenth of it the entropy is from its target."""
    return Measure(
        "distance from the target minus a tenth of it, nats", lambda run: of.miss(target)(run) - target / 10
    )


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
        theirs (`str`, *optional*):
            What the paper measured, on its models and with its scores.
    """

    text: str
    source: str
    sign: int
    measure: Measure
    arm: str
    against: str | None = None
    margin: float | None = None
    theirs: str = ""

    @property
    def values(self) -> list[float]:
        if self.against is None:
            return values(self.arm, self.measure.of)
        return differences(self.arm, self.against, self.measure.of)

    @property
    def is_run(self) -> bool:
        """Whether there are seeds enough for a verdict."""
        return len(self.values) >= len(FIRST_SEEDS)

    @property
    def effect(self) -> Effect:
        return effect(self.values)

    @property
    def verdict(self) -> str:
        return verdict(self.effect, self.sign, self.margin)


RANKS_ALIKE = Claim(
    "Entropy and N-gram diversity rank alike along training",
    PAR,
    1,
    Measure("Spearman", of.ranks("response_entropy", "distinct_2")),
    "grpo",
    theirs="0.88",
)
COLLAPSE = [
    Claim(
        "Plain GRPO loses its entropy",
        PAR,
        -1,
        Measure("entropy, end minus start, nats", of.change("entropy")),
        "grpo",
        theirs="0.118 minus 0.366",
    ),
    Claim(
        "The training reward rises meanwhile",
        PAR,
        1,
        Measure("training reward, end minus start", of.change("reward")),
        "grpo",
    ),
    Claim(
        "Held-out accuracy rises",
        PAR,
        1,
        Measure("avg@8, end minus start", of.gain("avg@8")),
        "grpo",
        theirs="44.1 minus 20.4, avg@64",
    ),
    Claim(
        "pass@k falls below that before training",
        "widely held",
        -1,
        Measure("pass@8, end minus start", of.gain("pass@8")),
        "grpo",
        theirs="74.4 minus 68.4, pass@64, in PAR",
    ),
    Claim(
        "Answers become alike: fewer different ones",
        PAR,
        -1,
        Measure("distinct answers of 8", of.gain("distinct_answers")),
        "grpo",
    ),
    Claim("N-gram diversity falls", PAR, -1, Measure("distinct 2-grams, share", of.gain("distinct_2")), "grpo"),
    RANKS_ALIKE,
    Claim("Self-BLEU rises", PAR, 1, Measure("Self-BLEU", of.gain("self_bleu")), "grpo"),
    Claim(
        "Confidence is calibrated worse, by log-probability",
        PAR,
        1,
        Measure("ECE, end minus start", of.gain("ece_logprob")),
        "grpo",
    ),
    Claim("and by votes", PAR, 1, Measure("ECE, end minus start", of.gain("ece_vote")), "grpo"),
    Claim("Entropy of the prompts falls too", PAR, -1, Measure("nats per token", of.gain("prompt_entropy")), "grpo"),
    Claim(
        "More than half of the groups have no advantage in the end",
        DISSECTING,
        1,
        Measure("share minus 0.5", lambda run: ZERO(run) - 0.5),
        "grpo",
        theirs="above 0.5",
    ),
]
CLIP_RANGES = [
    Claim(
        "Clip-Higher keeps more entropy",
        PAR,
        1,
        FINAL_ENTROPY,
        "clip_higher",
        "grpo",
        theirs="0.539 minus 0.118",
    ),
    Claim("Clip-Lower (0.28) keeps less", PAR, -1, FINAL_ENTROPY, "clip_lower", "grpo", theirs="the lowest"),
    Claim("Clip-Tighter (0.12) keeps more", PAR, 1, FINAL_ENTROPY, "clip_tighter", "grpo", theirs="higher"),
    Claim("Clip-Free keeps more", PAR, 1, FINAL_ENTROPY, "clip_free", "grpo", theirs="the second highest"),
    Claim("and is at least as accurate", PAR, 1, ACCURACY, "clip_free", "grpo", theirs="the second best"),
]
CLIP_RANGES_16 = [claim._replace(arm=f"{claim.arm}_16", against="updates_16", theirs="") for claim in CLIP_RANGES]
UPDATES = [
    Claim("16 updates for a rollout lose more entropy than one", PAR, -1, FINAL_ENTROPY, "updates_16", "updates_1"),
    Claim(
        "Several updates for a rollout lose more entropy than one",
        PAR,
        -1,
        FINAL_ENTROPY,
        "grpo",
        "updates_1",
        theirs="with 2: 0.023 minus 0.118",
    ),
    Claim("They raise the training reward", PAR, 1, FINAL_REWARD, "grpo", "updates_1", theirs="higher"),
    Claim("and lower pass@k", PAR, -1, COVERAGE, "grpo", "updates_1", theirs="lower"),
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
    Claim(
        "A subset is as accurate as all problems: 32 of 100",
        PAR,
        0,
        ACCURACY,
        "grpo",
        "problems_100",
        NEAR,
        theirs="616 of 17,000: alike",
    ),
    Claim(
        "16 by K-means end with less entropy than 16 at random",
        PAR,
        -1,
        FINAL_ENTROPY,
        "kmeans_16",
        "problems_16",
        theirs="lower",
    ),
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
    Claim(
        "Positive advantages alone: less entropy",
        PAR,
        -1,
        FINAL_ENTROPY,
        "positive_only",
        "grpo",
        theirs="0.015 minus 0.118",
    ),
    Claim(
        "Negative advantages alone: more entropy",
        PAR,
        1,
        FINAL_ENTROPY,
        "negative_only",
        "grpo",
        theirs="0.884 minus 0.118",
    ),
    Claim(
        "Positive advantages alone: lower accuracy than plain GRPO",
        PAR,
        -1,
        ACCURACY,
        "positive_only",
        "grpo",
        theirs="42.3 minus 44.1",
    ),
    Claim(
        "Negative advantages alone: lower accuracy than plain GRPO",
        PAR,
        -1,
        ACCURACY,
        "negative_only",
        "grpo",
        theirs="42.7 minus 44.1",
    ),
    Claim(
        "A random tenth of the positive tokens left out: more accurate",
        PAR,
        1,
        ACCURACY,
        "random_positive_clip",
        "grpo",
        theirs="44.9 minus 44.1",
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
LAMBDAS = [
    Claim(
        "Half of the weight on positive advantages keeps more entropy", "ours", 1, FINAL_ENTROPY, "lambda_0.5", "grpo"
    ),
    Claim("at the same accuracy", "ours", 0, ACCURACY, "lambda_0.5", "grpo", NEAR),
]
RATES = [
    Claim("A quarter of the learning rate keeps more entropy", "ours", 1, FINAL_ENTROPY, "grpo_quarter", "grpo"),
    Claim("and more pass@8", "ours", 1, COVERAGE, "grpo_quarter", "grpo"),
    Claim("at lower accuracy for as many steps", "ours", -1, ACCURACY, "grpo_quarter", "grpo"),
    Claim("Half of the learning rate keeps more entropy", "ours", 1, FINAL_ENTROPY, "grpo_half", "grpo"),
    Claim("and more pass@8", "ours", 1, COVERAGE, "grpo_half", "grpo"),
    Claim("at lower accuracy", "ours", -1, ACCURACY, "grpo_half", "grpo"),
]


def _scores(kind: str, measure: Measure) -> list[Claim]:
    """What the paper says of the scores of its method and the others."""
    claims = [
        ("Entropy-guided reweighting scores more than GRPO", "entropy_guided", "grpo", "45.66 minus 44.12"),
        ("So does the stage schedule", "stage", "grpo", "44.85 minus 44.12"),
        ("and the epoch schedule", "epoch", "grpo", "45.05 minus 44.12"),
        ("Entropy-guided beats both schedules: stage", "entropy_guided", "stage", "45.66 minus 44.85"),
        ("epoch", "entropy_guided", "epoch", "45.66 minus 45.05"),
        ("and Clip-Higher", "entropy_guided", "clip_higher", "45.66 minus 43.96"),
        ("and Skywork's controller", "entropy_guided", "skywork", "45.66 minus 45.35"),
    ]
    return [
        Claim(text, PAR, 1, measure, f"{kind}_{arm}", f"{kind}_{against}", theirs=theirs)
        for text, arm, against, theirs in claims
    ]


METHODS_SHARED = [
    *_scores("shared", ACCURACY),
    Claim(
        "Entropy-guided keeps more entropy than GRPO",
        PAR,
        1,
        FINAL_ENTROPY,
        "shared_entropy_guided",
        "shared_grpo",
        theirs="0.187 minus 0.118",
    ),
    Claim(
        "A controlled bonus keeps pass@k",
        "[Skywork-OR1](https://huggingface.co/papers/2505.22312)",
        1,
        COVERAGE,
        "shared_skywork",
        "shared_grpo",
        theirs="73.75 minus 74.39, in PAR",
    ),
]
METHODS = [
    *_scores("tuned", BOTH),
    Claim(
        "Entropy-guided scores more than GRPO at the rate that it chose itself",
        PAR,
        1,
        BOTH,
        "tuned_entropy_guided",
        "grpo_half",
    ),
]
CONTROL = [
    *(
        Claim(
            f"EntroPIC holds {target:g} nats {where}",
            ENTROPIC,
            -1,
            outside_a_tenth(target),
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
        Measure("entropy, end minus start, nats", of.change("entropy")),
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
    Claim("and with Adam", PAR, 1, Measure("Pearson", of.link(1)), "dynamics_adam", theirs="weak"),
    Claim("more weakly than with SGD", PAR, -1, Measure("Pearson", of.link(1)), "dynamics_adam", "dynamics_sgd"),
]
NEIGHBOURS = [
    Claim("SENT keeps more entropy than GRPO", SENT, 1, FINAL_ENTROPY, "sent", "grpo"),
    Claim("and is more accurate", SENT, 1, ACCURACY, "sent", "grpo", theirs="44.0 minus 34.9"),
    Claim(
        "PREPO has fewer groups without advantage than random problems",
        PREPO,
        -1,
        Measure("share at the end", ZERO),
        "prepo",
        "problems_100",
    ),
    Claim("and keeps more entropy", PREPO, 1, FINAL_ENTROPY, "prepo", "problems_100"),
    Claim(
        "at the same accuracy",
        PREPO,
        0,
        ACCURACY,
        "prepo",
        "problems_100",
        NEAR,
        theirs="39.6 and 39.5, with 0.6 of the rollouts",
    ),
    Claim(
        "Its weights slow the fall of entropy that its window leaves",
        PREPO,
        1,
        FINAL_ENTROPY,
        "prepo",
        "perplexity_window",
    ),
    Claim("ERPO is more accurate than GRPO", ERPO, 1, ACCURACY, "erpo", "grpo"),
    Claim(
        "Late positions weighted up: more accurate",
        EXCHANGE,
        1,
        ACCURACY,
        "position",
        "grpo",
        theirs="about 26 minus 24",
    ),
    Claim(
        "Low perplexity weighted up: more accurate, with the released constants",
        EXCHANGE,
        1,
        ACCURACY,
        "perplexity",
        "grpo",
        theirs="about 26 minus 24",
    ),
    Claim("and with twenty times the constant", EXCHANGE, 1, ACCURACY, "perplexity_strong", "grpo"),
    Claim("Negatives first, then both: more accurate", DISSECTING, 1, ACCURACY, "neg_to_pos", "grpo"),
]


def _holds(text: str, source: str, arm: str, target: float) -> Claim:
    return Claim(text, source, -1, outside_a_tenth(target), arm)


GUIDED = law_arm("bang_bang", "positive_advantage_coef")
LAWS_ON_KNOBS = [
    _holds(f"A PI law on the entropy bonus holds {HELD_AT} nats", "ours", law_arm("pi", "entropy_coef"), HELD_AT),
    _holds(
        f"Entropy-guided reweighting holds {HELD_AT} nats",
        PAR,
        law_arm("bang_bang", "positive_advantage_coef"),
        HELD_AT,
    ),
    *(
        _holds(f"Clip-high turned by {law} holds {HELD_AT} nats", "ours", law_arm(law, "epsilon_high"), HELD_AT)
        for law in LAWS
    ),
]
CHANGED = Measure("entropy, end minus start, nats", of.change("entropy"))
AUTHORITY = [
    Claim(
        "With a random reward positive advantages alone lower entropy", "ours", -1, CHANGED, "noise_100_positive_only"
    ),
    Claim("and negative ones alone raise it", "ours", 1, CHANGED, "noise_100_negative_only"),
    Claim("while both leave it where it was", "ours", 0, CHANGED, "noise_100_both", margin=2 * NEAR),
    Claim("With the true reward positive advantages alone lower it", "ours", -1, CHANGED, "noise_0_positive_only"),
    Claim("and so do negative ones alone", "ours", -1, CHANGED, "noise_0_negative_only"),
    Claim(
        "With three quarters of the rewards random negative ones alone raise it",
        "ours",
        1,
        CHANGED,
        "noise_75_negative_only",
    ),
    Claim(
        "Negative advantages alone end higher with a random reward than with the true one",
        "ours",
        1,
        FINAL_ENTROPY,
        "noise_100_negative_only",
        "noise_0_negative_only",
    ),
]


def _on(arms: dict[str, Arm]) -> list[Claim]:
    """Those of the claims above whose arms the language model has too; it is evaluated twice, which ranks nothing."""
    names = {name.partition("smollm2_")[2]: name for name in arms} | {None: None}
    found = []
    for claim in (*COLLAPSE, *CLIP_RANGES, *UPDATES, *SIGNS, *RATES, *METHODS_SHARED):
        arm, against = (name and name.removeprefix("shared_") for name in (claim.arm, claim.against))
        if arm in names and against in names and claim is not RANKS_ALIKE:
            found.append(claim._replace(arm=names[arm], against=names[against], theirs=""))
    target = f"holds {language.TARGET:g} nat"
    return [
        *found,
        _holds(f"A PI law on the entropy bonus {target}", "ours", names["hold"], language.TARGET),
        _holds(f"Entropy-guided reweighting {target}", PAR, names["entropy_guided"], language.TARGET),
        _holds(f"EntroPIC {target}", ENTROPIC, names["entropic"], language.TARGET),
    ]


LANGUAGE_MODEL = _on(language.CPU_ARMS)
LANGUAGE_MODEL_GPU = [
    *_on(language.GPU_ARMS),
    Claim(
        "16 problems lose more entropy than 400",
        PAR,
        -1,
        FINAL_ENTROPY,
        "gpu_smollm2_problems_16",
        "gpu_smollm2_grpo",
    ),
]

SECTIONS: dict[str, list[Claim]] = {
    "collapse": COLLAPSE,
    "clip_ranges": CLIP_RANGES,
    "clip_ranges_16": CLIP_RANGES_16,
    "updates": UPDATES,
    "data": DATA,
    "signs": SIGNS,
    "lambdas": LAMBDAS,
    "rates": RATES,
    "methods_shared": METHODS_SHARED,
    "methods": METHODS,
    "control": CONTROL,
    "laws": LAWS_ON_KNOBS,
    "authority": AUTHORITY,
    "chance": CHANCE,
    "dynamics": LINK,
    "neighbours": NEIGHBOURS,
    "language_model": LANGUAGE_MODEL,
    "language_model_gpu": LANGUAGE_MODEL_GPU,
}

# Of the embedded policy and of the language model; the arms of the last three differ in more than the policy
MAIN = [
    (claim, next(other for other in LANGUAGE_MODEL if other.text == claim.text))
    for claim in (
        *COLLAPSE[:4],
        UPDATES[1],
        CLIP_RANGES[0],
        *SIGNS[:4],
        RATES[3],
        METHODS_SHARED[7],
        METHODS_SHARED[0],
    )
] + [(LAWS_ON_KNOBS[0], LANGUAGE_MODEL[-3]), (LAWS_ON_KNOBS[1], LANGUAGE_MODEL[-2]), (CONTROL[2], LANGUAGE_MODEL[-1])]
