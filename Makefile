# make repro     set up and regenerate everything from the embedded synthetic movies
# make test      set up, check and run the tests
# make test-all  the same with the tests that take minutes, and coverage
# make check     format, lint, imports between packages, types
# make test-ray  add Ray (optional) and run its tests: two nodes on this machine
# make bench     set up, with the peers where they install, and measure what a training step costs
# make gpu       set up as for bench, then check and measure a CUDA card: at most 5 minutes
# make scaling   draw how time and memory grow, for docs/performance.md
# make lock      write constraints.txt: every package that requirements-*.txt bring, peers aside
#                (LOCK=--upgrade takes new releases, LOCK='--upgrade-package NAME' one)
# .venv is made once, with the first suitable Python found; PYTHON=/path/to/python3.12 names one.
SUITABLE := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$name" -c "$(SUITABLE)" 2>/dev/null && command -v "$$name" && break; done)
# Python compiles a module at its first import; to compile all of them here would take a minute
INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
LOCKED := --build-constraint constraints.txt
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
RAY_READY := .venv/.ready-ray
PEERS := .venv/.peers
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test test-all test-ray bench gpu scaling check lock clean git works

# `dvc repro` with several training stages at a time
repro: git works
	python -m pmmo grid

test: check
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-all: check
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-fail-under=90

test-ray: works $(RAY_READY)
	python -m pytest tests/training/test_engine.py tests/commands/test_grid.py tests/training/test_ray.py \
		tests/test_scripts.py::test_time_ray

bench: works $(PEERS)
	python -m pmmo.benchmark $(BENCH)

gpu: works $(PEERS)
	python -m pmmo.benchmark --gpu

scaling: works
	python -m pmmo.benchmark --scaling docs/performance-scaling

check: works
	ruff format --check .
	ruff check .
	lint-imports --no-cache --no-logo
	mypy

# before anything long: DVC needs a git repository
git:
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo "make: this folder is no git repository, \
	which DVC needs. Use 'git clone' instead of a ZIP, or make it one here: \
	git init && git add -A && git commit -m start" >&2; exit 1; }

# a virtual environment names the folder that it was made in, and the Python
works: $(READY)
	@.venv/bin/dvc --version > /dev/null 2>&1 || { echo "make: .venv does not run here: this folder was \
	renamed, or its Python is gone. Remove it, and make sets it up again: rm -rf .venv" >&2; exit 1; }

# CUDA's packages stay out: torch pins its own, and which depends on the build of torch
lock: works
	$(INSTALL) uv==0.13.9
	uv pip compile requirements-run.txt requirements-test.txt requirements-ray.txt \
		requirements-embed.txt -o constraints.txt $(LOCK) \
		--quiet --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock"
	sed -i.cuda -E '/^(cuda|nvidia|triton)/d' constraints.txt
	rm constraints.txt.cuda

.venv/bin/python:
	@"$(PYTHON)" -c "$(SUITABLE)" 2>/dev/null || { echo "pmmo needs Python 3.11, 3.12, 3.13 or 3.14" \
		"with its module venv. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv

$(READY): requirements.txt requirements-run.txt requirements-test.txt constraints.txt | .venv/bin/python
	$(INSTALL) pip==26.3 # the first of Python 3.11 knows no --build-constraint
	$(INSTALL) $(LOCKED) -r requirements.txt
	PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation --no-deps -e . # the command `pmmo`
	touch $@

$(RAY_READY): $(READY) requirements-ray.txt
	$(INSTALL) $(LOCKED) -r requirements.txt -r requirements-ray.txt
	touch $@

$(PEERS): requirements-bench.txt $(READY)
	grep -v '^#' requirements-bench.txt | while read -r peer; do \
		$(INSTALL) --no-deps --retries 1 "$$peer" \
		|| echo "$$peer does not install here; its row will be empty" >&2; done
	touch $@

clean:
	rm -rf .venv .work data runs settings
