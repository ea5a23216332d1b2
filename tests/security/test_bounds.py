"""Files that have become huge, by accident or on purpose: what reads them takes no more memory for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from duraq import FileStorage, Queue
from duraq.journal import frame
from duraq.journal.journal import HEADER_BYTES
from duraq.journal.log import Sizes

HUGE = 256 << 20  # more than the readers below may have
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
COUNT = 120

# Everything is imported before the limit is set, so that only what is read counts.
READER = """
import logging, resource, sys
import duraq.inspector, duraq.storage.file
from duraq import FileStorage, Queue
from duraq.cli.stage import run_safely
from duraq.cli import cli, look
from duraq.errors import DuraqError
from duraq.inspector import Inspector

path, *how = sys.argv[1:]
logging.disable()
with open("/proc/self/statm") as about:
    size = int(about.read().split()[0]) * resource.getpagesize() + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
if how:
    sys.exit(run_safely(cli, ["-C", path, *how]))
for kind in Inspector, FileStorage:
    try:
        with kind(path) as opened:
            if kind is Inspector:
                opened.records(last=3)
                print(*(entry.payload.decode() for entry in opened.entries("jobs")))
            else:
                print(*(entry.data for entry in Queue("jobs", opened).entries()))
    except DuraqError as error:
        print(type(error).__name__, error)
"""


def read(path: Path, *command: str) -> str:
    """What a process of little memory prints."""
    program = [sys.executable, "-c", READER, str(path), *command]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert "MemoryError" not in done.stdout + done.stderr
    assert command or (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout + done.stderr


def look_and_open(path: Path) -> list[str]:
    """What such a process sees of the storage, as one that only looks and then as one that opens it."""
    looked, opened = read(path).splitlines()
    return [looked, opened]


@pytest.fixture
def path(tmp_path):
    """A storage of some segments, of which the journal holds the last ones only."""
    with FileStorage(tmp_path / "q", sizes=SIZES, durability="process") as storage:
        jobs = Queue("jobs", storage)
        for number in range(COUNT):
            jobs.enqueue(number)
    return tmp_path / "q"


NUMBERS = " ".join(map(str, range(COUNT)))


def segments(path: Path) -> list[Path]:
    return sorted((path / "jobs" / "segments").glob("*.jsonl"))


def forget(path: Path) -> None:
    """Have the next reader fold all records."""
    for name in ("*.checkpoint", "*.index"):
        for file in (path / "jobs" / "segments").glob(name):
            file.unlink()


def stretch(file: Path) -> None:
    """Have the file go on with zeros for a long time."""
    with file.open("r+b") as opened:
        opened.truncate(HUGE)


def never_end(segment: Path) -> int:
    """Have its fourth line go on for ever; returns at which byte that begins."""
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:3]))
    stretch(segment)
    return len(b"".join(lines[:3]))


def test_a_torn_end_of_any_length_is_cut(path):
    """A segment that goes on for ever behind its last record is read up to there, and cut by who opens it."""
    before = segments(path)[-1].stat().st_size
    stretch(segments(path)[-1])
    assert look_and_open(path) == [NUMBERS, NUMBERS]
    assert segments(path)[-1].stat().st_size == before


def test_a_line_without_an_end_is_damage(path):
    """A line among durable ones that goes on for ever is damage, told with its file, line and byte."""
    forget(path)
    first = segments(path)[0]
    byte = never_end(first)
    for said in look_and_open(path):
        assert said.startswith("StorageDamaged")
        assert f"{first.name}: line 4, byte {byte}: the line is longer than any record" in said


@pytest.mark.parametrize("command", ["tail -n 1000", "show ID", "stats"])
def test_commands_say_so_too(path, command):
    """No command runs out of memory over a line that goes on for ever, nor leaves it unsaid if it matters."""
    with FileStorage(path) as storage:
        entry = Queue("jobs", storage).entries()[-1].id
    forget(path)
    never_end(segments(path)[0])
    said = read(path, *command.replace("ID", entry).split())
    assert (entry if command == "show ID" else "longer than any record") in said


def test_journal_files_of_any_length(path):
    """A journal file that has become longer than its header says is read as far as that."""
    for name in ("0.journal", "1.journal"):
        stretch(path / "journal" / name)
    assert look_and_open(path) == [NUMBERS, NUMBERS]


def test_a_frame_of_any_length(path):
    """A frame whose length is not that of its bytes ends the journal, and nothing of that length is read."""
    for name in ("0.journal", "1.journal"):
        file = path / "journal" / name
        content = bytearray(file.read_bytes())
        at = content.find(frame.MAGIC, HEADER_BYTES)
        while at >= 0:
            content[at + 28 : at + 32] = b"\xff\xff\xff\xff"
            at = content.find(frame.MAGIC, at + 1)
        file.write_bytes(content)
    assert all(NUMBERS.startswith(said) for said in look_and_open(path))


@pytest.mark.parametrize("suffix", [".checkpoint", ".index"])
def test_derived_files_of_any_length_are_made_again(path, suffix):
    """An index or a checkpoint that has become longer is none, and is made again from the records."""
    derived = list((path / "jobs" / "segments").glob(f"*{suffix}"))
    assert derived
    for file in derived:
        stretch(file)
    assert look_and_open(path) == [NUMBERS, NUMBERS]


def test_a_note_of_the_ends_of_any_length_is_damage(path):
    """``ends.jsonl`` is needed, so one that has become longer is damage."""
    stretch(path / "journal" / "ends.jsonl")
    for said in look_and_open(path):
        assert said.startswith("StorageDamaged")
        assert "journal/ends.jsonl" in said


@pytest.mark.parametrize("name", ["duraq.json", "journal/poison.json", "jobs/damaged.json"])
def test_marks_of_any_length_are_not_read_whole(path, name):
    """A mark that has become longer costs no memory, whatever it then says."""
    (path / name).touch()
    stretch(path / name)
    for said in look_and_open(path):
        assert said == NUMBERS or said.split()[0] == "NotAStorage"


def test_what_another_process_appends_is_not_read_whole(path):
    """Who has the queue open takes an endless line of another process for damage, without reading it."""
    program = """
import resource, sys
from duraq import FileStorage, Queue
from duraq.errors import StorageDamaged
from duraq.journal.log import Sizes
with FileStorage(sys.argv[1]) as mine, FileStorage(sys.argv[1]) as theirs:
    mine, theirs = Queue("jobs", mine), Queue("jobs", theirs)
    len(mine), len(theirs)
    theirs.enqueue("seen")
    with open("/proc/self/statm") as about:
        size = int(about.read().split()[0]) * resource.getpagesize() + (96 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with open(sys.argv[2], "r+b") as segment:
        segment.truncate(int(sys.argv[3]))
    for call in (len, lambda queue: queue.enqueue("next")):
        try:
            call(mine)
        except StorageDamaged as error:
            print(error)
"""
    command = [sys.executable, "-c", program, str(path), str(segments(path)[-1]), str(HUGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout.count("longer than any record") == 2
