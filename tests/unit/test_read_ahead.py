"""The payload that is read ahead while a complete is being synced."""

import errno
import os
from contextlib import ExitStack
from datetime import timedelta

import pytest

from duraq import FileStorage, Queue, StorageDamaged
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.log import Sizes
from duraq.journal.segments import READ_AHEAD
from duraq.testing import FakeClock


class CountingFileSystem(RealFileSystem):
    """Counts the reads of whole records: the control block and the journal's headers have other lengths."""

    def __init__(self):
        super().__init__()
        self.lengths = []
        pread = self.pread

        def counted(fd, length, offset):
            self.lengths.append(length)
            return pread(fd, length, offset)

        self.pread = counted


class Opened:
    def __init__(self, path, stack, **options):
        self.files = CountingFileSystem()
        self.storage = stack.enter_context(FileStorage(path, file_system=self.files, **options))
        self.queue = Queue("jobs", self.storage)

    def reads(self, call):
        """What the call returned, and how many records it read."""
        self.files.lengths.clear()
        found = call()
        return found, sum(1 for length in self.files.lengths if length > 200 and length != 4096)


@pytest.fixture
def opened(tmp_path):
    with ExitStack() as stack:
        yield lambda **options: Opened(tmp_path / "storage", stack, **options)


def text(number):
    return f"{number:0200d}"


def test_the_next_dequeue_reads_nothing(opened):
    one = opened()
    one.queue.enqueue_many([text(number) for number in range(3)])
    first, read = one.reads(one.queue.dequeue)
    assert read == 1
    assert one.reads(lambda: one.queue.mark_completed(first))[1] == 1
    second, read = one.reads(one.queue.dequeue)
    assert (second.data, read) == (text(1), 0)
    # Without a complete in between there was nothing ahead.
    third, read = one.reads(one.queue.dequeue)
    assert (third.data, read) == (text(2), 1)


@pytest.mark.parametrize("durability", ["process", "batched"])
def test_not_where_nobody_waits_for_the_disk(opened, durability):
    one = opened(durability=durability)
    one.queue.enqueue_many([text(0), text(1)])
    first = one.queue.dequeue()
    assert one.reads(lambda: one.queue.mark_completed(first))[1] == 0
    assert one.queue.dequeue().data == text(1)


def test_not_a_large_one(opened):
    one = opened()
    one.queue.enqueue_many([text(0), "x" * READ_AHEAD])
    first = one.queue.dequeue()
    assert one.reads(lambda: one.queue.mark_completed(first))[1] == 0
    assert one.queue.dequeue().data == "x" * READ_AHEAD


def test_one_of_higher_priority_comes_in_between(opened):
    one = opened()
    one.queue.enqueue_many([text(0), text(1)])
    one.queue.mark_completed(one.queue.dequeue())
    one.queue.enqueue(text(9), priority=9)
    assert [one.queue.dequeue().data, one.queue.dequeue().data] == [text(9), text(1)]


def test_somebody_else_takes_it(opened):
    one, other = opened(), opened()
    one.queue.enqueue_many([text(number) for number in range(4)])
    one.queue.mark_completed(one.queue.dequeue())
    taken = other.queue.dequeue()
    assert (taken.data, one.queue.dequeue().data) == (text(1), text(2))
    # Where others write there is no reading ahead: they would all read the same entry.
    assert one.reads(lambda: one.queue.enqueue(text(5)))[1] == 0
    other.queue.mark_completed(taken)
    assert one.queue.dequeue().data == text(3)


def test_damage_is_for_the_one_who_asks(opened, tmp_path):
    one = opened()
    one.queue.enqueue_many([text(0), text(1)])
    first = one.queue.dequeue()
    (segment,) = (tmp_path / "storage/jobs/segments").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(text(1).encode()) + 5] ^= 1
    segment.write_bytes(content)
    one.queue.mark_completed(first)
    for _ in range(2):
        with pytest.raises(StorageDamaged):
            one.queue.dequeue()


@pytest.fixture
def deep(opened):
    """Sixty entries in sealed segments, of which nothing is in memory."""
    one = opened(sizes=Sizes(segment=8192))
    one.queue.enqueue_many([text(number) for number in range(30)])
    one.queue.enqueue_many([text(number) for number in range(30, 60)])
    one.queue.enqueue_many([text(number) for number in range(60, 90)])
    return one


def test_what_lies_together_is_read_together(deep):
    """In sealed segments one read serves many entries."""
    found, read = deep.reads(lambda: [deep.queue.dequeue().data for _ in range(30)])
    assert found == [text(number) for number in range(30)]
    assert read < 6


def test_damage_further_on_hinders_nobody_before_it(deep, tmp_path):
    """Entries in front of a damaged one are delivered although they are read together with it."""
    segment = min((tmp_path / "storage/jobs/segments").glob("*.jsonl"))
    content = bytearray(segment.read_bytes())
    content[content.index(text(3).encode()) + 5] ^= 1
    segment.write_bytes(content)
    assert [deep.queue.dequeue().data for _ in range(3)] == [text(0), text(1), text(2)]
    for _ in range(2):
        with pytest.raises(StorageDamaged, match="checksum"):
            deep.queue.dequeue()


def test_one_read_ahead_that_somebody_else_took(deep, opened):
    """What was read together with the first is not delivered again if another storage took it meanwhile."""
    other = opened(sizes=Sizes(segment=8192))
    order = [deep, other, other, deep, other, deep, deep, other]
    found = [one.queue.dequeue().data for one in order]
    assert found == [text(number) for number in range(len(order))]


def test_one_read_ahead_that_expired(opened, tmp_path):
    """What was read together with the first is not delivered once its TTL has passed."""
    clock = FakeClock()
    one = opened(sizes=Sizes(segment=8192), clock=clock)
    one.queue.enqueue_many([text(number) for number in range(10)], ttl=timedelta(seconds=10))
    one.queue.enqueue_many([text(number) for number in range(10, 60)])
    one.queue.enqueue_many([text(number) for number in range(60, 70)])
    assert one.queue.dequeue().data == text(0)
    clock.advance(timedelta(seconds=11))
    assert one.queue.dequeue().data == text(10)


def test_priorities_in_two_deep_segments(opened):
    """The heads of two segments are delivered in turn when their priorities say so."""
    one = opened(sizes=Sizes(segment=8192))
    for number in range(0, 60, 2):
        one.queue.enqueue(text(number), priority=-number)
    for number in range(1, 60, 2):
        one.queue.enqueue(text(number), priority=-number)
    one.queue.enqueue_many([text(100)] * 30, priority=-100)
    assert [one.queue.dequeue().data for _ in range(60)] == [text(number) for number in range(60)]


def test_what_cannot_be_read_hinders_nobody_before_it(deep, monkeypatch):
    """Entries in front of a place that the disk cannot read are delivered."""
    pread = deep.files.pread

    def broken(fd, length, offset):
        if length > 1000 and offset + length > 1500:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, length, offset)

    assert deep.queue.dequeue().data == text(0)
    for run in deep.storage._queues["jobs"].folded._runs._runs.values():
        deep.storage._queues["jobs"].folded._runs._reader.forget(run.segment)
    monkeypatch.setattr(deep.files, "pread", broken)
    assert deep.queue.dequeue().data == text(1)
