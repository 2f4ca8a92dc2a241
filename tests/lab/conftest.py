"""A folder of the test's own, without what a small run need not do."""

import datasets
import pytest

from trl_entropy.lab.evaluation import run


@pytest.fixture
def alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(run, "plot_figures", lambda *args: None)  # most of the time of a small evaluation
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
