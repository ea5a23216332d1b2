"""A small storage on the disk, for tests that damage it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duraq import FileStorage, StorageDamaged
from duraq.journal import frame
from duraq.journal.frame import Frame
from duraq.journal.journal import HEADER_BYTES, Header
from duraq.journal.log import Sizes
from duraq.operations import Enqueue
from duraq.testing import FakeClock

# The processes' notes and locks: the first to open a storage writes them anew.
_DERIVED = (".index", ".checkpoint")
_NOTES = ("journal/lock", "journal/presence", "journal/recycle", "journal/reserve")
_TEXT = b'"%s"' % (b"x" * 100)


# Segments of a dozen entries.
TINY = Sizes(journal=16 << 10, segment=2 << 10)


@pytest.fixture
def open_tiny(tmp_path, clock):
    """Open the same storage, with tiny segments, as often as wanted."""
    opened = []

    def make(**options):
        storage = FileStorage(tmp_path / "queues", **{"clock": clock, "sizes": TINY} | options)
        opened.append(storage)
        return storage

    yield make
    for storage in opened:
        storage.close()


class Stored:
    """A storage in files, with a journal of which one file holds some thirty entries."""

    def __init__(self, path: Path, segment: int = 1 << 20) -> None:
        self.path = path
        self._sizes = Sizes(journal=8 << 10, segment=segment)

    @contextmanager
    def opened(self, **options: str) -> Iterator[FileStorage]:
        with FileStorage(self.path, clock=FakeClock(), sizes=self._sizes, **options) as storage:
            yield storage

    def write(self, queue: str, *numbers: int, **options: str) -> None:
        """An entry, and so a frame, of each number."""
        with self.opened(**options) as storage:
            for number in numbers:
                storage.commit({queue: [Enqueue(f"{queue}-{number}", _TEXT)]})

    def read(self) -> dict[str, list[int]]:
        """The numbers in each queue, as whoever opens it finds them."""
        with self.opened() as storage:
            return {
                queue: [int(entry.id.partition("-")[2]) for entry in storage.entries(queue)]
                for queue in storage.queues()
            }

    # -- files -----------------------------------------------------------------------------------------

    def journal(self, epoch: int) -> Path:
        return self.path / "journal" / f"{epoch % 2}.journal"

    def header(self, epoch: int) -> Header | None:
        """What stands in that epoch's file, whatever its epoch is now."""
        return Header.decode(self.journal(epoch).read_bytes())

    def frames(self, epoch: int) -> list[tuple[int, Frame]]:
        """The frames of that epoch in its file, each with the byte at which it begins."""
        content = self.journal(epoch).read_bytes()
        found = []
        at = HEADER_BYTES
        while (each := frame.decode(content, at)) is not None and each.epoch == epoch:
            found.append((at, each))
            at += each.length
        return found

    def segments(self, queue: str) -> list[Path]:
        return sorted((self.path / queue / "segments").glob("*.jsonl"))

    def forget(self) -> None:
        """Remove every checkpoint, so that the next opener folds all records there are."""
        for file in self.path.glob("*/segments/*.checkpoint"):
            file.unlink()

    def quarantined(self, queue: str) -> dict[str, bytes]:
        """What was cut off, by the name it is kept under."""
        directory = self.path / queue / "quarantine"
        return {file.name: file.read_bytes() for file in directory.iterdir()} if directory.exists() else {}

    def contents(self) -> dict[str, bytes]:
        """Every file's bytes by its name, but for the notes and what is derived from the records."""
        files = {str(each.relative_to(self.path)): each for each in self.path.rglob("*") if each.is_file()}
        return {
            name: file.read_bytes()
            for name, file in sorted(files.items())
            if name not in _NOTES and file.suffix not in _DERIVED
        }

    # -- damage ----------------------------------------------------------------------------------------

    @staticmethod
    def overwrite(file: Path, at: int, data: bytes) -> None:
        """Put other bytes there."""
        content = file.read_bytes()
        file.write_bytes(content[:at] + data + content[at + len(data) :])

    def flip(self, file: Path, at: int) -> None:
        """One bit there is another."""
        self.overwrite(file, at, bytes([file.read_bytes()[at] ^ 1]))

    def refused(self, path: str, byte: int | None) -> None:
        """Opening names that file and that byte, twice, and changes nothing."""
        before = self.contents()
        for _ in range(2):
            with pytest.raises(StorageDamaged) as caught, self.opened():
                pass
            assert (caught.value.path, caught.value.byte) == (path, byte)
            assert self.contents() == before


@pytest.fixture
def stored(tmp_path, one_thread):
    """An empty place for a storage."""
    return Stored(tmp_path / "storage")
