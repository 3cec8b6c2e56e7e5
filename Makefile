# Every command that a person or CI runs. `make` alone prints this list.
# Needs: Python >= 3.11, git, make. The first target that needs it makes .venv and installs the pinned versions there.

PYTHON ?= python3
VENV ?= .venv
# Test processes; each uses one thread (tests/conftest.py).
WORKERS ?= 2
DEMO ?= demo

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# --dist loadfile keeps a file's tests in one process, so that what a module-scoped fixture trains is trained once.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check format bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with the versions of constraints.txt (the targets below do it by themselves)

# A new stamp only when everything is installed: an interrupted install starts again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11" >&2; echo "hint: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "installing the versions of constraints.txt into $(VENV): once, a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt \
		--editable . --group dev
	@touch $@

demo: $(INSTALLED) ## train, verify, evaluate and score a small reward model on generated pairs; results in demo/
	$(BIN)/rewardlab demo --output $(DEMO)

test: $(INSTALLED) ## the tests, without the slow ones
	$(PYTEST) -m "not slow and not gpu"

# pytest's status 5 means that no test was selected: said, and not a failure.
test-slow: $(INSTALLED) ## the slow tests
	@$(PYTEST) -m "slow and not gpu"; status=$$?; \
	if [ $$status -eq 5 ]; then echo "make test-slow: there are no slow tests yet"; else exit $$status; fi

check: $(INSTALLED) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## let ruff format the code and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: ## list the benchmark commands and what each measures
	@for file in benchmarks/*.py; do \
		[ -e "$$file" ] || { echo "there are no benchmarks yet"; break; }; \
		grep -q __main__ "$$file" || continue; \
		printf "  %s %s\n      %s\n" "$(BIN)/python" "$$file" "$$(sed -n '1s/^"""//p' "$$file")"; \
	done

clean: ## remove .venv, caches and the demo's output
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache src/*.egg-info
