"""Which segments of a queue are to go, and how their files go.

Segments go from the oldest on. What still lives in one is first written again at the queue's end, as keep
records; then a drop record says before which segment nothing is needed; and once that is durable, and there
is a checkpoint behind it, the files go. Nothing that is over can come back this way: the end of an entry
always lies behind its beginning, so it is the beginning that goes first.

A crash on the way leaves keep records that say nothing new, or files that nobody needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from duraq.entry import Entry
from duraq.errors import StorageDamaged
from duraq.journal import checkpoint, record, segment
from duraq.journal.filesystem import FileSystem
from duraq.journal.folded import Folded
from duraq.journal.opening import History
from duraq.journal.record import BadRecord, Record, Seal
from duraq.journal.segment import REFUSED
from duraq.journal.segments import Segments

# A queue may take so many times its live bytes, and half a segment. Below the promised 2, and two segments:
# while the oldest segments are worked through, new ones are written.
SLACK = 1.6
LATE = 1.75  # so many times, and a segment, before it is hurried
_ATTEMPT = 300  # bytes of one that has nothing to tell
_WORTH = 8  # times what a compaction writes itself: so much is to go by it
_CHEAP = 4  # the same, for compacting on a full disk
_TAIL = 512  # bytes that a seal fits into


def is_due(folded: Folded, history: History) -> bool:
    """Whether the oldest segment is to go, as far as its length tells."""
    return _is_longer(folded, history, SLACK, folded.segments.limit // 2)


def is_late(folded: Folded, history: History) -> bool:
    """Whether it is not only to go, but the queue will soon be longer than it may become."""
    return _is_longer(folded, history, LATE, folded.segments.limit)


def is_worth_it(folded: Folded, history: History) -> bool:
    """The same for somebody who asks for it: whether a segment's worth, and a tenth of all, is over."""
    over = _total(folded) - folded.live_bytes - history.get("bytes", 0)
    return _may_go(folded) and over > max(folded.segments.limit, folded.live_bytes // 10)


def is_cheap(fs: FileSystem, folded: Folded, history: History, now: int) -> bool:
    """Whether nearly all of the oldest is over: where the disk is full, that is let go at once.

    Not as soon as letting it go frees anything at all: what is worked in order ends before long, and would
    have been written again for nothing.
    """
    first = following(fs, folded, history, now) if _may_go(folded) else None
    if first is None:
        return False
    freed, live = length_before(fs, folded.segments, first), folded.live_before(first)
    over = _total(folded) - folded.live_bytes - history.get("bytes", 0)
    return over >= freed - live and freed > _CHEAP * (live + _written(folded))


def _is_longer(folded: Folded, history: History, times: float, more: int) -> bool:
    # What a compaction writes itself is no reason for the next one, however small the segments are.
    allowed = times * folded.live_bytes + more + _left(folded) + history.get("bytes", 0)
    return _may_go(folded) and _total(folded) > allowed


def _may_go(folded: Folded) -> bool:
    # A checkpoint stands beside the segment whose seal it names, so that one stays.
    return folded.segments.known_from is None and folded.segments.first < folded.checkpoint


def _total(folded: Folded) -> int:
    return folded.segments.sealed_bytes + folded.segments.size


def following(
    fs: FileSystem, folded: Folded, history: History, now: int, last: int | None = None
) -> int | None:
    """The segment behind the first one; None if that is to be kept, as history, or lies behind ``last``.

    Of small ones, as compaction itself leaves them, behind so many as make a large one: what is written for
    each time would else be as much as is freed.
    """
    segments, length = folded.segments, 0
    first = segments.first
    enough = max(segments.limit, _WORTH * _written(folded))
    until = folded.checkpoint if last is None else min(last + 1, folded.checkpoint)
    while first < until:
        found, size = _seal(fs, segments, first)
        length += size
        if length > enough and first > segments.first:
            break
        if "seconds" in history and found.at > now - history["seconds"] * 1_000_000:
            break
        assert isinstance(found.operation, Seal)
        first = found.operation.next
    return first if first > segments.first else None


def _written(folded: Folded) -> int:
    """About how much a compaction writes besides what lives: two drops, which say what has happened."""
    return 2 * folded.state.ledger.length


def _left(folded: Folded) -> int:
    """About how much of that stays: what the last two have written, and a drop of the one before them."""
    return 5 * folded.state.ledger.length


def furthest(folded: Folded, first: int, history: History) -> int:
    """How far segments can be dropped, if nothing lies before ``first``."""
    if any(history.values()):
        return first
    return max(first, min(folded.oldest, folded.checkpoint))


def _seal(fs: FileSystem, segments: Segments, number: int) -> tuple[Record, int]:
    """The last record of that segment, and how long it is. Raises StorageDamaged if that is no seal."""
    name = segment.file_name(number)
    with _opened(fs, segments.directory, name) as fd:
        end = fs.size(fd)
        start = max(0, end - _TAIL)
        tail = fs.pread(fd, end - start, start)
    line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    why = "the segment does not end in a seal"
    try:
        found = record.decode(line)
    except BadRecord as error:
        why = str(error)
    else:
        if isinstance(found.operation, Seal):
            return found, end
    raise StorageDamaged(why, path=f"{segments.queue}/segments/{name}", hint=REFUSED)


def length_of(entry: Entry) -> int:
    """About how long its record will be when it is kept."""
    errors = (attempt.error for attempt in entry.history)
    said = sum(len(error.message) + len(error.traceback) + _ATTEMPT for error in errors)
    length: int = entry.where[2]
    return length + said


def length_before(fs: FileSystem, segments: Segments, first: int) -> int:
    """How many bytes there are from the first segment that is needed to that one."""
    directory = segments.directory
    return sum(
        segment.length(fs, directory, number)
        for number in segment.numbers(fs, directory)
        if segments.first <= number < first
    )


def any_before(fs: FileSystem, segments: Segments) -> bool:
    """Whether files of segments that were dropped are still there."""
    return min(segment.numbers(fs, segments.directory)) < segments.first


def needless(fs: FileSystem, folded: Folded) -> list[str]:
    """Files that belong to segments that were dropped, and that nobody needs; segments last."""
    kept = {segment.file_name(number, checkpoint.INDEX_SUFFIX) for number in folded.indexes}
    suffixes = (checkpoint.SUFFIX, checkpoint.INDEX_SUFFIX, segment.SUFFIX)
    names = fs.file_names(folded.segments.directory)
    return [
        segment.file_name(number, suffix)
        for suffix in suffixes
        for number in segment.numbers_in(names, suffix)
        if number < folded.first_needed and segment.file_name(number, suffix) not in kept
    ]


def remove(fs: FileSystem, directory: int, names: Sequence[str]) -> int:
    """Remove these files; returns how many bytes they had. The drop must be durable."""
    freed = 0
    for name in names:
        with _opened(fs, directory, name) as fd:
            freed += fs.size(fd)
        # No sync: a name that comes back after a power cut is needed by nobody, and goes the next time.
        fs.unlink(directory, name)
    return freed


@contextmanager
def _opened(fs: FileSystem, directory: int, name: str) -> Iterator[int]:
    fd = fs.open_file(directory, name, writable=False)
    try:
        yield fd
    finally:
        fs.close(fd)
