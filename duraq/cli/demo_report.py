"""What the demo found: the comparison with a straight loop, and how it is shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from duraq import QueueEntry
from duraq.cli.demo_job import Measured, SourceFile
from duraq.safe_text import safe_text

# A measured file, or the error that it ended in, as text.
Outcome = Measured | str


@dataclass(frozen=True)
class Comparison:
    """The queue's work beside the straight loop's, in numbers of files."""

    files: int
    lost: int  # neither completed with a result nor dead
    twice: int  # completed, or given up, more than once
    differing: int  # a result, or an error, that is not the straight loop's
    failures_expected: int
    failures_found: int  # dead letters with the straight loop's error

    @property
    def holds(self) -> bool:
        """Whether every file was worked exactly once, and as the straight loop did it."""
        return not (self.lost or self.twice or self.differing) and (
            self.failures_found == self.failures_expected
        )


def compare(
    expected: Mapping[str, Outcome], found: Iterable[tuple[str, Outcome]], completions: Mapping[str, int]
) -> Comparison:
    """Compare by path. ``found`` has the results and the dead letters' errors.

    ``completions`` counts records of completion, of which each entry may have one. Results would not do: a
    worker may die between recording one and completing its entry, and then there are rightly two attempts.
    """
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for path, outcome in found:
        outcomes[path].append(outcome)
    lost = twice = differing = failures_found = 0
    for path, right in expected.items():
        deaths = sum(isinstance(outcome, str) for outcome in outcomes[path])
        ends = completions.get(path, 0) + deaths
        lost += not ends or not outcomes[path]
        twice += ends > 1
        differing += any(outcome != right for outcome in outcomes[path])
        failures_found += isinstance(right, str) and outcomes[path] == [right]
    # What nobody asked for is wrong whatever it is.
    differing += len(outcomes.keys() - expected.keys())
    failures_expected = sum(isinstance(right, str) for right in expected.values())
    return Comparison(len(expected), lost, twice, differing, failures_expected, failures_found)


@dataclass(frozen=True)
class Stretch:
    """So many things done in so many seconds."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """How many a second."""
        return self.count / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Kill:
    """A worker killed while it held an entry, and the worker that got the entry next."""

    id: str
    worker: str
    cause: str
    next_worker: str
    attempt: int
    back_after: float  # seconds, from the kill to the record of the next lease


@dataclass(frozen=True)
class DeadGroup:
    """Dead letters of one kind of error; ``tried_at`` and ``message`` are the first one's."""

    error: str
    count: int
    message: str
    tried_at: tuple[float, ...]  # seconds after its first attempt


@dataclass(frozen=True)
class Report:
    """All that the demo has to say."""

    directory: str
    storage: str
    workers: int  # at a time
    took_part: int  # workers that had at least one entry
    comparison: Comparison
    enqueue: Stretch
    work: Stretch
    loop: Stretch
    kill: Kill
    dead_letters: Sequence[DeadGroup]
    seconds: float
    look: Sequence[tuple[str, str]]  # a command, and what it shows

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        fields = asdict(self) | {"look": [command for command, _ in self.look]}
        return {"schema": "duraq.demo/1", "holds": self.comparison.holds, **fields}


def group_by_error(dead: Iterable[QueueEntry[SourceFile]]) -> list[DeadGroup]:
    """The dead letters by the type of their last error, most frequent first."""
    first: dict[str, QueueEntry[SourceFile]] = {}
    counted: Counter[str] = Counter()
    for entry in dead:
        kind = entry.errors[-1].error.type
        first.setdefault(kind, entry)
        counted[kind] += 1
    groups = []
    for kind, count in counted.most_common():
        history = first[kind].errors
        begin = history[0].started_at
        tried_at = tuple((attempt.started_at - begin).total_seconds() for attempt in history)
        groups.append(DeadGroup(kind, count, history[-1].error.message, tried_at))
    return groups


def as_text(report: Report) -> Iterator[str]:
    """The report's lines, for people."""
    compared, kill = report.comparison, report.kill
    back = f"{kill.back_after * 1000:.1f} ms later, attempt {kill.attempt}"
    by = f"by {report.took_part} processes, {report.workers} at a time; every step synced"
    yield f"Lines and SHA-256 of the files below {safe_text(report.directory)}"
    yield ""
    yield "Compared with a straight loop over the same files"
    yield f"  {'files':<12}{compared.files:>8,}"
    yield f"  {'lost':<12}{compared.lost:>8,}"
    yield f"  {'twice':<12}{compared.twice:>8,}"
    yield f"  {'differing':<12}{compared.differing:>8,}"
    yield f"  {'failures':<12}{compared.failures_found:>8,}   of {compared.failures_expected:,} expected"
    yield ""
    yield "How fast"
    yield _stretch("enqueue", report.enqueue, "in batches, each synced")
    yield _stretch("work", report.work, by)
    yield _stretch("loop", report.loop, "one process, no queue, nothing kept")
    yield f"  {'in all':<19}{report.seconds:>8.2f} s"
    yield ""
    yield "A worker was killed (SIGKILL) while it held an entry"
    yield f"  {'entry':<12}{kill.id}"
    yield f"  {'held by':<12}{kill.worker}, until {kill.cause}"
    yield f"  {'then by':<12}{kill.next_worker}, {back}"
    yield ""
    yield "Dead letters, by error"
    width = max((len(group.error) for group in report.dead_letters), default=0)
    for group in report.dead_letters:
        tried = ", ".join(f"{seconds:.1f}" for seconds in group.tried_at)
        yield f"  {group.count} x {safe_text(group.error):<{width}}  tried at {tried} s"
        yield f"      {safe_text(group.message, 100)}"
    yield ""
    yield f"All of it is kept in {safe_text(report.storage)}; look around"
    for command, shows in report.look:
        yield f"  # {shows}"
        yield f"  {command}"
    yield ""
    yield "The comparison holds." if compared.holds else "The comparison does NOT hold."


def _stretch(name: str, stretch: Stretch, how: str) -> str:
    return f"  {name:<12}{stretch.count:>7,}{stretch.seconds:>8.2f} s{stretch.rate:>11,.0f} a second   {how}"
