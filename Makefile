# make repro   set up and regenerate everything from the embedded synthetic movies
# make test    set up and run the tests
# make check   format and lint
PYTHON ?= python3.11
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
export PATH := $(BIN):$(PATH)

.PHONY: repro test check clean

repro: $(READY)
	dvc repro

test: $(READY)
	python -m pytest --cov --cov-fail-under=90

check: $(READY)
	ruff format --check .
	ruff check .

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf .venv .work data runs settings
