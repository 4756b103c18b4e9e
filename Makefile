# Two commands do everything on a fresh machine with git, make and Python 3.11 or newer:
#   make demo    installs, then prunes, quantizes, exports, measures and judges a small net on this machine
#   make test    installs, then runs every check and test that takes no board
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo quick test test-devices check format clean
APART := --numprocesses 2 --dist loadfile
SHORT := not device and not slow
QUICK := tests/core tests/graph tests/pruning tests/recipes tests/stages tests/cli/test_catalog.py tests/test_run.py \
  tests/test_scopes.py tests/test_docs.py tests/test_threats.py tests/test_versions.py

demo: .venv/.demo
	$(BIN)/edgeprune deploy --target local
	@echo 'this shell knows `edgeprune` after: . $(BIN)/activate'

# before a commit, in under three minutes: no board, no export, no whole run
quick: check
	$(BIN)/python -m pytest -m "$(SHORT) and not alone" $(APART) $(QUICK)

test: check
	sh deploy/setup/test_packages.sh
	$(BIN)/python -m pytest -m "$(SHORT) and not alone" $(APART)
	$(BIN)/python -m pytest -m "$(SHORT) and alone"

test-devices: .venv/.dev
	sh deploy/setup/test_packages.sh
	$(BIN)/python -m pytest -m "device or slow"

check: .venv/.dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgeprune needs Python 3.11 or newer: make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[tflite,recipes]'
	$(INSTALL) --no-deps onnx2torch  # its torchvision has no CPU build; ONNX input does without
	touch $@

.venv/.dev: .venv/.demo
	$(INSTALL) --editable '.[tflite,recipes,dev]'
	touch $@

clean:
	rm -rf .venv runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
