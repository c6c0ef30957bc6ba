# `make demo` and `make test` need Python 3.11 or newer and nothing else.
# Another interpreter: `make demo PYTHON=python3.12`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

.DEFAULT_GOAL := help
.PHONY: help demo test settings clean

help: ## Show these targets.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(INSTALLED) ## Install into .venv and run the demo scenario (minutes).
	$(BIN)/fedgrpo simulate simulations/demo.toml

test: $(TESTABLE) ## Lint, check types and run all tests.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

settings: $(INSTALLED) ## Write docs/settings.md and the defaults in pyproject.toml again.
	$(BIN)/fedgrpo settings > docs/settings.md
	sed '/^\[tool\.flwr\.app\.config\]/,$$d' pyproject.toml > pyproject.tmp
	$(BIN)/fedgrpo settings --flower >> pyproject.tmp
	mv pyproject.tmp pyproject.toml

clean: ## Remove .venv and caches. Runs are kept.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is older than 3.11: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing fedgrpo into $(VENV) (minutes the first time)"
	@$(PIP) --editable .
	@touch $@

$(TESTABLE): $(INSTALLED)
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@
