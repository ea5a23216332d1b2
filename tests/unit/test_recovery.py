"""The table of recovery: what of the journal was damaged, and what must remain. For segments see
test_recovery_segments.py.

A journal file of ``stored`` takes 29 of its entries. After 20 all are in epoch 1, and the file of epoch 2 is
prepared; after 35 six are in epoch 2. After 50 they are in epochs 1 and 2, the file of epoch 1 was given to
epoch 3, and ends.jsonl was written; after 60 two are in epoch 3.
"""

from __future__ import annotations

import shutil
from contextlib import suppress

import orjson
import pytest

from duraq import StorageDamaged, StorageFailed, UnsupportedVersion
from duraq.inspector import Inspector
from duraq.journal import ends, frame, record
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.journal import FORMAT
from duraq.journal.recovery import read_journal
from duraq.operations import Enqueue


def jobs(stored):
    return stored.read()["jobs"]


def goes_on(stored, expected):
    """What is expected is there; so is what is written then, once the journal has gone round as well."""
    assert jobs(stored) == expected
    stored.write("jobs", *range(1000, 1100))
    assert jobs(stored) == [*expected, *range(1000, 1100)]


# -- headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "epoch"), [(20, 2), (50, 3)])
@pytest.mark.parametrize("damage", ["half", "bit", "nothing"])
def test_header_that_was_being_written(stored, count, epoch, damage):
    """The header of a file without a frame of its own may be torn, whichever of the two it is."""
    stored.write("jobs", *range(count))
    assert stored.header(epoch).epoch == epoch
    assert stored.frames(epoch) == []
    file = stored.journal(epoch)
    if damage == "bit":
        stored.flip(file, 13)
    else:
        stored.overwrite(file, 16 if damage == "half" else 0, bytes(100))
    assert stored.header(epoch) is None
    goes_on(stored, list(range(count)))


@pytest.mark.parametrize(("count", "epoch"), [(35, 2), (60, 3)])
def test_header_in_front_of_newer_frames(stored, count, epoch):
    """A damaged header that frames of its epoch follow is damage, and the file is named."""
    stored.write("jobs", *range(count))
    stored.flip(stored.journal(epoch), 13)
    stored.refused(f"journal/{epoch % 2}.journal", 0)


@pytest.mark.parametrize(("count", "epoch"), [(20, 1), (35, 1), (50, 2)])
def test_header_in_front_of_older_frames(stored, count, epoch):
    """A damaged header is damage too if its frames are the older ones and are still needed."""
    stored.write("jobs", *range(count))
    assert stored.frames(epoch)
    stored.flip(stored.journal(epoch), 13)
    stored.refused(f"journal/{epoch % 2}.journal", 0)


@pytest.mark.parametrize(("count", "epoch"), [(20, 1), (50, 2)])
def test_journal_file_that_is_gone(stored, count, epoch):
    """A journal file whose frames are needed may not be missing."""
    stored.write("jobs", *range(count))
    stored.journal(epoch).unlink()
    with pytest.raises(StorageDamaged, match=f"{epoch % 2}.journal"):
        jobs(stored)


def test_both_headers(stored):
    """Without any header the storage is refused."""
    stored.write("jobs", *range(5))
    for epoch in (1, 2):
        stored.flip(stored.journal(epoch), 30)
    stored.refused("journal/0.journal", 0)


def test_header_of_a_newer_format(stored):
    """A journal of a newer format is refused by its number, before anything is changed."""
    stored.write("jobs", *range(5))
    header = bytearray(stored.journal(1).read_bytes()[:32])
    header[8] = FORMAT + 1
    stored.overwrite(stored.journal(1), 0, bytes(header) + frame.crc32(header).to_bytes(4, "little"))
    before = stored.contents()
    with pytest.raises(UnsupportedVersion, match=f"format {FORMAT + 1}"):
        jobs(stored)
    assert stored.contents() == before


# -- frames ------------------------------------------------------------------------------------------------


def halve(stored, at, length):
    stored.overwrite(stored.journal(1), at + length // 2, bytes(length - length // 2))


def only_head(stored, at, length):
    stored.overwrite(stored.journal(1), at + frame.HEAD_LENGTH, bytes(length - frame.HEAD_LENGTH))


def only_body(stored, at, length):
    stored.overwrite(stored.journal(1), at, bytes(frame.HEAD_LENGTH))


def one_bit(stored, at, length):
    stored.flip(stored.journal(1), at + length - 20)


def endless(stored, at, length):
    stored.overwrite(stored.journal(1), at + 28, b"\xff\xff\xff\xff")


TEARS = [halve, only_head, only_body, one_bit, endless]


@pytest.mark.parametrize("tear", TEARS)
def test_the_last_frame_is_torn(stored, tear):
    """A torn last frame never happened; its line is cut off the segment, and kept."""
    stored.write("jobs", *range(5))
    at, last = stored.frames(1)[-1]
    segment = stored.segments("jobs")[0].read_bytes()
    tear(stored, at, last.length)
    assert jobs(stored) == [0, 1, 2, 3]
    (part,) = last.parts()
    assert stored.quarantined("jobs") == {f"00000000000000000001.jsonl.{part.offset}.cut": part.lines}
    assert stored.segments("jobs")[0].read_bytes() == segment[: part.offset]
    goes_on(stored, [0, 1, 2, 3])


@pytest.mark.parametrize("tear", TEARS)
def test_a_durable_frame_is_damaged(stored, tear):
    """A broken frame that a later one knew to be durable is damage: file and byte are named."""
    stored.write("jobs", *range(9))
    at, broken = stored.frames(1)[4]
    tear(stored, at, broken.length)
    stored.refused("journal/1.journal", at)


@pytest.mark.parametrize("tear", TEARS)
def test_a_break_that_was_not_durable(stored, tear):
    """Without syncs a broken frame ends the journal: what came before it is there, what came after is not."""
    stored.write("jobs", *range(9), durability="process")
    at, broken = stored.frames(1)[4]
    tear(stored, at, broken.length)
    goes_on(stored, [0, 1, 2, 3])


def test_frames_of_an_old_epoch_lie_behind(stored):
    """What an earlier round has left behind the last frame is no frame."""
    stored.write("jobs", *range(60))
    at, last = stored.frames(3)[-1]
    content = stored.journal(3).read_bytes()
    assert {each.epoch for each in frame.find(content, at + last.length)} == {1}
    goes_on(stored, list(range(60)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"epoch": 0}, [0, 1, 2, 3, 4]),
        ({"epoch": 3}, [0, 1, 2, 3, 4]),
        ({"position": 0}, [0, 1, 2, 3, 4]),
        ({"previous": 0}, [0, 1, 2, 3, 4]),
    ],
    ids=lambda value: ",".join(value) or "right" if isinstance(value, dict) else "",
)
def test_only_the_next_frame_counts(stored, change, expected):
    """A whole frame counts if it has the right epoch, position and predecessor, and only then."""
    stored.write("jobs", *range(5))
    at, last = stored.frames(1)[-1]
    (part,) = last.parts()
    line = record.encode(Enqueue("jobs-5", b"1"), 6, "2026-01-01T12:00:00.000000Z")
    right = {"epoch": 1, "position": last.end, "synced": 0, "previous": last.crc}
    share = ("jobs", 1, part.offset + len(part.lines), line)
    data, _ = frame.encode(**(right | change), parts=[share])
    stored.overwrite(stored.journal(1), at + last.length, data)
    assert jobs(stored) == expected


def test_frames_chain_across_the_files(stored):
    """The newer file goes on where the older one ends: together they hold every line."""
    stored.write("jobs", *range(35))
    assert len(stored.frames(1)) == 29
    assert len(stored.frames(2)) == 6
    assert stored.frames(2)[0][1].previous == stored.frames(1)[-1][1].crc
    segment = stored.segments("jobs")[0]
    whole = segment.read_bytes()
    segment.write_bytes(b"")
    goes_on(stored, list(range(35)))
    assert segment.read_bytes().startswith(whole)


def test_the_older_file_breaks_off(stored):
    """A break at the end of the older file is damage if frames in the newer one knew more to be durable."""
    stored.write("jobs", *range(35))
    at, _ = stored.frames(1)[-1]
    stored.flip(stored.journal(1), at + 50)
    stored.refused("journal/1.journal", at)


def test_the_older_file_breaks_off_undurably(stored):
    """If they did not, the frames in the newer file never happened either."""
    stored.write("jobs", *range(29))
    stored.write("jobs", *range(29, 35), durability="process")
    at, _ = stored.frames(1)[-1]
    assert {each.synced for _, each in stored.frames(2)} == {0}
    stored.flip(stored.journal(1), at + 50)
    goes_on(stored, list(range(28)))


def test_what_read_journal_tells(stored):
    """It tells all frames in order, where the journal stands behind them, and the newest epoch."""
    stored.write("jobs", *range(60))
    fs = RealFileSystem()
    root = fs.open_root(str(stored.path / "journal"))
    files = tuple(fs.open_file(root, f"{number}.journal") for number in (0, 1))
    found = read_journal(fs, files)
    last = found.frames[-1]
    later = read_journal(fs, files, durable=last.position)
    for fd in (root, *files):
        fs.close(fd)
    assert found.frames == [each for epoch in (2, 3) for _, each in stored.frames(epoch)]
    standing = found.standing
    assert (standing.epoch, standing.chain, standing.start, standing.end) == (
        3,
        last.crc,
        last.position,
        last.end,
    )
    assert (standing.base, standing.synced, found.newest) == (stored.header(3).base, 0, 3)
    assert later == found._replace(frames=[last])


# -- ends.jsonl --------------------------------------------------------------------------------------------


def test_ends_is_not_needed_before_the_first_recycling(stored):
    """A storage whose journal was never recycled has no ends.jsonl, and needs none."""
    stored.write("jobs", *range(35))
    assert not (stored.path / "journal" / ends.NAME).exists()
    assert jobs(stored) == list(range(35))


def test_ends_is_missing(stored):
    """Without ends.jsonl a recycled storage is refused, for nobody could tell what was promised."""
    stored.write("jobs", *range(50))
    (stored.path / "journal" / ends.NAME).unlink()
    stored.refused("journal/ends.jsonl", 0)


@pytest.mark.parametrize("damage", ["bit", "half", "empty"])
def test_ends_is_damaged(stored, damage):
    """An ends.jsonl that is not whole is refused."""
    stored.write("jobs", *range(50))
    file = stored.path / "journal" / ends.NAME
    whole = file.read_bytes()
    file.write_bytes({"bit": whole.replace(b"8192", b"8193"), "half": whole[:40], "empty": b""}[damage])
    stored.refused("journal/ends.jsonl", 0)


def test_ends_was_being_written(stored):
    """A half-written successor of ends.jsonl, which never got its name, is of no account."""
    stored.write("jobs", *range(50))
    (stored.path / "journal" / f"{ends.NAME}.tmp").write_bytes(b'{"op":"ends","posi')
    goes_on(stored, list(range(50)))


def test_ends_knows_more_than_the_frames(stored):
    """What ends.jsonl knows to be durable is not cut, even if the frame that wrote it is gone."""
    stored.write("jobs", *range(50), durability="process")
    at, _ = stored.frames(2)[-1]
    stored.flip(stored.journal(2), at + 50)
    size = stored.segments("jobs")[0].stat().st_size
    fs = RealFileSystem()
    journal = fs.open_root(str(stored.path / "journal"))
    ends.save(fs, journal, ends.Ends(8192, {"jobs": ends.End(1, size)}))
    fs.close(journal)
    assert jobs(stored) == list(range(50))


# -- the notes of living processes -------------------------------------------------------------------------

JUNK = {
    "missing": None,
    "empty": b"",
    "half": b"half",
    "zeros": bytes(52),
    "ones": b"\xff" * 52,
    "earlier": b"earlier",
}


@pytest.mark.parametrize("junk", JUNK)
def test_control_block_of_another_life(stored, junk):
    """Whatever the control block says when a storage is opened first, it is made anew from the journal."""
    lock = stored.path / "journal" / "lock"
    stored.write("jobs", *range(20))
    earlier = lock.read_bytes()
    stored.write("jobs", *range(20, 35))
    with stored.opened():
        right = lock.read_bytes()
    assert right[:44] != earlier[:44]
    lock.unlink()
    if junk != "missing":
        lock.write_bytes({"half": right[:26], "earlier": earlier}.get(junk, JUNK[junk]))
    with stored.opened():
        assert lock.read_bytes() == right
    goes_on(stored, list(range(35)))


@pytest.mark.parametrize("junk", [b"\xff" * 20, bytes(52), b"\xff" * 52])
def test_control_block_is_lost_while_it_is_open(stored, junk):
    """A block that a process left half-written is made anew by the next to take the lock."""
    with stored.opened() as storage:
        storage.commit({"jobs": [Enqueue("jobs-0", b"1")]})
        stored.overwrite(stored.path / "journal" / "lock", 0, junk)
        storage.commit({"jobs": [Enqueue("jobs-1", b"1")]})
        with stored.opened() as other:
            other.commit({"jobs": [Enqueue("jobs-2", b"1")]})
        storage.commit({"jobs": [Enqueue("jobs-3", b"1")]})
    goes_on(stored, [0, 1, 2, 3])


def test_a_failure_is_noted_in_the_control_block(stored):
    """After a failed sync the next to open the storage goes over to the other journal file, all kept."""
    with stored.opened() as storage:
        storage.commit({"jobs": [Enqueue("jobs-0", b"1")]})
        storage._log.failed_syncs.fail()
        with pytest.raises(StorageFailed):
            storage.counts("jobs")
    with stored.opened() as storage:
        assert storage._log.journal.standing.epoch == 2
    goes_on(stored, [0])


def test_a_failure_holds_for_who_opens_it_meanwhile(stored):
    """Until the storage is closed everywhere, nobody who opens it after a failed sync may write."""
    with stored.opened() as storage:
        storage.commit({"jobs": [Enqueue("jobs-0", b"1")]})
        storage._log.failed_syncs.fail()
        with pytest.raises(StorageFailed), stored.opened():
            pass


# -- the mark of a failed sync -----------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b'{"epoch":2}\n', b"", b'{"ep', b'{"epoch":null}'])
def test_poisoned_file(stored, mark):
    """The file that the mark names, or a mark that is half there, is left for the other one, once."""
    stored.write("jobs", *range(35))
    before = stored.segments("jobs")[0].read_bytes()
    poison = stored.path / "journal" / "poison.json"
    poison.write_bytes(mark)
    for _ in range(2):
        with stored.opened() as storage:
            assert storage._log.journal.standing.epoch == 3
    assert orjson.loads(poison.read_bytes()) == {"epoch": 2}
    assert stored.segments("jobs")[0].read_bytes() == before
    # What is in the files that were left is needed no more, be it whole or not.
    with suppress(IndexError):
        stored.flip(stored.journal(2), stored.frames(2)[2][0] + 50)
    goes_on(stored, list(range(35)))


def test_poison_of_an_earlier_epoch(stored):
    """A mark that names a file which was left long ago is of no account."""
    stored.write("jobs", *range(35))
    (stored.path / "journal" / "poison.json").write_bytes(b'{"epoch":1}\n')
    with stored.opened() as storage:
        assert storage._log.journal.standing.epoch == 2
    goes_on(stored, list(range(35)))


# -- readers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tear", [halve, one_bit])
@pytest.mark.parametrize("which", [4, -1])
def test_an_inspector_recovers_in_memory(stored, tmp_path, tear, which):
    """An inspector finds what the next opener does, or refuses as it does, and writes nothing."""
    stored.write("jobs", *range(9))
    at, broken = stored.frames(1)[which]
    tear(stored, at, broken.length)
    shutil.copytree(stored.path, tmp_path / "copy")
    before = stored.contents()
    try:
        with Inspector(stored.path) as inspector:
            found = [entry.id for entry in inspector.entries("jobs")]
    except StorageDamaged as error:
        found = (error.path, error.byte)
    assert found == ([f"jobs-{n}" for n in range(8)] if which == -1 else ("journal/1.journal", at))
    assert stored.contents() == before
