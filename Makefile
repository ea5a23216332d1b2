# Everything runs in .venv, which is made here; nothing else needs to be installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-deep lint format bench clean

demo: .venv/core.stamp
	$(BIN)/duraq demo

test: .venv/dev.stamp
	$(BIN)/pytest -n auto --dist worksteal

# The same tests with bigger numbers.
test-deep: .venv/dev.stamp
	DURAQ_TEST_DEEP=1 $(BIN)/pytest -n auto --dist worksteal --timeout 3600

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks

.venv/core.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/dev.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ .venv/core.stamp

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
