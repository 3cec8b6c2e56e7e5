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
.PHONY: help install lock demo test test-slow check format bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with the locked versions (the targets below do it by themselves)

# Every file that is downloaded must have a hash that constraints*.txt name, but for torch's, whose builds differ by
# machine; it comes second, so that what it needs is there already. DeepSpeed comes as source only and asks torch how to
# build. Then the package itself, which needs nothing more. A new stamp only when everything is installed: an interrupted
# install starts again.
$(INSTALLED): pyproject.toml constraints.txt constraints-torch.txt constraints-deepspeed.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11" >&2; echo "hint: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "installing the versions of constraints.txt into $(VENV): once, some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: --requirement constraints.txt
	@$(BIN)/python -m pip install --quiet --requirement constraints-torch.txt
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps --no-build-isolation \
		--requirement constraints-deepspeed.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@

# Versions stay as they are locked; `make lock LOCK=--upgrade` moves all, LOCK="--upgrade-package numpy" one.
LOCK ?=
UV := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate --constraint constraints-torch.txt --no-emit-package torch $(LOCK)
lock: $(INSTALLED) ## write the locked versions and hashes anew from pyproject.toml
	$(UV) --all-extras --group dev --no-emit-package deepspeed --output-file constraints.txt
	$(UV) --extra serve --constraint constraints.txt --output-file constraints-serve.txt
	$(UV) --extra deepspeed --constraint constraints.txt --output-file constraints-deepspeed.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' constraints.txt)

demo: $(INSTALLED) ## train, verify, evaluate and score a small reward model on generated pairs; results in demo/
	$(BIN)/rewardlab demo --output $(DEMO)

test: $(INSTALLED) ## the tests, without the slow ones
	$(PYTEST) -m "not slow and not gpu"

# pytest's status 5 means that no test was selected: said, and not a failure.
test-slow: $(INSTALLED) ## the slow tests
	@$(PYTEST) -m "slow and not gpu"; status=$$?; \
	if [ $$status -eq 5 ]; then echo "make test-slow: there are no slow tests yet"; else exit $$status; fi

check: $(INSTALLED) ## ruff (lint and format), mypy, and pip-audit where its service can be reached
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit

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
