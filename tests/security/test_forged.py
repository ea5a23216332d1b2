"""Lines, frames and notes that somebody has made by hand, their checksums right: not believed for that."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from itertools import cycle
from zlib import crc32

import orjson
import pytest
from click.testing import CliRunner

from duraq import DeadLetterQueue, FileStorage, NoRetry, Queue, repair, verify
from duraq.cli import cli
from duraq.cli.stage import run_safely
from duraq.entry import Entry
from duraq.errors import NotAStorage, StorageDamaged, UnsupportedVersion
from duraq.inspector import Inspector
from duraq.journal import frame, index, record
from duraq.journal.index import BadIndex, Index
from duraq.journal.journal import HEADER_BYTES, Header
from duraq.journal.log import Sizes
from duraq.operations import Enqueue

SIZES = Sizes(journal=64 << 10)
AT = b"2026-01-01T12:00:00.000000Z"


@pytest.fixture
def root(tmp_path):
    """A storage with nothing in it."""
    FileStorage(tmp_path / "q", sizes=SIZES).close()
    return tmp_path / "q"


def line(number: int, op: str, fields: str) -> bytes:
    """A record of these fields."""
    return record.finished(b'{"op":"%b","seq":%d,"at":"%b",%b' % (op.encode(), number, AT, fields.encode()))


def make(root, *records: tuple[str, str], queue: str = "jobs") -> None:
    """Have the queue consist of these records, as a backup could bring them back."""
    lines = b"".join(line(number, *each) for number, each in enumerate(records, 1))
    (root / "jobs" / "segments").mkdir(parents=True, mode=0o700)
    (root / "jobs").chmod(0o700)
    (root / "jobs" / "segments" / f"{1:020d}.jsonl").write_bytes(lines)
    note(root, {queue: [1, len(lines)]})


def note(root, queues: object, position: object = 0) -> None:
    body = orjson.dumps({"op": "ends", "position": position, "queues": queues})[:-1]
    (root / "journal" / "ends.jsonl").write_bytes(record.finished(body))


ENQUEUE = ("enqueue", '"id":"a","priority":0,"data":1')
LEASE = (
    "lease",
    '"id":"a","token":1,"attempt":1,"worker":"","deadline_at":"2026-01-01T12:05:00.000000Z","deadline":1,"boot":"b"',
)
ERROR = '"error":{"type":"","message":"","traceback":""}'

# -- payloads that are bombs -------------------------------------------------------------------------------

BOMBS = {
    "nested 129 deep": "[" * 129 + "]" * 129,
    "nested 400 deep": '{"a":' * 400 + "1" + "}" * 400,
    "nested 3000 deep": "[" * 3000 + "]" * 3000,
    "4 MiB": json.dumps("x" * (4 << 20)),
    "keys that occur twice": '{"a":1,"a":2}',
    "an integer of 5000 digits": "1" * 5000,
    "an infinite number": "1e400",
    "NaN": "NaN",
    "a lone surrogate": r'"\ud800"',
    "controls": r'"\u001b]52;c;aGk=\u0007\u009b\u202e\u0000\n"',
    "a line's end": '"a\nb"',
    "no JSON": "{",
    "more than one value": "1,2",
    "another record's end": '1,"crc":"00000000"}',
}
STYLES = cycle(("json", "table", "tsv", "csv", "jsonl"))
COMMANDS = (
    "stats",
    "ls jobs",
    "peek jobs",
    "tail",
    "show a",
    "dlq ls",
    "check --no-write",
    "metrics",
    "show --raw a",
)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_that_is_read_is_damage_or_a_dead_letter(root, bomb):
    """A payload that nobody could have enqueued ends as a dead letter or as damage, and goes off nowhere."""
    make(
        root,
        ("enqueue", f'"id":"a","priority":0,"data":{BOMBS[bomb]}'),
        ("enqueue", '"id":"b","priority":0,"data":2'),
    )
    for command in COMMANDS:
        arguments = ["-o", next(STYLES), *command.split()]
        result = CliRunner(env={"DURAQ_ROOT": str(root)}).invoke(_Safely(), arguments)
        # What a check finds has other codes.
        assert result.exit_code in ({0, 1, 2} if command.startswith("check") else {0, 4, 7}), result.stderr
        assert "\x1b" not in result.output
    with FileStorage(root) as storage:
        jobs = Queue("jobs", storage, retry_policy=NoRetry())
        try:
            delivered = [entry.data for entry in iter(jobs.dequeue, None)]
        except StorageDamaged:
            return
        dead = [letter.id for letter in DeadLetterQueue("jobs", None, storage).list()]
    assert delivered[-1:] == [2]
    assert (len(delivered), dead) in [(2, []), (1, ["a"])]


class _Safely:
    name = "duraq"

    def main(self, args, **_options):
        raise SystemExit(run_safely(cli, list(args)))


# -- records that could not be ours ------------------------------------------------------------------------

FOREIGN = {
    "an id that is a path": ("enqueue", '"id":"../../etc/passwd","priority":0,"data":1'),
    "an id that ends its line": ("enqueue", r'"id":"a\",\"op\":\"complete","priority":0,"data":1'),
    "an id with a line's end": ("enqueue", r'"id":"a\n","priority":0,"data":1'),
    "an id that is no text": ("enqueue", '"id":7,"priority":0,"data":1'),
    "an entry without a payload": ("enqueue", '"id":"b","priority":0'),
    "a payload under another name": ("enqueue", '"id":"b","priority":0,"datum":1'),
    "a priority of 40 bits": ("enqueue", '"id":"a","priority":1099511627776,"data":1'),
    "a priority that is true": ("enqueue", '"id":"a","priority":true,"data":1'),
    "headers that are no texts": ("enqueue", '"id":"a","priority":0,"headers":{"h":1},"data":1'),
    "a key that is no text": ("enqueue", '"id":"a","priority":0,"key":[],"data":1'),
    "a time without a zone": (
        "enqueue",
        '"id":"a","priority":0,"ready_at":"2026-01-01T12:00:00.000000","data":1',
    ),
    "a time before time": (
        "enqueue",
        '"id":"a","priority":0,"ready_at":"0001-01-01T12:00:00.000000Z","data":1',
    ),
    "a worker that is a path": (LEASE[0], LEASE[1].replace('"worker":""', '"worker":"../../x"')),
    "a token that is no number": (LEASE[0], LEASE[1].replace('"token":1', '"token":"1"')),
    "a token that leaves no room": (LEASE[0], LEASE[1].replace('"token":1', '"token":18446744073709551615')),
    "a second enqueue": ENQUEUE,
    "an end of what nobody holds": ("complete", '"id":"a","token":1'),
    "a failure of what nobody holds": ("dead", f'"id":"a","token":1,"cause":"failed",{ERROR}'),
    "a removal of what is not dead": ("remove", '"id":"a"'),
    "a retry of what is not dead": ("requeue", '"id":"a","keep_attempts":true'),
    "an entry that is not there": ("expire", '"id":"b"'),
    "a drop of nothing": ("drop", '"first":9,"bytes":-1,"tokens":0,"pause":null'),
    "a seal that names its own segment": ("seal", '"next":1'),
    "a seal that leaves records out": ("seal", '"next":9'),
    "an operation of a later version": ("levitate", '"id":"a"'),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_record_that_could_not_be_ours_is_damage(root, foreign):
    """A record that says what no writer of ours says keeps its queue from being used, and no other."""
    make(root, ENQUEUE, FOREIGN[foreign])
    with Inspector(root) as inspector:
        assert isinstance(inspector.overview("jobs").problem, StorageDamaged)
    with suppress(UnsupportedVersion):
        assert not verify(root).sound
    with FileStorage(root) as storage:
        jobs, others = Queue("jobs", storage), Queue("others", storage)
        for call in (jobs.dequeue, jobs.counts, lambda: jobs.enqueue(1, id="new"), jobs.entries):
            with pytest.raises(StorageDamaged):
                call()
        others.enqueue(1)
        assert others.dequeue(wait=timedelta(seconds=1)).data == 1


def test_the_line_that_they_are_made_of_is_fine(root):
    """The same records without anything foreign are a queue: what is refused above is what is wrong."""
    make(root, ENQUEUE, LEASE)
    with FileStorage(root) as storage:
        assert Queue("jobs", storage).counts().leased == 1


def test_a_last_line_without_an_end_is_told_by_who_only_looks(root):
    """A line that was durable and has lost its end is damage to an inspector as it is to the next opener."""
    make(root, ENQUEUE, ("enqueue", '"id":"b","priority":0,"data":2'))
    segment = root / "jobs" / "segments" / f"{1:020d}.jsonl"
    segment.write_bytes(segment.read_bytes()[:-1] + b" ")
    with Inspector(root) as inspector:
        assert "has no end" in str(inspector.overview("jobs").problem)
    with FileStorage(root) as storage, pytest.raises(StorageDamaged, match="has no end"):
        Queue("jobs", storage).counts()


# -- numbers that are out of all proportion ----------------------------------------------------------------


def write_frame(root, *shares: tuple[str, int, int, bytes], position: int = 0) -> None:
    """Have the journal hold a frame with that in it."""
    encoded, _ = frame.encode(1, position, 0, 0, shares)
    journal = root / "journal" / "1.journal"
    content = journal.read_bytes()
    journal.write_bytes(content[:HEADER_BYTES] + encoded + content[HEADER_BYTES + len(encoded) :])


def refused_in_words(root) -> None:
    """Who looks, verifies, opens or repairs has an answer, in little memory."""
    with Inspector(root) as inspector:
        inspector.queues()
    assert not verify(root).sound
    with FileStorage(root) as storage:
        Queue("others", storage).enqueue(1)
    with pytest.raises(StorageDamaged, match="are missing here"):
        repair(root)


@pytest.mark.parametrize("number", [1 << 40, (1 << 62) - 2])
def test_a_record_of_a_number_that_nobody_has_counted_to(root, number):
    """A record far ahead of the others is damage, and not made up for by a record for each between."""
    make(root, ENQUEUE)
    segment = root / "jobs" / "segments" / f"{1:020d}.jsonl"
    ahead = b"".join(line(number + more, "expire", '"id":"b"') for more in range(2))
    segment.write_bytes(segment.read_bytes() + ahead)
    note(root, {"jobs": [1, segment.stat().st_size]})
    refused_in_words(root)


@pytest.mark.parametrize("offset", [1 << 40, (1 << 62) - 1])
def test_a_frame_for_a_byte_that_no_segment_has(root, offset):
    """Lines for a byte far behind a segment's end are kept for whoever repairs, and put nowhere else."""
    write_frame(root, ("jobs", 1, offset, line(1, *ENQUEUE)))
    refused_in_words(root)


@pytest.mark.parametrize("size", [1 << 40, (1 << 62) - 1])
def test_an_end_that_no_segment_has(root, size):
    """A note that a queue ended far behind where it ends refuses the queue, and no other."""
    make(root, ENQUEUE)
    note(root, {"jobs": [1, size]})
    refused_in_words(root)


@pytest.mark.parametrize("share", [("jobs", 1 << 62, 0), ("jobs", 1, (1 << 64) - 1)])
def test_a_frame_beyond_all_numbers_is_none(root, share):
    """A frame for a segment or a byte that cannot be is passed over like a torn one."""
    write_frame(root, (*share, line(1, *ENQUEUE)))
    with FileStorage(root) as storage:
        assert storage.queues() == []


def test_a_frame_at_a_position_beyond_all_numbers_is_none():
    """Nor is a position believed behind which there is no room."""
    for position, is_one in ((1 << 61, True), (1 << 62, False)):
        encoded, _ = frame.encode(1, position, 0, 0, [("jobs", 1, 0, b"")])
        assert (frame.decode(encoded) is not None) is is_one


@pytest.mark.parametrize(
    "header",
    [Header(1, 1 << 62, 8 << 10), Header((1 << 32) - 1, 0, 8 << 10), Header(1, 0, 1 << 62)],
    ids=str,
)
def test_a_header_beyond_all_numbers(root, header):
    """A journal whose headers leave no room behind them is damaged, and made anew by a repair."""
    with FileStorage(root) as storage:
        Queue("jobs", storage).enqueue(1)
    for number in range(2):
        file = root / "journal" / f"{number}.journal"
        head = header._replace(epoch=header.epoch - number).encode()
        file.write_bytes(head + file.read_bytes()[len(head) :])
    for kind in (Inspector, FileStorage):
        with pytest.raises(StorageDamaged, match="header"):
            kind(root)
    repair(root)
    with FileStorage(root) as storage:
        assert Queue("jobs", storage).counts().ready == 1
    assert (root / "journal" / "1.journal").stat().st_size < 16 << 20


def test_a_header_that_says_more_than_there_is(root):
    """A journal that is made anew is as large as the old one was, whatever that said of itself."""
    for number in range(2):
        file = root / "journal" / f"{number}.journal"
        head = Header(2 - number, (1 - number) << 50, 1 << 50).encode()
        file.write_bytes(head + file.read_bytes()[len(head) :])
    (root / "journal" / "ends.jsonl").write_bytes(b"junk")
    assert not verify(root).sound
    repair(root)
    assert (root / "journal" / "1.journal").stat().st_size < 16 << 20


def test_a_drop_in_a_frame_that_is_none(root):
    """A frame in which a drop is no record keeps its queue from being used, and not the storage."""
    write_frame(root, ("jobs", 1, 0, line(1, *ENQUEUE) + b'{"op":"drop","crc":"00000000"}\n'))
    with FileStorage(root) as storage:
        with pytest.raises(StorageDamaged):
            Queue("jobs", storage).counts()
        Queue("others", storage).enqueue(1)


def test_an_index_of_rows_that_it_has_not():
    """An index whose times are of rows that are not there is none, its checksum right."""
    entry = Entry(Enqueue("a", b"", ready_at=1, expires_at=2), 1, 0, (1, 0, 50), 0)
    content = index.build(1, [entry])
    assert Index(content).due.rows[0] == 0
    for table in range(2):
        forged = bytearray(content)
        at = index.HEADER_BYTES + int.from_bytes(content[32:36], "little") + 36 + table * 16 + 8
        forged[at] = 1
        head = bytes(forged[: index.HEADER_BYTES - 4]) + bytes(4)
        forged[index.HEADER_BYTES - 4 : index.HEADER_BYTES] = crc32(
            forged[index.HEADER_BYTES :], crc32(head)
        ).to_bytes(4, "little")
        with pytest.raises(BadIndex, match="rows"):
            Index(bytes(forged))


# -- names that lead elsewhere -----------------------------------------------------------------------------

ELSEWHERE = ("../evil", "..", "/tmp", "jobs/../../evil", "journal", "a" * 65, "Jobs", "", "a\n", "jobs\0")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_frame_for_elsewhere_is_none(root, name):
    """A frame that would write outside of the storage's queues is passed over like a torn one."""
    write_frame(root, (name, 1, 0, line(1, *ENQUEUE)))
    before = sorted(root.parent.rglob("*"))
    with Inspector(root) as inspector:
        assert inspector.queues() == []
    with FileStorage(root) as storage:
        assert storage.queues() == []
    assert sorted(root.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_end_elsewhere_is_damage(root, name):
    """A note of where a queue ended that names none refuses the storage, and nothing is made of it."""
    make(root, ENQUEUE, queue=name)
    before = sorted(root.parent.rglob("*"))
    for kind in (Inspector, FileStorage):
        with pytest.raises(StorageDamaged, match=r"ends\.jsonl"):
            kind(root)
    assert sorted(root.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "ends", [["jobs"], {"jobs": 1}, {"jobs": [1]}, {"jobs": [-1, 0]}, {"jobs": ["1", 0]}, None]
)
def test_ends_that_are_none_are_damage(root, ends):
    """A note of the ends that says something else refuses the storage."""
    note(root, ends)
    with pytest.raises(StorageDamaged, match=r"ends\.jsonl"):
        FileStorage(root)


HISTORIES = ("[]", '{"years":1}', '{"seconds":"1"}', '{"bytes":-1}', "{}")
MARKERS = ("[]", "7", "null", "{", "[" * 4000, *(f'{{"format":1,"history":{each}}}' for each in HISTORIES))


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_that_says_something_else(root, marker):
    """A storage whose marker is not as we write it is none."""
    (root / "duraq.json").write_text(marker)
    for kind in (Inspector, FileStorage):
        with pytest.raises(NotAStorage):
            kind(root)
