"""Carries out an order, in a thread of its own and with a storage that is open only meanwhile.

It tells how far it is now and then, and can be stopped: what was done is done, and the rest is as it was.
Knows no Textual.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from duraq import bulk
from duraq.actions import Target
from duraq.acts import Acts, new_id
from duraq.cli.feed import INPUT_LIMIT
from duraq.cli.input import parse_json
from duraq.dead_letters import DeadLetterQueue
from duraq.errors import DuraqError, InvalidOption, QueueError
from duraq.queue import Queue
from duraq.storage.file import FileStorage
from duraq_dashboard.orders import Order

log = logging.getLogger("duraq.dashboard")
STOPPED = "it was stopped"
_OFTEN = 0.1  # seconds between two tellings of how far it is


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. ``failed`` of ``ended``: how many of those put back failed again, if that is watched.

    ``stopped``: why it ended before all was done; ``trouble``: why the first one was passed over; ``error``:
    why nothing more could be done; ``note``: what else is to be said of the result.
    """

    count: int
    done: int = 0
    passed_over: int = 0
    failed: int = 0
    ended: int = 0
    is_over: bool = False
    stopped: str = ""
    trouble: str = ""
    error: str = ""
    note: str = ""
    act: str = ""

    @property
    def left(self) -> int:
        """To how many nothing was done."""
        return self.count - self.done - self.passed_over

    def after(self, error: Exception | None) -> Progress:
        """How far it is after one more, which was passed over if there was an error."""
        if error is None:
            return replace(self, done=self.done + 1)
        return replace(self, passed_over=self.passed_over + 1, trouble=self.trouble or str(error))


class Doing:
    """One order being carried out. ``tell`` is called in its thread."""

    def __init__(self, order: Order, tell: Callable[[Progress], None]) -> None:
        self.order = order
        self.began = time.monotonic()
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duraq-doing", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Do no more than what is being done just now."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is over."""
        self._thread.join(timeout)

    def _run(self) -> None:
        progress = Progress(self.order.count)
        told = time.monotonic()
        try:
            # Never made: if it has vanished meanwhile, that is to be seen.
            with FileStorage(self.order.path, max_payload_bytes=INPUT_LIMIT, create=False) as storage:
                for progress in self._steps(storage):
                    if time.monotonic() - told >= _OFTEN:
                        told = time.monotonic()
                        self._tell(progress)
        except DuraqError as error:
            progress = replace(progress, error=str(error))
        except Exception as error:
            log.exception("%s failed", self.order.action.name)
            progress = replace(progress, error=f"{type(error).__name__}: {error}")
        self._tell(replace(progress, is_over=True))

    def _steps(self, storage: FileStorage) -> Iterator[Progress]:
        order = self.order
        name = order.action.name
        if name == "undo":
            yield from self._undo(storage)
        elif order.action.target is Target.DEAD_LETTERS:
            yield from self._many(storage)
        elif name == "edit":
            yield self._edit(storage)
        elif name in {"pause", "resume", "compact"}:
            yield self._to_queue(storage)
        elif name == "release":
            yield from self._release(storage)
        else:
            raise InvalidOption(f"{name} cannot be done from here; its command: {order.command}")

    # -- dead letters ----------------------------------------------------------------------------------

    def _many(self, storage: FileStorage) -> Iterator[Progress]:
        order, name = self.order, new_id()
        more: dict[str, Any] = {"to": order.to} if order.to else {}
        planned = bulk.plan(
            Acts(storage),
            order.action.name,
            name,
            order.meant,
            reason=order.reason,
            where=order.where,
            **more,
        )

        def wait(seconds: float) -> None:
            if self._stop.wait(seconds):
                run.stop(STOPPED)

        run = bulk.BulkRun(storage, planned, order.pace, wait=wait)
        trouble = ""

        def now(stopped: str = "") -> Progress:
            return Progress(
                run.count, run.done, run.passed_over, run.failed, run.ended, False, stopped, trouble, act=name
            )

        for _, outcome in run:
            if self._stop.is_set():
                run.stop(STOPPED)
            if outcome.error is not None and not trouble:
                trouble = str(outcome.error)
            yield now()
        yield now(run.stopped or "" if run.done + run.passed_over < run.count else "")

    def _undo(self, storage: FileStorage) -> Iterator[Progress]:
        acts = Acts(storage)
        name = self.order.act or bulk.last_removal(acts)
        undone = bulk.begun(acts, name) or [acts.get(name)]
        progress = Progress(sum(act.count for act in undone))
        for number, act in enumerate(undone):
            if number and self._stop.is_set():
                break
            dead: DeadLetterQueue[Any] = DeadLetterQueue(act.queue, None, storage)
            for outcome in dead.undoing(
                act.id, reason=self.order.reason, go_on=lambda: not self._stop.is_set()
            ):
                progress = progress.after(outcome.error)
                yield progress
        if self._stop.is_set() and progress.left:
            # What was begun to be undone is not offered to be undone once more.
            rest = f"{self.order.command} brings back the rest"
            yield replace(progress, stopped=STOPPED, note=rest)
        else:
            # What had been brought back before was passed over in silence.
            note = "" if progress.done else "nothing was left to bring back"
            yield replace(progress, count=progress.count - progress.left, note=note)

    def _edit(self, storage: FileStorage) -> Progress:
        entry, payload = self.order.entry, self.order.payload
        assert entry is not None
        assert payload is not None
        dead: DeadLetterQueue[Any] = DeadLetterQueue(entry.queue, None, storage)
        dead.retry(entry.id, data=parse_json(payload), token=entry.token, reason=self.order.reason)
        return Progress(1, 1)

    # -- leases and queues -----------------------------------------------------------------------------

    def _release(self, storage: FileStorage) -> Iterator[Progress]:
        progress = Progress(self.order.count)
        for lease in self.order.leases:
            if self._stop.is_set():
                yield replace(progress, stopped=STOPPED)
                return
            error: QueueError | None = None
            queue: Queue[Any] = Queue(lease.queue, storage)
            try:
                queue.end_lease(lease.id, lease.token, reason=self.order.reason)
            except QueueError as refused:
                error = refused
            progress = progress.after(error)
            yield progress

    def _to_queue(self, storage: FileStorage) -> Progress:
        order = self.order
        queue: Queue[Any] = Queue(order.queue, storage)
        note = ""
        if order.action.name == "pause":
            queue.pause(order.reason)
        elif order.action.name == "resume":
            queue.resume()
        else:
            done = storage.compact(order.queue)
            note = f"{done.freed:,} bytes freed, {done.kept:,} entries rewritten"
        return Progress(1, 1, note=note)
