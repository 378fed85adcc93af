# Everything runs in .venv, which the targets make themselves; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

PYTHON312 ?= python3.12
VENV1 := .venv-arviz1

.PHONY: demo test test-slow test-arviz1 lint bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

demo: $(READY)
	$(BIN)/python inference/demo.py

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" tests ppl_vae

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow tests

# ArviZ 1.x needs Python 3.12; NumPyro alone, without torch.
test-arviz1: $(VENV1)/.ready
	$(VENV1)/bin/python -m pytest -m "not slow" tests/ppl_vae/diagnostics

$(VENV1)/.ready: pyproject.toml tests/arviz1-requirements.txt
	$(PYTHON312) -m venv $(VENV1)
	$(VENV1)/bin/pip install --quiet --requirement tests/arviz1-requirements.txt
	$(VENV1)/bin/pip install --quiet --no-deps --editable .
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/svi_step.py

clean:
	rm -rf $(VENV) $(VENV1) build dist
