"""Making a storage's directory, and knowing one: its marker, its version, and whose it is."""

from __future__ import annotations

import logging
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from duraq import values
from duraq.errors import NotAStorage, UnsupportedVersion
from duraq.journal import journal
from duraq.journal.filesystem import FileSystem, SomethingElse, SyncFailed, write_all
from duraq.model import MARKER, is_queue_name

log = logging.getLogger("duraq")

FORMAT = 1
# How much to keep of what is over: {"seconds": 86400} or {"bytes": 1000000}, of each queue.
History = dict[str, int]
UNMARKED = "duraq repair --dry-run says what can be done"
NO_HISTORY: History = {"bytes": 0}


def make_or_check(fs: FileSystem, root: int, path: str, capacity: int, *, create: bool) -> None:
    """Make the storage if the directory is empty, then see that this version may use it.

    Raises NotAStorage or UnsupportedVersion, and then has touched nothing.
    """
    if not fs.exists(root, MARKER):
        if not create:
            raise NotAStorage("not a DuraQ storage", path=path, hint="there is no duraq.json in it")
        # Two processes may both find the directory empty; one makes the storage, the other finds it.
        fs.lock(root)
        try:
            if not fs.exists(root, MARKER):
                _make(fs, root, path, capacity)
        finally:
            fs.unlock(root)
    check_marker(fs, root, path)


def _make(fs: FileSystem, root: int, path: str, capacity: int) -> None:
    # An interrupted creation has left some of these; anything else is somebody else's directory.
    foreign = sorted(set(fs.names(root)) - {"journal", "leases", MARKER + ".tmp"})
    if foreign:
        raise NotAStorage(
            f"not a DuraQ storage, and not empty (there is {foreign[0]!r})",
            path=path,
            hint="name an empty or a new directory",
        )
    directory = fs.open_dir(root, "journal", create=True)
    try:
        journal.create(fs, directory, capacity)
    finally:
        fs.close(directory)
    fs.close(fs.open_dir(root, "leases", create=True))
    # Before the marker gets its name: names are independent of each other, and a marker whose journal's name
    # was lost would be a storage that nobody can open.
    fs.sync(root)
    # Last, and durable with everything before it: a directory with a marker is a whole storage.
    write_marker(fs, root)


def write_marker(fs: FileSystem, root: int, **more: Any) -> None:
    """Write the marker, durably."""
    content = {"format": FORMAT, "made_by": "duraq", **more}
    write_durably(fs, root, MARKER, orjson.dumps(content) + b"\n")


def settle_history(fs: FileSystem, root: int, path: str, wanted: History | None) -> History:
    """What is to be kept of what is over: as wanted, and then for everybody, or as it was."""
    marker = check_marker(fs, root, path)
    found = marker.get("history")
    if wanted is not None and wanted != found:
        fs.lock(root)
        try:
            write_marker(fs, root, **check_marker(fs, root, path) | {"history": wanted})
        finally:
            fs.unlock(root)
        return wanted
    return NO_HISTORY if found is None else found


def check_marker(fs: FileSystem, root: int, path: str) -> dict[str, Any]:
    """What the marker says. Raises unless it is there and of a version that this one knows."""
    fd = fs.open_file(root, MARKER, writable=False)
    try:
        content = fs.pread(fd, 4096, 0)
    finally:
        fs.close(fd)
    try:
        marker: dict[str, Any] = orjson.loads(content)
        version = marker["format"]
        if type(version) is not int or version > FORMAT:
            raise UnsupportedVersion(
                f"the storage has format {version!r:.40}; this version knows up to {FORMAT}",
                path=path,
                hint="upgrade duraq; nothing was touched",
            )
        _check_history(marker.get("history", NO_HISTORY))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotAStorage("duraq.json is not DuraQ's", path=f"{path}/{MARKER}", hint=UNMARKED) from None
    return marker


def _check_history(history: History) -> None:
    ((unit, amount),) = history.items()
    if unit not in {"seconds", "bytes"}:
        raise ValueError(f"no unit of a history: {unit!r:.40}")
    values.number(amount)


def warn_if_exposed(path: str) -> None:
    """Say so in the log if anybody may rename or replace a directory that leads to this one."""
    with suppress(OSError):
        for parent in Path(path).resolve().parents:
            mode = parent.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                log.warning("%s: anybody may put another directory in its place: see %s", path, parent)
                return


def queue_names(fs: FileSystem, root: int) -> list[str]:
    """Directories of that name that have segments; whatever else lies there is left alone."""
    found = []
    for name in fs.names(root):
        if not is_queue_name(name):
            continue
        try:
            home = fs.open_dir(root, name)
        except SomethingElse:
            continue
        try:
            if fs.exists(home, "segments"):
                found.append(name)
        finally:
            fs.close(home)
    return found


def write_durably(fs: FileSystem, directory: int, name: str, content: bytes) -> None:
    """Replace the file by this content so that a crash leaves the old or the new one, never less."""
    temporary = name + ".tmp"
    fd = fs.open_file(directory, temporary, create=True)
    try:
        fs.truncate(fd, 0)
        write_all(fs, fd, content, 0)
        # Before the rename: otherwise the name could be durable and the bytes not.
        sync_once(fs, fd)
    finally:
        fs.close(fd)
    fs.rename(directory, temporary, name)
    # Without it the old name could come back after a power cut.
    sync_once(fs, directory)


def sync_once(fs: FileSystem, fd: int) -> None:
    """Sync, and say so if a failure must not be followed by another try."""
    try:
        fs.sync(fd)
    except OSError as error:
        raise SyncFailed(*error.args) from error
