# The CPU build of torch where there are only CPUs, the CUDA build elsewhere
TORCH ?= 2.13.0
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-browser check

train: .venv/installed
	$(BIN)/trl-entropy compare recipes/grpo.yaml recipes/pi.yaml --output_dir out/train

test: .venv/installed
	$(BIN)/pytest -n 2

test-browser: .venv/installed
	$(BIN)/pytest -m browser

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==$(TORCH)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@
