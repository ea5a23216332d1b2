"""Each workload once, at a size that measures nothing; and what becomes of those who fail or are missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report, workloads
from benchmarks.__main__ import main
from benchmarks.contender import PAYLOAD_BYTES, Missing, cycles, payload, payloads
from benchmarks.fleet import _Worked, figures
from benchmarks.floors import RecordBytes
from benchmarks.peers import registry
from benchmarks.peers.duraq_itself import DuraQ, record_bytes
from benchmarks.peers.registry import Peer
from benchmarks.runner import Bench
from benchmarks.server import Server, connects
from benchmarks.stage import Stage
from benchmarks.workload import Figures, Workload

SIZE = RecordBytes(enqueue=340, cycle=410)
TINY = {"enqueue": 3, "batch": 1, "work": 3, "work-process": 3, "lives": 8, "crowd": 2, "depth": 2}
TINY |= {"wake": 2, "idle": 1, "kill": 1, "disk": 150, "startup": 1}


def tiny(name: str) -> Workload:
    (found,) = (each for each in workloads.workloads((5, 10)) if each.name == name)
    return replace(found, count=TINY[name])


def bench(directory: Path, only: set[str], peers: dict[str, Peer] | None = None) -> Bench:
    found = registry.contenders(SIZE) if peers is None else peers
    return Bench(found, directory, rounds=1, only=frozenset(only), say=lambda line: None)


@pytest.mark.parametrize("name", [workload.name for workload in workloads.workloads()])
def test_workload_runs(name: str, tmp_path: Path) -> None:
    """DuraQ gets through every workload, loses nothing, and has a figure of each column."""
    workload = tiny(name)
    outcome = bench(tmp_path, {"duraq"}).run(workload)
    assert not outcome.failed
    assert not outcome.broken
    assert outcome.measured == [f"duraq {variant[0]}".rstrip() for variant in workload.variants]
    wanted = {column.metric for column in workload.columns} or {""}
    assert wanted <= {run.metric for run in outcome.runs}
    assert {run.values for run in outcome.runs if run.metric in {"lost", "twice"}} <= {(0,)}
    assert {run.round for run in outcome.runs} == set(range(1, 1 + workload.slices))
    lines = report.outcome_lines(outcome, registry.contenders(SIZE), {})
    assert any(line.startswith("duraq") for line in lines)


@pytest.mark.parametrize("name", ["enqueue", "batch", "work"])
def test_floors_run(name: str, tmp_path: Path) -> None:
    """The floors are measured beside DuraQ, which has its ratios to them."""
    outcome = bench(tmp_path, {"floor A", "floor B", "duraq"}).run(tiny(name))
    lines = report.outcome_lines(outcome, registry.contenders(SIZE), {})
    assert outcome.measured == ["floor A", "floor B", "duraq"]
    assert lines[-1].split()[0] == "duraq"
    assert lines[-1].count("..") == 2


@pytest.mark.parametrize("peer", registry.QUEUES, ids=lambda peer: peer.name)
def test_contender_keeps_what_it_accepted(peer: Peer, tmp_path: Path) -> None:
    """Whatever is compared holds its entries and hands them out once each and in order."""
    try:
        stage = Stage(peer, tmp_path, "power")
    except Missing as missing:
        pytest.skip(str(missing))
    try:
        contender = stage.contender
        contender.enqueue(payload(0))
        contender.enqueue_many(payloads(1, 4))
        assert contender.remaining() == 5
        assert cycles(contender, 3, limit_seconds=60)[0] == [0, 1, 2]
        contender.tidy()
        assert contender.remaining() == 2
        assert contender.lease_within(5) == 3
        contender.complete()
        assert cycles(contender, 9, limit_seconds=60)[0] == [4]
        assert contender.lease() is None
        assert contender.lease_within(0.02) is None
        assert contender.remaining() == 0
        assert stage.bytes_on_disk() >= stage.bytes_on_disk(preallocated=False) > 0
    finally:
        stage.close()


def broken(problem: Exception) -> Callable[[Stage, int], Figures]:
    def measure(stage: Stage, count: int) -> Figures:
        raise problem

    return measure


def test_missing_peer_is_named(tmp_path: Path) -> None:
    """A peer that is not installed is a line with the reason, and no failure."""

    def version() -> str:
        raise Missing("the package is not there")

    absent = Peer("absent", version, {"power": "its defaults"}, DuraQ)
    peers = {"absent": absent, "duraq": registry.contenders(SIZE)["duraq"]}
    workload = replace(tiny("enqueue"), contenders=("absent", "duraq"))
    outcome = bench(tmp_path, set(), peers).run(workload)
    assert outcome.left_out == {"absent": "the package is not there"}
    assert not outcome.broken
    assert "  absent: not measured, the package is not there" in report.outcome_lines(outcome, peers, {})
    assert "absent is left out: the package is not there" in report.peer_lines(peers)


@pytest.mark.parametrize(("name", "is_broken"), [("duraq", True), ("sqlite", False)])
def test_failure_is_named(name: str, is_broken: bool, tmp_path: Path) -> None:
    """A contender that fails is a line with the error; only a failure of ours is one of the run."""
    workload = replace(tiny("enqueue"), measure=broken(OSError("no space\nand much more")))
    outcome = bench(tmp_path, {name}).run(workload)
    assert outcome.failed == {name: "in round 0, OSError: no space"}
    assert outcome.broken is is_broken
    assert outcome.measured == []
    lines = report.outcome_lines(outcome, registry.contenders(SIZE), {})
    assert f"  {name}: FAILED in round 0, OSError: no space" in lines


def test_mode_that_a_peer_does_not_have(tmp_path: Path) -> None:
    """A peer without the durability that is asked for is not measured in another."""
    peer = replace(registry.contenders(SIZE)["duraq"], settings={"power": "always"})
    with pytest.raises(Missing, match="no durability like 'process'"):
        Stage(peer, tmp_path, "process")


def test_lost_and_twice_are_counted() -> None:
    """Numbers that never came are lost, those that came again are twice, and neither counts as a life."""
    found = figures(5, [_Worked([0, 1, 3], 3_000_000_000), _Worked([1, 3, 3], 2_000_000_000)], 1_000_000_000)
    assert found == {"": [1.5], "lost": [2], "twice": [3]}


def test_server_that_ends_says_why(tmp_path: Path) -> None:
    """A server that does not come up is missing, with its own last words."""
    command = (sys.executable, "-c", "import sys; sys.exit('no such option')")
    server = Server(lambda port: command, connects, tmp_path / "log")
    with pytest.raises(Missing, match="ended with status 1: no such option"):
        server.start()
    assert server.pid is None


def test_server_is_stopped(tmp_path: Path) -> None:
    """A server answers on its port until its stage is over, and is gone then."""
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\nwhile 1: s.accept()"
    )
    server = Server(lambda port: (sys.executable, "-c", program, str(port)), connects, tmp_path / "log")
    with server:
        assert connects(server.port)
    assert not connects(server.port)


def test_payloads_have_their_size(tmp_path: Path) -> None:
    """Every payload is as long as the tables say, and a floor writes as many bytes as DuraQ does."""
    import orjson  # noqa: PLC0415

    assert {len(orjson.dumps(payload(number))) for number in (0, 9, 12_345_678)} == {PAYLOAD_BYTES}
    size = record_bytes(tmp_path)
    assert size.enqueue > PAYLOAD_BYTES
    assert size.cycle > 0


def test_run_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints tables and budgets, and writes the JSON and the chart that it is told to."""
    monkeypatch.setattr("benchmarks.machine.IN_MEMORY", frozenset())  # it measures nothing here
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    files = ["--json", str(tmp_path / "results" / "r.json"), "--chart", str(tmp_path / "results" / "c.svg")]
    arguments = ["--quick", "--no-syncs", "--only", "enqueue", "--contenders", "floor A,duraq"]
    assert main(["--dir", str(tmp_path), *arguments, *files]) == 0
    out = capsys.readouterr().out
    assert "enqueue: one durable enqueue at a time" in out
    assert "not counted" in out
    assert "enqueue, median ≥ 1.10 x floor A" in out
    assert "</svg>" in (tmp_path / "results" / "c.svg").read_text()
    assert '"enqueue"' in (tmp_path / "results" / "r.json").read_text()
