# `make` lists the targets. Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TESTERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo dev test test-slow lint format typecheck docs reference screenshots bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Bellwire needs Python 3.11 or newer; set PYTHON=..."'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[app,dev,docs]'
	@touch $(READY)

demo: $(READY) ## Publish events to local receivers and check what arrives (KEEP=1 keeps the stack running)
	$(BIN)/python -m starter demo $(if $(KEEP),--keep)

dev: $(READY) ## Run the whole stack in the foreground: Temporal with its UI, registry, worker
	$(BIN)/python -m starter dev

test: $(READY) ## Run all tests except the slow ones, in TESTERS=3 processes
	$(BIN)/python -m pytest -m "not slow" -n $(TESTERS) --dist loadfile $(ARGS)

test-slow: $(READY) ## Run the slow tests in two processes: crashes, several processes, large fan-outs
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)

lint: $(READY) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## Fix style; what no tool can fix is listed and left to you
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format --quiet .

typecheck: $(READY) ## Check types, strictly
	$(BIN)/mypy

docs: $(READY) ## Build the documentation into build/site; warnings fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8080"

reference: $(READY) ## Generate the reference pages from the code
	$(BIN)/python -m docs.generator
	$(BIN)/python -m docs.pictures.draw

screenshots: $(READY) ## Take the pictures of the Temporal UI again; needs Chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[screenshots]'
	$(BIN)/python -m docs.pictures.screenshots

bench: $(READY) ## Run the benchmarks; figures are ratios within one run
	$(BIN)/python -m benchmarks

clean: ## Remove what the targets create
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
