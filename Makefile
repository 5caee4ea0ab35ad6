# TeleStream: a dozen words, the same on a laptop and in CI.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .bootstrap/bin/uv
BIN := .venv/bin
STATE_DIR ?= .telestream
PORT_BASE ?= 18000
export UV_PYTHON_DOWNLOADS := never
MEMBERS := $(wildcard libs/*/src services/*/src)

.PHONY: help setup demo up down status clean-state test test-faults chaos bench check format lock docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.synced ## install everything from PyPI into .venv (the other targets do it by themselves)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "TeleStream needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 …" >&2; exit 1; }
	@echo "setting up uv in .bootstrap"
	@$(PYTHON) -m venv .bootstrap && .bootstrap/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.synced: $(UV) uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
	@echo "installing the locked packages into .venv (about 1.5 GB unpacked, once)"
	@$(UV) sync --quiet --frozen --all-packages --compile-bytecode --python $(PYTHON)
	@touch $@

demo: setup ## the whole pipeline on a day of simulated traffic, every record accounted for
	@$(BIN)/telestream demo --state-dir $(STATE_DIR) --port-base $(PORT_BASE)

up: setup ## start the embedded stack (Kafka, registry, ClickHouse, PostgreSQL and the services)
	@$(BIN)/telestream up --state-dir $(STATE_DIR) --port-base $(PORT_BASE)

down: setup ## stop it; data stays
	@$(BIN)/telestream down --state-dir $(STATE_DIR)

status: setup ## what runs, how it feels
	@$(BIN)/telestream status --state-dir $(STATE_DIR)

clean-state: setup ## stop it and remove its data
	@$(BIN)/telestream down --state-dir $(STATE_DIR) && rm -rf $(STATE_DIR)

test: setup ## unit, contract and integration tests on real parts
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: setup ## kills, stops and storms on real parts; takes long
	@$(BIN)/pytest -m faults

SEED ?= 1
MINUTES ?= 20
RECORDS ?= 10000000

chaos: setup ## random kills and stops under load, then every record and sum against the truth; SEED, MINUTES, RECORDS
	@$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) --records $(RECORDS)

bench: setup ## measured throughput, latency and memory, one table
	@$(BIN)/python benchmarks/run.py

check: setup ## ruff, mypy --strict, import directions, schemas, generated docs
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy $(MEMBERS)
	@$(BIN)/pytest -q tests/architecture

format: setup ## format and mend what can be mended
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: setup ## write docs/reference anew from the code
	@$(BIN)/python -m telestream_cli.reference docs/reference

lock: $(UV) ## resolve uv.lock anew
	@$(UV) lock

clean: ## remove what make built (not the data)
	rm -rf .venv .bootstrap .mypy_cache .ruff_cache .pytest_cache .hypothesis
