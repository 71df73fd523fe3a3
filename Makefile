# The two commands a newcomer needs: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread where two only wait for each other: the tests' molecules have a handful of beads.
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: demo test lint types docs wheel data clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## make, simulate and judge a model of alanine dipeptide
	$(BIN)/ase-cg run training/ala2_forces_and_noise.yaml --folder runs/ala2_demo

test: $(VENV)/.installed  ## run the tests
	$(TEST_ENV) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer
	$(BIN)/mypy

docs: $(VENV)/.developer  ## the documentation site, warnings as errors, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.developer  ## build the wheel, install it alone in a new environment, run its command line
	PYTHON=$(PYTHON) BIN=$(BIN) .ci/check-wheel

data: $(VENV)/.installed  ## make the committed example data again (about 40 minutes on two cores)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[openmm]'
	$(BIN)/python examples/data/make_ala2.py run --folder runs/ala2_data
	$(BIN)/python examples/data/make_ala2.py assemble --folder runs/ala2_data

clean:
	rm -rf $(VENV) site build dist *.egg-info
