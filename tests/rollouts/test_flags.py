"""Rollout rules by flag: what is built, what the presets set, and what is refused before a model loads."""

import json
import re

import pytest
from datasets import Dataset, IterableDataset
from toy import sums_with_columns
from trl import TrlParser

from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer
from trl_entropy.build import rollout_plan
from trl_entropy.commands.ls import catalogue
from trl_entropy.refusals import check_rollout_fits
from trl_entropy.rollouts import (
    ROLLOUT_RULES,
    Curriculum,
    DynamicSampling,
    OfflineInjection,
    PerplexityWindow,
    PromptTemperature,
    RolloutRule,
)
from trl_entropy.rules.bonuses import PseudoNegative
from trl_entropy.rules.terms import OfflineShaping
from trl_entropy.rules.weights import RelativeEntropy, SampledOnly, Sign


SETTINGS = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}


KNOB = "advantage_bonuses.pseudo_negative.coef"


class Mine(RolloutRule):
    """A rule of one's own."""

    acts = frozenset({"groups"})

    def keep(self, rewards):
        return rewards.amax(1) < 1


class Misspelt(Mine):
    acts = frozenset({"groups", "group"})


class Silent(Mine):
    acts = frozenset({"groups", "temperatures"})


class Unnamed(Mine):
    acts = frozenset()


class Idle(RolloutRule):
    """It decides nothing."""


def config(**arguments) -> EntropyGRPOConfig:
    return EntropyGRPOConfig(**SETTINGS, **arguments)


def rules(**given) -> dict[str, RolloutRule]:
    return config(rollout_rules=given).control.rollout_rules


def test_there_are_none_by_default():
    assert config().control.rollout_rules == {}
    assert rollout_plan(config(), None).rules == {}


def test_rules_are_built_from_a_mapping():
    assert rules(curriculum={"column": "hard", "count": 3}, dynamic_sampling=None) == {
        "curriculum": Curriculum(column="hard", count=3),
        "dynamic_sampling": DynamicSampling(),
    }


def test_command_line_reads_json():
    flags = ["--output_dir", "unused", "--use_cpu", "--bf16", "false", "--report_to", "none"]
    given = json.dumps({"perplexity_window": {"share": 0.5}})
    (made,) = TrlParser([EntropyGRPOConfig]).parse_args_and_config([*flags, "--rollout_rules", given])
    assert made.control.rollout_rules == {"perplexity_window": PerplexityWindow(share=0.5)}


def test_rule_of_ones_own_is_named_by_its_dotted_path():
    assert rules(**{f"{__name__}.Mine": {}}) == {f"{__name__}.Mine": Mine()}


def test_catalogue_lists_each_with_its_origin():
    listed = catalogue()["rollout_rules"]
    assert listed.keys() == ROLLOUT_RULES.keys()
    origins = {name: line.rpartition("[")[2] for name, line in listed.items()}
    assert origins["curriculum"] == "the paper's formula]"
    assert origins["offline_injection"] == "the released code's formula]"
    assert origins["prompt_temperature"] == "in the paper's style]"


# Presets


def test_preset_of_prepo():
    made = config(entropy_control="prepo")
    assert made.control.rollout_rules == {"perplexity_window": PerplexityWindow(share=0.2)}
    assert made.control.sections["token_weights"] == {
        "relative_entropy": RelativeEntropy(strength=1.0),
        "sign": Sign(),
    }


def test_preset_in_the_style_of_erpo():
    made = config(entropy_control="erpo")
    assert made.control.rollout_rules == {"prompt_temperature": PromptTemperature(step=0.05, highest=1.2)}
    assert made.control.sections["advantage_bonuses"] == {"pseudo_negative": PseudoNegative(coef=1.0)}


def test_preset_of_offline_injection():
    made = config(entropy_control="offline_injection")
    assert made.control.rollout_rules == {"offline_injection": OfflineInjection(accuracy=0.125)}
    assert made.control.sections == {
        "token_weights": {"sampled_only": SampledOnly(), "sign": Sign()},
        "advantage_bonuses": {},
        "loss_terms": {"offline_shaping": OfflineShaping(gamma=0.1)},
    }


def test_entries_are_put_over_a_preset():
    given = {"perplexity_window": {"share": 0.5}, "dynamic_sampling": {}}
    made = config(entropy_control="prepo", rollout_rules=given)
    assert made.control.rollout_rules == {
        "perplexity_window": PerplexityWindow(share=0.5),
        "dynamic_sampling": DynamicSampling(),
    }


# Refusals


@pytest.mark.parametrize("given", [{"environment_factory": object}, {"environment_factory": {"one": object}}])
@pytest.mark.parametrize("rule", ["perplexity_window", "offline_injection", "prompt_temperature"])
def test_rules_about_prompts_and_completions_are_refused_beside_environments(rule, given):
    problems = sums_with_columns().rename_column("stored", "solutions")
    with pytest.raises(ValueError, match=rf"^rollout_rules\.{rule} .* environment .*: drop one of the two$"):
        EntropyGRPOTrainer("nowhere", args=config(rollout_rules={rule: {}}), train_dataset=problems, **given)


def test_other_rules_stand_beside_environments_and_tools():
    given = {"environment_factory": object, "tools": [len]}
    check_rollout_fits(config(rollout_rules={"dynamic_sampling": {}, "curriculum": {"column": "hard"}}), None, given)
    check_rollout_fits(config(rollout_rules={"perplexity_window": {}}), None, {"tools": [len]})


@pytest.mark.parametrize("given", [{"tools": [len]}, {"rollout_func": len}])
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("offline_injection", "replaces completions, which tools, an environment or a rollout_func"),
        ("prompt_temperature", "samples all completions together, each at its own temperature, but with tools, an"),
    ],
)
def test_rules_that_decide_about_whole_completions_are_refused_beside_tools(rule, message, given):
    with pytest.raises(ValueError, match=rf"^rollout_rules\.{rule} {message} .*: drop one of the two$"):
        check_rollout_fits(config(rollout_rules={rule: {}}), None, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", r"rollout_rules must be a YAML mapping or a JSON object, got '\{' \("),
        ([], r"rollout_rules must be a mapping, got \[\]"),
        ({"curiculum": {}}, r"unknown name in rollout_rules 'curiculum'\. Did you mean 'curriculum'\? Available: cu"),
        ({"curriculum": {"colum": "a"}}, r"unknown parameter of rollout_rules\.curriculum 'colum'\. Did you mean"),
        ({"curriculum": {"count": 0}}, r"count must be a whole number >= 1, got 0 \(in rollout_rules\.curriculum\)"),
        ({"dynamic_sampling": {"max_rounds": -1}}, r"max_rounds must be .* \(in rollout_rules\.dynamic_sampling\)"),
        ({"offline_injection": {"accuracy": 2}}, r"accuracy must be .* \(in rollout_rules\.offline_injection\)"),
        ({"perplexity_window": {"share": 0}}, r"share must be above 0.* \(in rollout_rules\.perplexity_window\)"),
        ({"prompt_temperature": {"highest": 0}}, r"highest must be above 0.* \(in rollout_rules\.prompt_temperature"),
        ({"trl_entropy.nothing.Here": {}}, r"rollout_rules 'trl_entropy\.nothing\.Here' cannot be imported"),
        # a rule of tokens, and a function
        ({"trl_entropy.rules.weights.Sign": {}}, r"must be a subclass of trl_entropy\.RolloutRule$"),
        ({"trl_entropy.rules.compose.needs": {}}, r"must be a subclass of trl_entropy\.RolloutRule$"),
    ],
)
def test_wrong_rules_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        config(rollout_rules=given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Misspelt",
            "lists 'group' in acts, which a rule cannot decide. Allowed: problems, temperatures, completions, groups",
        ),
        ("Silent", "lists 'temperatures' in acts: override temperature or visited, or drop 'temperatures'"),
        ("Unnamed", "overrides keep or rounds: add 'groups' to acts, or the method is never called"),
        (
            "Idle",
            "decides nothing: list in acts what it decides. Allowed: problems, temperatures, completions, groups",
        ),
    ],
)
def test_rule_whose_questions_and_answers_do_not_fit_is_refused(name, message):
    with pytest.raises(ValueError, match=rf"^rollout_rules\.{__name__}\.{name} {re.escape(message)}$"):
        rules(**{f"{__name__}.{name}": {}})


DROPPED = r"^advantage_bonuses\.pseudo_negative acts on groups that are all correct, and rollout_rules\.{} drops those"


@pytest.mark.parametrize(
    "given",
    [{"dynamic_sampling": {"by": "correct"}}, {"dynamic_sampling": {"by": "math"}}, {f"{__name__}.Mine": {}}],
    ids=["correct", "math", "Mine"],
)
def test_rule_for_solved_groups_with_one_that_drops_them_is_refused(given):
    refused = DROPPED.format(next(iter(given)))
    with pytest.raises(ValueError, match=refused):
        config(entropy_control="erpo", rollout_rules=given)
    off = {"advantage_bonuses": {"pseudo_negative": {"coef": 0.0}}, "rollout_rules": given}
    with pytest.raises(ValueError, match=refused):
        config(**off, controllers={"mine": {"law": "pi", "target": 0.3, "raises_signal": True, "knob": KNOB}})
    config(entropy_control="erpo", **off)


def test_sum_of_several_rewards_may_differ_in_a_solved_group():
    made = config(entropy_control="erpo", rollout_rules={"dynamic_sampling": {}})
    with pytest.raises(ValueError, match=DROPPED.format("dynamic_sampling")):
        rollout_plan(made, rows(), ["math"])
    rollout_plan(made, rows(), ["math", "length"])


def test_rule_for_solved_groups_goes_with_one_that_keeps_them():
    config(advantage_bonuses={"pseudo_negative": {}}, rollout_rules={"curriculum": {}})


def test_rollout_rule_among_the_rules_of_tokens_is_refused():
    with pytest.raises(ValueError, match=r"must be a subclass of trl_entropy\.Rule, or a function of tokens"):
        config(token_weights={"trl_entropy.rollouts.DynamicSampling": {}})


@pytest.mark.parametrize("engine", ["use_vllm", "use_transformers_continuous_batching"])
def test_temperature_of_a_prompt_with_another_engine_is_refused(engine):
    with pytest.raises(ValueError, match=r"rollout_rules\.prompt_temperature sets a temperature for each prompt"):
        config(entropy_control="erpo", **{engine: True})
    config(rollout_rules={"dynamic_sampling": {}}, **{engine: True})


def test_stored_solutions_with_the_correction_of_vllm_are_refused():
    refused = r"rollout_rules\.offline_injection .* set vllm_importance_sampling_correction=False"
    with pytest.raises(ValueError, match=refused):
        config(entropy_control="offline_injection", use_vllm=True)
    config(entropy_control="offline_injection", use_vllm=True, vllm_importance_sampling_correction=False)
    config(entropy_control="offline_injection")


def plan_of(dataset, **given):
    return rollout_plan(config(rollout_rules=given), dataset)


def rows(**columns) -> Dataset:
    return Dataset.from_dict({"prompt": ["1=", "2=", "3="], **columns})


def test_column_that_is_missing_is_refused():
    with pytest.raises(ValueError, match=r"unknown dataset column 'semantic_entropy'\. .* \(in rollout_rules\.curric"):
        plan_of(rows(), curriculum={})
    with pytest.raises(
        ValueError, match=r"unknown dataset column 'solutions'\. Did you mean 'solution'\? .*rules\.offline_injection"
    ):
        plan_of(rows(solution=["1", "2", "3"]), offline_injection={})
    assert plan_of(rows(solutions=[["1"], [], ["3"]]), offline_injection={}).replaces_completions


def test_reward_function_that_there_is_none_of_is_refused():
    made = config(rollout_rules={"dynamic_sampling": {"by": "math_verify_rewards"}})
    refused = (
        r"^unknown reward function 'math_verify_rewards'\. Did you mean 'math_verify_reward'\? Available: length, "
        r"math_verify_reward \(in rollout_rules\.dynamic_sampling\)$"
    )
    with pytest.raises(ValueError, match=refused):
        rollout_plan(made, rows(), ["math_verify_reward", "length"])
    rollout_plan(made, rows(), ["math_verify_rewards", "length"])


@pytest.mark.parametrize("rule", ["curriculum", "dynamic_sampling", "perplexity_window"])
def test_choice_among_the_problems_of_a_stream_is_refused(rule):
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "1="}]))
    refused = rf"rollout_rules\.{rule} chooses among all problems, and the train dataset is a stream: load it without"
    with pytest.raises(ValueError, match=refused):
        plan_of(stream, **{rule: {}})


@pytest.mark.parametrize("rule", ["offline_injection", "prompt_temperature"])
def test_other_rules_stand_with_a_stream(rule):
    assert not plan_of(IterableDataset.from_generator(lambda: iter([])), **{rule: {}}).chooses_problems


@pytest.mark.parametrize("column", ["image", "images"])
def test_images_are_refused(column):
    pictures = rows(**{column: ["a", "b", "c"]})
    with pytest.raises(ValueError, match=r"rollout_rules \(dynamic_sampling\) only work on text problems, and"):
        plan_of(pictures, dynamic_sampling={})
    assert plan_of(pictures).rules == {}


def test_column_that_holds_no_numbers_is_refused():
    with pytest.raises(ValueError, match="hard of problem 1 must be a number, got None: a curriculum sorts by it"):
        plan_of(rows(hard=[1.0, None, 2.0]), curriculum={"column": "hard"})


def test_seed_of_the_run_decides_the_order():
    def order(seed: int) -> list[int]:
        made = config(rollout_rules={"dynamic_sampling": {}}, seed=seed)
        problems = Dataset.from_dict({"prompt": [f"{n}=" for n in range(30)]})
        return rollout_plan(made, problems).problems(30, 0.0, lambda places: [])[0]

    assert order(1) == order(1) != order(2)
