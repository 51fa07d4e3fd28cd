# Two commands: `make demo` and `make test`. Each sets up everything it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
# The release the suite is run with. Any torch from 2.11 on works: make TORCH="torch>=2.11" demo
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow lint types layers tests docs clean
.DELETE_ON_ERROR:

demo: .venv/.installed
	$(BIN)/snowmelt demo --overwrite
	@echo "For the command snowmelt itself:  . .venv/bin/activate"

test: lint types layers tests docs

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

layers: .venv/.installed-dev
	$(BIN)/lint-imports --no-cache

tests: .venv/.installed-dev
	$(BIN)/pytest -n 2

# The chapters take a minute, and are made anew only where the code of `snowmelt explain` has changed.
EXPLAIN := build/site/explain/index.html
docs: .venv/.installed-dev $(EXPLAIN)
	$(BIN)/python docs/tools/reference.py
	$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/site
	$(BIN)/python docs/tools/links.py build/site
	@echo "Open build/site/index.html"

$(EXPLAIN): $(wildcard src/snowmelt/explain/*.py) | .venv/.installed-dev
	rm -rf build/site/explain
	$(BIN)/snowmelt explain --fast --out build/site/explain

test-slow: .venv/.installed-dev
	$(BIN)/pytest -m slow

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Snowmelt needs Python 3.11 or newer. Say which: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install "$(TORCH)" || $(BIN)/pip install "torch>=2.11"
	$(BIN)/pip install -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install -e '.[dev,docs]'
	touch $@

clean:
	rm -rf .venv runs build docs/reference
