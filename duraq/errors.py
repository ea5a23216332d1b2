"""Every error DuraQ raises, as a tree.

DuraqError
  InvalidInput (also ValueError)       nothing was written; mend the call
    InvalidQueueName
    InvalidPayload                     names the path to the value, such as $.items[3]
      PayloadTooLarge
    InvalidOption                      a delay, TTL, priority, limit ... out of range
      InvalidFilter                    says what was expected, and shows where
  QueueError                           the call is well formed, the queue says no; nothing was written
    QueueNotFound
    QueueFull
    DuplicateEntry
    EntryNotFound
    CannotMigrate                      the target has entries of its own, or another migration is not over
    NoTransaction                      there is none to commit or to roll back
    ActNotFound                        nothing was done under that id, or it was too long ago
    GroupTooLarge                      one call would write more than goes into the journal at once
    LeaseLost                          the lease ended: completing, failing or extending changed nothing
      NotLeased                        this storage never held that lease, or has already ended it
  StorageError                         carries path, byte and a hint
    NotAStorage
      NotEmpty                         a copy is to be made where there is something already
    UnsupportedVersion
    NetworkFileSystem
    StorageBusy                        somebody else has it open, and must not
    StorageClosed
    StorageForked
    StorageReadOnly
    StorageFailed                      an earlier sync failed; nothing is accepted until it is reopened
    StorageDamaged                     names file, line and byte, and the way out
    NotWritten                         certainly absent, now and after any crash
      NotEnqueued
    OutcomeUnknown                     a sync failed: wholly there or wholly not
  WorkersFailed                        worker processes cannot open their queues
  PayloadUndecodable                   a stored payload is no longer of the queue's type
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Self


class DuraqError(Exception):
    """Base of every error DuraQ raises on purpose."""


class InvalidInput(DuraqError, ValueError):
    """The call cannot be carried out as written; nothing was written."""


class InvalidQueueName(InvalidInput):
    """A queue name is outside ``[a-z0-9][a-z0-9._-]{0,63}``, or is reserved."""


class InvalidPayload(InvalidInput):
    """A payload would not come back equal.

    ``path`` says where in the payload, in the manner of ``$.items[3]``.
    """

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(f"{message} - at `{path}`")
        self.path = path


class PayloadTooLarge(InvalidPayload):
    """A payload is larger than the storage's limit, as a whole: ``path`` is ``$``."""

    def __init__(self, message: str) -> None:
        # Not as its base does it: that would name the place as if there were another.
        DuraqError.__init__(self, message)
        self.path = "$"


class InvalidOption(InvalidInput):
    """A delay, time, TTL, priority, limit, id or duration is out of range."""


class InvalidFilter(InvalidOption):
    """A filter is not understood.

    ``reason`` says why, ``position`` where, in characters from 0; ``excerpt`` is two lines that show it: the
    filter or a piece of it, and a caret below the place.
    """

    def __init__(self, reason: str, position: int = 0, excerpt: str = "") -> None:
        super().__init__(f"{reason} (character {position + 1} of the filter)\n{excerpt}".rstrip())
        self.reason = reason
        self.position = position
        self.excerpt = excerpt


class QueueError(DuraqError):
    """The queue refuses the call; nothing was written."""


class QueueNotFound(QueueError):
    """There is no such queue in this storage."""

    @classmethod
    def among(cls, name: str, there: Iterable[str]) -> Self:
        """Says which one may be meant of those that are there."""
        from difflib import get_close_matches  # noqa: PLC0415 - only after a slip of the pen

        near = get_close_matches(name, list(there), 1)
        return cls(f"there is no queue {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))


class QueueFull(QueueError):
    """The queue holds ``max_size`` entries already."""


class DuplicateEntry(QueueError):
    """The queue already holds an entry with this id."""


class EntryNotFound(QueueError):
    """The queue holds no entry with this id: it never did, or it is completed, expired or removed."""


class LeaseLost(QueueError):
    """The lease has ended: its deadline passed, or it was given up. Nothing was changed."""


class NotLeased(LeaseLost):
    """The entry is not leased through this storage: it never was, or that lease has been ended."""


class CannotMigrate(QueueError):
    """A storage cannot be moved into another one as they are; says which queue stands in the way, and why.

    Or a queue cannot be resumed, for a storage that is being moved has not all of it yet.
    """


class GroupTooLarge(QueueError):
    """One call, or one transaction, would write more than goes into the journal at once (``sizes.group``)."""


class NoTransaction(QueueError):
    """There is no transaction to commit or to roll back."""


class ActNotFound(QueueError):
    """There is no act with this id, or it is so old that what it needs is gone."""


class StorageError(DuraqError):
    """Something is wrong with the storage itself.

    ``reason`` says what, ``path``, ``line`` and ``byte`` where, if that is known; ``hint`` is the way out.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        byte: int | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        where = "" if path is None else f"{fspath(path)}: "
        if line is not None:
            where += f"line {line}, "
        if byte is not None:
            where += f"byte {byte}: "
        elif line is not None:
            where += ": "
        super().__init__(f"{where}{message}" + (f" ({hint})" if hint else ""))
        self.reason = message
        self.path = None if path is None else fspath(path)
        self.byte = byte
        self.line = line
        self.hint = hint


class NotAStorage(StorageError):
    """The directory is not a DuraQ storage, and not empty, so it was left alone."""


class NotEmpty(NotAStorage):
    """A copy was to be made in a directory that has something in it, which was left alone."""


class UnsupportedVersion(StorageError):
    """The storage was written in another format, mostly a newer one; nothing was touched."""


class NetworkFileSystem(StorageError):
    """The directory is on a network or user-space file system, where flock and fsync promise nothing."""


class StorageBusy(StorageError):
    """Somebody has the storage open while something is to be done to it that takes it alone."""


class StorageClosed(StorageError):
    """The storage was closed; open a new one."""


class StorageForked(StorageError):
    """The storage was opened before a fork; a child process opens its own."""


class StorageReadOnly(StorageError):
    """The storage was opened read-only, or this user may not write its files, or not even read them."""


class StorageFailed(StorageError):
    """A sync failed and could not be made good; nothing is accepted until the storage is reopened."""


class StorageDamaged(StorageError):
    """Bytes that were known to be durable are not what was written there."""


class NotWritten(StorageError):
    """The change is certainly absent, now and after any crash."""


class NotEnqueued(NotWritten):
    """The entries are certainly absent, now and after any crash."""


class OutcomeUnknown(StorageError):
    """A sync failed: the change is wholly there or wholly not, and nobody can tell which."""


class WorkersFailed(DuraqError):
    """A worker process could not open its queue; starting it again would be of no use."""


class PayloadUndecodable(DuraqError):
    """A stored payload cannot be turned into the queue's type any more."""
