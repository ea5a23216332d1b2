"""Bytes in the place of a storage's own: read as what they were written as, or refused in words of ours.

Where a checksum stands before everything else they are tried as they are, and with the checksum that they
should have, for only those get any further.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

from fuzz import places
from lived_in import PLACE, disk

from duraq.clock import to_datetime
from duraq.errors import NotAStorage, StorageDamaged, UnsupportedVersion
from duraq.examining import verify
from duraq.failure_records import FailureRecords
from duraq.fates import SAMPLES
from duraq.journal import checkpoint as checkpoints
from duraq.journal import frame, record
from duraq.journal import segment as segments
from duraq.journal.described import description
from duraq.journal.index import BadIndex, Index
from duraq.journal.record import BadRecord, Record, Seal
from duraq.journal.run import Run
from duraq.mending import repair
from duraq.operations import Keep
from duraq.snapshot import of
from duraq.testing import FakeClock, MemoryFileSystem
from duraq.times import rfc3339

# -- records -----------------------------------------------------------------------------------------------

PAYLOAD = b'{"a":1}'


def line(data: bytes) -> None:
    """A line is a record, or it is refused; the record's line is read as the same, by all who read lines."""
    for each in (data, places.mended_line(data)):
        for read in (record.enqueued, record.number, record.payload):
            with suppress(BadRecord):
                read(each)
        with suppress(BadRecord):
            _check_record(record.decode(each))


def failures(data: bytes) -> None:
    """Of whatever lines there are, those that say that something failed are counted, each once."""
    for each in (data, places.mended_lines(data)):
        known = FailureRecords("jobs", 0, 1 << 40, 0)
        end = each.rfind(b"\n") + 1
        known._fold(b"\n" + each[:end])
        known.show()
        kinds = known.fates.kinds.values()
        assert sum(sum(map(sum, kind.cells.values())) for kind in kinds) <= each.count(b"\n")
        assert all(number >= 0 for kind in kinds for cell in kind.cells.values() for number in cell)
        assert all(len(kind.samples) <= SAMPLES for kind in kinds)


def worker(data: bytes) -> None:
    """Of what a worker says of itself, what makes sense is text and numbers, and none of it is long."""
    found = description(data)
    texts = (found.host, found.boot_id, found.unit or "", *found.argv)
    assert all(isinstance(text, str) and len(text) <= 1024 for text in texts)
    for number in (found.opened_at, found.start_time):
        assert number is None or number >= 0
    if found.opened_at is not None:
        to_datetime(found.opened_at)


def _check_record(found: Record) -> None:
    operation = found.operation
    if hasattr(operation, "payload"):
        operation = replace(operation, payload=PAYLOAD)
    written = record.encode(operation, found.seq, rfc3339(found.at))
    assert written.count(b"\n") == 1
    assert _said(record.decode(written)) == _said(found)
    assert _said(record.enqueued(written)) == _said(found)
    assert record.number(written) == (found.seq, operation if isinstance(operation, Seal) else None)
    if hasattr(operation, "payload"):
        assert record.payload(written) == PAYLOAD


def _said(found: Record) -> tuple[object, ...]:
    operation = found.operation
    if isinstance(operation, Keep):
        return type(operation), operation.id, of(operation.entry), found.seq, found.at
    return operation, found.seq, found.at


# -- frames and journals -----------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """What is a frame is written as it stands there, and nothing is taken for longer than the bytes are."""
    for content in (data, places.mended_frames(data)[0]):
        take = places.take(content)
        found = frame.decode(content)
        assert frame.decode_at(take, 0) == found
        if found is not None:
            head = (found.epoch, found.position, found.synced, found.previous)
            assert frame.encode(*head, list(found.parts())) == (content[: found.length], found.crc)
            ends = frame.touched(take, 0, found.epoch, found.position, found.crc)
            assert ends.keys() == {(part.queue, part.segment) for part in found.parts()}
            assert frame.any_of(take, 0, found.epoch)
        whole = list(frame.find(content, 0))
        assert list(frame.search(take, 0)) == whole
        assert sum(each.length for each in whole) <= len(content)


def journal(data: bytes) -> None:
    """A storage whose journal it is opens or is refused; opening it once more changes nothing."""
    older, _, newer = data.partition(places.SEPARATOR)
    if _is_to_be_mended(data):
        older, last = places.mended_frames(older)
        newer, _ = places.mended_frames(newer, last)
    with places.stillness():
        _check_storage(places.with_journal(older, newer))


def _is_to_be_mended(data: bytes) -> bool:
    """Of what takes long, three inputs in four get the checksums that they should have."""
    return len(data) % 4 != 0


def _check_storage(fs: MemoryFileSystem) -> None:
    """Who looks sees what who opens finds, each time; what is found damaged is whole once it is repaired."""
    looked_at = places.looked_at(fs)
    before = fs.files()
    try:
        report = verify(PLACE, file_system=fs.process())
    except UnsupportedVersion:
        assert isinstance(looked_at, str)
        return
    assert fs.files() == before
    found = places.opened(fs)
    assert found == looked_at
    after = fs.files()
    assert places.opened(fs) == found
    assert fs.files() == after
    if report.sound:
        assert not isinstance(found, str), found
        return
    try:
        repair(PLACE, file_system=fs, clock=FakeClock())
    except StorageDamaged as error:
        assert "are missing here" in error.reason  # noqa: PT017 - in other cases it is no error
        return
    assert verify(PLACE, file_system=fs.process()).sound
    assert not isinstance(places.opened(fs), str)


# -- segments ----------------------------------------------------------------------------------------------


def segment(data: bytes) -> None:
    """A queue whose only segment it is can be used, or is refused; and repaired in any case."""
    lines = places.mended_lines(data) if _is_to_be_mended(data) else data
    with places.stillness():
        _check_storage(places.with_segment(lines))


# -- what is derived ---------------------------------------------------------------------------------------

QUEUE = "a"
_SEAL = re.compile(rb'"seal":\[[^\]]*\]')


def _newest(suffix: str) -> tuple[int, str]:
    """The last file of that kind: of which segment it is, and its name."""
    directory = f"{QUEUE}/segments/"
    name = max(name for name in places.lived() if name.startswith(directory) and name.endswith(suffix))
    return int(name.removeprefix(directory).removesuffix(suffix)), name


def _segments_of(fs: MemoryFileSystem) -> int:
    return fs.open_dir(fs.open_dir(fs.open_root(PLACE), QUEUE), "segments")


def checkpoint(data: bytes) -> None:
    """A checkpoint is none, or is written as it was read; whatever it says, the queue is used or refused."""
    number, name = _newest(checkpoints.SUFFIX)
    seal = _SEAL.search(places.lived()[name])
    assert seal is not None
    # It is of our segment, or nobody would look at it twice.
    content = places.mended_line(_SEAL.sub(lambda _: seal[0], data, count=1))
    sealed = f"{QUEUE}/segments/{segments.file_name(number)}"
    fs = disk({name: content, sealed: places.lived()[sealed]})
    directory = _segments_of(fs)
    found = checkpoints.load(fs, directory, number, 0)
    if found is None:
        return
    checkpoints.save(fs, directory, found, give=lambda *_: False)
    written = fs.files()
    again = checkpoints.load(fs, directory, number, 0)
    assert again is not None
    checkpoints.save(fs, directory, again, give=lambda *_: False)
    assert fs.files() == written
    with places.stillness():
        places.opened(disk(places.lived() | {name: content}))


def index(data: bytes) -> None:
    """An index is none, or all of it can be asked for; and a run of it is one again from its image."""
    for content in (data, places.mended_index(data)):
        with suppress(BadIndex):
            _check_index(Index(content))


def _check_index(found: Index) -> None:
    rows = [found.row(number) for number in range(found.rows)]
    try:
        run = Run.whole(found, ("", "z"))
    except (TypeError, ValueError):
        return  # as a checkpoint that says so would be none
    assert list(zip(*found.columns(), strict=True)) == rows
    assert run.fits(found)
    run.make_due(found, FakeClock().now())
    list(run.expired(found, FakeClock().now()))
    for number in range(found.rows):
        if not run.is_taken(number):
            run.take(found, number)
    with suppress(TypeError, ValueError):
        again = Run(run.image(found))
        assert again.left == 0
        assert again.fits(found)


# -- notes -------------------------------------------------------------------------------------------------

NOTES = ("duraq.json", "journal/ends.jsonl", "journal/poison.json", "jobs/damaged.json", "journal/lock")


def note(data: bytes) -> None:
    """A note of the storage says what it can say, or the storage or the queue is refused."""
    which, content = data[:1], data[1:]
    name = NOTES[which[0] % len(NOTES)] if which else NOTES[0]
    with places.stillness():
        for each in (content, places.mended_line(content)):
            fs = disk(places.empty() | {f"jobs/segments/{places.FIRST}.jsonl": b"", name: each})
            before = fs.files()
            looked_at = places.looked_at(fs)
            with suppress(NotAStorage, UnsupportedVersion):
                verify(PLACE, file_system=fs.process())
            assert fs.files() == before
            assert (places.opened(fs) == looked_at) or name == "jobs/damaged.json"
