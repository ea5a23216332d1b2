"""Headers: short texts that go with an entry, wherever it goes."""

from datetime import timedelta

import pytest

from duraq import DeadLetterQueue, InvalidOption, NoRetry, Queue

HEADERS = {"trace-id": "5f1c", "b": '"é\n\0,"data":1', "data": "x", "a": ""}


def test_they_come_with_the_entry(queue):
    """An entry has its headers when it is looked at and when it is dequeued."""
    queue.enqueue("a", headers=HEADERS)
    queue.enqueue_many(["b", "c"], headers={"n": "1"})
    queue.enqueue("d", headers={})
    queue.enqueue("e")
    wanted = [HEADERS, {"n": "1"}, {"n": "1"}, {}, {}]
    assert [entry.headers for entry in queue.entries()] == wanted
    found = [queue.dequeue() for _ in wanted]
    assert [entry.headers for entry in found] == wanted
    assert [entry.data for entry in found] == ["a", "b", "c", "d", "e"]


def test_through_failure_and_back(storage):
    """An entry keeps its headers through retries, the dead letters and back."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    entry_id = queue.enqueue({"data": 1}, headers=HEADERS)
    queue.mark_failed(queue.dequeue(), "no")
    dead = DeadLetterQueue("jobs", None, storage)
    assert dead.list()[0].headers == HEADERS
    dead.retry(entry_id)
    entry = queue.dequeue()
    assert (entry.headers, entry.data) == (HEADERS, {"data": 1})


@pytest.mark.needs("survives")
def test_through_segments_and_reopening(queue, open_storage):
    """Headers survive seals, compaction and another process's opening."""
    for number in range(300):
        queue.enqueue("x" * 100, headers={"data": str(number), "n": str(number)})
    other = Queue("jobs", open_storage())
    assert [entry.headers["n"] for entry in other.entries()] == [str(number) for number in range(300)]
    assert [other.dequeue().headers["data"] for _ in range(300)] == [str(number) for number in range(300)]


@pytest.mark.parametrize(
    "headers",
    [
        {"": "a"},
        {"-a": "a"},
        {"a b": "a"},
        {"a" * 65: "a"},
        {1: "a"},
        {"a": 1},
        {"a": None},
        {"a": b"a"},
        {"a": "x" * 1025},
        {"a": "\ud800"},
        {f"h{number}": "" for number in range(33)},
        [("a", "b")],
        "a",
    ],
    ids=lambda headers: repr(headers)[:30],
)
def test_no_headers(queue, headers):
    """What is no small map of texts is refused before anything is written."""
    with pytest.raises(InvalidOption, match="header"):
        queue.enqueue("a", headers=headers)
    with pytest.raises(InvalidOption, match="header"):
        queue.enqueue_many(["a"], headers=headers)
    assert len(queue) == 0


def test_a_handlers_own_notes(queue):
    """What somebody writes into the headers that he was handed changes nothing that is stored."""
    queue.enqueue("a", headers={"tenant": "ann"})
    queue.peek()[0].headers["tenant"] = "bob"
    entry = queue.dequeue()
    assert entry.headers == {"tenant": "ann"}
    entry.headers["started"] = object()
    queue.mark_failed(entry, "no", retry_in=timedelta(0))
    assert queue.peek()[0].headers == {"tenant": "ann"}
