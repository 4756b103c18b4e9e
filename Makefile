# Two commands do everything on a fresh machine with git, make and Python 3.11 or newer:
#   make demo    installs, then prunes, quantizes, exports, measures and judges a small net on this machine
#   make test    installs, then runs every check and test that takes no board
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := ssh,sign,report,tflite,recipes
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-devices check format clean

demo: .venv/.demo
	$(BIN)/edgeprune deploy --target local
	@echo 'this shell knows `edgeprune` after: . $(BIN)/activate'

test: check
	sh deploy/setup/test_packages.sh
	$(BIN)/python -m pytest -m "not device and not slow and not alone" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "not device and not slow and alone"

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
	$(INSTALL) --editable '.[$(EXTRAS)]'
	$(INSTALL) --no-deps onnx2torch  # not by its extra, for which see docs/recipes.md
	touch $@

.venv/.dev: .venv/.demo
	$(INSTALL) --editable '.[$(EXTRAS),dev]'
	touch $@

clean:
	rm -rf .venv runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
