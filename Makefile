# Two commands matter: `make demo` shows the pipeline at work, `make test` runs the tests. Both make .venv on their own.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-oldest test-faults test-engines test-docker test-envs test-browser test-remote lint format bench clean

demo: .venv/pipeline.installed
	rm -rf demo
	$(BIN)/fineclip annotate pipeline/golden/photographs demo/photographs --profile weightless
	$(BIN)/fineclip annotate 'scenes:200?split=test' demo/scenes --profile mini
	$(BIN)/fineclip score demo/scenes
	@echo
	@echo "Look at them: $(BIN)/fineclip view demo/photographs"

# Two processes, a file of tests at a time, each on one thread of torch.
test: .venv/dev.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not faults and not browser and not envs and not engines and not remote"

# The same tests with the lowest version of each direct dependency that setup.py allows, in an environment of its own: 7 GB.
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not faults and not browser and not envs and not engines and not remote"

# Kills real jobs at named points and at seeded times, and resumes them: minutes.
test-faults: .venv/dev.installed
	$(BIN)/pytest -m faults --timeout 600

# The same job on engines that are started and ended here, on loopback: a quarter of an hour. As root it installs Debian's
# Slurm unless FINECLIP_INSTALL=0; Prism is $FINECLIP_PRISM, or built where Go is. It ends with a table of what each engine
# costs and survives (docs/benchmarks.md), and names what was skipped.
test-engines: .venv/engines.installed
	$(BIN)/pytest -m engines --timeout 600 -rs tests/engines

# Builds the images without a registry of images, and runs a job and a training in them: root, Debian, 25 GB, half an hour.
test-docker:
	docker/test.sh

# The wheel and the notebook in clean environments, which are installed: minutes.
test-envs: .venv/dev.installed
	$(BIN)/pytest -m envs --timeout 900 tests/envs

# Drives the viewer in Debian's Chromium (apt-get install chromium); nothing else is downloaded.
test-browser: .venv/dev.installed
	$(BIN)/pytest -m browser tests/browser

# Object stores behind a proxy that fails on purpose: moto, and versitygw and fake-gcs-server, which Go builds unless
# FINECLIP_VERSITYGW and FINECLIP_FAKE_GCS name their binaries. It names what was skipped.
test-remote: .venv/dev.installed
	$(PIP) gcsfs
	$(BIN)/pytest --timeout 600 -rs tests/remote

lint: .venv/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev.installed
	for script in records annotate write scale viewer captioner caption_parts preparation loader train_step export audit remote; do \
		$(BIN)/python -m benchmarks.$$script || exit 1; done
	$(BIN)/python -m benchmarks.proposer --random-weights --variant t --side 256

clean:
	rm -rf .venv .venv-oldest demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp for each set of extras: a second run installs nothing, and so works without a network. What would bring a
# second OpenCV into the environment, which would overwrite the first one's files, is installed without its dependencies.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ALONE := libreyolo mss ultralytics-opencv-headless ultralytics-thop

.venv/pipeline.installed: setup.py constraints.txt | .venv/bin/python
	$(PIP) --editable '.[pipeline,viewer]'
	touch $@

.venv/dev.installed: .venv/pipeline.installed
	$(PIP) --editable '.[pipeline,trainer,viewer,dev]'
	$(PIP) --no-deps $(ALONE)
	touch $@

# Spark's runner for Beam is pinned to old versions of both, which it does not need.
.venv/engines.installed: .venv/dev.installed
	$(PIP) --editable '.[pipeline,trainer,viewer,dev,dataflow]'
	$(PIP) --no-deps pyspark==3.5.9 py4j==0.10.9.7 beam-pyspark-runner==0.0.3
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv-oldest/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest --resolution lowest-direct \
		--editable '.[pipeline,trainer,viewer,dev]'
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest --no-deps --constraint constraints.txt $(ALONE)
	.venv-oldest/bin/uv pip list --python .venv-oldest
	touch $@
