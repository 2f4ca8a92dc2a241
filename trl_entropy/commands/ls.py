"""List everything that is available, from the first lines of docstrings."""

import inspect
from importlib.resources import files

from .. import rewards
from ..build import SECTIONS
from ..checks import unknown
from ..control.knobs import TRAINER_KNOBS, Knob, rule_knobs
from ..control.laws import LAWS
from ..control.presets import presets
from ..control.signals import SIGNALS
from ..rollouts import ROLLOUT_RULES, RolloutRule
from ..rules.rule import Rule
from .grpo import DAPO_OVERLONG, OVERLONG


# TRL's own methods, which combine with this package's, by TRL's flag
TRL_FLAGS = {
    "epsilon_high": "Clip-Higher: an upper clip bound that differs from the lower one",
    "entropy_coef": "entropy bonus in the loss",
    "use_adaptive_entropy": "Skywork-OR1's controller of entropy_coef",
    "top_entropy_quantile": "80/20: train on the tokens with the highest entropy in a micro-batch",
    "loss_type cispo": "CISPO: clipped importance weights, no clipped gradients",
    "loss_type sapo": "SAPO: a smooth gate instead of the clip",
    "loss_type vespo": "VESPO: gamma weights on the ratio of a sequence",
    "num_iterations": "passes over a rollout batch",
}


def summary_line(documented: object) -> str:
    """The first line of a docstring."""
    return documented.__doc__.strip().splitlines()[0]


def first_sentence(documented: object) -> str:
    """The first sentence of a docstring, which may take more than a line."""
    paragraph = " ".join(inspect.getdoc(documented).partition("\n\n")[0].split())
    sentence, end, _ = paragraph.partition(". ")
    return sentence + end.strip()


def catalogue() -> dict[str, dict[str, str]]:
    """Every name that a flag accepts, with a one-line description, by section."""
    defaults = {section: {name: rule() for name, rule in rules.items()} for section, rules in SECTIONS.items()}
    knobs = {knob.name: knob for knob in TRAINER_KNOBS} | rule_knobs(defaults)
    return {
        "entropy_control (bundled methods)": {name: _preset_line(name) for name in sorted(presets())},
        **{section: {name: _rule_line(rule) for name, rule in rules.items()} for section, rules in SECTIONS.items()},
        "rollout_rules": {name: _rule_line(rule) for name, rule in ROLLOUT_RULES.items()},
        "laws of controllers": {name: summary_line(law) for name, law in LAWS.items()},
        "knobs of controllers": {name: _knob_line(knob) for name, knob in knobs.items()},
        "signals of controllers": SIGNALS | {"entropy/SECTION.RULE": "Entropy (nats) over the tokens of a rule"},
        "TRL's own": TRL_FLAGS,
        "reward_funcs": {
            **{name: summary_line(reward) for name, reward in rewards.REWARDS.items()},
            DAPO_OVERLONG: "TRL's get_soft_overlong_punishment over the last fifth of max_completion_length",
            **{name: f"TRL's: {first_sentence(getattr(rewards, name))}" for name in (*rewards.TRL_REWARDS, OVERLONG)},
        },
    }


def card(name: str) -> str:
    """The details of an entry: its docstring or YAML, and its page. Raises `ValueError` for an unknown name."""
    found = catalogue()
    documented = {**SECTIONS, "rollout_rules": ROLLOUT_RULES, "laws of controllers": LAWS}
    parts = []
    for title, entries in found.items():
        if name not in entries:
            continue
        if title in documented and name in documented[title]:
            entry = documented[title][name]
            text = f"{inspect.getdoc(entry)}\n\nPage: docs/methods/{entry.__module__.rpartition('.')[2]}.md"
        elif name in presets() and title.startswith("entropy_control"):
            text = files("trl_entropy.control.presets").joinpath(f"{name}.yaml").read_text()
        else:
            text = entries[name]
        parts.append(f"{name}  ({title})\n\n{text.strip()}")
    if not parts:
        raise unknown("name", name, {one for entries in found.values() for one in entries})
    return "\n\n".join(parts).replace(r"\\( ", "").replace(r" \\)", "")


ORIGINS = {"paper": "the paper's formula", "code": "the released code's formula", "style": "in the paper's style"}


def _rule_line(rule: type[Rule | RolloutRule]) -> str:
    return f"{summary_line(rule)} [{ORIGINS[rule.origin]}]"


def _preset_line(name: str) -> str:
    head = files("trl_entropy.control.presets").joinpath(f"{name}.yaml").read_text().splitlines()[0]
    return head.removeprefix("# ").removesuffix(":")


def _knob_line(knob: Knob) -> str:
    effect = {
        True: "a larger value raises entropy",
        False: "a larger value lowers entropy",
        None: "unknown effect on entropy",
    }
    return f"[{knob.low:g}, {knob.high:g}], default {knob.default:g}; {effect[knob.raises_entropy]}"
