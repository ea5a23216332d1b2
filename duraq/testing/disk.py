"""A disk in memory: what every process sees, and what a power cut would leave of it.

Every file and directory holds its content twice. ``cache`` is the page cache: all changes, at once, for
everybody. ``settled`` is the platter. In between lies ``log``, the changes since, in order, each with a fate:

    PENDING   made, not synced: a power cut may keep it, tear it or lose it
    SYNCED    durable; still in the log only because a lost change lies before it
    LOST      a sync failed on it: the cache shows it, no later sync writes it, a power cut may keep it or not
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from enum import Enum
from itertools import count, takewhile
from typing import Any, Generic, Protocol, TypeVar

Fate = Enum("Fate", "PENDING SYNCED LOST")


@dataclass(slots=True)
class Write:
    """Bytes put at an offset, with zeros before it if the file was shorter."""

    offset: int
    data: bytes
    fate: Fate = Fate.PENDING

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    def apply(self, content: bytearray) -> None:
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.end] = self.data

    def __deepcopy__(self, _: object) -> Write:
        # Most of a disk that is copied, which tests do ten thousands of times.
        return Write(self.offset, self.data, self.fate)


@dataclass(slots=True)
class Resize:
    """A file cut, or extended with zeros, to a length."""

    length: int
    fate: Fate = Fate.PENDING

    def apply(self, content: bytearray) -> None:
        del content[self.length :]
        content.extend(bytes(self.length - len(content)))


@dataclass(slots=True)
class Names:
    """A name taken away, a name given to ``node``, or both at once: a rename."""

    removed: str | None
    added: str | None
    node: Node
    fate: Fate = Fate.PENDING

    @property
    def touched(self) -> set[str]:
        return {name for name in (self.removed, self.added) if name is not None}

    def apply(self, content: dict[str, Node]) -> None:
        if self.removed is not None and self.added is not None:
            # By node and not by name: if an earlier rename was lost, this one still leaves it a single name.
            for name in [name for name, node in content.items() if node is self.node]:
                del content[name]
        if self.removed is not None:
            content.pop(self.removed, None)
        if self.added is not None:
            content[self.added] = self.node


Content = TypeVar("Content")
Content_contra = TypeVar("Content_contra", contravariant=True)


class Change(Protocol[Content_contra]):
    """One step in the history of a file's or a directory's content."""

    fate: Fate

    def apply(self, content: Content_contra, /) -> None: ...


Step = TypeVar("Step", bound=Change[Any])


class Inode(Generic[Content, Step]):
    """What a file and a directory have in common: content in two places, locks, and failed syncs."""

    def __init__(self, number: int, content: Content) -> None:
        self.number = number
        self.settled = content
        # The same object until the first change: most files of most power cuts are only read.
        self.cache = content
        self.log: list[Step] = []
        self.has_name = False
        self.opened: set[Description] = set()
        self.locks: dict[Description, bool] = {}
        # As the kernel does it (errseq_t): a description reports the failures it has not seen yet, as one.
        self.failures = 0
        self.error = 0

    def change(self, change: Step) -> None:
        """Make a change that everybody sees and no power cut need keep."""
        if self.cache is self.settled:
            self.cache = copy(self.settled)
        change.apply(self.cache)
        self.log.append(change)

    def sync(self) -> None:
        """Make every pending change durable. Lost ones stay lost: they are not dirty any more."""
        self.finish_sync(self.pending())

    def pending(self) -> list[Step]:
        """What a sync that begins now is to make durable."""
        return [change for change in self.log if change.fate is Fate.PENDING]

    def finish_sync(self, begun_with: Iterable[Step]) -> None:
        """A sync has ended that began with these pending; what was changed meanwhile may be missing."""
        for change in begun_with:
            if change.fate is Fate.PENDING:
                change.fate = Fate.SYNCED
        synced = list(takewhile(lambda change: change.fate is Fate.SYNCED, self.log))
        for change in synced:
            change.apply(self.settled)
        del self.log[: len(synced)]

    def fail_sync(self, error: int) -> None:
        """Lose what a sync was to make durable, and owe every open description one report of it."""
        for change in self.log:
            if change.fate is Fate.PENDING:
                change.fate = Fate.LOST
        self.failures += 1
        self.error = error

    def durable(self) -> Content:
        """The least that a power cut leaves."""
        content = copy(self.settled)
        for change in self.log:
            if change.fate is Fate.SYNCED:
                change.apply(content)
        return content


class File(Inode[bytearray, Write | Resize]):
    """A regular file. ``allocated`` has a 1 for each byte that owns space, a 0 for each in a hole.

    It is None as long as the file has no hole.
    """

    def __init__(
        self, number: int, content: bytearray | None = None, allocated: bytearray | None = None
    ) -> None:
        super().__init__(number, bytearray() if content is None else content)
        self.allocated = allocated

    def space(self, start: int = 0) -> int:
        """How many of the bytes from ``start`` on own space."""
        if self.allocated is None:
            return max(0, len(self.cache) - start)
        return self.allocated.count(1, start)

    def new_space(self, offset: int, length: int) -> int:
        """How many of these bytes own no space yet."""
        beyond = min(length, max(0, offset + length - len(self.cache)))
        return beyond + (0 if self.allocated is None else self.allocated.count(0, offset, offset + length))

    def allocate(self, change: Write | Resize) -> None:
        """Keep the books of a change about to be made: what a write fills, what an extension skips."""
        start = change.offset if isinstance(change, Write) else change.length
        if self.allocated is None and start > len(self.cache):
            self.allocated = bytearray(b"\1" * len(self.cache))
        if self.allocated is not None:
            if isinstance(change, Write):
                change = Write(start, b"\1" * len(change.data))
            change.apply(self.allocated)

    def evict(self) -> None:
        """Read again what the disk has: the length stays, lost writes turn into what was there before."""
        content = copy(self.settled)
        for change in self.log:
            if change.fate is Fate.LOST and isinstance(change, Write):
                Resize(max(len(content), change.end)).apply(content)
            else:
                change.apply(content)
        self.cache[:] = content


class Directory(Inode[dict[str, "Node"], Names]):
    """A directory: names of files and of directories."""

    def __init__(self, number: int) -> None:
        super().__init__(number, {})


Node = File | Directory
N = TypeVar("N", File, Directory)


@dataclass(slots=True, eq=False)
class Description:
    """An open file description: what a descriptor stands for, owns locks by, and is owed an error by."""

    node: Node
    path: str
    writable: bool
    failures_seen: int = field(init=False)

    def __post_init__(self) -> None:
        self.failures_seen = self.node.failures

    def take_lock(self, *, exclusive: bool) -> bool:
        """Take the node's lock if nobody else's forbids it; says whether it did."""
        locks = self.node.locks
        if locks.get(self) is exclusive:
            return True
        # A lock of the other kind is given up first, and stays so if this fails: flock(2) does the same.
        locks.pop(self, None)
        if any(exclusive or other for other in locks.values()):
            return False
        locks[self] = exclusive
        return True


class Disk:
    """All files, the space they take, and the numbers given out."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.used = 0
        self.root = Directory(number=2)
        self.root.has_name = True
        self.inode_numbers = count(3)
        # Never given out twice, and far from the machine's own: a closed descriptor, or one that is handed to
        # the machine by mistake, fails and hits no other file.
        self.descriptors = count(10_000_000)

    def write(self, file: File, data: bytes, offset: int) -> int:
        """Write what there is space for; says how many bytes that was."""
        length = len(data)
        if self.capacity is not None:
            length = _fitting(file, offset, length, max(0, self.capacity - self.used))
        if length:
            self.used += file.new_space(offset, length)
            self._change(file, Write(offset, data[:length]))
        return length

    def resize(self, file: File, length: int) -> None:
        """Cut a file, which gives space back, or extend it by a hole, which takes none."""
        self.used -= file.space(length)
        self._change(file, Resize(length))

    def _change(self, file: File, change: Write | Resize) -> None:
        file.allocate(change)
        file.change(change)

    def add(self, directory: Directory, name: str, kind: type[N]) -> N:
        """Make an empty file or directory under a name that is free."""
        node = kind(next(self.inode_numbers))
        node.has_name = True
        directory.change(Names(None, name, node))
        return node

    def rename(self, directory: Directory, old: str, new: str | None) -> None:
        """Give a node another name, or none; what had the new name loses it."""
        node = directory.cache[old]
        loser = node if new is None else directory.cache.get(new)
        directory.change(Names(old, new, node))
        if loser is not None:
            loser.has_name = False
            self.release(loser)

    def release(self, node: Node) -> None:
        """Give back the space of a file that has neither a name nor a descriptor."""
        if isinstance(node, File) and not node.has_name and not node.opened:
            self.used -= node.space()

    def files(self) -> Iterable[tuple[str, File]]:
        """Every file that has a name, with its path from the top of the disk."""
        directories = [("", self.root)]
        while directories:
            prefix, directory = directories.pop()
            for name, node in sorted(directory.cache.items()):
                if isinstance(node, Directory):
                    directories.append((f"{prefix}{name}/", node))
                else:
                    yield prefix + name, node


def _fitting(file: File, offset: int, length: int, free: int) -> int:
    """How many of the bytes can be written if only ``free`` of them may take new space."""
    if file.new_space(offset, length) <= free:
        return length
    for position in range(offset, offset + length):
        free -= file.new_space(position, 1)
        if free < 0:
            return position - offset
    return length
