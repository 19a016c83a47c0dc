# Every verb first installs its tools into .venv, unless that was done since pyproject.toml changed.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-quick check preview bench clean

PYTHON ?= python3
# The certificates of this machine, as pip and git take them: a company's proxy has its own.
export UV_SYSTEM_CERTS ?= true
BIN := .venv/bin
TOOLS := .venv/installed

help: ## Say what each verb does
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(TOOLS) ## Install the tools into .venv

demo: $(TOOLS) ## Render, install and start a service, ask it a question, serve until Ctrl-C
	@$(BIN)/python scripts/demo.py

# Last, it says how much processor time it took.
TIMED := $(BIN)/python scripts/processor_time.py
test: $(TOOLS) ## Prove everything: each choice with its own tests, any two choices in a service that runs
	@$(TIMED) $(BIN)/pytest -n auto --dist worksteal $(ARGS)

test-all: $(TOOLS) ## Prove everything for the full product of the choices (hours)
	@$(TIMED) $(BIN)/pytest -n auto --dist worksteal -m "" $(ARGS)

test-quick: $(TOOLS) ## Prove what can be proven in two minutes: all but running services
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

check: $(TOOLS) ## Lint, format, types, dependencies, workflows and configuration
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --persona pedantic --quiet .github

preview: $(TOOLS) ## Render the working tree into build/preview: make preview ANSWERS=file.yml
	@$(BIN)/python scripts/preview.py $(ANSWERS)

bench: $(TOOLS) ## Measure a rendered service, each figure as a ratio to a reference of the same run
	PYTHONPATH=scripts:tests $(BIN)/python benchmarks/run.py $(ARGS)

clean: ## Remove what the other verbs made
	rm -rf .venv build .coverage .mypy_cache .pytest_cache .ruff_cache

$(TOOLS): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.13 $(or $(MAKECMDGOALS),setup)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group dev
	@touch $@
