"""Descriptors that are given up together."""

import errno

import pytest

from duraq.journal.descriptors import Descriptors, Guard
from duraq.journal.filesystem import RealFileSystem


class WithoutMemory(RealFileSystem):
    """So often there is none to close a file."""

    def __init__(self, failures):
        self.failures, self.closed = failures, []

    def close(self, fd):
        if self.failures:
            self.failures -= 1
            raise MemoryError
        self.closed.append(fd)


def test_the_last_first():
    """They are closed once, the last one first."""
    fs = WithoutMemory(0)
    descriptors = Descriptors(fs)
    assert [descriptors.keep(fd) for fd in (5, 7)] == [5, 7]
    descriptors.close()
    descriptors.close()
    assert fs.closed == [7, 5]


def test_without_memory():
    """What could not be closed is closed by the next call, or when nobody refers to them any more."""
    fs = WithoutMemory(2)
    descriptors = Descriptors(fs)
    for fd in (5, 7):
        descriptors.keep(fd)
    descriptors.is_settled = True
    for _ in range(2):
        with pytest.raises(MemoryError):
            descriptors.close()
    assert fs.closed == []
    del descriptors
    assert fs.closed == [7, 5]


class ClosedAtOnce(RealFileSystem):
    """There is no memory for what comes after closing a file."""

    def __init__(self):
        self.closed = []

    def close(self, fd):
        if fd in self.closed:
            raise OSError(errno.EBADF, "it is closed")
        self.closed.append(fd)
        raise MemoryError


def test_closed_though_there_was_no_memory():
    """One that was closed when memory ran out does not keep the next call from closing the others."""
    fs = ClosedAtOnce()
    descriptors = Descriptors(fs)
    for fd in (5, 7):
        descriptors.keep(fd)
    for _ in range(2):
        with pytest.raises(MemoryError):
            descriptors.close()
    descriptors.close()
    assert fs.closed == [7, 5]
    descriptors.keep(5)
    descriptors._in_doubt = -1
    with pytest.raises(OSError, match="it is closed"):
        descriptors.close()
    descriptors.leave()


def test_before_they_are_settled():
    """If not even the call could be made that closes them, they are closed when nobody refers to them."""
    fs = WithoutMemory(0)
    descriptors = Descriptors(fs)
    descriptors.keep(5)
    del descriptors
    assert fs.closed == [5]


@pytest.mark.parametrize("is_settled", [False, True])
def test_guarded(is_settled):
    """With the last reference to their guard they are closed, whoever refers to them, unless settled."""
    fs = WithoutMemory(0)
    descriptors = Descriptors(fs)
    guard = Guard(descriptors)
    descriptors.keep(5)
    descriptors.is_settled = is_settled
    del guard
    assert fs.closed == ([] if is_settled else [5])


def test_left_open():
    """What is to be left open is, and so is what nobody has closed: its process was killed."""
    fs = WithoutMemory(0)
    descriptors, killed = Descriptors(fs), Descriptors(fs)
    killed.keep(9)
    killed.is_settled = True
    descriptors.keep(5)
    descriptors.leave()
    descriptors.close()
    del descriptors, killed
    assert fs.closed == []
