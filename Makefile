# make train    install, train a robust classifier on real digits, evaluate it, show the result
# make test     install with the development tools, then formatter check, linter, type checker and tests
# make lint     the same without the tests
# make format   rewrite the code in the project's format
# make clean    remove .venv and all caches (never runs/)
#
# Variables: PYTHON=python3.12  RECIPE=mnist-uiat  RUN=runs/my-run  ARGS="seed=1"  PYTEST_ARGS="-n 4"
# PIP_ARGS goes to pip: README.md says how to get the small CPU build of torch with it.

PYTHON ?= python3
RECIPE ?= digits-uiat
RUN ?=
ARGS ?=
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2

BIN := .venv/bin
CORE := .venv/.installed
DEV := .venv/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test lint format clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# The name carries the date, and `uiat train` refuses a folder that exists: no run is ever overwritten.
train: $(CORE)
	@set -e; run="$(RUN)"; \
	if [ -z "$$run" ]; then run="runs/$(RECIPE)-$$(date +%Y%m%d-%H%M%S)"; fi; \
	"$(BIN)/uiat" train "$(RECIPE)" --run-dir "$$run" $(ARGS); \
	"$(BIN)/uiat" evaluate "$$run"; \
	printf '\nEverything lies in %s:\n' "$$run"; \
	ls -1 "$$run"

test: lint
	"$(BIN)/python" -m pytest $(PYTEST_ARGS)

lint: $(DEV)
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .
	"$(BIN)/mypy"

format: $(DEV)
	"$(BIN)/ruff" format .
	"$(BIN)/ruff" check --fix .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: a second call installs nothing unless pyproject.toml has changed.
.venv/.created:
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) not found: name a Python 3.11 or newer with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "uiat needs Python 3.11 or newer: name one with PYTHON=..." >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@touch $@

$(CORE): pyproject.toml | .venv/.created
	"$(BIN)/python" -m pip install $(PIP_ARGS) -e '.[data,report]'
	@touch $@

$(DEV): pyproject.toml | .venv/.created
	"$(BIN)/python" -m pip install $(PIP_ARGS) -e '.[dev]'
	@touch $(CORE) $@
