"""The tables of the pages are those of the numbers of `make bench`."""

import copy
import json
import sys
from pathlib import Path

import pytest


sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))  # whose scripts import each other
from pages import BLOCK

from benchmarks import tables


REPORT = json.loads(tables.DATA.read_text())
every_page = pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)


@every_page
def test_tables_are_those_of_the_numbers(page):
    text = page.read_text()
    assert tables.updated(text, REPORT) == text


def test_every_part_has_its_table():
    blocks = {name for page in tables.PAGES for _, name, _ in BLOCK.findall(page.read_text())}
    assert blocks == {*tables.TABLES, "headline"}


@every_page
def test_another_number_would_be_seen(page):
    other = copy.deepcopy(REPORT)
    for ratio in [arm["ratio"] for arm in other["overhead"]["arms"].values()]:
        ratio["median"] += 0.5
    text = page.read_text()
    assert tables.updated(text, other) != text


def test_numbers_are_of_the_whole_benchmark():
    assert not REPORT["quick"]


def test_machine_is_named_by_its_size_and_versions_alone():
    names = {"device", "cores", "threads", "load", "torch", "transformers", "trl", "trl-entropy"}
    assert all(
        set(part["machine"]) == names for part in REPORT.values() if isinstance(part, dict) and "machine" in part
    )


@pytest.mark.parametrize(("value", "said"), [(0.2, "0.2, met"), (0.2001, "0.2, not met")])
def test_goal_is_met_up_to_it(value, said):
    assert tables.against(0.2, value) == said


def test_void_ratios_are_called_so():
    ratio = {"median": 1.05, "low": 1.0, "high": 1.1}
    assert "do not count" in tables.validity(ratio, valid=False)
    assert "do not count" not in tables.validity(ratio, valid=True)
