# SC-CLIP: `make figures` runs the main job on the bundled model, `make test` proves it.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
RUN = $(VENV)/bin/python
STAMP = $(VENV)/.installed

.PHONY: help env figures test lint notebooks site bench clean

help:
	@echo "make figures   segment a gallery of scenes with the bundled model, offline; writes figures/"
	@echo "make test      lint and tests"
	@echo "make notebooks run all chapters and store their outputs, figures and numbers"
	@echo "make site      the chapters as HTML pages in _site/, to read without Jupyter or a network"
	@echo "make bench     take all times anew (figures/bench.csv, 07_*.csv)"
	@echo "make env       only the environment, in $(VENV) (PYTHON=..., PIP_ARGS=... for pip)"
	@echo "make clean     remove the environment and caches"

env: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older or missing; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	@touch $@

figures: $(STAMP)
	$(RUN) -m scclip_core figures $(if $(QUICK),--quick)

notebooks: $(STAMP)
	$(RUN) -m scclip_core.notebooks

site: $(STAMP)
	$(RUN) -m scclip_core.notebooks --site _site

bench: $(STAMP)
	$(RUN) -m scclip_core bench
	$(RUN) -m scclip_core.studies.timing

lint: $(STAMP)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

test: lint
	$(RUN) -m pytest -n 2

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info _site
