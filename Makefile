# Every command of the project. `make repro` and `make test` need nothing but Python 3.11 or newer, and git.
PYTHON ?= python3
SHELL := /bin/bash
# DVC runs the stages' `python`: it must be the environment's, whether or not that is activated.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help doctor repro report app test lint accept bench clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

doctor: ## Say whether `dvc repro` could run here, and what to do where it could not
	@$(or $(wildcard .venv/bin/python),$(PYTHON)) -m tools.doctor

repro: .venv/stages ## Check params.yaml, then rebuild the model and its metrics: dvc repro
	@python -m cxr.params
	dvc repro

report: ## Say where the page is that tells what the last run came to
	@test -f plots/report.html && echo "file://$(CURDIR)/plots/report.html" || { echo "no report yet: make repro writes it" >&2; exit 1; }

app: .venv/app ## Serve a page on this machine to show the networks an X-ray; where there are none yet, make repro first
	@test -f data/decisions.json || { echo "no networks yet: make repro makes them, which takes minutes"; $(MAKE) repro; }
	@python -m tools.app

test: .venv/tests ## Lint, check types, and run the tests
	ruff check .
	ruff format --check .
	mypy
	pytest --numprocesses 2 --dist loadfile

lint: .venv/tests ## Mend what a linter can, and check types
	ruff check --fix .
	ruff format .
	mypy

accept: .venv/tests ## Full-size checks: twin clones, kills at random moments, shuffled labels (half an hour)
	pytest -m accept --timeout 7200 --capture no

bench: .venv/bench ## Time what two cores can time, beside what else one could use (40 minutes)
	python -m benchmarks.resize
	python -m benchmarks.resize --memory 500 5000
	python -m benchmarks.input
	python -m benchmarks.training
	python -m benchmarks.tables
	python -m benchmarks.no_op
	python -m benchmarks.predict

clean: ## Remove the environment and tool caches; data, checkpoints and DVC's cache stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/stages: requirements.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/app: requirements.txt requirements-predict.txt requirements-app.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements-app.txt
	touch $@

.venv/tests: requirements.txt requirements-predict.txt requirements-app.txt requirements-export.txt requirements-dev.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

.venv/bench: requirements.txt requirements-bench.txt | .venv/bin/python
	python -m pip install --quiet --requirement requirements-bench.txt
	touch $@
