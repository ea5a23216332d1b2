"""Fuzz one target with atheris: ``python -m tests.fuzz TARGET --seconds 60``, from where ``tests`` lies.

What libFuzzer finds interesting is kept in ``.fuzz/TARGET`` and begun with the next time; an input that a
target fails on is written to ``.fuzz/`` as ``TARGET-crash-...`` (or ``-timeout-``, ``-oom-``).
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 4096
PATIENCE = 20  # seconds for one input; all of them take milliseconds
MEMORY = 2048  # MB, of the process


def main() -> None:
    """Fuzz until the time is over or something is found; ends the process, as libFuzzer does."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description="Fuzz one target with atheris.")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--found", type=Path, default=ROOT / ".fuzz", help="where what is found is kept")
    parser.add_argument("--seed", type=int, default=0, help="of libFuzzer; 0: another one each time")
    given = parser.parse_args()
    import atheris  # noqa: PLC0415 - the extra ``fuzz``, and only here

    # As pytest has it.
    sys.path.insert(0, str(ROOT / "tests"))
    with atheris.instrument_imports(include=["duraq", "durationpy"]):
        targets = import_module("fuzz.targets")
    if given.target not in targets.TARGETS:
        parser.error(f"there is no target {given.target}; there are {', '.join(targets.TARGETS)}")
    kept = given.found / given.target
    kept.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": given.seconds,
        "max_len": LONGEST,
        "timeout": PATIENCE,
        "rss_limit_mb": MEMORY,
        "seed": given.seed,
        "artifact_prefix": f"{given.found}/{given.target}-",
        "print_final_stats": 1,
    }
    # New ones go to the first directory, so that the second is only read.
    corpus = [str(kept), str(targets.CORPUS / given.target)]
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), *corpus],
        targets.TARGETS[given.target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
