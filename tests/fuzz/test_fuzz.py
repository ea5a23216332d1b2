"""Every target, on all that is kept for it, on thousands of inputs made of that, and with a fuzzer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from evidence import count
from fuzz.mutate import mutations
from fuzz.targets import CORPUS, TARGETS, corpus

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
ROOT = Path(__file__).parents[2]
SECONDS = 30
# Inputs made up in an ordinary run; whole storages and command lines take longer.
MADE_UP = dict.fromkeys(TARGETS, 3000) | {"journal": 500, "segment": 400, "note": 300, "arguments": 1000}
SEED = 20261129

pytestmark = pytest.mark.timeout(600 if DEEP else 120)


def attempt(target: str, data: bytes, place: Path) -> None:
    """Give the input to the target; if it fails there, the input is kept to be looked at."""
    try:
        TARGETS[target](data)
    except BaseException as error:
        place.joinpath(target).write_bytes(data)
        raise AssertionError(f"{target} fails on {place / target}: {data[:200]!r}") from error


def test_there_is_a_corpus_of_each_target():
    """Every target has inputs that are kept for it, and nothing else is kept; they are few and small."""
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == TARGETS.keys()
    for target in TARGETS:
        kept = corpus(target)
        assert 2 <= len(kept) <= 40, target
        assert max(map(len, kept)) < 4096, target


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept(target, tmp_path):
    """No input that is kept makes its target fail: real ones, and those that once did."""
    for data in corpus(target):
        attempt(target, data, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_made_of_it(target, tmp_path):
    """No input that is made of those by small changes does either."""
    for data in mutations(corpus(target), MADE_UP[target] * (10 if DEEP else 1), Random(SEED)):
        attempt(target, data, tmp_path)


@pytest.mark.skipif(not DEEP, reason="the fuzzer has half a minute for each target, so in deep runs only")
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (the extra fuzz)")
@pytest.mark.parametrize("target", TARGETS)
def test_with_a_fuzzer(target, tmp_path):
    """A fuzzer that looks for new ways through the code finds none on which a target fails."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        target,
        "--seconds",
        str(SECONDS),
        "--found",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    executed = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    assert executed is not None, done.stderr[-2000:]
    assert int(executed[1]) > len(corpus(target))
    count("fuzzed", int(executed[1]))
