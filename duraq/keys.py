"""Idempotency keys: whoever does not know whether an entry was enqueued does it again, under the same key.

A key is an entry of a queue of the storage's own, enqueued in one change with the entry that it stands for;
its TTL is the window. So it is as durable, and costs as little memory, as any entry.
"""

from __future__ import annotations

from hashlib import blake2b

import orjson

from duraq.errors import DuplicateEntry, EntryNotFound, QueueNotFound
from duraq.model import KEYS
from duraq.operations import Enqueue
from duraq.storage.base import Limits, Storage


def enqueue_once(storage: Storage, queue: str, entry: Enqueue, window: int, limits: Limits | None) -> str:
    """Enqueue the entry unless one was under its key, within so many microseconds; returns the id of either.

    Raises DuplicateEntry if it is another entry that has the same id.
    """
    name = name_of(queue, str(entry.key))
    payload = orjson.dumps({"queue": queue, "key": entry.key, "id": entry.id})
    while True:
        mark = Enqueue(name, payload, expires_at=storage.clock.now() + window)
        try:
            # The key first: one that is known is known in a full queue too.
            storage.commit({KEYS: (mark,), queue: (entry,)}, limits)
        except DuplicateEntry:
            earlier = entry_of(storage, name)
            if earlier is not None:
                return earlier
            if _is_there(storage, queue, entry.id):
                raise
            # Whatever was in the way has come to its end meanwhile.
        else:
            return entry.id


def name_of(queue: str, key: str) -> str:
    """Under which id a key of a queue is kept."""
    return blake2b(f"{queue}\0{key}".encode(), digest_size=16).hexdigest()


def meant_by(payload: bytes) -> str:
    """Which entry the key with this payload stands for."""
    found: str = orjson.loads(payload)["id"]
    return found


def is_elsewhere(payload: bytes) -> bool:
    """Whether that entry is, or was worked, in another storage: it has gone there, or never came here."""
    return bool(orjson.loads(payload).get("elsewhere"))


def elsewhere(payload: bytes) -> bytes:
    """The payload of the same key, where its entry is not."""
    return orjson.dumps({**orjson.loads(payload), "elsewhere": True})


def entry_of(storage: Storage, name: str) -> str | None:
    """Which entry the key that is kept under that name stands for; None if there is no such key."""
    try:
        return meant_by(storage.get(KEYS, name).payload)
    except (EntryNotFound, QueueNotFound):
        return None


def _is_there(storage: Storage, queue: str, entry_id: str) -> bool:
    try:
        storage.get(queue, entry_id)
    except (EntryNotFound, QueueNotFound):
        return False
    return True
