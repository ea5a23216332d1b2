"""Exit codes, and which error means which.

0 done   1 unexpected   2 usage, or needs confirmation   3 nothing to take   4 not found   5 conflict
6 partly done   7 damage met   8 not permitted   9 busy   10 of a newer version
130/143 interrupted/terminated

Only ``duraq check`` has other ones, those of monitoring plugins: see duraq/cli/check.py.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum

from duraq import errors


class Code(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    NOTHING = 3
    NOT_FOUND = 4
    CONFLICT = 5
    PARTLY = 6
    DAMAGED = 7
    NOT_PERMITTED = 8
    BUSY = 9
    TOO_NEW = 10
    INTERRUPTED = 130
    TERMINATED = 143


class CommandError(Exception):
    """Ends a command with this code and message."""

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


_CODES: list[tuple[type[BaseException], Code]] = [
    (errors.InvalidInput, Code.USAGE),
    (errors.QueueNotFound, Code.NOT_FOUND),
    (errors.EntryNotFound, Code.NOT_FOUND),
    (errors.ActNotFound, Code.NOT_FOUND),
    (errors.NotEmpty, Code.CONFLICT),
    (errors.NotAStorage, Code.NOT_FOUND),
    (errors.QueueError, Code.CONFLICT),
    (errors.StorageDamaged, Code.DAMAGED),
    (errors.PayloadUndecodable, Code.DAMAGED),
    (errors.StorageReadOnly, Code.NOT_PERMITTED),
    (errors.StorageBusy, Code.BUSY),
    (errors.UnsupportedVersion, Code.TOO_NEW),
    (PermissionError, Code.NOT_PERMITTED),
]


def code_of_several(problems: Iterable[BaseException]) -> Code:
    """The exit code of what was done in part; that of damage is the louder one."""
    codes = {code_of(problem) for problem in problems}
    if Code.DAMAGED in codes:
        return Code.DAMAGED
    return Code.PARTLY if codes else Code.DONE


def code_of(error: BaseException) -> Code:
    """The exit code that an error ends a command with."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return Code.NOT_PERMITTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.UNEXPECTED)
