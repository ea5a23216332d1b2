"""What is left of a disk when the power fails: the least, the most, or a seeded guess in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Protocol

from duraq.testing.disk import Directory, Disk, Fate, File, Names, Node, Resize, Write

SECTOR = 512


class Outcome(Protocol):
    """Decides what a power cut leaves of one file, and of one directory."""

    def content(self, file: File) -> bytearray:
        """The file's bytes afterwards."""

    def entries(self, directory: Directory) -> Mapping[str, Node]:
        """The directory's names afterwards."""


class Nothing:
    """The worst case: what was not synced is gone."""

    def content(self, file: File) -> bytearray:
        return file.durable()

    def entries(self, directory: Directory) -> Mapping[str, Node]:
        return directory.durable()


class Everything:
    """The best case: all of the cache had reached the disk, and so had what a failed sync gave up."""

    def content(self, file: File) -> bytearray:
        return file.cache.copy()

    def entries(self, directory: Directory) -> Mapping[str, Node]:
        return directory.cache


class Chance:
    """Any case: each change that was not synced is kept, torn or lost, independently of the others."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def content(self, file: File) -> bytearray:
        content = file.settled.copy()
        # Drawn once a file: all, half and none stay equally likely however many changes there are.
        share = self._rng.random()
        for change in file.log:
            if change.fate is Fate.SYNCED or self._rng.random() < share:
                change.apply(content)
            elif isinstance(change, Write) and self._rng.getrandbits(1):
                self.tear(change, content)
        return content

    def entries(self, directory: Directory) -> Mapping[str, Node]:
        share = self._rng.random()
        return some_entries(directory, lambda _change: self._rng.random() < share)

    def tear(self, write: Write, content: bytearray) -> None:
        """Apply part of a write: a run of bytes, some sectors, or only the growth of the file, as zeros."""
        rng = self._rng
        kind = rng.choice(("bytes", "sectors", "growth"))
        if kind == "bytes":
            start, end = sorted(rng.randint(write.offset, write.end) for _ in range(2))
            # Half the time the run begins where the write does, half the time it ends there.
            _apply_part(write, rng.choice((write.offset, start)), rng.choice((end, write.end)), content)
        elif kind == "sectors":
            share = rng.random()
            for start in range(write.offset - write.offset % SECTOR, write.end, SECTOR):
                if rng.random() < share:
                    _apply_part(write, max(start, write.offset), min(start + SECTOR, write.end), content)
        if write.end > len(content) and (kind == "growth" or rng.getrandbits(1)):
            # Size is metadata and goes its own way: here it arrived and the bytes did not.
            Resize(rng.randint(len(content), write.end)).apply(content)


def some_entries(directory: Directory, keeps: Callable[[Names], bool]) -> dict[str, Node]:
    """The directory's names if of its changes that were not synced some are kept.

    Names are independent of each other, but each keeps its own order: what follows a lost change of a name is
    lost with it. A rename belongs to both of its names, so it happened to both or to neither.
    """
    content = directory.settled.copy()
    held_back: set[str] = set()
    for change in directory.log:
        kept = keeps(change) and held_back.isdisjoint(change.touched)
        if kept or change.fate is Fate.SYNCED:
            change.apply(content)
            held_back -= change.touched
        else:
            held_back |= change.touched
    return content


def _apply_part(write: Write, start: int, end: int, content: bytearray) -> None:
    if start < end:
        Write(start, write.data[start - write.offset : end - write.offset]).apply(content)


def after_power_cut(disk: Disk, outcome: Outcome) -> Disk:
    """The disk as the next boot finds it: nothing open, nothing locked, nothing pending."""
    survivor = Disk(disk.capacity)
    survivor.inode_numbers = disk.inode_numbers
    _copy_entries(disk.root, survivor.root, survivor, outcome)
    return survivor


def _copy_entries(source: Directory, target: Directory, survivor: Disk, outcome: Outcome) -> None:
    for name, node in outcome.entries(source).items():
        copy: Node
        if isinstance(node, Directory):
            copy = Directory(node.number)
            _copy_entries(node, copy, survivor, outcome)
        else:
            content = outcome.content(node)
            copy = File(node.number, content, _holes(node, len(content)))
            survivor.used += copy.space()
        copy.has_name = True
        target.settled[name] = target.cache[name] = copy


def _holes(file: File, length: int) -> bytearray | None:
    """Which bytes of the surviving file own space; what was not known to be a hole does."""
    return None if file.allocated is None else file.allocated[:length].ljust(length, b"\1")
