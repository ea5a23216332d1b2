"""Making a storage's directory, and knowing one: its marker, its version, and whose it is."""

from __future__ import annotations

import errno
from typing import Any

import orjson

from duraq.errors import NotAStorage, UnsupportedVersion
from duraq.journal import journal
from duraq.journal.filesystem import FileSystem, SyncFailed, write_all
from duraq.model import is_queue_name

FORMAT = 1
MARKER = "duraq.json"
# How much to keep of what is over: {"seconds": 86400} or {"bytes": 1000000}, of each queue.
History = dict[str, int]
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
    _write_marker(fs, root, {"format": FORMAT, "made_by": "duraq"})


def _write_marker(fs: FileSystem, root: int, content: dict[str, Any]) -> None:
    write_durably(fs, root, MARKER, orjson.dumps(content) + b"\n")


def settle_history(fs: FileSystem, root: int, path: str, wanted: History | None) -> History:
    """What is to be kept of what is over: as wanted, and then for everybody, or as it was."""
    marker = check_marker(fs, root, path)
    found = marker.get("history")
    if wanted is not None and wanted != found:
        fs.lock(root)
        try:
            _write_marker(fs, root, check_marker(fs, root, path) | {"history": wanted})
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
    except (ValueError, KeyError, TypeError):
        raise NotAStorage("duraq.json is not DuraQ's", path=f"{path}/{MARKER}") from None
    if not isinstance(version, int) or version > FORMAT:
        raise UnsupportedVersion(
            f"the storage has format {version!r}; this version knows up to {FORMAT}",
            path=path,
            hint="upgrade duraq; nothing was touched",
        )
    return marker


def queue_names(fs: FileSystem, root: int) -> list[str]:
    """Directories of that name that have segments; whatever else lies there is left alone."""
    found = []
    for name in fs.names(root):
        if not is_queue_name(name):
            continue
        try:
            home = fs.open_dir(root, name)
        except NotADirectoryError:
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
    fd = open_temporary(fs, directory, temporary)
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


def open_temporary(fs: FileSystem, directory: int, name: str) -> int:
    """A descriptor of the file that is to be renamed. Raises OSError."""
    try:
        return fs.open_file(directory, name, create=True)
    except NotAStorage as error:
        # What lies in the way is no damage: it keeps us from writing, as a full disk does.
        raise FileExistsError(errno.EEXIST, error.reason, name) from error


def sync_once(fs: FileSystem, fd: int) -> None:
    """Sync, and say so if a failure must not be followed by another try."""
    try:
        fs.sync(fd)
    except OSError as error:
        raise SyncFailed(*error.args) from error
