# Two commands do all set-up: `make run` and `make test`. Everything lands in .venv and node_modules.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
RUNS ?= 1000
FIRST ?= 100000
PEERS ?= 5

.PHONY: help setup run test check fmt faults soak soak-sim planted fuzz bench bench-net interop interop-all proto clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## .venv with everything Python in it

$(VENV)/.ready: pyproject.toml constraints.txt scripts/venv.sh
	@bash scripts/venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

run: $(VENV)/.ready ## start the daemon (ARGS="--port 0 …")
	@exec $(BIN)/python -m air run $(ARGS)

test: $(VENV)/.ready ## everything the suite needs, then the suite
	@bash scripts/browser.sh
	@PYTHON=$(PYTHON) bash scripts/interop.sh js py
	@CI=true $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.ready ## format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

fmt: $(VENV)/.ready ## format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

faults: $(VENV)/.ready ## the whole fault suite: 200 kills, every write index, 10,000 bit flips
	@AIR_FAULTS=full $(BIN)/python -m pytest -s tests/faults $(ARGS)

soak: $(VENV)/.ready ## ten minutes at 500 messages a second with clients coming and going
	@AIR_SOAK_SECONDS=600 $(BIN)/python -m pytest -s tests/soak $(ARGS)

soak-sim: $(VENV)/.ready ## simulated networks for as long as asked (RUNS=1000 FIRST=100000 PEERS=5)
	@$(BIN)/python -m tests.sim.soak $(RUNS) $(FIRST) $(PEERS)

planted: $(VENV)/.ready ## plant each of the bugs in tests/planted and tell which level catches it
	@$(BIN)/python tests/planted/run.py $(ARGS)

fuzz: $(VENV)/.ready ## a million executions of each parser (ARGS="gun --runs 10000")
	@"$$(bash scripts/fuzz.sh $(VENV))" -m fuzz $(ARGS)

bench: $(VENV)/.ready ## the stock relay and Air, measured in one run (ARGS="--quick")
	@bash scripts/node.sh
	@$(BIN)/python -m bench.relay $(ARGS)

bench-net: $(VENV)/.ready ## Air, go-, rust-, js- and py-libp2p over tcp, noise, yamux, in one run (ARGS="--quick")
	@PYTHON=$(PYTHON) bash scripts/interop.sh all
	@$(BIN)/python -m bench.net $(ARGS)

interop: $(VENV)/.ready ## Air against js-libp2p and py-libp2p, every layer, both directions
	@PYTHON=$(PYTHON) bash scripts/interop.sh js py
	@$(BIN)/python -m tests.interop.libp2p.matrix --peers js,py $(ARGS)

interop-all: $(VENV)/.ready ## the same with go and rust, built if they are missing
	@PYTHON=$(PYTHON) bash scripts/interop.sh all
	@$(BIN)/python -m tests.interop.libp2p.matrix $(ARGS)

proto: ## regenerate air/pb from proto/
	@bash scripts/proto.sh "$(PYTHON)"

clean: ## remove what was made
	rm -rf $(VENV) node_modules examples/todo/vendor .mypy_cache .ruff_cache .pytest_cache .hypothesis
