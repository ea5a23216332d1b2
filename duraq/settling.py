"""Leases that are over, and whose holders are dead or late: whoever comes by ends them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from duraq.errors import QueueError
from duraq.model import AttemptError, Cause
from duraq.operations import Bury, Fail
from duraq.storage.base import Lapsed, Limits, Storage

log = logging.getLogger("duraq")


def settle_lapsed(storage: Storage, queue: str, decide: Callable[[Lapsed], Fail | Bury]) -> bool:
    """End the leases of dead or late holders: attempt counted, cause kept. Returns whether there were any.

    ``decide`` says what becomes of each entry.
    """
    lapsed = storage.lapsed(queue)
    if not lapsed:
        return False
    verdicts = [decide(lease) for lease in lapsed]
    for lease in lapsed:
        log.info("queue %s: entry %s came back (%s)", queue, lease.id, lease.cause)
    limits = Limits(still_late=True)
    try:
        storage.commit({queue: verdicts}, limits)
    except QueueError:
        # Another consumer has ended one of them meanwhile, or a late holder has done so or extended it.
        for verdict in verdicts:
            with suppress(QueueError):
                storage.commit({queue: (verdict,)}, limits)
    return True


def why(lease: Lapsed) -> AttemptError:
    """What the attempt's history says of it."""
    if lease.cause is Cause.WORKER_DIED:
        return AttemptError("WorkerDied", f"worker {lease.worker} died while it held the entry")
    holder = f"worker {lease.worker}" if lease.worker else "whoever took it"
    return AttemptError("LeaseTimedOut", f"{holder} held the entry past its deadline")
