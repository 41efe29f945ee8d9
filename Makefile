# Cocolu Hub. Needs Python >= 3.11 and a C toolchain; everything else is fetched from the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/uv/bin/uv
export UV_LINK_MODE ?= copy

.DEFAULT_GOAL := help
.PHONY: help run test check bench simulate faults lock clean setup setup-dev browser

help: ## Show what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Cocolu Hub needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up the virtual environment in $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

# Installed once for each content of the lock file.
$(VENV)/.installed: requirements.lock pyproject.toml | $(UV)
	@echo "Installing the hub and its dependencies …"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed | $(UV)
	@echo "Installing what the tests need …"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

run: setup ## Serve the hub with the demo tenant on http://127.0.0.1:8000
	@$(BIN)/hub serve --demo

test: setup-dev browser ## Everything: tidy rules, unit, contract, simulation, system and browser tests
	@$(BIN)/python -m pytest

check: setup-dev ## Format, lint, types, tidy rules and fast tests, in under a minute
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/tidy tests/unit tests/contract

bench: setup-dev ## The benchmark against a hub it starts, as a table against the targets
	@$(BIN)/python -m bench.report

simulate: setup-dev ## Thousands of seeded worlds
	@$(BIN)/python -m tests.simulation --seeds 2000

faults: setup-dev ## Every fault on every home, as the table of docs/reliability.md (about half an hour, root)
	@$(BIN)/python -m tests.faults --write docs/reliability.md

browser: ## Chromium for the browser tests
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	{ echo "The browser tests need Chromium. Install it: sudo apt-get install chromium"; exit 1; }

lock: | $(UV) ## Write the lock files anew from pyproject.toml
	@$(UV) pip compile -q pyproject.toml --universal --generate-hashes -o requirements.lock --custom-compile-command "make lock"
	@$(UV) pip compile -q pyproject.toml --group dev --universal --generate-hashes -c requirements.lock -o requirements-dev.lock --custom-compile-command "make lock"

clean: ## Remove what was installed and built; data stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
