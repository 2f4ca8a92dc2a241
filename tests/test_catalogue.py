import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from toy import LOSS_TYPES
from trl import GRPOConfig

from trl_entropy import EntropyGRPOConfig
from trl_entropy.build import SECTIONS
from trl_entropy.commands import cli
from trl_entropy.commands.grpo import prepare
from trl_entropy.commands.ls import card, catalogue, summary_line
from trl_entropy.control.laws import LAWS
from trl_entropy.control.presets import presets
from trl_entropy.rewards import REWARDS
from trl_entropy.rollouts import ROLLOUT_RULES


SETTINGS = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
PRESET_FILES = {
    file.name.removesuffix(".yaml"): file.read_text()
    for file in files("trl_entropy.control.presets").iterdir()
    if file.name.endswith(".yaml")
}


def section(start: str) -> dict[str, str]:
    (found,) = (entries for title, entries in catalogue().items() if title.startswith(start))
    return found


def offered(message: str) -> set[str]:
    """The names that the error for a wrong name lists."""
    return set(re.search(r"Available: (.*?)(?:\. A rule of your own .*)?$", message)[1].split(", "))


def refusal(**flags) -> str:
    with pytest.raises(ValueError, match="Available: ") as caught:
        EntropyGRPOConfig(**SETTINGS, **flags)
    return str(caught.value)


def test_sections_are_those_of_the_flags():
    assert [title.split()[0] for title in catalogue()] == [
        "entropy_control",
        "token_weights",
        "advantage_bonuses",
        "loss_terms",
        "rollout_rules",
        "laws",
        "knobs",
        "signals",
        "TRL's",
        "reward_funcs",
    ]


def test_names_that_the_errors_offer_are_listed():
    assert offered(refusal(entropy_control="?")) - {"none"} == section("entropy_control").keys()
    assert offered(refusal(token_weights={"?": {}})) == section("token_weights").keys()
    assert offered(refusal(loss_terms={"?": {}})) == section("loss_terms").keys()
    assert offered(refusal(rollout_rules={"?": {}})) == section("rollout_rules").keys()
    assert offered(refusal(controllers={"c": {"law": "?", "knob": "entropy_coef"}})) == section("laws").keys()
    asked = {"c": {"law": "pi", "knob": "entropy_coef", "signal": "?"}}
    of_rules = {"entropy/SECTION.RULE", "entropy/token_weights.sign"}
    assert offered(refusal(controllers=asked)) - of_rules == section("signals").keys() - of_rules
    some = {"token_weights": {"sign": None}, "loss_terms": {"confident_surrogate": None}}
    refused = refusal(**some, controllers={"c": {"law": "pi", "knob": "?"}})
    assert offered(refused) < section("knobs").keys()


def test_rewards_that_the_error_offers_are_listed():
    with pytest.raises(ValueError, match="unknown reward") as caught:
        prepare(["--output_dir", "unused", "--report_to", "none", "--use_cpu", "--bf16=false", "--reward_funcs", "?"])
    assert offered(str(caught.value)) == section("reward_funcs").keys()


def test_listed_names_are_those_of_the_package():
    assert section("entropy_control").keys() == PRESET_FILES.keys() == presets().keys()
    assert all(section(name).keys() == rules.keys() for name, rules in SECTIONS.items())
    assert section("rollout_rules").keys() == ROLLOUT_RULES.keys()
    assert section("laws").keys() == LAWS.keys()
    assert section("reward_funcs").keys() >= REWARDS.keys()
    assert {"epsilon_low", "epsilon_high", "entropy_coef", "positive_advantage_coef"} <= section("knobs").keys()


def test_line_about_a_reward_of_trl_is_a_sentence():
    lines = [line for line in section("reward_funcs").values() if line.startswith("TRL's: ")]
    assert len(lines) == 4
    assert all(line.endswith(".") for line in lines)


REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("name", sorted(section("knobs")))
def test_listed_knob_can_be_turned(name):
    kind, _, rule = name.rpartition(".")[0].partition(".")
    at_work = {"alpha": 0.5} if rule.startswith("confident_") and name.endswith(".threshold") else None
    wide = {"epsilon": 1.0, "epsilon_high": 20.0}  # for the rules that clip instead of TRL
    rules = {kind: {rule: at_work}, "beta": 0.1, **wide} if kind else {}
    spec = {"law": "bang_bang", "knob": name, "raises_signal": True}
    made = EntropyGRPOConfig(**SETTINGS, **rules, controllers={"c": spec}, num_iterations=2)
    (controller,) = made.control.fresh_controllers()
    assert controller.knob.name == name


@pytest.mark.parametrize("name", sorted(PRESET_FILES))
def test_listed_method_can_be_named_and_is_described_by_its_head_line(name):
    content = PRESET_FILES[name]
    made = EntropyGRPOConfig(**SETTINGS, entropy_control=name, num_train_epochs=2, num_iterations=2)
    assert made.control.fresh_controllers() or made.control.rollout_rules
    assert section("entropy_control")[name] in content.splitlines()[0]
    source = r"ours|https://(huggingface\.co/papers/\d{4}\.\d{5}|microsoft\.ai/pdf/[\w-]+\.pdf)"
    assert re.fullmatch(rf"# .+ \((?:{source})\):.*", content.splitlines()[0])
    assert section("entropy_control")[name].startswith(re.match(r"# ([\w-]+)", content)[1])
    first, *others = yaml.safe_load(content).get("controllers", [name])
    assert first == name
    assert all(other.startswith(f"{name}_") for other in others)


def test_flags_of_trl_that_are_listed_exist():
    flags = {name.split()[0] for name in section("TRL's own")}
    assert flags <= {field.name for field in fields(GRPOConfig)}
    for name in section("TRL's own"):
        if name.startswith("loss_type "):
            assert name.split()[1] in LOSS_TYPES


def test_knobs_say_range_default_and_effect():
    knobs = section("knobs")
    assert knobs["epsilon_high"] == "[0, inf], default 0.2; a larger value raises entropy"
    assert knobs["epsilon_low"] == "[0, 1], default 0.2; a larger value lowers entropy"
    assert knobs["positive_advantage_coef"] == "[0, inf], default 1; a larger value lowers entropy"
    assert knobs["token_weights.confident_sign.threshold"].endswith("default 0.95; unknown effect on entropy")


def test_first_line_is_that_of_the_docstring():
    class Documented:
        """
        What it is.

        More about it.
        """

    assert summary_line(Documented) == "What it is."


def test_ls_prints_one_line_for_each_entry(capsys):
    cli.main(["ls"])
    printed = capsys.readouterr().out.splitlines()
    expected = []
    for title, entries in catalogue().items():
        expected += [title, *(f"  {name} {line}" for name, line in entries.items()), ""]
    assert [re.sub(r"(?<=\S) +", " ", line) for line in printed] == expected
    for entries in catalogue().values():
        for name, line in entries.items():
            assert name
            assert line
            assert "\n" not in line


def test_ls_takes_no_flags(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["ls", "--all"])
    assert caught.value.code == 2
    assert "unknown flag 'all'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("clip_cov", ["(token_weights)", "c_t = (", "share (`float`", "2505.22617", "Page: docs/methods/clip_cov.md"]),
        ("constant", ["(laws of controllers)", "Page: docs/methods/schedule.md"]),
        ("hold", ["(entropy_control (bundled methods))", "law: pi", "knob: entropy_coef"]),
        ("siren", ["(entropy_control (bundled methods))", "(loss_terms)"]),  # a preset and a term
        ("epsilon_high", ["(knobs of controllers)", "a larger value raises entropy", "(TRL's own)"]),
        ("math_verify_reward", ["(reward_funcs)"]),
    ],
)
def test_ls_of_a_name_prints_all_about_it(capsys, name, parts):
    cli.main(["ls", name])
    printed = capsys.readouterr().out
    assert [part for part in parts if part not in printed] == []


def test_card_of_every_entry_names_a_page_that_exists():
    documented = [*SECTIONS.values(), ROLLOUT_RULES, LAWS]
    for name in (name for entries in documented for name in entries):
        (page, *_) = re.findall(r"Page: (docs/methods/\w+\.md)", card(name))
        assert (REPOSITORY / page).is_file()


def test_near_names_are_hinted_at(capsys):
    for arguments, line in (
        (
            ["ls", "sirn"],
            "trl-entropy ls: error: unknown name 'sirn'. Did you mean 'siren'? `trl-entropy ls` lists all.",
        ),
        (["grp"], "trl-entropy: error: unknown verb 'grp'. Did you mean 'grpo'? Available: check-rewards, compare,"),
        (["report", "--ouput", "a"], "trl-entropy report: error: "),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith(line)
