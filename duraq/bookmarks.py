"""The bookmarks of those who look at one storage, kept from one look to the next in the user's cache.

Derived, all of it: the file may be deleted at any time, and what is damaged, or of another storage that lay
at the same path, is not believed. Nothing is ever written beside the records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from duraq.model import is_queue_name

LONGEST = 64 << 20  # bytes of a file that is read
# With so few new ones it is not worth while to write them all again.
FEW = 16


class Bookmarks(MutableMapping[str, bytes]):
    """The bookmarks of a storage, by queue. Threads may share it."""

    def __init__(self, storage: str | os.PathLike[str]) -> None:
        self._file = _cache() / blake2b(os.fsencode(Path(storage).absolute()), digest_size=12).hexdigest()
        self._new: set[str] = set()
        self._kept = _read(self._file)

    def __getitem__(self, queue: str) -> bytes:
        return self._kept[queue]

    def __setitem__(self, queue: str, line: bytes) -> None:
        self._kept[queue] = line
        self._new.add(queue)

    def __delitem__(self, queue: str) -> None:
        del self._kept[queue]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def save(self) -> None:
        """Keep them for the next time, if many are new; where that is not possible, they are not kept."""
        if len(self._new) < FEW:
            return
        content = b"".join([name.encode() + b" " + line for name, line in list(self._kept.items())])
        self._new.clear()
        temporary = self._file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._file.parent.mkdir(0o700, parents=True, exist_ok=True)
            temporary.touch(0o600)
            temporary.write_bytes(content)
            temporary.replace(self._file)


def _cache() -> Path:
    home = Path(os.environ.get("HOME") or "/")
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "duraq" / "bookmarks"


def _read(file: Path) -> dict[str, bytes]:
    found = {}
    with suppress(OSError):
        if file.stat().st_size <= LONGEST:
            for line in file.read_bytes().splitlines(keepends=True):
                name, _, bookmark = line.partition(b" ")
                queue = name.decode("ascii", "replace")
                if is_queue_name(queue):
                    found[queue] = bookmark
    return found
