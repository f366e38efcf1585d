# Needs Python >= 3.11 (with venv) and make; everything else is installed into .venv from constraints.txt.
#
#   make demo    set-up, model, Ray pool, a real run, its answer and its bill
#   make test    set-up, the whole suite (what CI runs); ARGS="-k wheel" picks tests
#   make setup   the development environment alone
#   make lint    ruff, pyright and import-linter
#   make bench   the figures of the product against their limits, peers beside them; ARGS=--quick for less
#   make bench-peers   the peers' own environments, in .bench
#   make clean   removes what the other targets made

VENV ?= .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base-installed
DEV := $(VENV)/.dev-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -qq --constraint constraints.txt
ARGS ?=

ifndef PYTHON
PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$python"; break; }; \
	done)
endif

.PHONY: setup demo test lint bench bench-peers clean
.DEFAULT_GOAL := setup

setup: $(DEV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "Podium needs Python 3.11 or newer, and none was found." >&2; \
		echo "  → install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not Python 3.11 or newer." >&2; \
		echo "  → name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments (no venv or ensurepip)." >&2; \
		echo "  → on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing podium (about 560 MB; a minute or two)"
	@$(INSTALL) setuptools
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BASE)
	@echo "installing podium[dev], with torch, postgres and the test tools"
	@$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $(BASE) $@

demo: $(BASE)
	@export PODIUM_HOME="$(CURDIR)/.podium"; PATH="$(abspath $(BIN)):$$PATH"; set -e; \
	trap 'podium down || true' EXIT; trap 'exit 130' INT TERM; set -x; \
	podium models pull smollm2-135m; \
	podium up; \
	podium run examples/brief.yaml -i docs=@examples/data/federalist --approve publish; \
	podium show last

# small matrices: threads of linear algebra cost more than they bring
test: $(DEV)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests/quality/test_wheel.py $(ARGS)

bench: $(DEV)
	-$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.durable $(ARGS)
	$(BIN)/python -m benchmarks.memory $(ARGS)
	$(BIN)/python -m benchmarks.routing $(ARGS)
	$(BIN)/python -m benchmarks.routing_e2e $(ARGS)
	$(BIN)/python -m benchmarks.routing_budget $(ARGS)
	$(BIN)/python -m benchmarks.routing_decision $(ARGS)
	$(BIN)/python -m benchmarks.spine $(ARGS)

bench-peers: $(DEV)
	$(BIN)/python -m benchmarks.peers

clean:
	@if [ -x $(BIN)/podium ] && [ -d .podium ]; then PODIUM_HOME="$(CURDIR)/.podium" $(BIN)/podium down; fi || true
	rm -rf $(VENV) .podium build dist ./*.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf benchmarks/results .bench
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
