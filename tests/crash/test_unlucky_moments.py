"""Two things at once: a failure, and a kill, a power cut or another failure while it is being made good."""

from __future__ import annotations

import errno
import logging
from contextlib import suppress

import pytest

from duraq.errors import DuraqError, LeaseLost, NotWritten, OutcomeUnknown, StorageFailed
from duraq.examining import verify
from duraq.journal.log import Log, Sizes
from duraq.operations import Complete, Enqueue, Release
from duraq.storage.file import FileStorage
from duraq.testing import Crashed, FakeClock, MemoryFileSystem
from duraq.testing.power_cut import Nothing, after_power_cut

SIZES = Sizes(journal=8 << 10, segment=2 << 10)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, one_thread):
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)


@pytest.fixture
def disk():
    """An empty disk, seen by a first process."""
    return MemoryFileSystem()


def opened(fs):
    return FileStorage("/storage", clock=FakeClock(), file_system=fs, sizes=SIZES, allow_network=True)


def put(storage, *names, size=50, queue="a"):
    storage.commit({queue: [Enqueue(name, b'"%s"' % (b"x" * size)) for name in names]})


def ids(storage, queue="a"):
    return [entry.id for entry in storage.entries(queue)]


def fill(storage, room=1400):
    """Fill the journal's file until less than that is left; returns what was put."""
    names = []
    while True:
        journal = storage._log.journal
        if journal.capacity - (journal.standing.end - journal.standing.base) < room:
            return names
        names.append(f"fill{len(names)}")
        put(storage, names[-1], size=300)


@pytest.mark.parametrize("when", [1, 2, 3])
def test_no_descriptor_for_the_next_segment(disk, when):
    """A process that could not open the next segment opens it later, and writes nothing behind the seal."""
    storage, follower = opened(disk), disk.process()
    put(storage, "0")
    other = opened(follower)
    assert ids(other) == ["0"]
    for number in range(1, 12):
        put(storage, f"{number}", size=300)
    follower.fail("open_file", errno.EMFILE, name="*.jsonl", when=when)
    with pytest.raises(DuraqError):
        ids(other)
    put(other, "mine")
    expected = [*map(str, range(12)), "mine"]
    assert ids(storage) == ids(other) == expected
    storage.close()
    other.close()
    assert ids(opened(disk.process())) == expected


def test_killed_while_undoing(disk):
    """A process that is killed while it undoes what found no room leaves a journal without a hole."""
    storage, other = opened(disk), opened(disk.process())
    put(storage, "1")
    put(other, "2")
    put(storage, "3")
    disk.fail("pwrite", errno.ENOSPC, name="*.jsonl", short=10)
    disk.crash_after(1, at={"datasync"})
    with pytest.raises(Crashed):
        put(storage, "4")
    put(other, "5")
    put(other, "6")
    other.close()
    assert ids(opened(disk.process())) == ["1", "2", "3", "5", "6"]


def test_a_full_disk_while_replaying(disk):
    """A group whose writer died is brought to its segments, if not by the first who meets it, by the next."""
    storage, follower = opened(disk), disk.process()
    other = opened(follower)
    put(storage, "job")
    put(storage, "old", queue="b")
    (claimed,) = storage.claim("a", 1, detached=True)
    assert (ids(other), ids(other, "b")) == (["job"], ["old"])
    pwrite = disk.pwrite

    def die_before_the_segments(fd, data, offset):
        if "segments" in disk._description(fd).path:
            disk.die()
            raise Crashed
        return pwrite(fd, data, offset)

    disk.pwrite = die_before_the_segments
    with pytest.raises(Crashed):
        storage.commit({"a": [Complete("job", claimed.token)], "b": [Enqueue("new", b"1")]})
    follower.fail("pwrite", errno.ENOSPC, name="b/segments/*")
    with pytest.raises(NotWritten):
        ids(other)
    assert (ids(other), ids(other, "b")) == ([], ["old", "new"])


def test_a_sync_while_going_over(disk):
    """A sync beside a frame that fails, and would have begun the next file, speaks for no later frame."""
    storage = opened(disk)
    names = fill(storage)
    pwrite = disk.pwrite

    def fail_and_sync(fd, data, offset):
        if len(data) > 1500 and "journal" in disk._description(fd).path:
            disk.pwrite = pwrite
            storage._log.settle(storage._log.journal.standing.end)
            raise OSError(errno.ENOSPC, "no space")
        return pwrite(fd, data, offset)

    disk.pwrite = fail_and_sync
    with pytest.raises(NotWritten):
        put(storage, "refused", size=1500)
    put(storage, "durable")
    assert ids(opened(disk.surviving(nothing=True))) == [*names, "durable"]


@pytest.mark.parametrize("count", [1, 4])
def test_a_full_disk_twice(disk, count):
    """After a full disk at a file's beginning, and at a group larger than one, what is written is found."""
    storage = opened(disk)
    names = fill(storage)
    disk.fail("pwrite", errno.ENOSPC, name="*.jsonl", times=None)
    for group, size in ((["x"], 1500), ([f"y{number}" for number in range(9)], 1000)):
        with pytest.raises(NotWritten):
            put(storage, *group, size=size)
    disk.heal()
    for number in range(count):
        put(storage, f"z{number}")
    storage.close()
    assert ids(opened(disk.process())) == [*names, *(f"z{number}" for number in range(count))]


@pytest.mark.parametrize("room", [1400, 0])
def test_killed_before_the_frame_counts(disk, room):
    """A frame whose writer died before it counted stays passed over, in this file and in the next."""
    storage, other = opened(disk), opened(disk.process())
    names = fill(storage)
    pwrite = disk.pwrite

    def die_before_the_block(fd, data, offset):
        if disk._description(fd).path == "journal/lock":
            disk.die()
            raise Crashed
        return pwrite(fd, data, offset)

    disk.pwrite = die_before_the_block
    with pytest.raises(Crashed):
        put(storage, "never", size=100 if room else 1500)
    put(other, "next", size=1500)
    put(other, "last", size=20)
    other.close()
    assert ids(opened(disk.process())) == [*names, "next", "last"]


def only(kept):
    """A power cut that takes all but what was written to one file."""

    class Only(Nothing):
        def content(self, file):
            return file.cache.copy() if file is kept else file.durable()

    return Only()


def test_a_frame_that_is_left_over(disk):
    """A frame of the next file that outlives the end of this one is wiped, and never comes back."""
    storage = opened(disk)
    names = fill(storage, 1500)
    storage._log.settle = lambda _position: None  # these two syncs never begin
    put(storage, "tail", size=400)
    put(storage, "stale", size=1500)
    next_file = dict(disk._disk.files())["storage/journal/0.journal"]
    after = MemoryFileSystem(disk=after_power_cut(disk._disk, only(next_file)))
    storage = opened(after)
    assert ids(storage) == names
    put(storage, "b", size=20)
    after.fail("datasync", errno.EIO, name="1.journal")
    put(storage, "c", size=30)  # goes over to the other file
    storage.close()
    assert ids(opened(after.process())) == [*names, "b", "c"]


def test_a_failed_sync_and_a_killed_opener(disk):
    """That a sync failed is remembered until a recovery is through, however many are killed in it."""
    storage = opened(disk)
    put(storage, "1")
    disk.fail("datasync", errno.EIO, name="*.journal")
    disk.fail("pwrite", errno.ENOSPC, name="poison.json*", times=None)
    with pytest.raises(OutcomeUnknown):
        put(storage, "2")
    disk.heal()
    with pytest.raises(StorageFailed):
        put(storage, "refused")
    storage.close()
    opener = disk.process()
    opener.crash_after(2)
    with pytest.raises(Crashed):
        opened(opener)
    put(opened(disk.process()), "3")
    assert ids(opened(disk.surviving(nothing=True))) == ["1", "2", "3"]


def test_interrupted_after_a_failed_sync(disk):
    """After a Ctrl-C while a failed sync is being made good, no sync of that file passes for one."""
    storage = opened(disk)
    put(storage, "1")
    disk.fail("datasync", errno.EIO, name="*.journal")
    lock, turns = disk.lock, []

    def interrupted(fd):
        turns.append(fd)
        if len(turns) > 1:
            disk.lock = lock
            raise KeyboardInterrupt
        lock(fd)

    disk.lock = interrupted
    with pytest.raises(KeyboardInterrupt):
        put(storage, "2")
    with pytest.raises(OutcomeUnknown):
        put(storage, "3")
    assert ids(opened(disk.surviving(nothing=True)))[:1] == ["1"]


def break_off(disk, storage):
    """Put an entry "2", and be interrupted at the first write."""
    pwrite = disk.pwrite

    def interrupted(fd, data, offset):
        disk.pwrite = pwrite
        raise KeyboardInterrupt

    disk.pwrite = interrupted
    with pytest.raises(KeyboardInterrupt):
        put(storage, "2")


def test_opening_after_a_call_was_broken_off(disk):
    """Who opens a storage need not wait for one that has it open, and was interrupted in a call."""
    storage = opened(disk)
    put(storage, "1")
    break_off(disk, storage)
    assert ids(opened(disk.process())) == ["1"]


def test_no_descriptor_after_a_call_was_broken_off(disk):
    """What is known is read anew after an interrupt, if not at the first try, at the next."""
    storage = opened(disk)
    put(storage, "1")
    break_off(disk, storage)
    disk.fail("open_file", errno.EMFILE, name="*.jsonl", when=2)
    with pytest.raises(DuraqError):
        put(storage, "3")
    put(storage, "4")
    assert ids(storage) == ["1", "4"]
    storage.close()


def test_interrupted_while_forgetting(disk, monkeypatch):
    """If a second Ctrl-C comes while it is made good that a call was broken off, the next call does that."""
    storage = opened(disk)
    put(storage, "1")
    (claimed,) = storage.claim("a", 1, detached=True)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage._queues["a"].folded, "written", interrupted)
        patch.setattr(storage, "_mislay_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.commit({"a": [Release("1", claimed.token)]})
    with pytest.raises(LeaseLost):
        storage.commit({"a": [Release("1", claimed.token)]})
    put(storage, "2")
    assert ids(storage) == ids(opened(disk.process())) == ["1", "2"]


@pytest.mark.parametrize("point", range(1, 9))
def test_a_queue_that_has_no_record_yet(disk, point):
    """Whoever dies while making a queue leaves nothing that passes for damage."""
    storage = opened(disk)
    disk.crash_after(point)
    with pytest.raises(Crashed):
        put(storage, "0")
    assert verify("/storage", file_system=disk.process()).sound
    put(opened(disk.process()), "1")
    assert verify("/storage", file_system=disk.process()).sound


@pytest.mark.parametrize("call", [("datasync", "*.jsonl"), ("sync", "*.journal")])
def test_coming_to_rest_fails(disk, call):
    """A sync that failed while a storage was brought to rest is not believed by whoever opens it later."""
    kind, name = call
    storage = opened(disk)
    names = [*fill(storage), "over"]
    put(storage, "over", size=1500)
    storage.close()
    log = Log(disk, "/storage", SIZES, create=False)
    disk.fail(kind, errno.EIO, name=name, times=1)
    with pytest.raises(OSError, match="Input/output"):
        log.come_to_rest()
    log.close()
    storage = opened(disk)
    for number in range(40):
        names.append(f"later{number}")
        put(storage, names[-1], size=300)
        assert ids(opened(disk.surviving(nothing=True))) == names


def die_of(disk, call, error=errno.EIO, name="*"):
    """The process is killed with the news that this call has failed, which nobody else hears."""
    disk.fail(call, error, name=name)
    plain = getattr(disk, call)

    def call_and_die(*args):
        try:
            return plain(*args)
        except OSError:
            disk.die()
            raise Crashed from None

    setattr(disk, call, call_and_die)


def put_until_killed(storage):
    """What was put until then, and the one that was about to be."""
    names = []
    with suppress(Crashed):
        for number in range(100):
            names.append(f"more{number}")
            put(storage, names[-1], size=300)
        pytest.fail("nobody was killed")
    return names


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
def test_killed_with_the_news_of_a_failed_sync(disk, beside):
    """Whoever comes next promises nothing behind what a sync has dropped unnoticed by all others."""
    storage, *others = [opened(fs) for fs in [disk, disk.process()][: 1 + beside]]
    put(storage, "1")
    die_of(disk, "datasync", name="journal/*")
    with pytest.raises(Crashed):
        put(storage, "2")
    later = disk.process()
    put(opened(later), "3")
    assert ids(opened(later.surviving(nothing=True))) == ["1", "2", "3"]
    del others


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
def test_killed_with_the_news_of_a_header_that_is_not_durable(disk, beside):
    """Whoever comes next goes over to no file of which a power cut takes the header."""
    storage, *others = [opened(fs) for fs in [disk, disk.process()][: 1 + beside]]
    names = fill(storage)
    die_of(disk, "sync", name="journal/*.journal")
    names += put_until_killed(storage)
    later = disk.process()
    storage = opened(later)
    there = ids(storage)
    assert set(names[:-1]) <= set(there)
    for number in range(10):
        put(storage, f"then{number}", size=300)
    there += [f"then{number}" for number in range(10)]
    assert ids(opened(later.surviving(nothing=True))) == there
    del others


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
def test_killed_with_the_news_of_a_segment_that_is_not_durable(disk, beside):
    """Whoever gets a journal file ready after that overwrites no frame of which the lines are on no disk."""
    storage, *others = [opened(fs) for fs in [disk, disk.process()][: 1 + beside]]
    names = fill(storage)
    die_of(disk, "datasync", name="*.jsonl")
    names += put_until_killed(storage)
    later = disk.process()
    storage = opened(later)
    there = ids(storage)
    assert set(names[:-1]) <= set(there)
    for number in range(60):
        put(storage, f"then{number}", size=300)
    there += [f"then{number}" for number in range(60)]
    assert ids(opened(later.surviving(nothing=True))) == there
    del others


def test_told_late_of_a_header_that_is_not_durable(disk):
    """Nor does one who has the storage open, and is told when he syncs the file for what was in it before."""
    storage, beside = opened(disk), disk.process()
    other = opened(beside)
    put(other, "first")
    fill(storage)
    die_of(disk, "sync", name="journal/*.journal")
    with pytest.raises(Crashed):
        put(storage, "large", size=4500)  # the first in its file, and the next one is made ready
    there = ids(other)
    for number in range(40):
        there.append(f"then{number}")
        put(other, there[-1], size=300)
        assert ids(opened(beside.surviving(nothing=True))) == there
