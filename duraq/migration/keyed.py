"""Entries as they leave a storage for another one, and their idempotency keys, which both know from then on.

Each of the two says of a key whether its entry is, or was worked, there; else that it is ``elsewhere``. Both
answer producers. But only a key whose entry is there is a reason to end another entry under the same key.
"""

from __future__ import annotations

from collections.abc import Sequence

from duraq.keys import elsewhere, is_elsewhere, meant_by, name_of
from duraq.model import KEYS
from duraq.operations import Expire, Operation, Remove, Restore
from duraq.storage.base import StoredEntry
from duraq.storage.transacting import TransactingStorage


def is_news(here: StoredEntry, there: StoredEntry | None) -> bool:
    """Whether the target does not know that key of the source, but at most one whose window had passed.

    By the source's clock that was before this one was enqueued; the target's may still be behind.
    """
    return there is None or (there.expires_at is not None and there.expires_at <= here.created_at)


def replaced(key: StoredEntry, known: StoredEntry | None, payload: bytes, source: str) -> list[Operation]:
    """What has a storage know that key, with that payload, in the place of what it knew."""
    ended = [] if known is None else [Expire(known.id)]
    return [*ended, Restore(key.id, payload, key.unheld(), source=source)]


def departure(
    storage: TransactingStorage, queue: str, entries: Sequence[StoredEntry], to: str
) -> dict[str, list[Operation]]:
    """What takes entries out of a storage, each if it is still as it is: they lie in that other one now.

    Their keys go on telling producers; but no entry is ended for one whose own is in a third storage.
    """
    removals: list[Operation] = [Remove(each.id, to=to, version=each.unheld().version) for each in entries]
    names = {(name_of(queue, each.key), each.id) for each in entries if each.key is not None}
    found = storage.some(KEYS, list({name for name, _ in names})) if names else []
    keys: list[Operation] = []
    for key in found:
        if (key.id, meant_by(key.payload)) in names and not is_elsewhere(key.payload):
            keys += replaced(key, key, elsewhere(key.payload), to)
    return without_empty({queue: removals, KEYS: keys})


def without_empty(changes: dict[str, list[Operation]]) -> dict[str, list[Operation]]:
    """Those queues of them that something is done to."""
    return {queue: operations for queue, operations in changes.items() if operations}
