import datasets
import pytest

from trl_entropy.data import EMBEDDED_POLICY
from trl_entropy.data.files import load, model_path


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"prompt": ["1=", "2="], "solution": ["1/1", "2/1"]})


def test_formats_of_files(rows):
    rows.to_json("rows.jsonl")
    rows.to_json("rows.json")
    rows.to_csv("rows.csv")
    rows.to_parquet("rows.parquet")
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        assert load(name).to_dict() == load(name, split="test").to_dict() == rows.to_dict()
        with pytest.raises(ValueError, match=f"the dataset '{name}' has no split 'any': leave it out"):
            load(name, split="any")
        assert list(load(name, streaming=True)) == list(rows)


def test_saved_datasets(rows):
    rows.save_to_disk("saved")
    datasets.DatasetDict(train=rows, test=rows.select([1])).save_to_disk("splits")
    assert load("saved").to_dict() == load("splits").to_dict() == rows.to_dict()
    assert load("splits", split="test")["prompt"][:] == ["2="]
    with pytest.raises(ValueError, match="'splits' cannot be loaded: it has no split 'dev'; available: train, test"):
        load("splits", split="dev")


def test_what_cannot_be_read_is_named():
    open("empty.csv", "w").close()
    for name, line in (("none.csv", "there is no file 'none.csv'"), ("empty.csv", "the file 'empty.csv' is empty")):
        with pytest.raises(ValueError, match=line):
            load(name)
    with pytest.raises(ValueError, match="the dataset 'org/none' cannot be loaded: "):
        load("org/none")


def test_models_by_name(tmp_path):
    assert model_path("embedded", "model") == str(EMBEDDED_POLICY)
    assert model_path("Qwen/Qwen2.5-0.5B", "model") == "Qwen/Qwen2.5-0.5B"
    assert model_path(str(tmp_path), "model") == str(tmp_path)
    with pytest.raises(ValueError, match=r"model must be a folder, got '\./none'"):
        model_path("./none", "model")
