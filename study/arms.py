"""What is run: the setting that all arms share, and what each arm changes."""

import json
from typing import NamedTuple


SEEDS = (1, 2, 3, 4, 5)
FIRST_SEEDS = (1, 2, 3)  # of arms that are many
TUNING_SEEDS = (101, 102)

# recipes/grpo.yaml with four updates for each rollout batch of 16 problems x 16 completions, so that the clip range
# acts; 32 problems, so that the policy can both learn the task and fit what it has seen
PROBLEMS = 32
BASE = {
    "dataset_name": "{folder}/all.jsonl",
    "eval_dataset_name": "{folder}/held_out.jsonl",
    "config": "recipes/grpo.yaml",
    "learning_rate": 2.5e-4,
    "num_generations": 16,
    "per_device_train_batch_size": 64,
    "off_policy_updates": 4,
    "max_steps": 200,
    "pass_at_k_every": 40,
    "subset_size": PROBLEMS,
    "subset_by": "random",
}
WARMUP = 0.05  # of the steps


class Arm(NamedTuple):
    """
    One arm of the study.

    Args:
        flags (`dict`):
            Flags of `trl-entropy grpo` that differ from `base`; `None` leaves a flag out. `{seed}` in a text is the
            run's seed.
        window (`int`, *optional*, defaults to `10`):
            Optimizer steps that one value of the stored series is the mean of.
        base (`dict`, *optional*):
            The setting that it shares with the arms it is compared with; `BASE` by default.
        before (`bool`, *optional*, defaults to `True`):
            Whether the held-out problems are also solved before training.
    """

    flags: dict
    window: int = 10
    base: dict = BASE
    before: bool = True


def controller(law: str, knob: str, **parameters) -> dict:
    """One controller, as a flag."""
    return {"controllers": {"hold": {"law": law, "knob": knob, **parameters}}}


def bundled(method: str, target: float, **constants) -> dict:
    """A bundled method that holds a target, with constants of its controller that differ."""
    changed = {"controllers": {method: constants}} if constants else {}
    return {"entropy_control": method, "entropy_target": target, **changed}


def pi_on_bonus(target: float, ki: float = 0.02) -> dict:
    """recipes/pi.yaml, or without its integral part."""
    gains = {"kp": 2.0, "ki": ki, "anti_windup": ki > 0, "low": 0.0, "high": 1.0}
    return {"entropy_target": target, **controller("pi", "entropy_coef", **gains)}


def skywork(step: float, high: float, target: float = 0.35) -> dict:
    """Skywork-OR1's adaptive entropy coefficient."""
    law = {"cadence": "rollout", "step": step, "otherwise": 0.0, "initial": 0.0, "low": 0.0, "high": high}
    return {"entropy_target": target, **controller("bang_bang", "entropy_coef", **law)}


def geometry(updates: int, rollouts: int = 50, completions: int = 256) -> dict:
    """So many updates on each of so many rollout batches."""
    steps = updates * rollouts
    return {
        "per_device_train_batch_size": completions // updates,
        "off_policy_updates": updates,
        "max_steps": steps,
        "pass_at_k_every": steps // 5,
    }


FRESH = {"off_policy_updates": 1}  # as many updates as BASE, each on its own rollout of 64 completions
OFF = 1e6  # of epsilon_high

COLLAPSE = {"grpo": Arm({})}

RANGES = {
    "clip_higher": {"epsilon_high": 0.28},
    "clip_lower": {"epsilon": 0.28, "epsilon_high": 0.2},
    "clip_tighter": {"epsilon": 0.12, "epsilon_high": 0.2},
    "clip_free": {"epsilon": 1.0, "epsilon_high": OFF},
}
CLIP_RANGES = {name: Arm(flags) for name, flags in RANGES.items()}
CLIP_RANGES_16 = {f"{name}_16": Arm({**geometry(16), **flags}, 40) for name, flags in RANGES.items()}
UPDATES = {
    "updates_1": Arm(geometry(1), 5),
    "updates_2": Arm(geometry(2), 5),
    "updates_16": Arm(geometry(16), 40),
    "fresh": Arm(FRESH),
}
DATA = {
    "problems_16": Arm({"subset_size": 16}),
    "problems_100": Arm({"subset_size": None, "subset_by": None}),
    "kmeans_16": Arm({"dataset_name": "{folder}/kmeans_{seed}.jsonl", "subset_size": None, "subset_by": None}),
    "narrow_16": Arm({"dataset_name": "{folder}/narrow_{seed}.jsonl", "subset_size": None, "subset_by": None}),
}
SIGNS = {
    "positive_only": Arm({"negative_advantage_coef": 0.0}),
    "negative_only": Arm({"positive_advantage_coef": 0.0}),
    "random_positive_clip": Arm({"token_weights": {"random_positive_clip": {"share": 0.1}}}),
}
LAMBDAS = {f"lambda_{value:g}": Arm({"positive_advantage_coef": value}) for value in (0.25, 0.5, 0.75)}
ENTROPIC = {
    f"entropic_{law}_{target:g}_{name}": Arm({**bundled("entropic", target, **constants), **flags})
    for name, flags in (("off_policy", {}), ("on_policy", FRESH))
    for law, constants in (("p", {"ki": 0.0}), ("pi", {}))
    for target in (0.25, 0.5)
} | {f"bonus_{law}_0.35": Arm(pi_on_bonus(0.35, ki)) for law, ki in (("p", 0.0), ("pi", 0.02))}


class Knob(NamedTuple):
    """A knob's range, where plain GRPO is in it, its direction if none is declared, and the flags of its rule."""

    low: float
    start: float
    high: float
    raises_signal: bool | None = None
    flags: dict = {}


SURROGATE = {"confident_surrogate": {"threshold": 0.95, "mean_over": "confident"}}  # as in EntroPIC
KNOBS = {
    "entropy_coef": Knob(0.0, 0.0, 0.5),
    "positive_advantage_coef": Knob(0.0, 1.0, 1.0),
    "negative_advantage_coef": Knob(0.0, 1.0, 4.0),
    "epsilon_high": Knob(0.2, 0.2, 3.0),
    "epsilon_low": Knob(0.0, 0.2, 0.9),
    "loss_terms.confident_surrogate.alpha": Knob(-1.0, 0.0, 1.0, flags={"loss_terms": SURROGATE}),
    "advantage_bonuses.repo_r.zeta": Knob(-0.05, 0.0, 0.05, flags={"advantage_bonuses": {"repo_r": {}}}),
    # where a run loses entropy, a smaller rate keeps it
    "learning_rate_scale": Knob(0.0, 1.0, 2.0, raises_signal=False),
    "temperature": Knob(0.5, 1.0, 2.0),
}
# The constants follow from the width of the range alone, so that they are tuned to no knob. pi: those of the bundled
# method hold on its range; bang_bang: the paper's on [0, 1]; integral: 0.1 nats cross the range in 50 steps
LAWS = {
    "pi": lambda width: {"kp": width, "ki": 0.04 * width, "anti_windup": True},
    "integral": lambda width: {"rate": 0.2 * width},
    "bang_bang": lambda width: {"step": 0.05 * width},
    "ratchet": lambda width: {"factor": 2.0, "least": 1e-3 * width},
}
HELD_AT = 0.35  # nats


def law_arm(law: str, knob: str) -> str:
    """The name of the arm in which a law turns a knob."""
    return f"law_{law}_{knob.rsplit('.', 1)[-1]}"


def _turned(law: str, name: str) -> Arm:
    knob = KNOBS[name]
    constants = LAWS[law](knob.high - knob.low)
    if law == "ratchet" and knob.low >= 0:
        constants.pop("least")  # for knobs that change their sign
        # no factor leads to 0
        constants["low"] = max(knob.low, 1e-3 * knob.high)
    start = max(knob.start, constants.get("low", knob.low))
    direction = {} if knob.raises_signal is None else {"raises_signal": knob.raises_signal}
    turned = controller(law, name, **{"low": knob.low, "high": knob.high, "initial": start, **constants, **direction})
    return Arm({**knob.flags, "entropy_target": HELD_AT, **turned})


LAWS_ON_KNOBS = {law_arm(law, knob): _turned(law, knob) for law in LAWS for knob in KNOBS}

CHANCE = {**geometry(16, 25), "reward_funcs": ["study.rewards.coin"], "pass_at_k_every": None}
RANDOM_REWARD = {
    "chance_symmetric": Arm({**CHANCE, "epsilon": 0.2}, 40),
    "chance_low_only": Arm({**CHANCE, "epsilon": 0.2, "epsilon_high": OFF}, 40),
    "chance_tight_low_only": Arm({**CHANCE, "epsilon": 0.05, "epsilon_high": OFF}, 40),
    "chance_high_only": Arm({**CHANCE, "epsilon": 1.0, "epsilon_high": 0.2}, 40),
    "chance_free": Arm({**CHANCE, "epsilon": 1.0, "epsilon_high": OFF}, 40),
}
# Two updates on each batch: after the first one the entropy of the same tokens is seen again
TWICE = {
    "per_device_train_batch_size": 128,
    "off_policy_updates": 2,
    "num_iterations": 2,
    "max_steps": 160,
    "pass_at_k_every": None,
    "entropy_measures": "full",
}
DYNAMICS = {
    "dynamics_sgd": Arm({**TWICE, "optim": "sgd", "learning_rate": 0.05}, 1),
    "dynamics_adam": Arm({**TWICE}, 1),
}
NEIGHBOURS = {
    "sent": Arm(
        {"beta": 1e-3, "loss_terms": {"sent": {"coef": 0.1, "high_coef": 2.0, "low_coef": 0.5, "form": "paper"}}}
    ),
    # a quarter of 64 candidates; random problems of the same 100 are `problems_100`
    "prepo": Arm(
        {
            "subset_size": None,
            "subset_by": None,
            "rollout_rules": {"perplexity_window": {"share": 0.25}},
            "token_weights": {"relative_entropy": {}},
        }
    ),
    "perplexity_window": Arm(
        {"subset_size": None, "subset_by": None, "rollout_rules": {"perplexity_window": {"share": 0.25}}}
    ),
    "erpo": Arm({"entropy_control": "erpo"}),
    "position": Arm({"advantage_bonuses": {"position": {"alpha": 0.1, "steepness": 15.0}}}),
    "perplexity": Arm({"token_weights": {"perplexity": {"alpha": 0.01, "limit": 0.2}}}),
    "perplexity_strong": Arm({"token_weights": {"perplexity": {"alpha": 0.2, "limit": 0.5}}}),
    "neg_to_pos": Arm({"entropy_control": "neg_to_pos"}),
    "dynamic_sampling": Arm({"rollout_rules": {"dynamic_sampling": {}}}),
}

TARGETS = (0.2, 0.35, 0.5)  # nats
# By method: the constants that it may choose from, at the rate that all arms share; then its rate, at that constant
GRIDS = {
    "grpo": [{}],
    "clip_higher": [{"epsilon_high": value} for value in (0.28, 0.5, 1.0)],
    "fixed_lambda": [{"positive_advantage_coef": value} for value in (0.25, 0.5, 0.75)],
    "stage": [{"entropy_control": "stage"}],
    "epoch": [{"entropy_control": "epoch"}],
    "entropy_guided": [bundled("entropy_guided", target) for target in TARGETS],
    "skywork": [skywork(step, high) for step, high in ((1e-4, 5e-3), (5e-3, 0.1), (2e-2, 0.5))],
    "entropy_coef": [{"entropy_coef": value} for value in (0.02, 0.05, 0.1)],
    "pi": [pi_on_bonus(target) for target in TARGETS],
    "hold": [bundled("hold", target) for target in TARGETS],
    "entropic": [bundled("entropic", target) for target in TARGETS],
    # the released script's clip range, 1 on both sides
    "clip_cov": [
        {"epsilon": 1.0, "epsilon_high": 1.0, "token_weights": {"clip_cov": {"share": share}}}
        for share in (2e-4, 2e-3, 2e-2)
    ],
    # no clip range, as released
    "kl_cov": [
        {"epsilon": 1.0, "epsilon_high": OFF, "loss_terms": {"kl_cov": {"coef": 1.0, "share": share}}}
        for share in (2e-3, 2e-2, 2e-1)
    ],
    "entropy_advantage": [
        {"advantage_bonuses": {"entropy_advantage": {"alpha": alpha, "kappa": 2.0}}} for alpha in (0.1, 0.4, 1.0)
    ],
    "high_entropy": [{"token_weights": {"high_entropy": {"fraction": share}}} for share in (0.2, 0.5, 0.8)],
    # the paper turns zeta to keep the starting entropy, here 0.75 nats
    "repo_r": [bundled("repo_r", target) for target in (0.35, 0.5, 0.75)],
    "w_reinforce": [{"advantage_bonuses": {"w_reinforce": {"positive_coef": value}}} for value in (0.05, 0.1, 0.2)],
}
RATES = {"quarter": 6.25e-5, "half": 1.25e-4, "shared": 2.5e-4, "double": 5e-4}


def tuned(method: str, place: int, rate: str) -> Arm:
    """A method at one of its settings, evaluated along the way."""
    return Arm({**GRIDS[method][place], "learning_rate": RATES[rate]})


def trial(method: str, place: int, rate: str) -> str:
    """The name of a run that tries a setting."""
    return f"{method}.{place}.{rate}"


def _evaluated_at_the_end(arm: Arm) -> Arm:
    return arm._replace(flags={**arm.flags, "pass_at_k_every": BASE["max_steps"]})


TRIALS = {
    trial(method, place, rate): _evaluated_at_the_end(tuned(method, place, rate))
    for method, grid in GRIDS.items()
    for place in range(len(grid))
    for rate in RATES
}

LEARNING_RATES = {f"grpo_{rate}": tuned("grpo", 0, rate) for rate in ("half", "quarter")}

# By the file of study/runs that keeps them
SECTIONS = {
    "collapse": COLLAPSE,
    "clip_ranges": CLIP_RANGES | CLIP_RANGES_16,
    "updates": UPDATES,
    "data": DATA,
    "signs": SIGNS,
    "lambdas": LAMBDAS,
    "rates": LEARNING_RATES,
    "random_reward": RANDOM_REWARD,
    "dynamics": DYNAMICS,
    "control": ENTROPIC,
    "neighbours": NEIGHBOURS,
}
FIXED = {name: arm for arms in SECTIONS.values() for name, arm in arms.items()}


def flags(arm: Arm, seed: int, folder: str) -> list[str]:
    """The command line of a run; `folder` holds the problems."""
    settings = {**arm.base, **arm.flags, "seed": seed, "dataset_seed": seed}
    settings["warmup_steps"] = round(WARMUP * settings["max_steps"])
    line = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            line += [f"--{name}", *(_text(part).replace("{folder}", folder) for part in values)]
    return [part.replace("{seed}", str(seed)) for part in line]


def _text(value) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
