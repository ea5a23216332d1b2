"""The table of recovery: what of the segments was damaged, and what must remain. For the journal, and for
what is in it after how many entries, see test_recovery.py.
"""

from __future__ import annotations

import shutil

import pytest

from duraq import Counts, StorageDamaged
from duraq.journal import record
from duraq.journal.recovery import Replay, read_journal
from duraq.operations import Complete, Enqueue
from duraq.testing import MemoryFileSystem

FIRST = "00000000000000000001.jsonl"
NEXT = record.encode(Enqueue("foreign", b"1"), 6, "2026-01-01T12:00:00.000000Z")


@pytest.fixture
def sealed(tmp_path, stored):
    """A storage whose queue ``jobs`` has sealed segments of which the journal holds nothing any more.

    No checkpoint either, so that each line is read again.
    """
    small = type(stored)(tmp_path / "sealed", segment=2 << 10)
    small.write("jobs", *range(30))
    small.write("other", *range(110))
    assert len(small.segments("jobs")) == 3
    small.forget()
    return small


# -- lines that are missing --------------------------------------------------------------------------------


def empty(stored, segment):
    segment.write_bytes(b"")


def cut_line(stored, segment):
    segment.write_bytes(segment.read_bytes()[:-100])


def one_byte(stored, segment):
    segment.write_bytes(segment.read_bytes()[:-1])


def nuls_inside(stored, segment):
    stored.overwrite(segment, 300, bytes(400))


def no_file(stored, segment):
    segment.unlink()


def no_segments(stored, segment):
    shutil.rmtree(segment.parent)


def no_queue(stored, segment):
    shutil.rmtree(segment.parent.parent)


@pytest.mark.parametrize(
    "lose", [empty, cut_line, one_byte, nuls_inside, no_file, no_segments, no_queue], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("count", [5, 35])
def test_missing_lines_are_written_again(stored, lose, count):
    """Whatever of a segment is missing, be it the queue's directory, is made again from the frames."""
    stored.write("jobs", *range(count))
    stored.write("other", 1)
    before = stored.contents()
    lose(stored, stored.segments("jobs")[0])
    assert stored.contents() != before
    assert stored.read() == {"jobs": list(range(count)), "other": [1]}
    assert stored.contents() == before
    stored.write("jobs", 1000)
    assert stored.read()["jobs"] == [*range(count), 1000]


def test_lines_of_several_segments_are_written_again(tmp_path, stored):
    """Frames bring back each of the segments that they wrote to, the seals included."""
    small = type(stored)(tmp_path / "small", segment=1 << 10)
    small.write("jobs", *range(20))
    before = small.contents()
    assert len(small.segments("jobs")) == 4
    shutil.rmtree(small.path / "jobs")
    assert small.read() == {"jobs": list(range(20))}
    assert small.contents() == before


# -- bytes behind the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [NEXT[:30], bytes(300), NEXT, b"\n", b"\xff" * 10])
@pytest.mark.parametrize("quiet", [False, True], ids=["frames", "ends.jsonl"])
def test_bytes_behind_the_end_are_cut(stored, tail, quiet):
    """What no frame vouches for is cut off, a whole line too, and kept, with frames left or not."""
    stored.write("jobs", *range(5))
    if quiet:
        stored.write("other", *range(110))
    segment = stored.segments("jobs")[0]
    whole = segment.read_bytes()
    segment.write_bytes(whole + tail)
    assert stored.read()["jobs"] == [0, 1, 2, 3, 4]
    assert segment.read_bytes() == whole
    assert stored.quarantined("jobs") == {f"{FIRST}.{len(whole)}.cut": tail}
    stored.write("jobs", 5)
    assert stored.read()["jobs"] == [0, 1, 2, 3, 4, 5]


def test_a_segment_behind_the_end_is_emptied(stored):
    """A segment that no frame and no end vouches for is emptied, and what was in it is kept."""
    stored.write("jobs", *range(5))
    stored.write("other", *range(110))
    newer = stored.segments("jobs")[0].with_name("00000000000000000006.jsonl")
    newer.write_bytes(NEXT)
    assert stored.read()["jobs"] == [0, 1, 2, 3, 4]
    assert newer.read_bytes() == b""
    assert stored.quarantined("jobs") == {"00000000000000000006.jsonl.0.cut": NEXT}


# -- lost ends ---------------------------------------------------------------------------------------------


def queue_is_refused(stored, segment, byte):
    """The queue is refused by all who open the storage, its segments as they were; another queue works."""
    before = {file: file.read_bytes() for file in stored.segments("jobs")}
    with stored.opened() as first, stored.opened() as second:
        for storage in (first, second):
            is_refused(storage, segment, None, byte)
            assert "other" in storage.queues()
            storage.commit({"other": [Enqueue("new", b"1", 9)]})
            (claimed,) = storage.claim("other")
            storage.commit({"other": [Complete("new", claimed.token)]})
    assert {file: file.read_bytes() for file in stored.segments("jobs")} == before


@pytest.mark.parametrize("left", [0, 700], ids=["all", "some"])
def test_a_segment_is_shorter_than_its_first_frame_says(stored, left):
    """A queue that lost lines from before its first frame is refused until they are there again."""
    stored.write("other", 1)
    stored.write("jobs", *range(60))
    segment = stored.segments("jobs")[0]
    whole = segment.read_bytes()
    (part,) = stored.frames(2)[0][1].parts()
    assert part.offset > 700
    segment.write_bytes(whole[:left])
    queue_is_refused(stored, segment, left)
    stored.write("other", *range(2, 110))
    queue_is_refused(stored, segment, left)
    # Once the journal was recycled as well, all that it held of the queue is still to be found.
    kept = stored.quarantined("jobs")
    assert b"".join(kept[name] for name in sorted(kept, key=offset)) == whole[part.offset :]
    segment.write_bytes(whole)
    assert stored.read() == {"jobs": list(range(60)), "other": list(range(1, 110))}
    assert not (stored.path / "jobs" / "damaged.json").exists()


def offset(name):
    """The byte of a segment that lines were set aside for."""
    return int(name.removesuffix(".lines").rpartition(".")[2])


def test_a_segment_is_shorter_than_ends_says(stored):
    """A queue of which no frame speaks any more is refused if it ends before ends.jsonl says."""
    stored.write("jobs", *range(5))
    stored.write("other", *range(110))
    segment = stored.segments("jobs")[0]
    segment.write_bytes(segment.read_bytes()[:-1])
    queue_is_refused(stored, segment, segment.stat().st_size)


def test_a_refusal_keeps_no_other_queue_from_being_mended(stored):
    """What the frames hold of another queue is written, whichever of the two comes first."""
    stored.write("jobs", *range(5))
    stored.write("other", *range(110))
    stored.write("jobs", 5)
    newest = stored.segments("other")[0]
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1])
    segment = stored.segments("jobs")[0]
    segment.write_bytes(b"")
    with stored.opened() as storage:
        is_refused(storage, segment, None, 0)
        assert newest.read_bytes() == whole


@pytest.mark.parametrize("lose", [no_file, no_segments, no_queue], ids=lambda f: f.__name__)
def test_a_refusal_makes_no_segment(stored, lose):
    """When a queue is refused because a segment is gone, be it with its directory, none is made."""
    stored.write("jobs", *range(60))
    segment = stored.segments("jobs")[0]
    lose(stored, segment)
    with stored.opened() as storage:
        is_refused(storage, segment, None, 0)
    assert not segment.exists()


def test_a_queue_that_somebody_removed(stored):
    """A queue whose directory is gone, and that no frame can bring back, is refused and not empty."""
    stored.write("jobs", *range(5))
    stored.write("other", *range(110))
    no_queue(stored, stored.segments("jobs")[0])
    with stored.opened() as storage, pytest.raises(StorageDamaged, match="were durable"):
        storage.commit({"jobs": [Enqueue("new", b"1")]})


# -- again -------------------------------------------------------------------------------------------------


def test_replaying_twice(stored):
    """Frames that are replayed twice leave the same bytes as once, and the second time write nothing."""
    stored.write("jobs", *range(35))
    fs = MemoryFileSystem()
    root = fs.open_root("/storage", create=True)
    journal = fs.open_dir(root, "journal", create=True)
    files = tuple(fs.open_file(journal, f"{number}.journal", create=True) for number in (0, 1))
    for epoch in (0, 1):
        fs.pwrite(files[epoch], stored.journal(epoch).read_bytes(), 0)
    frames = read_journal(fs, files).frames
    Replay(fs, root).run(frames)
    once = fs.files()
    assert once[f"storage/jobs/segments/{FIRST}"] == stored.segments("jobs")[0].read_bytes()
    calls = fs.calls
    Replay(fs, root).run(frames)
    assert fs.files() == once
    assert fs.calls == calls


@pytest.mark.parametrize("count", [5, 35, 60])
def test_opening_often(stored, count):
    """A storage that is opened ten times is the same, byte for byte, as one that was opened once."""
    stored.write("jobs", *range(count))
    segment = stored.segments("jobs")[0]
    segment.write_bytes(segment.read_bytes() + b"torn")
    found = stored.read()
    before = stored.contents()
    for _ in range(10):
        assert stored.read() == found == {"jobs": list(range(count))}
    assert stored.contents() == before


# -- damage that only a reader of the lines can see --------------------------------------------------------


def is_refused(storage, segment, line, byte):
    """Whoever asks for the queue is told the place, again and again."""
    for _ in range(2):
        with pytest.raises(StorageDamaged) as caught:
            storage.counts("jobs")
        found = caught.value
        assert (found.path, found.line, found.byte) == (f"jobs/segments/{segment.name}", line, byte)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_line_is_damaged(sealed, number):
    """A damaged line keeps its queue from being used, whichever segment it is in; another queue works."""
    segment = sealed.segments("jobs")[number]
    lines = segment.read_bytes().splitlines(keepends=True)
    byte = len(lines[0]) + len(lines[1])
    sealed.flip(segment, byte + 40)
    before = sealed.contents()
    with sealed.opened() as storage:
        is_refused(storage, segment, 3, byte)
        assert sealed.contents() == before
        storage.commit({"other": [Enqueue("new", b"1", 9)]})
        (claimed,) = storage.claim("other")
        storage.commit({"other": [Complete("new", claimed.token)]})
        assert storage.counts("other") == Counts(ready=110)


@pytest.mark.parametrize("change", ["swapped", "doubled", "gone"])
def test_lines_are_whole_but_not_the_next(sealed, change):
    """Lines that are whole but out of turn are damage as well."""
    segment = sealed.segments("jobs")[1]
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[2:4] = {"swapped": [lines[3], lines[2]], "doubled": [lines[2]] * 3, "gone": []}[change]
    segment.write_bytes(b"".join(lines))
    start = len(b"".join(lines[: 3 if change == "doubled" else 2]))
    with sealed.opened() as storage:
        is_refused(storage, segment, 4 if change == "doubled" else 3, start)


@pytest.mark.parametrize("left", ["half a seal", "no seal"])
def test_a_sealed_segment_has_lost_its_end(sealed, left):
    """A sealed segment without a whole seal is damage, and none of the later entries is hidden."""
    segment = sealed.segments("jobs")[1]
    content = segment.read_bytes()
    seal = content.rindex(b"\n", 0, -1) + 1
    segment.write_bytes(content[: seal + 20 if left == "half a seal" else seal])
    with sealed.opened() as storage, pytest.raises(StorageDamaged):
        storage.counts("jobs")


def test_the_last_newline_is_damaged(stored):
    """A damaged newline behind the last line is damage like any other."""
    stored.write("jobs", *range(5))
    stored.write("other", *range(110))
    segment = stored.segments("jobs")[0]
    stored.flip(segment, segment.stat().st_size - 1)
    with stored.opened() as storage, pytest.raises(StorageDamaged):
        storage.counts("jobs")


def test_the_first_segment_is_gone(sealed):
    """A queue whose first segment is gone is refused, for nothing says that it may be."""
    sealed.segments("jobs")[0].unlink()
    with sealed.opened() as storage, pytest.raises(StorageDamaged):
        storage.counts("jobs")


def test_a_record_of_an_entry_that_is_not_there(stored):
    """A record of an entry that is not there keeps the queue from being used, at every call."""
    with stored.opened() as storage:
        storage.commit({"jobs": [Enqueue("a", b"1")]})
        log = storage._log
        log.lock()
        tail = log.queue("jobs").tail
        log.append([(tail, tail.compose([Complete("gone", 1)], "2026-01-01T12:00:00.000000Z"))])
        log.unlock()
    with stored.opened() as storage:
        for _ in range(2):
            with pytest.raises(StorageDamaged, match="gone"):
                storage.counts("jobs")
