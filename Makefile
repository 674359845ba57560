# make book · make test · make lab · make replicate · make bench · make links · make clean: each enough by itself on a fresh clone.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
PAGE := _build/html/index.html
PYTEST := $(BIN)/python -m pytest
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=900
ALONE := $(sort $(shell grep -rl --include="*.ipynb" --exclude-dir=".*" "\"runs_alone\": true" book))

# What the chapters train is kept in the project, so that `make clean` finds it.
export VAE_UTILS_CACHE ?= $(CURDIR)/.cache
# Notebooks run in book/, so a path relative to this folder would lead nowhere there.
ifdef MNIST_NPZ
export MNIST_NPZ := $(abspath $(MNIST_NPZ))
endif

.PHONY: book test lab replicate bench links clean

book: $(INSTALLED)
	$(BIN)/jupyter-book build . -W --keep-going
	@echo "The book is at $(CURDIR)/$(PAGE)"

# Runs each notebook once, those that compare seconds alone: the site is made of what they have shown.
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	if [ -x $(BIN)/biome ]; then $(BIN)/biome lint --error-on-warnings .; fi
	$(PYTEST) $(SIDE_BY_SIDE) $(NBVAL) book $(ALONE:%=--ignore=%)
	$(if $(ALONE),$(PYTEST) -n 1 $(NBVAL) $(ALONE))
	$(MAKE) book
	$(PYTEST) $(SIDE_BY_SIDE) --durations=15 -rs tests

# The reader's own copies, which git ignores; what a reader changed there stays.
lab: $(INSTALLED)
	$(BIN)/python tools/working_copies.py my_copies
	$(BIN)/jupyter lab my_copies $(if $(filter 0,$(shell id -u)),--allow-root)

# An hour, on a machine that does nothing else; see benchmarks/README.md.
BENCHMARKS := time_to_quality one_minute networks arithmetic growth devices waiting notebooks explorer lab
bench: $(INSTALLED)
	@for name in $(BENCHMARKS); do \
	  echo "== $$name =="; $(BIN)/python benchmarks/$$name.py || exit 1; \
	done

# Every page with SEEDS seeds on both data sources, about three hours; Ctrl-C, then again, goes on.
SEEDS ?= 5
replicate: $(INSTALLED)
	$(BIN)/python benchmarks/replicate.py --seeds $(SEEDS)

# Ask every link of the book whether it leads somewhere.
links: $(INSTALLED)
	$(BIN)/jupyter-book build . --builder linkcheck

clean:
	rm -rf .venv .cache _build .pytest_cache .ruff_cache vae_utils.egg-info
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is another. Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@
