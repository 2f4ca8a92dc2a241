"""The page of ETPO: what it names is there, and what is logged is on it."""

import re
from ast import literal_eval
from dataclasses import fields
from pathlib import Path

import pytest
from given_steps import build_etpo

from study import etpo as study
from trl_entropy import EntropyGRPOConfig
from trl_entropy.etpo import ENVIRONMENTS, EtpoConfig
from trl_entropy.etpo.critic import KINDS


PAGE = (Path(__file__).parents[2] / "docs" / "etpo.md").read_text()


def first_cells(heading: str) -> set[str]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {cell.strip("`") for cell in re.findall(r"^\| ([^|]+) \|", section, re.M)}


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_all_that_is_logged_is_on_the_page(model_dir, tmp_path):
    trainer = build_etpo(model_dir, tmp_path, max_steps=1)
    trainer.train()
    logged = {name for row in trainer.state.log_history for name in row if name.startswith(("etpo/", "env/"))}
    assert len(logged) == 8
    assert first_cells("What is logged") - {"key", "---", "rewards/environment_score/mean"} == logged


def test_critics_and_environments_are_on_the_page():
    assert first_cells("The critic") - {"critic"} == {*KINDS}
    assert first_cells("Environments") - {"environment", "a dotted path"} == {*ENVIRONMENTS}


def test_table_of_the_runs_is_that_of_the_page():
    assert len(study.kept()) == 15
    assert study.table() in PAGE


def test_defaults_are_those_of_the_docstring():
    own = {flag.name: flag for flag in fields(EtpoConfig)}
    names = {name for name in own if name not in EntropyGRPOConfig.__dataclass_fields__} | {"beta"}
    documented = dict(re.findall(r"^\s+(\w+) \(.*defaults to `(.*)`\):$", EtpoConfig.__doc__, re.M))
    assert {name: own[name].default for name in names} == {k: literal_eval(v) for k, v in documented.items()}
