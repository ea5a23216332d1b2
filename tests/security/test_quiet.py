"""What is said of entries that may be secret, and of inputs that may be huge."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

import pytest

from duraq import DeadLetterQueue, FixedDelay, Queue, QueueManager, Worker
from duraq.errors import InvalidInput

SECRET = "hunter2-4f1c9a1e"
LONG = "x/" * 500_000


@dataclass
class Login:
    password: int


def test_payloads_are_in_no_log_and_no_error(storage, caplog):
    """Whatever happens to an entry, its payload stands in no line of the log and in no error of ours."""
    caplog.set_level(logging.DEBUG)
    policy = FixedDelay(max_attempts=2, delay=timedelta(0))
    queue = Queue("jobs", storage, retry_policy=policy)
    typed = QueueManager(storage).queue("jobs", Login, retry_policy=policy)
    dead = DeadLetterQueue("jobs", Login, storage)

    def fail(entry):
        assert SECRET in str(entry.data)
        raise RuntimeError("no")

    for _ in range(3):
        queue.enqueue({"password": SECRET, SECRET: [SECRET]})
    Worker(queue, fail).run(drain=True)
    said = [letter.decode_error for letter in dead.list()]
    dead.retry(dead.list()[0].id)
    assert typed.dequeue() is None, "it does not decode as the queue's type"
    for refusing, payload in ((typed, Login(SECRET)), (queue, {"n": {SECRET}}), (queue, [SECRET, 2**64])):
        with pytest.raises(InvalidInput) as refused:
            refusing.enqueue(payload)
        said.append(str(refused.value))
    assert all(said)
    assert SECRET not in caplog.text + "".join(said)


@pytest.mark.parametrize("options", [{"id": LONG}, {"key": LONG}, {"headers": {LONG: ""}}, {"headers": LONG}])
def test_an_error_does_not_repeat_all_of_a_long_input(queue, options):
    """An error about an input that is too long is no longer than a person reads."""
    with pytest.raises(InvalidInput) as refused:
        queue.enqueue(1, **options)
    assert len(str(refused.value)) < 1000


def test_nor_all_of_a_long_name(storage):
    """The same goes for the name of a queue."""
    with pytest.raises(InvalidInput) as refused:
        Queue(LONG, storage)
    assert len(str(refused.value)) < 1000
