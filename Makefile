# SC-CLIP: `make figures` runs the main job on the bundled model, `make test` proves it.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
RUN = $(VENV)/bin/python
STAMP = $(VENV)/.installed

.PHONY: help env figures test lint coverage notebooks site bench wheel lock clean

help:
	@echo "make figures   segment a gallery of scenes with the bundled model, offline; writes figures/"
	@echo "make test      lint and tests"
	@echo "make lint      ruff and mypy"
	@echo "make coverage  the tests once more, with the lines and branches that they do not reach"
	@echo "make notebooks run all chapters and store their outputs, figures and numbers"
	@echo "make site      the website in _site/: chapters, slides, API reference; needs no network to read"
	@echo "make bench     take all times anew (figures/bench.csv, times of chapters 2, 7, 9, 11, 13)"
	@echo "make wheel     build the wheel and the sdist in dist/"
	@echo "make lock      find the newest versions of all dependencies and write requirements.lock"
	@echo "make env       only the environment, in $(VENV) (PYTHON=..., PIP_ARGS=... for pip)"
	@echo "make clean     remove the environment and caches"

env: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older or missing; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet $(PIP_ARGS) --constraint requirements.lock --editable '.[dev]'
	@touch $@

figures: $(STAMP)
	$(RUN) -m scclip_lab figures $(if $(QUICK),--quick)

notebooks: $(STAMP)
	$(RUN) -m scclip_lab notebooks

site: $(STAMP)
	$(RUN) site/build.py _site

bench: $(STAMP)
	$(RUN) -m scclip_lab bench

lint: $(STAMP)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

test: lint
	$(RUN) -m pytest -n 2

coverage: $(STAMP)
	$(RUN) -m pytest -n 2 --cov --cov-report=term-missing:skip-covered

wheel: $(STAMP)
	$(RUN) -m build

# A new environment holds only what the project needs, so that its list is the lock. The CUDA
# libraries are left out: torch names their versions itself, and its CPU builds have none. Run it
# with Python 3.11.2 or so (PYTHON=...): newer packages may refuse an early release, as soupsieve 3 does.
lock:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && \
	"$$folder/bin/python" -m pip install --quiet $(PIP_ARGS) '.[dev,train]' && \
	"$$folder/bin/python" -m pip freeze --exclude scclip > "$$folder/frozen" && \
	{ echo "# The versions that the tests run with. They are constraints for make env, not requirements." && \
	  echo "# Made by: make lock (with PIP_ARGS, other packages or versions can be asked for)" && \
	  grep -vE '^(cuda|nvidia|triton)' "$$folder/frozen" | sed 's/+[a-z0-9.]*$$//'; } > requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage* dist *.egg-info _site
