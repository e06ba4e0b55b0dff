# Everything sets itself up: a fresh machine needs Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-slow test-lowest package peers cluster bench-speed fit-quality bench-quality recipe \
	gpu-pack gpu gpu-train lint format constraints clean

help: ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: $(STAMP) ## Build .venv with the relabel command in it

# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, each of Ray's processes would compile it all again, for 3 s.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Refine five packaged images; pictures and Parquet in ./demo
	$(BIN)/relabel demo

lint: setup ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# By file, since a file's tests share what they are slow to set up; at most four, since many start a Ray of their own.
test: lint ## The gate: style, types, tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup ## Tests that take minutes each; one of them submits a job to Ray, which takes the extra `cluster`
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,cluster]'
	$(BIN)/python -m pytest -m slow

# Twice: what tools for development depend on would hold some of our own dependencies above their floors.
test-lowest: setup ## The tests at the lowest versions that pyproject.toml allows, in an environment of its own
	$(PYTHON) -m venv build/lowest
	$(BIN)/uv pip install --quiet --compile-bytecode --resolution lowest-direct --python build/lowest/bin/python \
		--editable '.[dev]'
	$(BIN)/uv pip install --quiet --upgrade --resolution lowest-direct --python build/lowest/bin/python \
		--editable '.[plots]'
	build/lowest/bin/python -m pytest tests/schemas tests/pipeline tests/jobs/test_cli.py tests/jobs/test_extras.py

peers: setup ## Tools that read our exports, each in an environment of its own, and the tests that run them
	$(BIN)/python -m tests.field.peers.environments
	$(BIN)/python -m pytest -m slow tests/field/peers

package: setup ## Build wheel and source distribution, and check how they would look on a package page
	rm -rf build/lib build/dist
	$(BIN)/uv build --quiet --out-dir build/dist
	$(BIN)/uv tool run --quiet twine check --strict build/dist/*

cluster: setup ## Ray of three nodes on this machine, until Ctrl-C: `relabel run --address 127.0.0.1:6399 ...` uses it
	infra/local-cluster.sh $(BIN)/python

bench-speed: setup ## This project against a plain loop, its encoder against the package's, Ray's own cost
	$(BIN)/python -m tests.benchmarks.speed

fit-quality: setup ## Fit the packaged estimators of quality again (after a change of the weights or the method)
	$(BIN)/python -m tests.benchmarks.quality --only-fit

bench-quality: setup ## Compare with every baseline on the development set; EVERY=2 takes every second image
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,dense-crf]'
	$(BIN)/python -m tests.benchmarks.quality --every $(or $(EVERY),1) --output build/quality.md
	$(BIN)/python -m tests.benchmarks.class_maps
	$(BIN)/python -m tests.benchmarks.ablation
	$(BIN)/python -m tests.benchmarks.adaption

recipe: setup ## COCO-ReM's job from end to end on a pair of annotations made to measure; pages and figures in build/recipe
	$(BIN)/python -m tests.recipe

# Run by any Python that has what tests/benchmarks/README.md lists: a machine with a GPU may have no network to set up from.
GPU_PYTHON ?= $(BIN)/python
GPU_OPTIONS ?=

gpu-pack: setup ## What `make gpu-train` trains on, into build/gpu-pack; DATA="FOLDER ..." says from what
	$(BIN)/python -m tests.benchmarks.gpu_pack $(DATA)

gpu: ## On a GPU, in three minutes: the same answers as on the CPU, the same bytes twice, rates; into build/gpu
	$(GPU_PYTHON) -m tests.benchmarks.gpu --minutes $(or $(MINUTES),3) --only device parity rates $(GPU_OPTIONS)

gpu-train: ## On a GPU, in what is left: train lite on build/gpu-pack; weights every minute into build/gpu
	$(GPU_PYTHON) -m tests.benchmarks.gpu --minutes $(or $(MINUTES),6) --only device train $(GPU_OPTIONS)

format: setup ## Rewrite the code in style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: setup ## Pin what the extras resolve to today
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--no-annotate --no-header --quiet --output-file constraints.txt

clean: ## Remove what was built
	rm -rf $(VENV) build *.egg-info demo
