# All commands of the project. `make repro` and `make test` need only Python 3.11 to 3.14 and git.
PYTHON ?= python3
SHELL := /bin/bash
# DVC runs the first `python` on the path, which must be that of the environment, even if it is not activated.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help doctor repro verify report app test test-fast lint fuzz accept bench rehearse audit constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

doctor: ## Check whether this machine can run the pipeline
	@$(or $(wildcard .venv/bin/python),$(PYTHON)) -m tools.doctor

repro: .venv/stages ## Check params.yaml and run the pipeline: dvc repro
	@python -m cxr.params
	dvc repro

verify: .venv/stages ## Rebuild the last commit in a fresh clone, and compare all outputs with dvc.lock
	@python -m tools.verify

report: ## Print the path of the HTML report of the last run
	@test -f plots/report.html && echo "file://$(CURDIR)/plots/report.html" || { echo "no report yet: run make repro" >&2; exit 1; }

app: .venv/app ## Serve the predictions as a local web page; runs make repro first if there are no networks
	@test -f data/decisions.json || { echo "no trained networks yet: running make repro, which takes minutes"; $(MAKE) repro; }
	@python -m tools.app

test: .venv/tests ## Run linters, type checks and all tests
	ruff check .
	ruff format --check .
	mypy
	pytest --numprocesses 2 --dist loadfile

test-fast: .venv/tests ## Run the linter and the fast tests: a minute and a half on two cores
	ruff check .
	pytest --numprocesses 2 --dist loadfile -m 'not accept and not slow'

lint: .venv/tests ## Fix what the linters can fix, and check types
	ruff check --fix .
	ruff format .
	mypy

fuzz: .venv/tests ## Give random mutated files to all readers for FUZZ_MINUTES, 10 by default
	FUZZ_MINUTES=$(or $(FUZZ_MINUTES),10) pytest tests/fuzz --timeout 0

accept: .venv/tests ## Train clones of the demo, kill them, shuffle labels, emulate processors (more than an hour)
	pytest -m accept --timeout 7200 --capture no

bench: .venv/bench ## Run the CPU benchmarks, with other libraries for comparison (40 minutes)
	python -m benchmarks.resize
	python -m benchmarks.resize --memory 500 5000
	python -m benchmarks.input
	python -m benchmarks.training
	python -m benchmarks.tables
	python -m benchmarks.no_op
	python -m benchmarks.predict

rehearse: .venv/stages ## Measure what each stage takes for 112,120 synthetic images (half an hour)
	python -m benchmarks.rehearse

audit: ## List the known advisories of the pinned packages; without a network, it is skipped with a warning
	@$(or $(wildcard .venv/bin/python),$(PYTHON)) -m tools.audit

constraints: ## Write constraints.txt anew from a fresh environment, to upgrade packages
	@folder=$$(mktemp -d) && trap "rm -rf $$folder" EXIT && cp requirements*.txt $$folder && touch $$folder/constraints.txt && \
	$(PYTHON) -m venv $$folder/venv && \
	$$folder/venv/bin/python -m pip install --quiet --requirement $$folder/requirements-dev.txt --requirement $$folder/requirements-bench.txt && \
	{ sed '/^#/!d' constraints.txt; $$folder/venv/bin/python -m pip freeze; } > $$folder/new.txt && mv $$folder/new.txt constraints.txt

clean: ## Remove the environment and tool caches; keep data, checkpoints and DVC's cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -m tools.doctor.supported
	$(PYTHON) -m venv .venv

.venv/stages: requirements.txt constraints.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/app: requirements.txt requirements-predict.txt requirements-app.txt constraints.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements-app.txt
	touch $@

.venv/tests: requirements.txt requirements-predict.txt requirements-app.txt requirements-export.txt requirements-dev.txt constraints.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

.venv/bench: requirements.txt requirements-bench.txt constraints.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements-bench.txt
	touch $@
