"""Storages as the wireframes have them: for the pictures of the screens that are kept beside the tests."""

import math
from datetime import timedelta
from unittest.mock import patch

from on_screen import NOW, queue_now, queue_view, snapshot

from duraq import FileStorage, NoRetry, Queue
from duraq.errors import StorageDamaged, StorageReadOnly
from duraq.journal import lease
from duraq.model import Pause
from duraq.testing import FakeClock
from duraq.views import LeaseView, WorkerView


def _minutes(entered, left, **more):
    """An hour of one-minute counters, from two functions of the minute."""
    return [
        {"enqueued": int(entered(minute)), "completed": int(left(minute))}
        | {name: int(function(minute)) for name, function in more.items()}
        for minute in range(60)
    ]


def _leases(queue, count):
    return tuple(
        LeaseView(
            queue=queue,
            id=f"{queue}-{number}",
            token=number + 1,
            attempt=1,
            worker=f"{22013 + number}-9f3c02ab",
            alive=True,
            late=False,
            leased_at=NOW - timedelta(seconds=20),
            deadline_at=NOW + timedelta(minutes=4),
        )
        for number in range(count)
    )


def shop():
    """Eight queues, with all that can be the matter with one."""
    wave = lambda minute: 1000 + 300 * math.sin(minute / 5)  # noqa: E731
    damaged = StorageDamaged(
        "the checksum does not match",
        path="audit/segments/00000000000000000001.jsonl",
        line=88121,
        byte=20118400,
    )
    return snapshot(
        queue_now(
            queue_view("mail", 1902, scheduled=12, dead=4, oldest=timedelta(minutes=6, seconds=2)),
            minutes=_minutes(wave, lambda minute: wave(minute) if minute < 54 else 0),
            wait=[0.4] * 40 + [3.0] * 10,
        ),
        queue_now(
            queue_view(
                "img-resize",
                2210,
                leased=16,
                dead=21,
                oldest=timedelta(minutes=41, seconds=18),
                leases=_leases("img-resize", 16),
            ),
            minutes=_minutes(lambda _: 1800, lambda minute: 1800 - 30 * minute, failed=lambda _: 9),
            wait=[8.0] * 20 + [1500.0] * 10,
            run=[7.0] * 30,
            workers=4,
        ),
        queue_now(
            queue_view(
                "billing",
                14,
                scheduled=3,
                leased=2,
                dead=120,
                oldest=timedelta(seconds=11),
                leases=_leases("billing", 2),
            ),
            minutes=_minutes(
                lambda _: 240, lambda _: 236, dead=lambda minute: minute > 47, failed=lambda _: 5
            ),
            wait=[0.3] * 50 + [2.0] * 5,
            workers=2,
        ),
        queue_now(
            queue_view(
                "exports",
                310,
                oldest=timedelta(hours=2, minutes=10),
                pause=Pause(NOW - timedelta(hours=2), "ann", "the bank is closed"),
            ),
        ),
        queue_now(queue_view("audit", 88, problem=damaged)),
        queue_now(
            queue_view("default", 288, scheduled=1189, leased=19, oldest=timedelta(seconds=2), waiting=3),
            minutes=_minutes(lambda minute: 9 * wave(minute), lambda minute: 9.1 * wave(minute)),
            wait=[0.1] * 50 + [0.8] * 4,
            workers=8,
        ),
        queue_now(queue_view("webhooks", waiting=1)),
        queue_now(queue_view("finance", problem=StorageReadOnly("permission denied", path="finance"))),
    )


def life(path):
    """A storage with the queue ``billing``: entries of all states, of the same ids and times in every run."""
    clock = FakeClock(now=NOW - timedelta(minutes=30))
    appear = lease.WorkerPresence._try_to_appear
    # Whose process it is, and on which machine, is another one in each run.
    with (
        patch.object(lease.WorkerPresence, "_try_to_appear", lambda self, _: appear(self, "4711-9f3c02ab")),
        patch("duraq.failure._host", return_value="shop"),
        FileStorage(path, clock=clock, durability="process") as storage,
    ):
        queue = Queue("billing", storage, retry_policy=NoRetry())
        for number in range(12):
            clock.advance(timedelta(seconds=7))
            payload = {"charge": f"ch_{number:04d}", "amount": 1999 + number, "note": "[/red] \x1b[2J"}
            queue.enqueue(payload, id=f"charge-{number:04d}", key=f"order:{number}", priority=number % 3)
        for number in range(5):
            clock.advance(timedelta(minutes=1))
            entry = queue.dequeue()
            if number % 2:
                queue.mark_completed(entry)
            else:
                queue.mark_failed(entry, f"HTTPError: 503 from psp.example, try {number}")
        queue.enqueue("later", id="later", delay=timedelta(hours=1))
        queue.pause(who="ann", reason="the bank is closed")
    return path


def _lease(entry_id, left, worker="22013-9f3c02ab", *, alive=True, late=False):
    return LeaseView("mail", entry_id, 7, 1, worker, alive, late, NOW - timedelta(minutes=1), NOW + left)


def work():
    """A queue with every kind of lease, and who holds them."""
    leases = (
        _lease("01a20e32-58a9-7455-bac3-0000000000aa", timedelta(minutes=4, seconds=58)),
        _lease("01a20e32-58a9-7455-bac3-0000000000bb", -timedelta(seconds=20), late=True),
        _lease("01a20e32-58a9-7455-bac3-0000000000cc", timedelta(seconds=14), "22841-0123abcd", alive=False),
        _lease("01a20e32-58a9-7455-bac3-0000000000dd", timedelta(hours=2), "", alive=None),
    )
    began = NOW - timedelta(hours=4, minutes=14)
    argv = ("python", "-m", "app.mail", "--note", "[/red]\x1b]52;c;aGk=\x07\u202e")
    workers = (
        WorkerView("22013-9f3c02ab", True, began, "app1", argv, "app-mail.service", holds={"mail": 2}),
        WorkerView("22841-0123abcd", False, holds={"mail": 1}),
    )
    return snapshot(queue_now(queue_view("mail", 3, leased=4, leases=leases)), workers=workers)
