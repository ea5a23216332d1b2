"""A storage by its URL: what kind it is, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from duraq.errors import InvalidOption
from duraq.storage.base import Storage

KINDS = "file:PATH, sqlite:PATH, lmdb:PATH, postgresql://…, memory:"


def open(url: str, **options: Any) -> Storage:  # noqa: A001 - duraq.open
    """Open the storage of that URL.

    It is ``file:PATH`` (or a path alone), ``sqlite:PATH``, ``lmdb:PATH``, ``postgresql://…`` or ``memory:``.
    ``options`` are those of the class; what it needs is loaded now. A path may be relative; in it, ``%20``
    stands for a space. Raises InvalidOption if it is no such URL, or if what it needs is not installed, and
    what the class raises.
    """
    kind, place = taken_apart(url)
    try:
        return _OPENERS[kind](place, options)
    except ModuleNotFoundError as error:
        raise InvalidOption(f"for {kind}: there must be {error.name}: pip install 'duraq[{kind}]'") from error


def taken_apart(url: str) -> tuple[str, str]:
    """What kind of storage that is, and where: a path, or the whole URL of a server. Raises InvalidOption."""
    if not url:
        raise InvalidOption(f"there is no path: a storage's URL is one of {KINDS}")
    kind, colon, _ = url.partition(":")
    if not colon or "/" in kind:
        return "file", url
    if kind not in _OPENERS:
        raise InvalidOption(f"{url!r:.200} is no storage's URL: it is one of {KINDS}")
    return kind, url if kind.startswith("postgres") else _path(url)


def shown(url: str) -> str:
    """The URL as it may be shown, and written down: without a password, and with a whole path."""
    kind, place = taken_apart(url)
    if kind.startswith("postgres"):
        parts = urlsplit(place)
        user, at, host = parts.netloc.rpartition("@")
        query = "&".join(each for each in parts.query.split("&") if not each.startswith("password="))
        return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + host, query=query))
    text = f"{kind}:{Path(place).absolute()}" if place else f"{kind}:"
    return text.encode("utf-8", "backslashreplace").decode()


def _path(url: str) -> str:
    """What stands behind the scheme; of ``sqlite:///a/b`` it is ``/a/b``."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.netloc not in {"", "localhost"}:
        raise InvalidOption(f"{url!r:.200}: behind {parts.scheme}: comes a path, and nothing else")
    if not parts.path and parts.scheme != "memory":
        raise InvalidOption(f"{url!r:.200}: there is no path")
    return unquote(parts.path)


def _file(path: str, options: dict[str, Any]) -> Storage:
    from duraq.storage.file import FileStorage  # noqa: PLC0415 - each loads only what it needs

    return FileStorage(path, **options)


def _memory(path: str, options: dict[str, Any]) -> Storage:
    from duraq.storage.memory import MemoryStorage  # noqa: PLC0415

    if path:
        raise InvalidOption("memory: has no path")
    return MemoryStorage(**options)


def _sqlite(path: str, options: dict[str, Any]) -> Storage:
    from duraq.storage.sqlite import SQLiteStorage  # noqa: PLC0415

    return SQLiteStorage(path, **options)


def _lmdb(path: str, options: dict[str, Any]) -> Storage:
    from duraq.storage.lmdb import LMDBStorage  # noqa: PLC0415

    return LMDBStorage.at(path, **options)


def _postgres(url: str, options: dict[str, Any]) -> Storage:
    from duraq.storage.postgres import PostgresStorage  # noqa: PLC0415

    return PostgresStorage(url, **options)


_OPENERS: dict[str, Callable[[str, dict[str, Any]], Storage]] = {
    "file": _file,
    "lmdb": _lmdb,
    "memory": _memory,
    "postgres": _postgres,
    "postgresql": _postgres,
    "sqlite": _sqlite,
}
