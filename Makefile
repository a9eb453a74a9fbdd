# make train    install, train a robust classifier on real digits, evaluate it, show the result
# make test     install with the development tools, then formatter check, linter, type checker and tests
# make test-all the same with the tests that take many seconds each
# make lint     the same without the tests
# make format   rewrite the code in the project's format
# make package  build wheel and source archive, check them, run a user's script on the wheel in a fresh environment
# make docs     build the documentation site into site/, strictly
# make clean    remove .venv and all caches (never runs/)
#
# Variables: PYTHON=python3.12  RECIPE=mnist-uiat  RUN=runs/my-run  ARGS="seed=1"  PYTEST_ARGS="-n 4"
# PIP_ARGS goes to pip: README.md says how to get the small CPU build of torch with it.

PYTHON ?= python3
RECIPE ?= digits-uiat
RUN ?=
ARGS ?=
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2 --dist worksteal -m "not slow"

BIN := .venv/bin
CORE := .venv/.installed
DEV := .venv/.installed-dev
TOOLS := .venv/.installed-tools
FRESH := build/fresh/bin
SCRIPT := tests/package/user_script.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test test-all lint format package docs clean

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

test-all: lint
	"$(BIN)/python" -m pytest -n 2 --dist worksteal

lint: $(DEV)
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .
	"$(BIN)/mypy"

format: $(DEV)
	"$(BIN)/ruff" format .
	"$(BIN)/ruff" check --fix .

# The script is checked and run outside the source tree, so that it can only find the wheel.
package: $(TOOLS)
	rm -rf dist build
	"$(BIN)/python" -m build
	"$(BIN)/twine" check --strict dist/*
	"$(BIN)/validate-pyproject" pyproject.toml
	"$(BIN)/python" tests/package/check_wheel.py dist/*.whl
	"$(PYTHON)" -m venv build/fresh
	"$(FRESH)/python" -m pip install $(PIP_ARGS) dist/*.whl
	cp "$(SCRIPT)" build/script.py
	cd build && ../"$(BIN)/mypy" --strict --python-executable fresh/bin/python script.py
	cd build && ../"$(BIN)/pyright" --pythonpath fresh/bin/python script.py
	cd build && fresh/bin/python script.py
	cd build && fresh/bin/uiat --version

docs: $(TOOLS)
	"$(BIN)/python" docs/site/make_pages.py
	"$(BIN)/mkdocs" build --strict

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
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

$(TOOLS): pyproject.toml | .venv/.created
	"$(BIN)/python" -m pip install $(PIP_ARGS) -e '.[docs,package]'
	@touch $@
