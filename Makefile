# Two commands on a fresh machine with make and Python >= 3.11 (with venv): `make ablation` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Files in the order of collection: by size, the few long tests of whole sweeps would all come last.
PARALLEL := -n auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: ablation smoke test quick exhaustive lint help

help:            ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

ablation: $(INSTALLED)  ## the main job: five token mixers at equal FLOPs on real text (about ten minutes on 2 cores)
	$(BIN)/python -m stackwise_ray.sweep search_spaces/ablation.yaml

smoke: $(INSTALLED)     ## the same with two seeds on a generated source (about a minute)
	$(BIN)/python -m stackwise_ray.sweep search_spaces/smoke.yaml

test: lint              ## lint, types and every test
	$(BIN)/python -m pytest $(PARALLEL)

quick: $(INSTALLED)     ## the tests that need no service
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not exhaustive"

exhaustive: $(INSTALLED) ## the cells of the full matrices that the other tests stand for
	$(BIN)/python -m pytest $(PARALLEL) -m exhaustive

lint: $(INSTALLED)      ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy stackwise_ray analysis

# Made anew when the dependencies change; a half-made .venv is not taken for a whole one.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stackwise_ray needs Python 3.11 or newer; set PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@
