# Everything a person does here. `make` alone lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8470
export PORT

.DEFAULT_GOAL := help
.PHONY: help run demo test lint mutants kills bench docs migrate relay clean

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Clarion needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Creating the environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group dev
	@touch $@

run: $(READY) ## start the platform (API, relay, executor) and print its URL; PORT, CLARION_DATABASE_URL
	@$(BIN)/python -m orchest run --port $(PORT)

demo: $(READY) ## run the example project as jobs against a verifying receiver, and show every delivery
	@$(BIN)/python -m orchest demo

test: $(READY) ## run every test; ends with what was skipped and how to run it
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(READY) ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

mutants: $(READY) ## change the modules that make telemetry in small ways; some test must notice each (an hour; ARGS="--every 3")
	@$(BIN)/python -m tests.house.mutation $(ARGS)

KILLS ?= 200

kills: $(READY) ## kill -9 the programs KILLS times under load (200), and reckon up what was lost: nothing
	@CLARION_TEST_KILLS=$(KILLS) $(BIN)/pytest tests/flows/test_killed.py -s

bench: $(READY) ## measure against raw SQL, the bare HTTP client and Celery; writes bench/latest.json
	@$(BIN)/python -m bench

docs: $(READY) ## write the generated reference pages anew
	@$(BIN)/clarion docs

migrate: $(READY) ## bring the database up to date
	@$(BIN)/clarion migrate

relay: $(READY) ## run a relay of its own, beside the platform
	@$(BIN)/clarion relay

clean: ## remove the environment, caches and the local data
	rm -rf $(VENV) .data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
