"""A new journal for a storage whose own is damaged.

Without its journal a storage cannot be opened: nobody could say how much of its segments was durable. So,
once somebody asks for it, what the segments hold is taken for all there is, with the lines of every frame
that is still whole. The old files are kept. The new pair begins with an epoch and a position that none of the
old frames has, and the ends of all queues are noted for that position before it: whoever opens the storage
after a crash in between finds the old journal as damaged as before, or needs nothing of it any more.
"""

from __future__ import annotations

from collections.abc import Iterable

from duraq.journal import ends, frame, journal, refusal
from duraq.journal.copying import lengths
from duraq.journal.ends import End, Ends
from duraq.journal.filesystem import FileSystem, content, opened
from duraq.journal.frame import Frame
from duraq.journal.journal import HEADER_BYTES, Header
from duraq.journal.opening import queue_names, sync_once, write_durably
from duraq.journal.recovery import Replay

FILES = (journal.file_name(0), journal.file_name(1))


def renew(fs: FileSystem, root: int, directory: int, capacity: int, stamp: str) -> None:
    """Make it; ``directory`` is the old one's, whose files are kept under names that end in ``stamp``."""
    there = [name for name in (*FILES, ends.NAME) if fs.exists(directory, name)]
    contents = {name: content(fs, directory, name) for name in there}
    _set_aside(fs, directory, contents, stamp)
    headers = [header for name in FILES if (header := Header.decode(contents.get(name, b"")))]
    frames = _frames(contents.get(name, b"") for name in FILES)
    Replay(fs, root).fill(frames)
    # Of a header that says more than there is, no more is believed.
    there_is = max(len(contents.get(name, b"")) - HEADER_BYTES for name in FILES)
    capacity = max([capacity, *(min(header.capacity, there_is) for header in headers)])
    epoch = 1 + max([0, *(header.epoch for header in headers), *(found.epoch for found in frames)])
    base = max([0, *(header.base + header.capacity for header in headers), *(each.end for each in frames)])
    there_are = lengths(fs, root, queue_names(fs, root))
    # What is there may have come from frames that are no more from here on.
    Replay(fs, root).sync((queue, number) for queue, numbers in there_are.items() for number in numbers)
    last = {
        queue: max(End(*each) for each in numbers.items()) for queue, numbers in there_are.items() if numbers
    }
    ends.save(fs, directory, Ends(base, last))
    for header in (Header(epoch, base, capacity), Header(epoch + 1, base + capacity, capacity)):
        empty = header.encode().ljust(HEADER_BYTES + capacity, b"\0")
        write_durably(fs, directory, journal.file_name(header.epoch), empty)


def _set_aside(fs: FileSystem, directory: int, contents: dict[str, bytes], stamp: str) -> None:
    with opened(fs, directory, refusal.QUARANTINE, create=True) as quarantine:
        for name, data in contents.items():
            write_durably(fs, quarantine, f"{name}.{stamp}", data)
    # The directory may be new.
    sync_once(fs, directory)


def _frames(contents: Iterable[bytes]) -> list[Frame]:
    """Every frame that is whole, oldest first."""
    found = [each for data in contents for each in frame.find(data, HEADER_BYTES)]
    return sorted(found, key=lambda each: (each.epoch, each.position))
