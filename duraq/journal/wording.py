"""What the system refuses, in DuraQ's words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from duraq.errors import NotAStorage, NotWritten, StorageError, StorageReadOnly
from duraq.journal.filesystem import NotOurs, OfAnotherUser

_NOT_PERMITTED = {errno.EROFS, errno.EACCES, errno.EPERM}
_HINTS = {
    errno.ENOSPC: "the disk is full; nothing was written; free some space and try again",
    errno.EDQUOT: "the quota is used up; nothing was written; free some space and try again",
    errno.EMFILE: "this process has no file descriptors left; nothing was written; raise `ulimit -n`",
    errno.ENFILE: "the machine has no file descriptors left; nothing was written",
}


def of(
    error: OSError,
    path: str,
    kind: type[StorageError] = StorageError,
    *,
    hint: str = "the directory must be writable by this user",
) -> StorageError:
    """The error that says what was refused, and the way out; ``hint`` is that for want of permission."""
    if isinstance(error, NotOurs):
        if not issubclass(kind, NotWritten):
            kind = StorageReadOnly if isinstance(error, OfAnotherUser) else NotAStorage
        return kind(f"{error.name}: {error.why}", path=path, hint=error.hint)
    reason = str(error)
    if error.errno:
        reason = f"{os.strerror(error.errno)} (errno {errno.errorcode.get(error.errno, error.errno)})"
        reason += "" if error.filename in {None, path} else f": {error.filename!r}"
    if error.errno in _NOT_PERMITTED and not issubclass(kind, NotWritten):
        return StorageReadOnly(reason, path=path, hint=hint)
    return kind(reason, path=path, hint=_HINTS.get(error.errno or 0))


@contextmanager
def said_of(path: str, *, hint: str = "the directory must be writable by this user") -> Iterator[None]:
    """What the system refuses in the block is about that path."""
    try:
        yield
    except OSError as error:
        raise of(error, path, hint=hint) from error
