# make setup | demo | demo-3d | test | lint | bench | nightly; everything happens inside the clone.
PYTHON_BIN := .venv/bin/python
PYTEST_ARGS ?=
TORCH ?= auto
export TORCH
# Caches stay in the clone, so that a test run leaves nothing behind elsewhere.
export CELLSEG_CACHE ?= $(CURDIR)/.cache/cellseg_pipe
WORKERS ?= auto

.PHONY: setup demo demo-3d test lint bench nightly clean

setup: .venv/.ready

.venv/.ready: pyproject.toml envs/constraints.txt envs/setup.sh
	@sh envs/setup.sh
	@touch $@

demo: .venv/.ready
	$(PYTHON_BIN) workflow/scripts/demo.py 2d

demo-3d: .venv/.ready
	$(PYTHON_BIN) workflow/scripts/demo.py 3d

test: .venv/.ready
	$(PYTHON_BIN) -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --cache-dir .cache/import_linter
	.venv/bin/mypy
	$(PYTHON_BIN) -m numpydoc.hooks.validate_docstrings $$(git ls-files 'cellseg_pipe/*.py')

bench: .venv/.ready
	$(PYTHON_BIN) tests/bench/run.py

nightly: .venv/.ready
	$(PYTHON_BIN) -m pytest tests/nightly -s $(PYTEST_ARGS)
	$(PYTHON_BIN) tests/nightly/plans.py
	$(PYTHON_BIN) tests/nightly/numbering.py
	$(PYTHON_BIN) tests/nightly/tables.py
	$(PYTHON_BIN) tests/nightly/forecasts.py
	$(PYTHON_BIN) tests/bench/scaling.py --edges 4096,8192,16384,32768
	$(PYTHON_BIN) tests/bench/scaling.py --volume 512x2048x2048

clean:
	rm -rf .venv .cache build dist *.egg-info
