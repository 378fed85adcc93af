# Everything runs in .venv, which the targets make themselves; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

PYTHON312 ?= python3.12
VENV1 := .venv-arviz1

.PHONY: demo test test-slow test-browser test-arviz1 lint docs bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

demo: $(READY)
	$(BIN)/python inference/demo.py

# A process for each core, of one thread each.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not browser" tests ppl_vae

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow tests

# Needs Chromium, from the system's packages.
test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest -m browser tests/browser

$(VENV)/.browser: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	touch $@

# ArviZ 1.x needs Python 3.12; NumPyro alone, without torch.
test-arviz1: $(VENV1)/.ready
	$(VENV1)/bin/python -m pytest -m "not slow" tests/ppl_vae/diagnostics/test_store*.py

$(VENV1)/.ready: pyproject.toml tests/arviz1-requirements.txt
	$(PYTHON312) -m venv $(VENV1)
	$(VENV1)/bin/pip install --quiet --requirement tests/arviz1-requirements.txt
	$(VENV1)/bin/pip install --quiet --no-deps --editable .
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build

$(VENV)/.docs: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Those of epochs, convolutions, loading, sweeps and importance use Fashion-MNIST, imported by `ppl-vae data import`.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.svi_step
	$(BIN)/python -m benchmarks.epoch
	$(BIN)/python -m benchmarks.convolutions
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.t3vae_step
	$(BIN)/python -m benchmarks.importance
	$(BIN)/python -m benchmarks.consistency_step

$(VENV)/.bench: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV1) build dist docs/_build
