"""Whose turn it is."""

import threading

import pytest

from duraq.storage.turns import Turns


class Interrupted(BaseException):
    """As KeyboardInterrupt, where it comes."""


@pytest.fixture
def turns():
    """Nobody's turn."""
    return Turns()


def stand_in_line(turns, call):
    """A thread that waits for its turn, and makes the call in it."""

    def wait():
        with turns.mine():
            call()

    return in_line(turns, wait)


def in_line(turns, wait):
    before = len(turns._line)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while len(turns._line) == before:
        thread.join(0.001)
    return thread


def test_who_waits_longest_is_next(turns):
    """Whoever takes one turn after the other lets those who wait go first, in their order."""
    order = []
    turns.take()
    threads = [stand_in_line(turns, lambda number=number: order.append(number)) for number in range(3)]
    turns.give()
    with turns.mine():
        order.append("again")
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, "again"]


def test_it_is_taken_again(turns):
    """Its owner may take it while others wait for it, and it is theirs when he has given it as often."""
    done = threading.Event()
    turns.take()
    thread = stand_in_line(turns, done.set)
    with turns.mine():
        pass
    assert turns.is_mine()
    assert not done.is_set()
    turns.give()
    thread.join()
    assert done.is_set()


@pytest.mark.parametrize("is_next", [True, False])
def test_interrupted_in_the_line(turns, monkeypatch, is_next):
    """One who is interrupted while he waits, or when his turn has just come, keeps it from nobody."""

    def interrupted():
        monkeypatch.undo()
        turns._passed.wait()
        raise Interrupted

    def first():
        with pytest.raises(Interrupted):
            turns.take()

    monkeypatch.setattr(turns._passed, "wait", interrupted)
    turns.take()
    threads = [in_line(turns, first), stand_in_line(turns, lambda: None)]
    if not is_next:
        with turns._passed:
            turns._passed.notify()
        threads[0].join(60)
    turns.give()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert turns._owner is None
