# Two commands do everything on a fresh machine with git, make and Python 3.11 or newer:
#   make demo    installs, then prunes, quantizes, exports, measures and judges a small net on this machine
#   make test    installs, then runs every check and test that takes no board
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := ssh,sign,report,tflite,mcu,serial,recipes,ethos-u
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
PYTHONS := python3.12 python3.13 python3.14
UNMARKED := not device and not slow and not alone

.PHONY: demo quick test test-devices test-boards test-lines test-versions test-lowest check format clean
APART := --numprocesses 2 --dist loadfile
QUICK := tests/core tests/graph tests/pruning tests/recipes tests/stages tests/cli/test_catalog.py tests/test_run.py \
  tests/test_scopes.py tests/test_docs.py tests/test_threats.py tests/test_versions.py

demo: $(VENV)/.demo
	$(BIN)/edgeprune deploy --target local
	@echo 'this shell knows `edgeprune` after: . $(BIN)/activate'

# before a commit, in under three minutes: no board, no export, no whole run
quick: check
	$(BIN)/python -m pytest -m "$(UNMARKED)" $(APART) $(QUICK)

test: check
	sh deploy/setup/test_packages.sh
	$(BIN)/python -m pytest -m "$(UNMARKED)" $(APART)
	$(BIN)/python -m pytest -m "not device and not slow and alone"

# boards and lines side by side, then what has to be alone on the machine
test-devices: $(VENV)/.dev
	sh deploy/setup/test_packages.sh
	$(MAKE) --jobs 2 --output-sync test-boards test-lines
	$(BIN)/python -m pytest -m "(device or slow) and alone"

test-boards:
	env -u MAKEFLAGS $(BIN)/python -m pytest -m "device and not alone"

test-lines:
	env -u MAKEFLAGS $(BIN)/python -m pytest -m "slow and not device and not alone"

# The lowest versions that the package allows, then `make test` by every other Python that is here. On Linux, unless pip
# finds a CPU build of torch for that Python, it fetches CUDA packages of gigabytes.
test-versions: test-lowest
	@for python in $(PYTHONS); do \
	    $$python -c 'import venv' 2>/dev/null || { echo "$$python: not here, so not tried"; continue; }; \
	    $(MAKE) test PYTHON=$$python VENV=.venv/$$python || exit 1; \
	done

test-lowest: LOWEST := .venv/lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt
test-lowest:
	$(PYTHON) -m venv .venv/lowest
	$(LOWEST) --editable '.[ssh,sign,report,serial,recipes]' pytest pytest-xdist hypothesis
	$(LOWEST) --no-deps onnx2torch
	.venv/lowest/bin/python -m pytest -m "$(UNMARKED)" --numprocesses 2 --dist loadfile \
	    tests/core tests/graph tests/exporting/onnx tests/recipes tests/device/ssh tests/device/releasing/test_signing.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgeprune needs Python 3.11 or newer: make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[$(EXTRAS)]'
	$(INSTALL) --no-deps onnx2torch  # not by its extra, for which see docs/recipes.md
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(INSTALL) --editable '.[$(EXTRAS),dev]'
	touch $@

clean:
	rm -rf .venv runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
