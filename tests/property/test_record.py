"""Records and frames: whatever is written is read again, and a single bit that changed is noticed."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duraq import snapshot
from duraq.clock import to_datetime
from duraq.entry import DEAD, LEASED, READY, SCHEDULED, Entry
from duraq.journal import frame, record
from duraq.journal.frame import HEAD_LENGTH, MAGIC, Part
from duraq.journal.record import BadRecord, Seal, UnknownRecord
from duraq.ledger import Ledger
from duraq.model import Attempt, AttemptError, Cause, Pause
from duraq.operations import (
    Adopt,
    Bury,
    Complete,
    Drop,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Keep,
    Lease,
    Operation,
    PauseQueue,
    Release,
    Remove,
    Repair,
    Requeue,
    Restore,
    ResumeQueue,
)
from duraq.times import microseconds, rfc3339

# -- what there is to write --------------------------------------------------------------------------------

# From 1970 to far beyond the last schedule that a queue accepts.
times = st.integers(0, 4_102_444_800 * 10**6)
maybe_times = st.none() | times
numbers = st.integers(0, 2**53)
# Unlike texts these are never escaped: what may stand in them is checked before.
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}", fullmatch=True)
workers = st.just("") | st.from_regex(r"[1-9][0-9]{0,6}-[0-9a-f]{8}", fullmatch=True)
boots = st.uuids().map(str)
texts = st.text() | st.sampled_from(
    ['"', "\\", '\n",crc":"', "\0", "\u2028", "\U0001f600", ',"data":', "é" * 99]
)
errors = st.builds(AttemptError, texts, texts, texts, *[st.just("") | texts] * 3)
causes = st.sampled_from(Cause)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
payloads = json_values.map(orjson.dumps)

attempts = st.builds(
    Attempt, numbers, causes, errors, workers, times.map(to_datetime), times.map(to_datetime)
)
pauses = st.builds(Pause, times.map(to_datetime), texts, texts)


# With one that could pass for the payload's.
headers = st.dictionaries(
    st.just("data") | st.from_regex(r"[A-Za-z0-9][\w.-]*", fullmatch=True), texts, min_size=1
)


@st.composite
def kept(draw):
    """An entry in any state."""
    operation = Enqueue("", b"", draw(st.integers(-(2**31), 2**31 - 1)), draw(maybe_times), draw(maybe_times))
    operation.key, operation.headers = draw(st.none() | texts), draw(st.none() | headers)
    entry = Entry(operation, draw(numbers), draw(times), None, 0)
    entry.token = draw(numbers)
    entry.attempts, entry.updated_at = draw(numbers), draw(times)
    entry.status = draw(st.sampled_from([READY, SCHEDULED, LEASED, DEAD]))
    entry.redriven = draw(numbers)
    entry.history = tuple(draw(st.lists(attempts, max_size=2)))
    entry.worker, entry.boot, entry.deadline = draw(workers), draw(boots), draw(numbers)
    entry.leased_at, entry.deadline_at = draw(times), draw(times)
    return entry


@st.composite
def ledgers(draw):
    """What may have happened."""
    ledger = Ledger()
    for what, minute in draw(st.lists(st.tuples(st.integers(0, 10), numbers), max_size=9)):
        ledger.count(what, minute * 1000)
    for duration in draw(st.lists(numbers, max_size=3)):
        ledger.wait.add(duration)
        ledger.complete(0, duration)
    return ledger


BUILT = {
    Enqueue: (
        ids,
        payloads,
        st.integers(-(2**31), 2**31 - 1),
        maybe_times,
        maybe_times,
        st.just(False),
        st.none() | texts,
        st.none() | headers,
    ),
    Lease: (ids, numbers, numbers, workers, numbers, boots, times),
    Extend: (ids, numbers, numbers, boots, times),
    Complete: (ids, numbers),
    Fail: (ids, numbers, causes, errors, times),
    Bury: (ids, numbers, causes, errors),
    Release: (ids, numbers, maybe_times, texts, texts),
    Expire: (ids,),
    Requeue: (ids, st.booleans(), st.just("") | ids),
    Remove: (ids, st.just(0), st.just("") | texts),
    PauseQueue: (texts, texts),
    ResumeQueue: (texts,),
    Repair: (texts,),
    Keep: (ids, payloads, kept()),
    Restore: (ids, payloads, kept()),
    Drop: (numbers, numbers, numbers, st.none() | pauses, st.none() | ledgers()),
    Adopt: (numbers, st.none() | pauses, st.none() | ledgers()),
    Seal: (numbers,),
}
enqueues = st.builds(Enqueue, *BUILT[Enqueue])
operations = st.one_of(*(st.builds(kind, *fields) for kind, fields in BUILT.items()))
lines = st.builds(record.encode, operations, numbers, times.map(rfc3339))

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
u62 = st.integers(0, 2**62 - 1)
u32 = st.integers(0, 2**32 - 1)
# With what could pass for a frame inside a frame.
bodies = st.binary(max_size=200) | st.binary(max_size=50).map(lambda data: data + MAGIC + data)
shares = st.lists(st.tuples(names, u62, u62, bodies), min_size=1, max_size=4)
epochs = st.integers(0, frame.LAST_EPOCH)
frames = st.tuples(epochs, u62, u62, u32, shares)


def as_read(operation):
    """What of the operation decode gives: the fold has no use for payloads."""
    if isinstance(operation, Keep):
        return operation.id, snapshot.of(operation.entry)
    return replace(operation, payload=b"") if getattr(operation, "payload", None) is not None else operation


def flipped(data, bit):
    """The bytes with one bit turned over."""
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


# -- records -----------------------------------------------------------------------------------------------


def test_every_operation_is_tried():
    """No operation is left out of these tests, or of what can be read."""
    kinds = {*Operation.__args__, Seal}
    assert set(BUILT) == kinds
    assert set(record._DECODE) == {kind.op for kind in kinds}


@given(operations, numbers, times)
def test_a_record_is_read_as_it_was_written(operation, seq, at):
    """Decoding gives the operation that was encoded, its number and its time, whatever they are."""
    line = record.encode(operation, seq, rfc3339(at))
    found = record.decode(line)
    assert (as_read(found.operation), found.seq, found.at) == (as_read(operation), seq, at)


@given(enqueues | st.one_of(*(st.builds(kind, *BUILT[kind]) for kind in (Keep, Restore))), numbers, times)
@example(Enqueue("data", b'",\\"data\\":"'), 1, 0)
@example(Enqueue("a", b"1", headers={"b": "2", "data": "3"}), 1, 0)
def test_a_payload_is_read_as_it_was_written(operation, seq, at):
    """The payload's bytes come back as they were."""
    line = record.encode(operation, seq, rfc3339(at))
    assert record.payload(line) == operation.payload


@given(lines)
def test_a_record_is_one_line_of_json(line):
    """A record is one line, ends in its checksum, and any JSON reader understands it, `op` first."""
    assert line.count(b"\n") == 1
    assert re.search(rb',"crc":"[0-9a-f]{8}"}\n\Z', line)
    assert list(orjson.loads(line))[:3] == ["op", "seq", "at"]


@given(lines, st.integers(0, 2**20))
def test_a_flipped_bit_is_noticed(line, bit):
    """One bit that has changed, anywhere in a line, makes it no record."""
    changed = flipped(line, bit)
    for read in (record.decode, record.check, record.payload):
        with pytest.raises(BadRecord):
            read(changed)


@given(lines, st.data())
def test_a_cut_is_noticed(line, data):
    """A line that has lost its end, its beginning or both is no record."""
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, len(line) - (start == 0)))
    for read in (record.decode, record.check, record.payload):
        with pytest.raises(BadRecord):
            read(line[start:end])


@given(lines, lines, st.data())
def test_glued_lines_are_noticed(first, second, data):
    """A line behind the torn beginning of another is not taken for a record."""
    cut = data.draw(st.integers(1, len(first)))
    with pytest.raises(BadRecord):
        record.decode(first[:cut] + second)


@given(lines, st.integers(0, 200), st.integers(1, 32), st.integers(1, 2**32 - 1))
def test_a_short_burst_is_noticed(line, start, length, pattern):
    """Up to 32 bits in a row that have changed, in whatever way, make it no record."""
    mask = pattern % (1 << length) or 1
    number = int.from_bytes(line, "big") ^ mask << start % (8 * len(line) - length)
    with pytest.raises(BadRecord):
        record.decode(number.to_bytes(len(line), "big"))


@given(st.binary(max_size=200))
@example(b"")
@example(b"\n")
@example(b',"crc":"00000000"}\n')
def test_any_bytes(data):
    """Bytes that nobody wrote as a record raise BadRecord and nothing else."""
    with pytest.raises(BadRecord):
        record.decode(data)


@given(json_values)
@example({"op": "complete", "seq": 1, "at": "yesterday", "id": "x", "token": 1})
@example({"op": "fail", "seq": 1, "at": rfc3339(0), "id": "x", "token": 1, "cause": "bored", "error": {}})
@example({"op": ["enqueue"], "seq": 1, "at": rfc3339(0)})
def test_a_right_checksum_is_not_all(value):
    """A line whose checksum is right but which says nothing that a queue says raises BadRecord."""
    body = orjson.dumps(value)[:-1]
    line = b'%b,"crc":"%08x"}\n' % (body, record.crc32(body))
    with pytest.raises(BadRecord):
        record.decode(line)


def test_an_operation_of_a_later_version():
    """An undamaged record of an operation that is not known says so."""
    body = b'{"op":"levitate","seq":1,"at":"2026-01-01T00:00:00.000000Z","id":"x"'
    with pytest.raises(UnknownRecord, match="levitate"):
        record.decode(b'%b,"crc":"%08x"}\n' % (body, record.crc32(body)))


@given(times)
def test_times(at):
    """A time is written in UTC to the microsecond, in one form, and read again."""
    text = rfc3339(at)
    assert microseconds(text) == at
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)


# -- frames ------------------------------------------------------------------------------------------------


@given(frames, st.binary(max_size=50), st.binary(max_size=50))
def test_a_frame_is_read_as_it_was_written(written, before, after):
    """Decoding gives all that was encoded, whatever stands before it and behind it."""
    epoch, position, synced, previous, parts = written
    data, crc = frame.encode(epoch, position, synced, previous, parts)
    found = frame.decode(before + data + after, len(before))
    assert (found.epoch, found.position, found.synced, found.previous) == (epoch, position, synced, previous)
    assert (found.crc, found.length, found.end) == (crc, len(data), position + len(data))
    assert list(found.parts()) == [Part(*part) for part in parts]


@given(frames, st.integers(0, 2**20), st.binary(max_size=300))
def test_a_flipped_bit_in_a_frame_is_noticed(written, bit, after):
    """One bit that has changed, anywhere in a frame, makes it no frame, whatever stands behind it."""
    data, _ = frame.encode(*written)
    assert frame.decode(flipped(data, bit)) is None
    assert frame.decode(flipped(data, bit) + after) is None


@given(frames, st.data())
def test_a_torn_frame_is_noticed(written, data):
    """A frame that is not whole is no frame, whether it ends early or goes on with zeros or old bytes."""
    whole, _ = frame.encode(*written)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert frame.decode(whole[:cut]) is None
    old = data.draw(st.binary(min_size=len(whole) - cut, max_size=len(whole)))
    for rest in (bytes(len(whole)), old):
        if not rest.startswith(whole[cut:]):
            assert frame.decode(whole[:cut] + rest) is None


@given(st.binary(max_size=200))
@example(b"")
@example(bytes(HEAD_LENGTH))
@example(MAGIC + b"\xff" * 60)
def test_any_bytes_are_no_frame(data):
    """Bytes that nobody wrote as a frame are none, and cost no more memory than they take."""
    assert frame.decode(data) is None


@given(st.lists(frames, min_size=1, max_size=4), st.lists(st.binary(max_size=40), min_size=5, max_size=5))
def test_every_whole_frame_is_found(several, rubbish):
    """Frames are found wherever they lie, each once, in order."""
    data, wanted = rubbish[0], []
    for written, between in zip(several, rubbish[1:], strict=False):
        encoded, crc = frame.encode(*written)
        wanted.append((written[1], crc))
        data += encoded + between
    found = list(frame.find(data, 0))
    assert [(each.position, each.crc) for each in found] == wanted
    # The same in a file that is read piece by piece, however small the pieces are.
    for span in (HEAD_LENGTH, 50, 1000):
        with patch.object(frame, "_SPAN", span):
            assert list(frame.search(lambda at, length: data[at : at + length], 0)) == found
