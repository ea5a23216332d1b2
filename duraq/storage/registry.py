"""A storage by its URL: what kind it is, and where."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from duraq.errors import InvalidOption
from duraq.safe_text import without_password
from duraq.storage.base import Storage

if TYPE_CHECKING:
    from duraq.storage.table_reader import TableReader

# What libpq takes as well: words such as host=db user=app password=…
_CONNECTION_STRING = re.compile(r"\s*\w+\s*=.*")
_ITS_WORD = re.compile(r"(^|\s)(host|hostaddr|dbname|user|password|service)\s*=")

KINDS = "file:PATH, sqlite:PATH, lmdb:PATH, postgresql://…, memory:"


def open(url: str, **options: Any) -> Storage:  # noqa: A001 - duraq.open
    """Open the storage of that URL.

    It is ``file:PATH`` (or a path alone), ``sqlite:PATH``, ``lmdb:PATH``, ``postgresql://…`` or ``memory:``.
    ``options`` are those of the class; what it needs is loaded now. A path may be relative; in it, ``%20``
    stands for a space. Raises InvalidOption if it is no such URL, or if what it needs is not installed, and
    what the class raises.
    """
    kind, where = taken_apart(url)
    with _installed(kind):
        return _OPENERS[kind](where, options)


def reader(url: str) -> TableReader:
    """The database of that URL, to be looked at; nothing is looked at yet. Raises InvalidOption."""
    kind, where = taken_apart(url)
    if kind not in _READERS:
        raise InvalidOption(f"{kind}: is no database that can be looked at")
    with _installed(kind):
        return _READERS[kind](where)


def absolute(url: str) -> str:
    """The same URL, from wherever it is opened."""
    kind, where = taken_apart(url)
    return url if kind in _SERVERS else f"{kind}:{_quoted(where)}"


def again(url: str) -> str:
    """The same, as it may be shown: without a password."""
    return without_password(url) if taken_apart(url)[0] in _SERVERS else absolute(url)


def taken_apart(url: str) -> tuple[str, str]:
    """The kind of storage that the URL names, and where it is: a path, or for PostgreSQL the URL.

    Raises InvalidOption.
    """
    if not url:
        raise InvalidOption(f"there is no path: a storage's URL is one of {KINDS}")
    if _CONNECTION_STRING.match(url) and _ITS_WORD.search(url):
        # Not as a path: it would be made, with the password in its name.
        raise InvalidOption(
            "that is a connection string of PostgreSQL and no URL: PostgresStorage takes it as it is,"
            " as a URL it is postgresql://USER@HOST:PORT/DATABASE, and a directory of that name is file:NAME"
        )
    kind, colon, _ = url.partition(":")
    if not colon or "/" in kind:
        return "file", url
    if kind in _SERVERS:
        return "postgres", url
    if kind not in _OPENERS:
        raise InvalidOption(f"{without_password(url)!r:.200} is no storage's URL: it is one of {KINDS}")
    return kind, _path(url)


def shown(url: str) -> str:
    """The URL as it may be shown, and written down: without a password, and with a whole path."""
    kind, where = taken_apart(url)
    if kind in _SERVERS:
        return without_password(url)
    text = f"{kind}:{Path(where).absolute()}" if where else f"{kind}:"
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _installed(kind: str) -> Iterator[None]:
    """What is missing for that kind is told with the way out."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InvalidOption(f"for {kind}: there must be {error.name}: pip install 'duraq[{kind}]'") from error


def _path(url: str) -> str:
    """What stands behind the scheme; of ``sqlite:///a/b`` it is ``/a/b``."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.netloc not in {"", "localhost"}:
        raise InvalidOption(f"{url!r:.200}: behind {parts.scheme}: comes a path, and nothing else")
    if not parts.path and parts.scheme != "memory":
        raise InvalidOption(f"{url!r:.200}: there is no path")
    return unquote(parts.path, errors="surrogateescape")


def _quoted(path: str) -> str:
    return quote(os.fsencode(Path(path).absolute()))


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


def _read_sqlite(path: str) -> TableReader:
    from duraq.storage.sqlite_reader import SQLiteReader  # noqa: PLC0415

    return SQLiteReader(path)


def _read_lmdb(path: str) -> TableReader:
    from duraq.storage.lmdb_reader import LMDBReader  # noqa: PLC0415

    return LMDBReader(path)


def _read_postgres(url: str) -> TableReader:
    from duraq.storage.postgres_reader import PostgresReader  # noqa: PLC0415

    return PostgresReader(url)


def _postgres(url: str, options: dict[str, Any]) -> Storage:
    from duraq.storage.postgres import PostgresStorage  # noqa: PLC0415

    return PostgresStorage(url, **options)


_OPENERS: dict[str, Callable[[str, dict[str, Any]], Storage]] = {
    "file": _file,
    "lmdb": _lmdb,
    "memory": _memory,
    "postgres": _postgres,
    "sqlite": _sqlite,
}
_READERS: dict[str, Callable[[str], TableReader]] = {
    "lmdb": _read_lmdb,
    "postgres": _read_postgres,
    "sqlite": _read_sqlite,
}
_SERVERS = ("postgres", "postgresql")
