# Two commands do everything on a fresh machine: `make demo` and `make test`.
# PYTHON: any Python >= 3.11. LOCK=requirements-gpu.lock installs FAISS for the GPU instead of the CPU.
PYTHON ?= python3
LOCK ?= requirements.lock
BIN := .venv/bin

.PHONY: setup demo test test-long lint lock clean

setup: .venv/installed

# pip is told nothing about where packages come from: that is the machine's own configuration.
.venv/installed: $(LOCK) pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("das-attribution needs Python 3.11 or newer; this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet --requirement $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . --editable ./client
	touch $@

demo: setup
	$(BIN)/das demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Half of what a test takes is waiting: for a process to start, a page to load, a picture's turn. So there are twice as
# many processes as cores. tests/conftest.py says in which order they begin.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

# What takes minutes: tests marked slow, and property tests with many more examples. Not part of `make test`.
test-long: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "slow or hypothesis" --hypothesis-profile=long --timeout=3600

# Rewrites the locks from pyproject.toml; needs uv (https://docs.astral.sh/uv/).
lock:
	uv pip compile --universal --python-version 3.11 --no-annotate --no-header --quiet --upgrade \
		--extra cpu --extra postgres --extra s3 --extra telemetry --extra demo --extra dev pyproject.toml --output-file requirements.lock
	uv pip compile --universal --python-version 3.11 --no-annotate --no-header --quiet --upgrade \
		--extra gpu --extra postgres --extra s3 --extra telemetry --extra demo --extra dev pyproject.toml --output-file requirements-gpu.lock

clean:
	rm -rf .venv var build dist
