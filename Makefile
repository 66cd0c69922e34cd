# The two commands: `make quickstart` (captioned clips to scored samples) and `make test` (everything that must pass).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs

.PHONY: quickstart test lint setup clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   build a captioned video data set, train, sample, score, report (runs/quickstart)"
	@echo "make test         lint, import contracts and the whole test suite"
	@echo "make setup        only make .venv with the pinned packages"

quickstart: setup
	$(BIN)/videodit quickstart --workdir $(RUNS)/quickstart

test: setup $(VENV)/libtpu
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

setup: $(VENV)/.installed

# Versions and hashes are pinned in constraints.txt; the address of the index is the machine's own business.
$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"videodit needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The TPU compiler, which the kernels' tests ask; beside the packages, since JAX looks for a TPU where it is among them.
$(VENV)/libtpu: constraints-tpu.txt $(VENV)/.installed
	if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(BIN)/python -m pip install --quiet --no-deps --require-hashes --upgrade --target $@ -r constraints-tpu.txt; fi
	mkdir -p $@ && touch $@

clean:
	rm -rf $(VENV) build *.egg-info
