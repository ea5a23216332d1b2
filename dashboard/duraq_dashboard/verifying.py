"""A whole storage read and checked, in a thread of its own: it may take minutes. Knows no Textual."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from duraq.errors import DuraqError, QueueNotFound
from duraq.examining import Finding, verify


@dataclass(frozen=True, slots=True)
class Verified:
    """How far it is: ``queues`` of ``of`` are read. ``stopped``: before it was over."""

    of: int
    queues: int = 0
    records: int = 0
    bytes: int = 0
    findings: tuple[Finding, ...] = ()
    ended_at: datetime | None = None
    stopped: bool = False
    error: str = ""

    @property
    def damaged(self) -> tuple[Finding, ...]:
        """What is damage, and not only to be remarked upon."""
        return tuple(finding for finding in self.findings if finding.damage)


class Verifying:
    """One reading of these queues and of the journal. ``tell`` is called in its thread."""

    def __init__(self, path: str, queues: Sequence[str], tell: Callable[[Verified], None]) -> None:
        self._path = path
        self._queues = queues
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duraq-verify", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Read no further than the end of the queue that is being read."""
        self._stop.set()

    def _run(self) -> None:
        found = Verified(len(self._queues))
        try:
            # The journal and the marker are looked at with each queue; what is wrong with them is said once.
            for name in self._queues:
                if self._stop.is_set():
                    break
                found = self._with(found, name)
                self._tell(found)
        except (DuraqError, OSError) as error:
            found = _ended(found, error=str(error))
        else:
            found = _ended(found, stopped=found.queues < found.of)
        self._tell(found)

    def _with(self, found: Verified, name: str) -> Verified:
        try:
            report = verify(self._path, [name])
        except QueueNotFound:  # removed since
            return Verified(found.of, found.queues + 1, found.records, found.bytes, found.findings)
        findings = [finding for finding in report.findings if finding not in found.findings]
        return Verified(
            found.of,
            found.queues + 1,
            found.records + report.records,
            found.bytes + report.bytes,
            (*found.findings, *findings),
        )


def _ended(found: Verified, *, stopped: bool = False, error: str = "") -> Verified:
    return Verified(
        found.of,
        found.queues,
        found.records,
        found.bytes,
        found.findings,
        datetime.now(UTC),
        stopped,
        error,
    )
