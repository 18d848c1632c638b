# make repro     set up and regenerate everything from the embedded synthetic movies
# make test      set up and run the tests
# make test-ray  add Ray (optional) and run its tests: two nodes on this machine
# make check     format and lint
PYTHON ?= python3.11
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
RAY_READY := .venv/.ready-ray
export PATH := $(BIN):$(PATH)

.PHONY: repro test test-ray check clean

repro: $(READY)
	dvc repro

test: $(READY)
	python -m pytest --cov --cov-fail-under=90

test-ray: $(RAY_READY)
	python -m pytest tests/test_engine.py tests/test_grid.py tests/test_ray.py

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

clean:
	rm -rf .venv .work data runs settings
