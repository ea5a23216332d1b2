# Everything runs in .venv, which is made here; nothing else needs to be installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-deep coverage fuzz evidence lint format man bench bench-day bench-screen bench-check bench-baseline power-cuts clean

demo: .venv/screen.stamp
	$(BIN)/duraq demo --dash

test: .venv/dev.stamp
	$(BIN)/pytest -n auto --dist worksteal

# The same tests with bigger numbers, and then what they have tried, counted.
test-deep: .venv/dev.stamp .venv/fuzz.stamp
	rm -f .evidence.jsonl
	DURAQ_TEST_DEEP=1 $(BIN)/pytest -n auto --dist worksteal --timeout 3600
	$(BIN)/python tests/evidence.py

# Which lines and branches of the journal and the file storage the tests pass by; the processes that they start
# are counted as well, those that they kill are not.
coverage: .venv/dev.stamp
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist worksteal --timeout 600
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# One target of tests/fuzz for so many seconds; what is found goes to .fuzz/.
TARGET ?= where
SECONDS ?= 60
fuzz: .venv/dev.stamp .venv/fuzz.stamp
	$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(SECONDS)

evidence:
	$(PYTHON) tests/evidence.py

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# docs/duraq.1, of what the commands say of themselves.
man: .venv/dev.stamp
	$(BIN)/python docs/make_man.py

# BENCH=--quick for a smoke run, BENCH=--deep for depths up to ten million, BENCH=--help for the rest.
bench: .venv/bench.stamp
	$(BIN)/python -m benchmarks --json benchmarks/results/latest.json \
		--chart benchmarks/results/latest.svg $(BENCH)

# One queue's day in fast motion: what it takes of the disk and of memory, and whether anything is lost.
DAY ?= 2000000
bench-day: .venv/core.stamp
	$(BIN)/python -m benchmarks.day $(DAY)

# DuraQ and its peers through the same power cuts: on ext4 so many, on XFS two fifths of it. Needs root and
# Debian's e2fsprogs and xfsprogs, and writes the tables into the document as well.
CUTS ?= 20
power-cuts: .venv/power.stamp
	$(BIN)/python -m benchmarks.power --cuts $(CUTS) --write docs/GUARANTEES.md

# The dashboard in a terminal, against what it is to cost: SCREEN='--queues 50 --records 60000 --dead 10000' for
# a smaller storage than the 6 GB one that is made in /dev/shm, and removed.
SCREEN ?= --in /dev/shm
bench-screen: .venv/dev.stamp
	$(BIN)/python -m benchmarks.screen $(SCREEN)

# Against the ratios of benchmarks/baseline.json, which bench-baseline makes anew.
bench-check: .venv/core.stamp
	$(BIN)/python -m benchmarks.guard check

bench-baseline: .venv/core.stamp
	$(BIN)/python -m benchmarks.guard record

.venv/core.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

# The dashboard's packages. Where they cannot be installed, the demo does without, and says so.
.venv/screen.stamp: .venv/core.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dashboard]' || true
	touch $@

.venv/dev.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ .venv/core.stamp

# Where it cannot be installed, the tests that need it are skipped, and say so.
.venv/fuzz.stamp: .venv/dev.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || true
	touch $@

# The peers' packages, in a directory of their own (benchmarks/packages.py says why). One that cannot be
# installed must not keep the others out: the benchmark names it.
PEERS := .venv/bench-peers
.venv/bench.stamp .venv/power.stamp: .venv/%.stamp: .venv/core.stamp benchmarks/extra.py
	$(BIN)/python benchmarks/extra.py $* > $(PEERS).txt
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target $(PEERS) -r $(PEERS).txt || \
		xargs -a $(PEERS).txt -d '\n' -n 1 \
		$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target $(PEERS) || true
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
