# One command each; CI runs the same lines. `make up` needs python3 (3.11 or later) with python3-venv, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SANDYARD_ARGS ?=
# Processes that share the tests, each file's going to one: most of them wait for something most of the time.
TEST_WORKERS ?= 3

.PHONY: help setup check test test-all up bench docs lock image images clients clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The stamp holds the hash of what was installed, so that a changed lock or package definition installs again.
$(VENV)/.runs: requirements/base.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/base.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q sandyard api runner proxy daemon migrations
	touch $@

$(VENV)/.develops: $(VENV)/.runs requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

setup: $(VENV)/.develops ## Install everything needed to work on Sandyard into .venv

up: $(VENV)/.runs ## Run Sandyard in the foreground
	@$(BIN)/sandyard up $(SANDYARD_ARGS)

check: setup ## Format, lint, types, layers, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.documents --check

test: setup ## The tests; what needs Docker, PostgreSQL or Redis is skipped, with the reason, where they are missing
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile -rs

test-all: setup ## The full matrix and the long forms
	SANDYARD_TEST_COMBINATIONS=all $(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile -m '' -rs

image: ## Build our image; docs/subsystems/docker.md has the arguments for closed networks
	docker build --tag sandyard:local .

images: setup ## Build the images for sandboxes, slim and full; docs/subsystems/docker.md has the arguments
	scripts/sandbox-images

clients: setup ## Fetch the client libraries that tests/contract drives
	$(BIN)/python scripts/client-environments

bench: setup ## Measure, and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

docs: setup ## Write the generated documents again
	$(BIN)/python -m scripts.documents

# `--no-strip-extras`: pip takes `name[extra]>=1` for unpinned, once a newer release is out, where the lock holds only `name==1`.
lock: setup ## Resolve the dependencies again
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --extra uvloop pyproject.toml -o requirements/base.txt
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --extra uvloop --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url requirements/build.in -o requirements/build.txt

clean: ## Remove what make built
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
