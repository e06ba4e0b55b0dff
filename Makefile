# Everything sets itself up: a fresh machine needs Python >= 3.10 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-slow lint format constraints clean

help: ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: $(STAMP) ## Build .venv with the relabel command in it

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Refine five packaged photographs; pictures and Parquet in ./demo
	$(BIN)/relabel demo

lint: setup ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## The gate: style, types, tests
	$(BIN)/python -m pytest

test-slow: setup ## Tests that take minutes each
	$(BIN)/python -m pytest -m slow

format: setup ## Rewrite the code in style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: setup ## Pin what the extras resolve to today
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --upgrade \
		--no-annotate --no-header --quiet --output-file constraints.txt

clean: ## Remove what was built
	rm -rf $(VENV) build *.egg-info demo
