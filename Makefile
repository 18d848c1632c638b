# make repro     set up and regenerate everything from the embedded synthetic movies
# make test      set up and run the tests
# make test-ray  add Ray (optional) and run its tests: two nodes on this machine
# make bench     set up, with the peers where they install, and measure what a training step costs
# make scaling   draw how time and memory grow, for docs/performance.md
# make check     format and lint
PYTHON ?= python3.11
READY := .venv/.ready
RAY_READY := .venv/.ready-ray
PEERS := .venv/.peers
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test test-ray bench scaling check clean git works

repro: git works
	dvc repro

test: works
	python -m pytest --cov --cov-fail-under=90

test-ray: works $(RAY_READY)
	python -m pytest tests/training/test_engine.py tests/commands/test_grid.py tests/training/test_ray.py

bench: works $(PEERS)
	python -m pmmo.benchmark $(BENCH)

scaling: works
	python -m pmmo.benchmark --scaling docs/performance-scaling

check: works
	ruff format --check .
	ruff check .

# before anything long: DVC needs a git repository
git:
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo "make: this folder is no git repository, \
	which DVC needs. Use 'git clone' instead of a ZIP, or make it one here: \
	git init && git add -A && git commit -m start" >&2; exit 1; }

# a virtual environment names the folder that it was made in, and the Python
works: $(READY)
	@.venv/bin/dvc --version > /dev/null 2>&1 || { echo "make: .venv does not run here: this folder was \
	renamed, or its Python is gone. Remove it, and make sets it up again: rm -rf .venv" >&2; exit 1; }

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(RAY_READY): $(READY) requirements-ray.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	touch $@

$(PEERS): requirements-bench.txt $(READY)
	grep -v '^#' requirements-bench.txt | while read -r peer; do \
		.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --retries 1 "$$peer" \
		|| echo "$$peer does not install here; its row will be empty" >&2; done
	touch $@

clean:
	rm -rf .venv .work data runs settings
