"""A storage as it was at one moment: what the threads that read hand to the screens that draw.

Frozen, so that it may cross threads. A queue in which nothing has changed is the same object in the next
snapshot: whoever draws need only look at those that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from duraq.attention import Attention, Verdict
from duraq.health import HealthResult
from duraq.metrics import QueueMetrics
from duraq.views import QueueView, WorkerView


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing can be seen: a word (GONE, DENIED, CORRUPT, NEWER), what happened, and a way out."""

    word: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class QueueNow:
    """One queue. ``metrics``: None if it cannot be read. ``verdicts``: what is the matter, worst first."""

    view: QueueView
    metrics: QueueMetrics | None
    verdicts: tuple[Verdict, ...] = ()
    gone: bool = False  # its directory vanished while it was watched; the rest is as it was before

    @property
    def name(self) -> str:
        return self.view.name

    @property
    def word(self) -> str:
        """Its state in one word."""
        if self.gone:
            return "GONE"
        return (self.verdicts[0].word if self.verdicts else Attention.OK).value

    @property
    def role(self) -> str:
        """How loud the word is: crit, warn, note or plain."""
        if self.gone:
            return "crit"
        return (self.verdicts[0].word if self.verdicts else Attention.OK).role

    @property
    def why(self) -> str:
        """The evidence; empty if nothing is the matter."""
        if self.gone:
            return "its directory has vanished"
        return self.verdicts[0].why if self.verdicts else ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All queues of a storage.

    ``number`` rises with each look that found something new. ``looked_at``: when the storage was looked at;
    ``changed_at``: when something had changed last. ``lag``: how long after the change that look was over.
    ``live``: whether changes are noticed at once, or only by looking again now and then.
    ``whole``: whether all queues have been looked at; the first look at many is shown in parts, and what is
    not in a part may be in the next. ``tried``: what came of trying out what does not depend on the queues.
    """

    path: str
    number: int
    looked_at: datetime
    changed_at: datetime
    lag: timedelta = timedelta(0)
    live: bool = True
    trouble: Trouble | None = None
    queues: Mapping[str, QueueNow] = field(default_factory=dict)
    workers: tuple[WorkerView, ...] = ()
    whole: bool = True
    tried: tuple[HealthResult, ...] = ()
