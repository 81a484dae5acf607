# Two commands matter: `make demo` and `make test`. Both set up everything that they need by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers

.PHONY: demo test check lint types layers unit integration docs bench clean

demo: $(READY)  ## a shop of thirteen processes under load: kills, a purge, a release, a greedy client, a broker crash, and a report (KEEP=1 stays up)
	$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: $(READY) $(PEERS) check integration docs  ## everything: lint, types, layers, unit, property, integration, docs

check: $(READY) lint types layers unit  ## the fast ones, under a minute

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check src tests examples benchmarks

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports --no-cache

unit: $(READY)
	$(BIN)/python -m pytest -n 2 -q -m "not integration and not exhaustive" --ignore tests/docs

# Real processes on a machine that others use too: what fails is run once more, and both runs are shown.
integration: $(READY) $(PEERS)
	$(BIN)/python -m pytest -q -m "integration or exhaustive" --durations 15 || $(BIN)/python -m pytest -q -m "integration or exhaustive" --last-failed

docs: $(READY)  ## run every snippet of the documentation
	$(BIN)/python -m pytest -q tests/docs

bench: $(READY) $(PEERS)  ## CPU µs per request beside the real peers, in turn in one run
	$(BIN)/python benchmarks/balancer.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) tools/setup.py venv $(VENV)
	@touch $@

$(PEERS): tools/setup.py | $(READY)
	@$(PYTHON) tools/setup.py peers
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
