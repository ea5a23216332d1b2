"""Put DuraQ and its peers through the same power cuts, and print what they have lost."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contender import Missing
from benchmarks.power.actor import ActorFailed
from benchmarks.power.disk import KINDS, Disk
from benchmarks.power.queues import OURS, QUEUES, Tried
from benchmarks.power.report import Outcome, as_markdown, as_text, write_into
from benchmarks.power.trial import try_out

CUTS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__)
    parser.add_argument("--cuts", type=int, default=CUTS, help="on ext4; on XFS two fifths of it")
    parser.add_argument("--only", metavar="TEXT", default="", help="queues in whose name or setting this is")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this document")
    options = parser.parse_args(arguments)
    if options.cuts < 1:
        parser.error("--cuts must be at least 1")
    if os.geteuid() != 0:
        parser.error("cutting the power of a loop device needs root")
    outcomes = [_outcome(kind, options.cuts, options.only) for kind in KINDS]
    if options.write is not None:
        write_into(options.write, as_markdown(outcomes, f"make power-cuts CUTS={options.cuts}"))
    return 0 if all(map(_holds, outcomes)) else 1


def _outcome(kind: str, cuts: int, only: str) -> Outcome:
    outcome = Outcome(kind, cuts if kind == "ext4" else max(1, cuts * 2 // 5))
    try:
        with _new_place() as place, Disk(place, kind):
            pass
    except Missing as missing:
        outcome.left_out.append(("every one of them", str(missing)))
    else:
        for queue in QUEUES:
            if only in queue.title:
                _try_out(queue, outcome)
    print(as_text(outcome) + "\n", flush=True)
    return outcome


def _try_out(queue: Tried, outcome: Outcome) -> None:
    print(f"{outcome.kind}: {queue.title}", file=sys.stderr, flush=True)
    try:
        version = queue.version()
        with _new_place() as place:
            found = try_out(queue, place, outcome.kind, outcome.cuts)
    except (Missing, ActorFailed) as error:
        if queue.name == OURS:
            raise
        outcome.left_out.append((queue.title, str(error)))
    else:
        outcome.figures.append((queue.title, version, found))


@contextmanager
def _new_place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="duraq-power-") as place:
        yield Path(place)


def _holds(outcome: Outcome) -> bool:
    """Whether DuraQ has kept everything, unless it was told that it need not."""
    ours = (found for title, _, found in outcome.figures if title.startswith(f"{OURS}: power"))
    return not any(found.lost or found.altered or found.unreadable for found in ours)


if __name__ == "__main__":
    sys.exit(main())
