"""Idempotency keys of entries that are carried: both storages know a key, and one of them has its entry.

Each of the two says of a key whether its entry is, or was worked, there; else that it is ``elsewhere``. Both
answer producers. But only a key whose entry is there is a reason to end another entry under the same key.
"""

from __future__ import annotations

from collections.abc import Iterable

from duraq.keys import elsewhere, is_elsewhere, meant_by, name_of
from duraq.model import KEYS
from duraq.operations import Expire, Operation, Restore
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


def keys_of_leaving(
    storage: TransactingStorage, queue: str, leaving: Iterable[StoredEntry], other: str
) -> list[Operation]:
    """What has a storage know that the entries of some keys are elsewhere: these leave it for the other one.

    Their keys go on telling producers; but no entry is ended for one whose own is in a third storage.
    """
    names = {(name_of(queue, each.key), each.id) for each in leaving if each.key is not None}
    found = storage.some(KEYS, list({name for name, _ in names})) if names else []
    operations: list[Operation] = []
    for key in found:
        if (key.id, meant_by(key.payload)) in names and not is_elsewhere(key.payload):
            operations += replaced(key, key, elsewhere(key.payload), other)
    return operations
