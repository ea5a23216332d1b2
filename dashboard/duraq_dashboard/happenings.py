"""What happens in all queues, record by record, as it is written. Knows no Textual.

Whoever shows it takes what has come since the last time. If that is more than anybody can read, it is a
sample; how much was passed over is told.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from duraq.clock import Clock
from duraq.errors import DuraqError
from duraq.events import Wanted
from duraq.inspector import Inspector
from duraq.model import KEYS, MIGRATIONS, pid_of
from duraq.operations import WITH_PAYLOAD
from duraq.safe_text import safe_text
from duraq.views import RecordView
from duraq_dashboard import wording
from duraq_dashboard.wording import Times

log = logging.getLogger("duraq.dashboard")

LAST = 100  # records that are shown to begin with
EXCERPT = 300
# Of the storage's own bookkeeping nobody has asked.
_HIDDEN = {KEYS, MIGRATIONS}
_LARGE = 64 * 1024


@dataclass(frozen=True, slots=True)
class EventLine:
    """A record as a line of a list; all texts may be shown.

    ``then``: a moment that the detail tells, and what is then.
    """

    at: datetime
    queue: str
    op: str
    id: str
    attempt: str
    who: str
    detail: str
    place: str
    number: int  # of the record in its queue
    then: tuple[str, datetime] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What it is told apart by."""
        return self.queue, self.number

    def told(self, now: datetime, times: Times) -> str:
        """The detail, with its moment in the form that is wanted."""
        if self.then is None:
            return self.detail
        what, at = self.then
        how = "" if times is Times.RELATIVE else "at "
        then = f"{what} {how}{wording.moment(at, now, times)}"
        return f"{self.detail}, {then}" if self.detail else then

    @property
    def role(self) -> str:
        """How loud it is."""
        return {"dead": "dead", "fail": "warn", "repair": "crit"}.get(self.op, "")


def event_of(record: RecordView) -> EventLine:
    """What a record says, in a line."""
    fields = fields_of(record)
    worker = str(fields.get("worker") or "")
    pid = pid_of(worker) if worker else None
    who = f"pid {pid}" if pid is not None else str(fields.get("who") or "")
    return EventLine(
        record.at,
        record.queue,
        safe_text(record.op, 20),
        safe_text(record.id or "", 128),
        safe_text(fields.get("attempt", ""), 8),
        safe_text(who, 60),
        safe_text(_detail(record, fields), EXCERPT),
        str(record.place),
        record.seq,
        _then(record, fields),
    )


def fields_of(record: RecordView) -> Mapping[str, Any]:
    """The record without its payload, which may be large."""
    text = record.text
    if record.op in WITH_PAYLOAD:
        head = text.partition(b',"data":')[0] + b"}"
        text = head if len(text) > _LARGE else text
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _then(record: RecordView, fields: Mapping[str, Any]) -> tuple[str, datetime] | None:
    """When its entry can be had again, or no longer is held."""
    if record.op in {"lease", "extend"}:
        what, name = "deadline", "deadline_at"
    elif isinstance(fields.get("error"), dict):
        what, name = "again", "ready_at"
    elif record.op in WITH_PAYLOAD:
        what, name = "due", "ready_at"
    else:
        return None
    try:
        return what, datetime.fromisoformat(fields[name]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _detail(record: RecordView, fields: Mapping[str, Any]) -> str:
    error = fields.get("error")
    if isinstance(error, dict):
        text = f"{error.get('type')}: {str(error.get('message'))[:EXCERPT]}"
        if fields.get("cause") not in {None, "failed"}:
            text = f"{fields['cause']}, {text}"
        return text
    if record.op in WITH_PAYLOAD:
        priority = f"priority {fields['priority']}, " if fields.get("priority") else ""
        return f"{priority}{wording.size(len(record.text))}"
    if record.op in {"lease", "extend"}:
        return ""
    rest = {"op", "seq", "at", "id", "crc", "token", "who", "worker", "ledger"}
    return " ".join(f"{key}={str(value)[:60]}" for key, value in fields.items() if key not in rest)


# -- following ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """What has come since the last time: those that are shown, and how many there were."""

    events: Sequence[EventLine]
    seen: int


class Following:
    """Follows all queues in a thread of its own. ``on_more`` is called there: there is something to take."""

    def __init__(
        self,
        path: str,
        on_more: Callable[[], None],
        chosen: Wanted | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._on_more = on_more
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._waiting: deque[RecordView] = deque(maxlen=LAST)
        self._seen = 0
        self._chosen = chosen
        self._thread = threading.Thread(target=self._run, name="duraq-follow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, soon. Idempotent."""
        self._stop.set()

    def take(self) -> Batch:
        """What has come since this was last called."""
        with self._lock:
            waiting, seen = list(self._waiting), self._seen
            self._waiting.clear()
            self._seen = 0
        return Batch([event_of(record) for record in waiting], seen)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Inspector(self._path, clock=self._clock) as inspector:
                    for record in inspector.follow(last=LAST, stop=self._stop):
                        if self._stop.is_set():
                            return
                        self._add(record)
            except DuraqError as error:
                # Damaged, gone, or not ours to read: the screens say so. It may be mended.
                log.info("cannot follow %s: %s", self._path, error)
            self._stop.wait(1.0)

    def _add(self, record: RecordView) -> None:
        if record.queue in _HIDDEN or (self._chosen is not None and not self._chosen(record)):
            return
        with self._lock:
            first = not self._seen
            self._seen += 1
            self._waiting.append(record)
        if first:
            self._on_more()
