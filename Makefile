# Two commands matter: `make demo` shows the pipeline at work, `make test` runs the tests. Both make .venv on their own.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-faults lint format bench clean

demo: .venv/pipeline.installed
	rm -rf demo/photographs
	$(BIN)/fineclip annotate pipeline/photographs demo/photographs --profile weightless
	$(BIN)/fineclip status demo/photographs

test: .venv/dev.installed
	$(BIN)/pytest -m "not faults"

# Kills real jobs at named points and at seeded times, and resumes them: minutes.
test-faults: .venv/dev.installed
	$(BIN)/pytest -m faults --timeout 600

lint: .venv/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev.installed
	for script in records annotate write scale; do $(BIN)/python -m benchmarks.$$script || exit 1; done

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp for each set of extras: a second run installs nothing, and so works without a network.
.venv/pipeline.installed: setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[pipeline]'
	touch $@

.venv/dev.installed: setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[pipeline,dev]'
	touch $@ .venv/pipeline.installed

.venv/bin/python:
	$(PYTHON) -m venv .venv
