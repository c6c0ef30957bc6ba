# `make demo` and `make test` need Python 3.11 or newer and nothing else.
# Another interpreter: `make demo PYTHON=python3.12`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

.DEFAULT_GOAL := help
.PHONY: help demo smollm2 quick test coverage soak settings clean

help: ## Show these targets.
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(INSTALLED) ## Install into .venv and run the demo scenario (minutes).
	$(BIN)/fedgrpo simulate simulations/demo.toml

smollm2: $(INSTALLED) ## Fetch a real language model (93 MB) and write it to models/smollm2.
	@$(PIP) --editable '.[gguf]'
	$(BIN)/python benchmarks/smollm2.py

quick: $(TESTABLE) ## Lint and run what takes no time (two minutes).
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "not slow and not flower and not soak" --durations=10

test: $(TESTABLE) ## Lint, check types and run the tests, one example of each kind (minutes).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not soak" --durations=10

coverage: $(TESTABLE) ## Run the quick tests and print which lines they do not reach.
	$(BIN)/python -m coverage run --source=fedgrpo -m pytest -q -m "not slow and not flower and not soak"
	$(BIN)/python -m coverage report --skip-covered --sort=cover

soak: $(TESTABLE) ## Run the long sweeps, kill series and matrices (minutes).
	$(BIN)/python -m pytest -m soak --durations=10

settings: $(INSTALLED) ## Write docs/settings.md and the defaults in pyproject.toml again.
	$(BIN)/fedgrpo settings > docs/settings.md
	sed '/^\[tool\.flwr\.app\.config\]/,$$d' pyproject.toml > pyproject.tmp
	$(BIN)/fedgrpo settings --flower >> pyproject.tmp
	mv pyproject.tmp pyproject.toml

clean: ## Remove .venv and caches. Runs are kept.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is older than 3.11: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing fedgrpo into $(VENV) (minutes the first time)"
	@$(PIP) --editable '.[simulation]'
	@touch $@

$(TESTABLE): $(INSTALLED)
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@
