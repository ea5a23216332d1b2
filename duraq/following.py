"""The records of a storage's queues, as they stand in the files: the newest, those of an entry, each new one.

No queue is folded for this. Whoever follows goes his own way, at his own pace.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress

from duraq.clock import to_datetime
from duraq.entry import Entry
from duraq.journal import reading, record
from duraq.journal.filesystem import FileSystem, NotOurs
from duraq.journal.lines import Follower, Line, Lines
from duraq.journal.record import Record, Seal
from duraq.journal.segment import path_of
from duraq.model import EntryStatus, is_users
from duraq.operations import Complete, Expire, Remove
from duraq.options import ENTRY_ID
from duraq.reader import Reader
from duraq.state import QueueState
from duraq.views import EntryView, Place, RecordView, entry_view

log = logging.getLogger("duraq")

# How often a follower looks for itself, in seconds; a hint from the system only makes it look sooner.
SWEEP_INTERVAL = 0.5


def newest(reader: Reader, queues: Iterable[str], last: int) -> list[RecordView]:
    """The newest records of these queues, oldest first."""
    return _newest(_last(reader, queues, last), last)


def of_entry(reader: Reader, queue: str, entry_id: str) -> list[tuple[Line, Record]]:
    """Every record of that queue that concerns the entry, oldest first."""
    if not ENTRY_ID.match(entry_id):
        return []
    try:
        with closing(reader.lines(queue)) as lines:
            return list(lines.of_entry(entry_id))
    except (NotOurs, PermissionError, FileNotFoundError):
        # Not ours, or not ours to read, or only just coming into being: nothing is known of it here.
        return []


def ids(reader: Reader, queue: str, like: re.Pattern[bytes], most: int) -> list[str]:
    """The ids of that queue that are like that, of entries whose records are there; so many at most."""
    try:
        with closing(reader.lines(queue)) as lines:
            return sorted(lines.ids(like, most))
    except (NotOurs, PermissionError, FileNotFoundError):
        return []


def over(reader: Reader, queue: str, entry_id: str) -> EntryView | None:
    """An entry that is no longer in the queue, as its records tell it; a removed one is gone."""
    state = QueueState(queue)
    entry: Entry | None = None
    payload = b""
    for line, (operation, seq, at) in of_entry(reader, queue, entry_id):
        assert not isinstance(operation, Seal)
        if getattr(operation, "payload", None) is not None:
            payload = record.payload(line.text)
        # The beginning of its life may have been dropped already.
        with suppress(KeyError):
            entry = state.entries.get(entry_id, entry)
            state.apply(operation, seq, at)
            entry = state.entries.get(entry_id, entry)
        if isinstance(operation, Remove):
            entry = None
        elif entry is not None and isinstance(operation, Complete | Expire):
            entry.updated_at = at
            entry.status = EntryStatus.EXPIRED if isinstance(operation, Expire) else EntryStatus.COMPLETED
    return None if entry is None else entry_view(queue, entry, payload)


def follow(
    reader: Reader, chosen: Sequence[str] | None, last: int, stop: threading.Event
) -> Iterator[RecordView]:
    """The newest records, then each new one as it is written, until ``stop`` is set.

    Of these queues; if None, of all, and then also of those that come into being.
    """
    fs, root = reader.fs, reader.root
    seen = _last(reader, reader.queues() if chosen is None else chosen, max(last, 1))
    with ExitStack() as opened:
        followed = {}
        for name, lines in seen.items():
            followed[name] = _follow(fs, root, name, lines[-1][0] if lines else None, opened)
        yield from _newest(seen, last)
        for _ in _looks(reader.path, stop):
            for name in reading.queue_names(fs, root) if chosen is None else ():
                if is_users(name) and name not in followed:
                    followed[name] = _follow(fs, root, name, None, opened)
            found = [view(name, *new) for name, tail in followed.items() for new in tail.new()]
            yield from in_time(found)


def view(queue: str, line: Line, found: Record) -> RecordView:
    """The record of that line, to be shown."""
    return RecordView(
        queue=queue,
        op=found.operation.op,
        seq=found.seq,
        at=to_datetime(found.at),
        id=getattr(found.operation, "id", None),
        place=Place(path_of(queue, line.segment), line.number, line.offset, len(line.text)),
        text=line.text,
    )


def in_time(views: list[RecordView]) -> list[RecordView]:
    """Them in the order in which they were decided."""
    # Stable: the records of one queue keep their order even if somebody set the clock back between them.
    return sorted(views, key=lambda view: (view.at, view.queue))


def _last(reader: Reader, queues: Iterable[str], count: int) -> dict[str, list[tuple[Line, Record]]]:
    """The newest records of each of these queues."""
    found = {}
    for name in queues:
        with closing(reader.lines(name)) as lines:
            found[name] = lines.last(count)
    return found


def _newest(found: dict[str, list[tuple[Line, Record]]], last: int) -> list[RecordView]:
    views = [view(queue, *each) for queue, records in found.items() for each in records]
    return in_time(views)[-last:] if last > 0 else []


def _follow(fs: FileSystem, root: int, queue: str, after: Line | None, opened: ExitStack) -> Follower:
    lines = Lines(fs, root, queue)
    opened.callback(lines.close)
    return Follower(lines, after)


def _looks(path: str, stop: threading.Event) -> Iterator[None]:
    """When to look: now, every SWEEP_INTERVAL, and as soon as the system hints that something changed."""
    yield
    try:
        import watchfiles  # noqa: PLC0415 - 40 ms that only a follower pays

        hints = watchfiles.watch(
            path,
            watch_filter=None,
            step=20,
            debounce=100,
            rust_timeout=int(SWEEP_INTERVAL * 1000),
            yield_on_timeout=True,
            force_polling=False,
            stop_event=stop,
        )
        for _ in hints:
            yield
    except (OSError, RuntimeError) as error:
        # No inotify instance left, or a directory went away. The sweep is enough.
        log.debug("cannot watch %s (%s); looking every %s s", path, error, SWEEP_INTERVAL)
    while not stop.wait(SWEEP_INTERVAL):
        yield
