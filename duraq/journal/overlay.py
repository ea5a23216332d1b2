"""A file system that reads what lies below it and keeps every change to itself.

What the first opener of a storage does after a power cut, a reader does over this one: the same code, the
same outcome, and not a byte written. It is for one thread, and for as long as the answer takes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import count

from duraq.journal.filesystem import FileSystem, Mark, Space


class _Open:
    """What a descriptor stands for; ``below`` is the one below, None if the name is not there."""

    __slots__ = ("below", "owned", "path")

    def __init__(self, path: str, below: int | None, *, owned: bool = True) -> None:
        self.path = path
        self.below = below
        self.owned = owned


class Overlay:
    """Implements ``FileSystem``. Nothing is ever made, written, locked or synced below."""

    def __init__(self, below: FileSystem) -> None:
        self._below = below
        self._open: dict[int, _Open] = {}
        # Numbers that no system gives out: a descriptor that is used with the wrong file system fails.
        self._numbers = count(1 << 24)
        self._content: dict[str, bytearray] = {}
        self._directories: set[str] = set()
        self._forbidden: dict[str, PermissionError] = {}

    @property
    def changed(self) -> bool:
        """Whether anything is different here from below, or may not be known to be the same."""
        return bool(self._content or self._directories or self._forbidden)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """What files that are different here have in them, by their paths from the top on."""
        return ((path.removeprefix("/"), bytes(content)) for path, content in self._content.items())

    # -- opening ---------------------------------------------------------------------------------------

    def adopt(self, directory: int) -> int:
        """A descriptor here of a directory that is open below, where it remains its owner's to close."""
        fd = next(self._numbers)
        self._open[fd] = _Open("", directory, owned=False)
        return fd

    def open_root(self, path: str, *, create: bool = False) -> int:
        if create:
            raise _read_only(path)
        return self._new("", self._below.open_root(path))

    def open_dir(self, parent: int, name: str, *, create: bool = False) -> int:
        path, below = self._look(parent, name, directory=True)
        if below is None and path not in self._directories:
            if not create:
                raise _missing(path)
            self._directories.add(path)
        return self._new(path, below)

    def open_file(
        self,
        directory: int,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        writable: bool = True,  # noqa: ARG002 - here everything is, and nothing below
    ) -> int:
        path, below = self._look(directory, name, directory=False)
        if below is None and path not in self._content:
            if not (create or exclusive):
                raise _missing(path)
            self._content[path] = bytearray()
        elif exclusive:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._new(path, below)

    def _look(self, parent: int, name: str, *, directory: bool) -> tuple[str, int | None]:
        at = self._open[parent]
        path = f"{at.path}/{name}"
        if at.below is None:
            return path, None
        if path in self._forbidden:
            # Nothing could be laid over it: read now, it would pass for damaged.
            raise self._forbidden[path]
        try:
            if directory:
                return path, self._below.open_dir(at.below, name)
            return path, self._below.open_file(at.below, name, writable=False)
        except FileNotFoundError:
            return path, None
        except PermissionError as error:
            self._forbidden[path] = error
            raise

    def forbid(self, name: str, error: PermissionError) -> None:
        """From here on nobody may open what is of that name at the top."""
        self._forbidden[f"/{name}"] = error

    def _new(self, path: str, below: int | None) -> int:
        fd = next(self._numbers)
        self._open[fd] = _Open(path, below)
        return fd

    def close(self, fd: int) -> None:
        at = self._open.pop(fd)
        if at.below is not None and at.owned:
            self._below.close(at.below)

    # -- bytes -----------------------------------------------------------------------------------------

    def pread(self, fd: int, length: int, offset: int, /) -> bytes:
        at = self._open[fd]
        content = self._content.get(at.path)
        if content is not None:
            return bytes(content[offset : offset + length])
        assert at.below is not None
        return self._below.pread(at.below, length, offset)

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        content = self._own(fd)
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, fd: int, length: int, /) -> None:
        content = self._own(fd, length)
        del content[length:]
        content.extend(bytes(length - len(content)))

    def size(self, fd: int) -> int:
        at = self._open[fd]
        content = self._content.get(at.path)
        if content is not None:
            return len(content)
        assert at.below is not None
        return self._below.size(at.below)

    def _own(self, fd: int, most: int | None = None) -> bytearray:
        """What is changed; no more of it is read than that many bytes."""
        at = self._open[fd]
        content = self._content.get(at.path)
        if content is None:
            assert at.below is not None
            size = self._below.size(at.below)
            content = bytearray(self._below.pread(at.below, size if most is None else min(size, most), 0))
            self._content[at.path] = content
        return content

    # -- names -----------------------------------------------------------------------------------------

    def names(self, directory: int) -> list[str]:
        at = self._open[directory]
        found = set() if at.below is None else set(self._below.names(at.below))
        # What may not be opened is there for whoever looks: he is told so, and does not miss it.
        for path in (*self._content, *self._directories, *self._forbidden):
            parent, _, name = path.rpartition("/")
            if parent == at.path:
                found.add(name)
        return sorted(found)

    def file_names(self, directory: int) -> list[str]:
        at = self._open[directory]
        found = set() if at.below is None else set(self._below.file_names(at.below))
        mine = (*self._content, *self._forbidden)
        found.update(path.rpartition("/")[2] for path in mine if path.rpartition("/")[0] == at.path)
        return sorted(found)

    def exists(self, directory: int, name: str) -> bool:
        at = self._open[directory]
        path = f"{at.path}/{name}"
        if path in self._content or path in self._directories:
            return True
        return at.below is not None and self._below.exists(at.below, name)

    def identity(self, fd: int) -> tuple[int, int]:
        below = self._open[fd].below
        return (-1, fd) if below is None else self._below.identity(below)

    def has_name(self, fd: int) -> bool:
        below = self._open[fd].below
        return below is None or self._below.has_name(below)

    def mark(self, directory: int, path: str) -> Mark | None:
        below = self._open[directory].below
        return None if below is None else self._below.mark(below, path)

    def space(self, fd: int) -> Space:
        below = self._open[fd].below
        assert below is not None
        return self._below.space(below)

    def rename(self, directory: int, old: str, new: str) -> None:
        raise _read_only(self._open[directory].path + f"/{old} -> {new}")

    def unlink(self, directory: int, name: str) -> None:
        raise _read_only(f"{self._open[directory].path}/{name}")

    def rmdir(self, directory: int, name: str) -> None:
        raise _read_only(f"{self._open[directory].path}/{name}")

    # -- what a reader has no use for ------------------------------------------------------------------

    def start_writing(self, fd: int, offset: int, length: int, /) -> None:
        pass

    def datasync(self, fd: int, /) -> None:
        pass

    def sync(self, fd: int, /) -> None:
        pass

    def lock(self, fd: int, /) -> None:
        # Not even a shared one: whoever opens the storage takes any lock for another opener.
        raise _read_only(self._open[fd].path)

    def unlock(self, fd: int, /) -> None:
        raise _read_only(self._open[fd].path)

    def try_lock(self, fd: int) -> bool:
        raise _read_only(self._open[fd].path)

    def share_lock(self, fd: int) -> None:
        raise _read_only(self._open[fd].path)


def _missing(path: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _read_only(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)
