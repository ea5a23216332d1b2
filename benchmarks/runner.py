"""Runs workloads: everybody in every round, in turn, and whoever fails is named."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contender import Missing
from benchmarks.figures import Run, Spread, format_figure
from benchmarks.peers.registry import OURS, Peer
from benchmarks.stage import Stage
from benchmarks.workload import Workload


def say(line: str) -> None:
    """Progress goes to stderr; stdout is for the tables."""
    print(line, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Outcome:
    """What came of one workload. ``first_variants`` has each contender's, in the order of the table."""

    workload: Workload
    runs: list[Run] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    first_variants: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[str]:
        """Those that have figures, in the order of the table."""
        found = {run.contender for run in self.runs}
        return [label for label in self.first_variants if label in found]

    @property
    def broken(self) -> bool:
        """One of ours failed or is missing: not a figure of a comparison, but an error."""
        return any(label.startswith(OURS) for label in (*self.failed, *self.left_out))


@dataclass(frozen=True, slots=True)
class Bench:
    """Who is compared, where, how often and how much; no ``only`` is everybody."""

    peers: Mapping[str, Peer]
    directory: Path
    rounds: int
    quick: bool = False
    only: frozenset[str] = frozenset()
    say: Callable[[str], None] = say

    def wants(self, name: str) -> bool:
        return not self.only or name in self.only

    def run(self, workload: Workload) -> Outcome:
        outcome = Outcome(workload)
        outcome.left_out.update((name, why) for name, why in workload.left_out.items() if self.wants(name))
        with ExitStack() as stack:
            stages = self._set_up(outcome, stack)
            outcome.runs += self._rounds(outcome, stages)
        return outcome

    def _set_up(self, outcome: Outcome, stack: ExitStack) -> list[Stage]:
        """Its contenders, open until the stack unwinds."""
        stages: list[Stage] = []
        for name in outcome.workload.contenders:
            if name in outcome.left_out or not self.wants(name):
                continue
            try:
                stages += self._variants(outcome, self.peers[name], stack)
            except Missing as missing:
                outcome.left_out[name] = str(missing)
                self.say(f"{outcome.workload.name}: without {name}: {missing}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this contender's
                self._fail(outcome, name, f"before the first round, {_words(error)}")
        return stages

    def _variants(self, outcome: Outcome, peer: Peer, stack: ExitStack) -> Iterator[Stage]:
        workload = outcome.workload
        first = ""
        for variant in workload.variants:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.directory)))
            stage = Stage(peer, home, workload.durability, variant)
            stack.callback(self._close, stage)
            if workload.prepare:
                self.say(f"{workload.name}: {stage.label} is prepared")
                workload.prepare(stage)
            first = first or stage.label
            outcome.first_variants[stage.label] = first
            yield stage

    def _rounds(self, outcome: Outcome, stages: list[Stage]) -> Iterator[Run]:
        workload = outcome.workload
        rounds = 1 if workload.once else self.rounds * (1 if self.quick else workload.slices)
        # Round 0 warms up and does not count: SQLite's log, for one, grows until its first checkpoint.
        for number in range(0 if workload.warm_up else 1, rounds + 1):
            turn = number % max(1, len(stages))
            for stage in stages[turn:] + stages[:turn]:
                # What a predecessor left unwritten must not be written in this one's time.
                os.sync()
                try:
                    figures = workload.measure(stage, self._count(workload))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is this contender's
                    self._fail(outcome, stage.label, f"in round {number}, {_words(error)}")
                    stages = [other for other in stages if other is not stage]
                    continue
                found = [
                    Run(workload.name, stage.label, number, tuple(values), metric)
                    for metric, values in figures.items()
                ]
                self.say(_progress(workload, found[0], rounds))
                if number:
                    yield from found

    def _count(self, workload: Workload) -> int:
        return workload.quick_count if self.quick else workload.count

    def _close(self, stage: Stage) -> None:
        try:
            stage.close()
        except Exception as error:  # noqa: BLE001 - the figures are there already
            self.say(f"{stage.label} did not close: {_words(error)}")

    def _fail(self, outcome: Outcome, label: str, why: str) -> None:
        outcome.failed[label] = why
        self.say(f"{outcome.workload.name}: {label} failed {why}")


def _words(error: Exception) -> str:
    """Of an error that may come with a page of them, the first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _progress(workload: Workload, run: Run, rounds: int) -> str:
    stage = f"round {run.round}/{rounds}" if run.round else "warm-up"
    figure = format_figure(Spread.of(run.values).median)
    return f"{workload.name}, {stage}: {run.contender} {figure} {workload.unit}"
