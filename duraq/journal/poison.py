"""The journal file whose sync failed, marked for those who open the storage later: ``journal/poison.json``.

The kernel reports a failed sync once, and tells a process that opens the file afterwards nothing.
"""

from __future__ import annotations

import orjson

from duraq.journal.filesystem import FileSystem
from duraq.journal.opening import write_durably

NAME = "poison.json"


def mark(fs: FileSystem, directory: int, epoch: int) -> None:
    """Nothing may be promised from the file of that epoch any more; durable on return."""
    write_durably(fs, directory, NAME, orjson.dumps({"epoch": epoch}) + b"\n")


def poisoned(fs: FileSystem, directory: int, current: int) -> int:
    """The epoch that is marked, 0 if none."""
    if not fs.exists(directory, NAME):
        return 0
    fd = fs.open_file(directory, NAME, writable=False)
    try:
        return int(orjson.loads(fs.pread(fd, 4096, 0))["epoch"])
    except (ValueError, KeyError, TypeError):
        # Half written, so no promise was made after it either: the file it meant is the current one.
        return current
    finally:
        fs.close(fd)
