"""For tests of dead letters on the screen: real ones, and waiting for what comes from other threads."""

import asyncio
import hashlib

from duraq import EntryStatus, FileStorage, Queue
from duraq.inspector import Inspector

SOON = 30  # seconds; only so that a failing test ends


def bury(root, *payloads, queue="mail", error=None, clock=None, headers=None):
    """Make dead letters; returns their ids. ``error`` makes what a payload fails with."""
    with FileStorage(root, clock=clock) as storage:
        mail = Queue(queue, storage)
        ids = mail.enqueue_many(payloads, headers=headers)
        for entry in mail.dequeue(limit=max(1, len(ids))):
            reason = f"{entry.data} failed" if error is None else error(entry.data)
            mail.mark_failed(entry, reason, dead=True)
    return ids


def counts(root, queue="mail"):
    """How many are ready, and how many dead."""
    with Inspector(root) as inspector:
        found = inspector.counts(queue)
    return found.ready, found.dead


def dead(root, queue="mail"):
    """The dead letters in full."""
    with Inspector(root) as inspector:
        return inspector.entries(queue, EntryStatus.DEAD)


def tree(root):
    """What every file holds."""
    return {
        str(path.relative_to(root)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


async def until(pilot, holds):
    """Wait until it is so, and what has come of it is done."""
    async with asyncio.timeout(SOON):
        while not holds():  # noqa: ASYNC110 - there is no event for what a thread does
            # Not the pilot's pause, which waits until the whole process is idle.
            await asyncio.sleep(0.005)
    assert pilot.app._exception is None
