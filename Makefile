# make repro     set up and regenerate everything from the embedded synthetic movies
# make test      set up and run the tests
# make test-ray  add Ray (optional) and run its tests: two nodes on this machine
# make bench     set up, with the peers where they install, and measure what a training step costs
# make scaling   draw how time and memory grow, for docs/performance.md
# make check     format and lint
PYTHON ?= python3.11
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
RAY_READY := .venv/.ready-ray
PEERS := .venv/.peers
export PATH := $(BIN):$(PATH)

.PHONY: repro test test-ray bench scaling check clean

repro: $(READY)
	dvc repro

test: $(READY)
	python -m pytest --cov --cov-fail-under=90

test-ray: $(RAY_READY)
	python -m pytest tests/training/test_engine.py tests/commands/test_grid.py tests/training/test_ray.py

bench: $(READY) $(PEERS)
	python -m pmmo.benchmark $(BENCH)

scaling: $(READY)
	python -m pmmo.benchmark --scaling docs/performance-scaling

check: $(READY)
	ruff format --check .
	ruff check .

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(RAY_READY): $(READY) requirements-ray.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	touch $@

$(PEERS): requirements-bench.txt $(READY)
	grep -v '^#' requirements-bench.txt | while read -r peer; do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --retries 1 "$$peer" \
		|| echo "$$peer does not install here; its row will be empty" >&2; done
	touch $@

clean:
	rm -rf .venv .work data runs settings
