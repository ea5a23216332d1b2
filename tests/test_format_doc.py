"""docs/FORMAT.md is decoded and compared with the code, so that it cannot drift."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import FileStorage, Queue
from duraq.entry import Entry
from duraq.journal import control, frame, record
from duraq.journal.ends import NAME as ENDS
from duraq.journal.journal import FORMAT, HEADER_BYTES, Header
from duraq.journal.poison import NAME as POISON
from duraq.journal.record import Seal
from duraq.ledger import Ledger
from duraq.model import MARKER, AttemptError, Cause
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
    PauseQueue,
    Release,
    Remove,
    Repair,
    Requeue,
    Restore,
    ResumeQueue,
)
from duraq.testing import FakeClock

TEXT = (Path(__file__).parent.parent / "docs" / "FORMAT.md").read_text()
NOON = "2026-01-01T12:00:00.000000Z"
ERROR = AttemptError("ValueError", "no", "")
ENTRY = Entry(Enqueue("a", b"{}"), 1, 1, None, 0)

# Of each operation one with everything that is optional, and one without.
OPERATIONS = [
    (
        Enqueue("a", b"{}", 1, 2, 3, key="k", headers={"b": "1", "data": "2"}),
        Enqueue("a", b"{}", 1),
    ),
    *((each, each) for each in (Lease("a", 1, 1, "1-0", 1, "b", 1), Lease("a", 1, 1, "", 1, "b", 1))),
    (Extend("a", 1, 1, "b", 1), Extend("a", 1, 1, "b", 1)),
    (Complete("a", 1), Complete("a", 1)),
    (Fail("a", 1, Cause.FAILED, ERROR, 1), Fail("a", 1, Cause.FAILED, ERROR, 1)),
    (Bury("a", 1, Cause.FAILED, ERROR), Bury("a", 1, Cause.FAILED, ERROR)),
    (Release("a", 1, 2, "ann", "why"), Release("a", 1)),
    (Expire("a"), Expire("a")),
    (Requeue("a", act="b"), Requeue("a")),
    (Remove("a", to="b"), Remove("a")),
    (PauseQueue("ann", "why"), PauseQueue("ann", "")),
    (ResumeQueue("ann"), ResumeQueue("ann")),
    (Keep("a", b"{}", ENTRY), Keep("a", b"{}", ENTRY)),
    (Restore("a", b"{}", ENTRY, source="b"), Restore("a", b"{}", ENTRY)),
    (Repair("a.jsonl"), Repair("a.jsonl")),
    (Drop(2, 99, 1, None, Ledger()), Drop(2, 99, 1, None)),
    (Adopt(1, None, Ledger()), Adopt(1, None)),
    (Seal(2), Seal(2)),
]


def fields_of(operation):
    """The names that the encoder writes, in order, without those of every record."""
    names = list(json.loads(record.encode(operation, 1, NOON)))
    assert names[:3] == ["op", "seq", "at"]
    assert names[-1] == "crc"
    return names[3:-1]


def rows(heading):
    """The rows of the first table behind that text, as lists of cells."""
    table = TEXT[TEXT.index(heading) :].partition("\n|---")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def layout(heading):
    """Offset, length and name of each fixed field in the table behind that text."""
    found = [(int(row[0]), row[1], row[2].strip("`")) for row in rows(heading)]
    return [(offset, int(length), name) for offset, length, name in found if length]


def dump(heading):
    """Offset and bytes of the hex dump behind that text."""
    lines = TEXT[TEXT.index(heading) :].partition("```\n")[2].partition("```")[0].splitlines()
    for line in lines:
        data = bytes.fromhex(line[6:53])
        assert line[55:] == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
    assert [int(line[:4], 16) for line in lines] == [
        int(lines[0][:4], 16) + 16 * i for i in range(len(lines))
    ]
    return int(lines[0][:4], 16), bytes.fromhex("".join(line[6:53] for line in lines))


def numbers(data, heading):
    """The bytes taken apart by the table behind that text."""
    fields = layout(heading)
    ends = [offset + length for offset, length, _ in fields]
    assert [offset for offset, _, _ in fields] == [0, *ends[:-1]]
    return {name: int.from_bytes(data[at : at + length], "little") for at, length, name in fields}, ends[-1]


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A storage in which the examples of the document were made, still open."""
    path = tmp_path_factory.mktemp("format") / "queues"
    with FileStorage(path, clock=FakeClock()) as made:
        mail = Queue("mail", made)
        mail.pause(who="ann")
        mail.resume(who="ann")
        mail.enqueue(
            {"to": "a@example.org"},
            id="order-17",
            priority=5,
            delay=timedelta(seconds=30),
            ttl=timedelta(hours=1),
        )
        mail.enqueue("now")
        mail.dequeue()
        yield path


def test_the_example_record_is_real(storage):
    """The line printed in the document is, byte for byte, what DuraQ writes, and decodes."""
    (line,) = re.findall(r"^```json\n(.*)\n```$", TEXT, re.MULTILINE)
    segment = storage / "mail" / "segments" / "00000000000000000001.jsonl"
    assert line.encode() in segment.read_bytes().splitlines()
    found = record.decode(line.encode() + b"\n")
    assert (found.operation.id, found.seq, found.operation.priority) == ("order-17", 3, 5)
    suffix = re.search(r"newline included: `(.*)`", TEXT)[1]
    assert line.endswith(suffix)
    assert len(suffix) + 1 == record.SUFFIX_LENGTH


def test_the_table_of_operations_is_complete():
    """The document has a row for each operation that a record may have, and for no other."""
    names = [row[0].strip("`") for row in rows("| op |")]
    assert sorted(names) == sorted(record._DECODE)
    assert {full.op for full, _ in OPERATIONS} == set(names)


@pytest.mark.parametrize(("full", "bare"), OPERATIONS, ids=lambda operation: operation.op)
def test_the_table_names_the_fields(full, bare):
    """An operation's row has the names that the encoder writes, in that order, the optional ones marked."""
    (row,) = (row for row in rows("| op |") if row[0] == f"`{full.op}`")
    names = re.findall(r"`([^`]+)`", row[1])
    assert [name.removesuffix("?") for name in names] == fields_of(full)
    assert [name for name in names if not name.endswith("?")] == fields_of(bare)


def test_the_header_is_real(storage):
    """The header printed in the document is what DuraQ writes, and its table takes it apart."""
    at, data = dump("The header:")
    assert at == 0
    assert (storage / "journal" / "1.journal").read_bytes().startswith(data)
    found, length = numbers(data, "The header:")
    assert length == len(data) == len(Header(1, 0, 1).encode())
    header = Header.decode(data)
    assert header is not None
    assert {name: found[name] for name in header._fields} == header._asdict()
    assert found["format"] == FORMAT
    assert data[:8] == b"DURAQjnl"
    assert f"a header block of {HEADER_BYTES} bytes" in TEXT


def test_the_frame_is_real(storage):
    """The frame printed in the document is a storage's first, and its tables take it apart."""
    at, data = dump("The first frame of a storage")
    assert at == HEADER_BYTES
    assert (storage / "journal" / "1.journal").read_bytes()[at:].startswith(data)
    decoded = frame.decode(data)
    assert decoded is not None
    assert decoded.length == len(data)
    found, length = numbers(data, "The frame is what")
    assert length == frame.HEAD_LENGTH
    for name in ("epoch", "position", "synced", "previous", "crc"):
        assert found[name] == getattr(decoded, name)
    assert found["length"] == len(decoded.body)
    assert data.startswith(frame.MAGIC)


def test_the_part_of_the_frame_is_real():
    """The table of a part takes apart the body of the frame that is printed."""
    _, data = dump("The first frame of a storage")
    decoded = frame.decode(data)
    (part,) = decoded.parts()
    found, length = numbers(decoded.body, "The body is parts")
    assert found["name_length"] == len(part.queue)
    assert found["lines_length"] == len(part.lines)
    assert (found["segment"], found["offset"]) == (part.segment, part.offset)
    assert decoded.body[length:] == part.queue.encode() + part.lines
    assert record.decode(part.lines).operation == PauseQueue("ann", "")


def test_the_line_of_ends_is_real():
    """The line of ends.jsonl that is printed has a record's checksum."""
    (line,) = re.findall(r'`(\{"op":"ends".*?\})`', TEXT)
    record.check(line.encode() + b"\n")


def test_the_picture_shows_every_file(storage):
    """Every file and directory of a storage is in the picture, by its name or by an example of it."""
    picture = TEXT.partition("```\n")[2].partition("```")[0]
    names = set(picture.replace("/", " ").split())
    for path in storage.rglob("*"):
        if path.parent.name == "leases":
            assert f"4711-9f3c02ab{path.suffix}" in names
        elif path.name != "mail":
            assert path.name in names
    assert {ENDS, POISON, MARKER} <= names


def test_the_marker_is_real(storage):
    """The marker is what the picture says it is."""
    assert (storage / MARKER).read_text().strip() in TEXT


def test_the_control_block():
    """The notes in the lock's file are as long as the document says."""
    assert f"in it {control.LENGTH} bytes of notes" in TEXT
