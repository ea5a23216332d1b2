"""What workers say of themselves in ``leases/``, read by others.

These files are for people: nothing is decided by what stands in them, and what is not as a worker writes it
is left out. Whether a worker lives is not a matter of what it says; see ``duraq.journal.lease``.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from duraq import values
from duraq.journal.filesystem import FileSystem
from duraq.model import WORKER
from duraq.times import microseconds

_FILE = re.compile(rf"({WORKER.pattern})\.json")
_LONGEST = (
    64 << 10
)  # bytes; what a worker writes has a few hundred, and two thousand if its arguments are long
_ARGUMENTS = 64
_CHARACTERS = 1024


class Description(NamedTuple):
    """One worker; None and empty where it says nothing that can be read."""

    opened_at: int | None = None
    host: str = ""
    argv: tuple[str, ...] = ()
    unit: str | None = None
    boot_id: str = ""
    start_time: int | None = None  # when its process began, in clock ticks since boot


def described(fs: FileSystem, directory: int) -> dict[str, Description]:
    """The workers that have left a file in ``leases/``, living or dead, by their ids."""
    names = (_FILE.fullmatch(name) for name in fs.names(directory))
    return {found[1]: _read(fs, directory, found[0]) for found in names if found is not None}


def _read(fs: FileSystem, directory: int, name: str) -> Description:
    try:
        fd = fs.open_file(directory, name, writable=False)
    except OSError:
        return Description()  # removed since, or not ours to read
    try:
        return description(fs.pread(fd, _LONGEST, 0))
    except OSError:
        return Description()
    finally:
        fs.close(fd)


def description(content: bytes) -> Description:
    """What of a worker's file makes sense."""
    try:
        said = orjson.loads(content)
    except ValueError:
        return Description()
    return _checked(said) if isinstance(said, dict) else Description()


def _checked(said: dict[str, Any]) -> Description:
    argv = said.get("argv")
    arguments = argv[:_ARGUMENTS] if isinstance(argv, list) else []
    return Description(
        _or_none(said.get("opened_at"), microseconds),
        _text(said.get("host")) or "",
        tuple(text for each in arguments if (text := _text(each)) is not None),
        _text(said.get("unit")),
        _text(said.get("boot_id")) or "",
        _or_none(said.get("start_time"), values.number),
    )


def _or_none(value: Any, check: Any) -> int | None:
    try:
        found: int = check(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found


def _text(value: Any) -> str | None:
    return value[:_CHARACTERS] if isinstance(value, str) else None
