"""Lines, frames and notes that somebody has made by hand, their checksums right: not believed for that."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import cycle

import orjson
import pytest
from click.testing import CliRunner

from duraq import DeadLetterQueue, FileStorage, NoRetry, Queue
from duraq.cli import cli
from duraq.cli.stage import run_safely
from duraq.errors import NotAStorage, StorageDamaged
from duraq.inspector import Inspector
from duraq.journal import frame, record
from duraq.journal.journal import HEADER_BYTES
from duraq.journal.log import Sizes

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


# -- names that lead elsewhere -----------------------------------------------------------------------------

ELSEWHERE = ("../evil", "..", "/tmp", "jobs/../../evil", "journal", "a" * 65, "Jobs", "", "a\n", "jobs\0")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_frame_for_elsewhere_is_none(root, name):
    """A frame that would write outside of the storage's queues is passed over like a torn one."""
    lines = line(1, *ENQUEUE)
    encoded, _ = frame.encode(1, 0, 0, 0, [(name, 1, 0, lines)])
    journal = root / "journal" / "1.journal"
    content = journal.read_bytes()
    journal.write_bytes(content[:HEADER_BYTES] + encoded + content[HEADER_BYTES + len(encoded) :])
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
