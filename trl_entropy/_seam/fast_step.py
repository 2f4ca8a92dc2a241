"""Build the ways to compute less in an optimizer step, and refuse them if they would change the gradient."""

from collections.abc import Mapping
from typing import Any

from ..control.controller import Controller
from ..control.knobs import acting
from ..control.signals import ENTROPY
from ..rules.rule import Rule
from .trimming import Trimming


FLAGS = {"trim_padding": "trim", "sort_by_length": "sort", "skip_zero_advantage": "skip"}


def build_trimming(args: Any, sections: Mapping[str, Mapping[str, Rule]], controllers: list[Controller]) -> Trimming:
    """
    The trimming that the flags `trim_padding`, `sort_by_length`, `skip_zero_advantage`, `fast_step` (these three
    together) and `skip_lm_head_tokens` set.

    Args:
        args (`EntropyFlags`):
            The config.
        sections (`Mapping[str, Mapping[str, Rule]]`):
            The config's rules, by section.
        controllers (`list[Controller]`):
            The config's controllers.

    Raises `ValueError` with the first reason why the gradient, or a controller's signal, would change.
    """
    asked = {part: args.fast_step or getattr(args, flag) for flag, part in FLAGS.items()}
    how = Trimming(**asked, head=args.skip_lm_head_tokens)
    for flag, part in FLAGS.items():
        reasons = _reasons(part, args, sections, controllers) if getattr(how, part) else []
        if reasons:
            others = [
                other for other, its in FLAGS.items() if its != part and not _reasons(its, args, sections, controllers)
            ]
            instead = f"set {' and '.join(others)} instead" if args.fast_step and others else "drop one of them"
            raise ValueError(
                f"{'fast_step: ' if args.fast_step else ''}{flag} would change the run: {reasons[0]}; {instead}"
            )
    return how


def _reasons(part: str, args: Any, sections: Mapping, controllers: list[Controller]) -> list[str]:
    if not args.family.per_token:
        return [f"{args.family.name} has its own way to average over the rows of a micro-batch"]
    if part == "trim" or args.family.packed:
        return []
    bonus = args.entropy_coef != 0 or args.use_adaptive_entropy
    bonus = bonus or any(controller.knob.name == "entropy_coef" for controller in controllers)
    reasons = {
        "loss_type=bnpo is a mean over the tokens of each micro-batch": args.loss_type == "bnpo",
        "the entropy bonus is a mean over the tokens of each micro-batch": bonus,
        "top_entropy_quantile is taken over each micro-batch": args.top_entropy_quantile < 1,
        f"steps_per_generation={args.steps_per_generation} is not a multiple of gradient_accumulation_steps="
        f"{args.gradient_accumulation_steps}, so optimizer steps cross rollouts": args.steps_per_generation
        % args.gradient_accumulation_steps
        != 0,
    }
    if part == "skip":
        turned = [controller.knob for controller in controllers]
        for section in ("advantage_bonuses", "loss_terms"):
            for name in acting(section, sections[section], turned):
                reasons[f"{section}.{name} also trains on completions with advantage 0"] = True
        pooled = [name for rules in sections.values() for name, rule in rules.items() if "pool" in rule.needs]
        clips = [controller.name for controller in controllers if controller.signal.startswith("clip_ratio")]
        of_rules = {f"{ENTROPY}/{section}." for section in sections}
        of_rules = [each.name for each in controllers if each.signal.startswith(tuple(of_rules))]
        reasons |= {
            "beta > 0 also trains on completions with advantage 0": args.beta > 0,
            f"{', '.join(pooled)} take statistics over all tokens of the step": bool(pooled),
            f"controllers {', '.join(clips)} read TRL's clip ratios, which only cover trained tokens": bool(clips),
            f"controllers {', '.join(of_rules)} read the tokens of a rule, which only cover trained tokens": bool(
                of_rules
            ),
        }
    return [reason for reason, holds in reasons.items() if holds]
