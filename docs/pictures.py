"""The pictures of the screens in ``docs/screens``: of the running program, over a storage with a past.

    python docs/pictures.py

Time stands still while a picture is taken, and passes by the minute while the storage is lived in, so that
the same pictures come out again and again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from duraq_dashboard.app import Dashboard
from duraq_dashboard.source import StorageSource
from textual.pilot import Pilot

from duraq import FileStorage, FixedDelay, NoRetry, Queue, QueueManager
from duraq.inspector import Inspector
from duraq.testing import FakeClock

HERE = Path(__file__).parent / "screens"
BEGIN = datetime(2026, 11, 24, 9, 40, tzinfo=UTC)
MINUTES = 62
MINUTE = timedelta(minutes=1)
PSP = "https://psp.example/charge/{}"

Step = Callable[[Pilot[Any]], Awaitable[None]]


class Shop:
    """A shop's queues, and the daemons that work them; some of these are in trouble."""

    def __init__(self, path: str, clock: FakeClock, opened: ExitStack) -> None:
        self.path, self.clock, self.chance = path, clock, Random(7)

        def manager() -> QueueManager:
            storage = FileStorage(path, durability="process", clock=clock, lock_duration=timedelta(minutes=4))
            return QueueManager(opened.enter_context(storage))

        self.put, self.work, self.resize = manager(), manager(), manager()

    def queue(self, name: str, manager: QueueManager | None = None) -> Queue[Any]:
        policy = {
            "billing": FixedDelay(delay=MINUTE, max_attempts=3),
            "img-resize": FixedDelay(delay=10 * MINUTE, max_attempts=5),
            "mail": NoRetry(),
        }.get(name)
        return (manager or self.work).queue(name, Any, **({} if policy is None else {"retry_policy": policy}))

    def live(self) -> None:
        """An hour of it."""
        self.queue("exports").enqueue_many([{"month": month} for month in range(1, 10)])
        self.queue("exports").pause("the bank is closed", who="ann")
        for minute in range(MINUTES):
            self._feed(minute)
            for _ in range(4):
                self.clock.advance(MINUTE / 4)
                self._work(minute)
        held = self.queue("img-resize", self.resize).dequeue(limit=3)
        held += self.queue("webhooks").dequeue(limit=1)
        assert len(held) == 4
        self._dress_up()

    def _dress_up(self) -> None:
        """All of it is one process, and not the shop's; what these files say is for people alone."""
        with Inspector(self.path, clock=self.clock) as inspector:
            holders = {lease.worker: lease.queue for lease in inspector.leases()}
        for worker, queue in holders.items():
            name = {"img-resize": "resize"}.get(queue, "work")
            file = Path(self.path, "leases", f"{worker}.json")
            said = json.loads(file.read_text("utf-8"))
            said |= {"argv": ["python3", "-m", f"shop.{name}"], "unit": f"shop-{name}.service"}
            file.write_text(json.dumps(said), "utf-8")

    def _feed(self, minute: int) -> None:
        wave = [3, 5, 8, 12, 9, 6, 4, 7, 10, 6][minute % 10]
        for name, count, make in (
            ("default", 6 * wave, lambda: {"task": "reindex", "page": self.chance.randrange(9000)}),
            ("mail", 2 * wave, lambda: {"to": f"user{self.chance.randrange(900)}@example.org"}),
            ("img-resize", 18, lambda: {"src": f"s3://b/{self.chance.randrange(9999)}.jpg", "w": 1200}),
            ("webhooks", 1, lambda: {"hook": "order.paid"}),
        ):
            queue = self.queue(name, self.put)
            queue.enqueue_many([make() for _ in range(count)])
        bills = self.queue("billing", self.put)
        for _ in range(4):
            charge = f"ch_{self.chance.randrange(1 << 16):04x}"
            bills.enqueue(
                {"charge": charge, "amount": 1999, "region": self.chance.choice(["eu", "us"])},
                headers={"trace-id": f"{self.chance.getrandbits(32):08x}"},
            )
        self.queue("default", self.put).enqueue({"task": "report"}, delay=timedelta(hours=3))

    def _work(self, minute: int) -> None:
        self._finish("default", 25)
        if minute < MINUTES - 1:
            self._finish("webhooks", 2)
        if minute < 54:
            self._finish("mail", 6)
        bills = self.queue("billing")
        for entry in bills.dequeue(limit=4):
            self._charge(bills, entry, minute)
        images = self.queue("img-resize", self.resize)
        for entry in images.dequeue(limit=5 if minute < 25 else 1):
            if minute >= 25 and self.chance.random() < 0.5:
                images.mark_failed(entry, OSError(28, "No space left on device"))
            else:
                images.mark_completed(entry)

    def _finish(self, name: str, count: int) -> None:
        queue = self.queue(name)
        queue.mark_completed_many(queue.dequeue(limit=count))

    def _charge(self, bills: Queue[Any], entry: Any, minute: int) -> None:
        try:
            charge(entry.data, self.chance.random() if minute > 15 else 1.0)
        except Exception as error:  # noqa: BLE001 - it is what the picture is of
            bills.mark_failed(entry, error)
        else:
            bills.mark_completed(entry)


def charge(bill: dict[str, Any], luck: float) -> None:
    """Fails as such things do."""
    if luck < 0.35:
        raise ConnectionError("503 Server Error for url: " + PSP.format(bill["charge"]))
    if luck < 0.4:
        raise TimeoutError(f"no answer from the bank after {30 + luck:.1f} s")
    if luck < 0.42:
        raise KeyError("iban")


# What a traceback says of where it was raised is to be the shop's, and not where this file happens to lie.
for _function, _file in ((charge, "shop/billing.py"), (Shop._charge, "shop/worker.py")):  # noqa: SLF001
    _function.__code__ = _function.__code__.replace(co_filename=_file)


def press(*keys: str) -> Step:
    """These keys, and wait until what they ask for is there."""

    async def step(pilot: Pilot[Any]) -> None:
        for key in keys:
            await pilot.press(key)
            await settle(pilot)

    return step


async def settle(pilot: Pilot[Any]) -> None:
    """Nothing is being read any more, as far as can be told from outside."""
    for _ in range(6):
        await pilot.pause(0.15)


PICTURES: Sequence[tuple[str, Step]] = (
    ("queues", press()),
    ("queue", press("j", "enter")),
    ("dlq", press("2")),
    ("entry", press("2", "enter")),
    ("confirm", press("2", "a", "R")),
    ("errors", press("3")),
    ("leases", press("4")),
    ("health", press("5")),
    ("events", press("6")),
    ("help", press("question_mark")),
    ("palette", press("colon", "r", "e", "t")),
)


async def picture(path: str, clock: FakeClock, name: str, step: Step) -> None:
    """One of them, as SVG."""
    app = Dashboard(StorageSource(path, clock=clock), clock=clock)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await step(pilot)
        text = app.export_screenshot(title=f"duraq dash: {name}")
    (HERE / f"{name}.svg").write_text(tidy(text), "utf-8")


def tidy(svg: str) -> str:
    """Without fonts from elsewhere, and without the number that is another one each time."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"terminal-\d+-", "t-", svg)


def main() -> None:
    """All of them."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    HERE.mkdir(exist_ok=True)
    clock = FakeClock(now=BEGIN)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as opened:
        # A short path, for it stands in every picture.
        os.chdir(directory)
        Shop("queues", clock, opened).live()
        for name, step in PICTURES:
            asyncio.run(picture("queues", clock, name, step))


if __name__ == "__main__":
    main()
