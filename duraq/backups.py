"""Backups: a storage copied while it is worked, and brought back."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from duraq.errors import NotAStorage, StorageDamaged
from duraq.examining import open_root, verify
from duraq.journal import copying, opening, reading, wording
from duraq.journal.copying import Copier
from duraq.journal.filesystem import FileSystem, RealFileSystem
from duraq.journal.log import Log, Sizes
from duraq.journal.reading import ReaderFileSystem

_HINT = "duraq verify shows all of it, duraq repair sets it aside"
_HOLD_UP = (
    "a backup holds up those who work it: make it as their user, or copy the files and restore the copy"
)
_READ = "this user must be able to read it"


class Copied(NamedTuple):
    """A copy that was made and read again: where it is, and what is in it."""

    path: str
    queues: list[str]
    records: int
    bytes: int


def backup(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    file_system: FileSystem | None = None,
) -> Copied:
    """Copy the storage as it is at this moment, over all queues, to a directory that is new or empty.

    Others may go on working: they are held up for as long as it takes to look at the ends of the queues, and
    no segment is removed meanwhile. The copy is a storage, durable on return; all of it was read again.
    If that fails nothing of the copy stays. Raises NotAStorage, NotEmpty, StorageDamaged if the storage is
    damaged, StorageReadOnly if this user may not hold up those who work it, or another StorageError.
    """
    where, there = str(Path(path).absolute()), str(Path(target).absolute())
    fs = file_system or RealFileSystem()
    with wording.said_of(where, hint=_HOLD_UP):
        try:
            log = Log(fs, where, Sizes(), create=False)
        except FileNotFoundError:
            raise NotAStorage("there is no such directory", path=where) from None
        with closing(log), copying.standing_still(log) as moment:
            about = opening.check_marker(fs, log.root, where)
            Copier(fs, fs, where).copy(log.root, moment, there, about)
    return _checked(there, file_system)


def restore(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    file_system: FileSystem | None = None,
) -> Copied:
    """Make a storage of a backup, or of any copy, in a directory that is new or empty.

    The backup is only read, and may be on a read-only medium; one that was copied in the middle of work is
    brought to rest on the way. Nobody may work it meanwhile. Durable on return; every record was read again.
    If that fails nothing of it stays, or at least not as a storage. Raises NotAStorage, NotEmpty,
    StorageDamaged if the backup is damaged, or another StorageError.
    """
    where, there = str(Path(source).absolute()), str(Path(path).absolute())
    with wording.said_of(where, hint=_READ):
        verify(where, file_system=file_system).check(where, _HINT)
        fs = file_system or ReaderFileSystem()
        root = open_root(fs, where)
        try:
            about = opening.check_marker(fs, root, where)
            view = reading.look(fs, root)
            moment = copying.lengths(view.fs, view.root, reading.queue_names(view.fs, view.root))
            target = file_system or RealFileSystem()
            Copier(view.fs, target, where).copy(view.root, moment, there, about)
        finally:
            fs.close(root)
    return _checked(there, file_system)


def _checked(path: str, file_system: FileSystem | None) -> Copied:
    with wording.said_of(path):
        report = verify(path, file_system=file_system)
        try:
            report.check(path, _HINT)
        except StorageDamaged:
            # So that nobody takes it for a good one.
            fs = file_system or RealFileSystem()
            root = fs.open_root(path)
            try:
                copying.disown(fs, root)
            finally:
                fs.close(root)
            raise
    return Copied(path, report.queues, report.records, report.bytes)


__all__ = ["Copied", "backup", "restore"]
