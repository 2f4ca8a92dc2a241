"""The page's tables and the figures' numbers are those of the runs that are kept."""

import json
import re
from copy import deepcopy
from statistics import fmean

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from benchmarks.pages import BLOCK
from study import figures, store, tables, tuning
from study.arms import FIRST_SEEDS, SEEDS, TRIALS
from study.claims import SECTIONS


TEXTS = {page.name: page.read_text() for page in tables.PAGES}
TEXT = "".join(TEXTS.values())
every_figure = pytest.mark.parametrize("name", figures.FIGURES)


@pytest.fixture
def figure(name):
    drawn = figures.FIGURES[name]()
    yield drawn
    plt.close(drawn)


@pytest.mark.parametrize("page", TEXTS)
def test_tables_are_those_of_the_runs(page):
    assert tables.updated(TEXTS[page]) == TEXTS[page]


def test_every_table_has_its_place():
    assert sorted(name for _, name, _ in BLOCK.findall(TEXT)) == sorted(tables.TABLES)


@pytest.mark.slow
def test_another_run_would_be_seen(monkeypatch):
    def other(name, seed):
        run = deepcopy(store.load(name, seed))
        if run is not None and name == "grpo":
            run["scores"][-1]["avg@8"] += 0.1
        return run

    monkeypatch.setattr("study.results.load", other)
    assert tables.updated(TEXT) != TEXT


@every_figure
def test_numbers_of_a_figure_are_those_of_the_runs(name, figure):
    with Image.open(figures.FOLDER / f"{name}.png") as picture:
        assert picture.info["Description"] == figures.fingerprint(figure)


@every_figure
def test_another_number_has_another_fingerprint(name, figure):
    before = figures.fingerprint(figure)
    line = next(line for axis in figure.axes for line in axis.lines)
    x, y = line.get_data()
    line.set_data(x, [*y[:-1], y[-1] + 0.01])
    assert figures.fingerprint(figure) != before


@pytest.mark.parametrize("name", ["collapse"])
def test_a_line_is_the_mean_over_the_seeds(name, figure):
    lines = map(json.loads, (store.FOLDER / "collapse.jsonl").read_text().splitlines())
    found = [run for run in lines if run["arm"] == "grpo" and run["seed"] in SEEDS]
    lines = {line.get_label(): line for axis in figure.axes for line in axis.lines}
    entropy = lines["entropy (nats per token)"]
    assert list(entropy.get_xdata()) == found[0]["series"]["step"]
    for place, value in enumerate(entropy.get_ydata()):
        assert value == pytest.approx(fmean(run["series"]["entropy"][place] for run in found), abs=1e-9)
    pass_at_8 = lines["held-out pass@8"].get_ydata()
    assert pass_at_8[-1] == pytest.approx(fmean(run["scores"][-1]["pass@8"] for run in found), abs=1e-9)


def test_every_figure_stands_on_a_page():
    assert set(re.findall(r"images/study/(\w+)\.png", TEXT)) == set(figures.FIGURES)


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "language_model"])  # its runs take hours
def test_a_claim_has_all_seeds_or_none(section):
    seeds = FIRST_SEEDS if section in ("laws", "authority") else SEEDS
    for claim in SECTIONS[section]:
        assert not claim.values or len(claim.values) >= len(seeds), claim.text


def test_runs_are_those_of_the_arms():
    tried = {name for method in tuning.tried() for name in TRIALS if name.startswith(f"{method}.")}
    known = (store.SECTION.keys() - tried) | tuning.constant_arms().keys() | tuning.rate_arms(tuning.tried()).keys()
    assert {run["arm"] for run in store.every()} <= known
