"""Where a storage is, by its URL: whether there is one, whether two are the same, and opening it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import cast

from duraq.errors import InvalidOption, NotAStorage, StorageError
from duraq.storage import registry
from duraq.storage.transacting import TransactingStorage

LARGEST_PAYLOAD = 16 << 20  # bytes; whatever a storage may have taken


class Place:
    """A storage that is there, or is to be made. ``path``: of what is not on a server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kind, self.path = registry.taken_apart(url)
        self.name = registry.shown(url)
        if self.kind == "memory":
            raise InvalidOption("memory: is over when this process is, so nothing can be moved to or from it")

    @property
    def is_file(self) -> bool:
        """Whether it is a directory of segments."""
        return self.kind == "file"

    @property
    def is_on_server(self) -> bool:
        """Whether it is a database of a server."""
        return self.kind.startswith("postgres")

    def is_there(self) -> bool:
        """Whether there is a storage already. Nothing is made, and nothing is written."""
        if self.is_file:
            return any((Path(self.path) / name).exists() for name in ("duraq.json", "journal"))
        if self.kind == "sqlite":
            return Path(self.path).exists() and _has_tables(self.path)
        if self.kind == "lmdb":
            return (Path(self.path) / "data.mdb").exists()
        return _is_on_server(self.url)

    def check_there(self) -> None:
        """Raise NotAStorage if there is none."""
        if not self.is_there():
            raise NotAStorage(f"there is no storage: {self.name}", hint="nothing was moved")

    def is_same(self, other: Place) -> bool:
        """Whether it is the same, as far as the names tell."""
        if self.is_on_server:
            return self.url == other.url
        return self.kind == other.kind and os.path.realpath(self.path) == os.path.realpath(other.path)

    def open(self) -> TransactingStorage:
        """Open it, with the best durability there is; it is made if it is not there."""
        return cast("TransactingStorage", registry.open(self.url, max_payload_bytes=LARGEST_PAYLOAD))


def _has_tables(path: str) -> bool:
    try:
        connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'duraq_schema'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return True  # whoever opens it is told what is the matter
    return found is not None


def _is_on_server(url: str) -> bool:
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise InvalidOption("for postgresql: there must be psycopg: pip install 'duraq[postgres]'") from error

    try:
        with psycopg.connect(url, autocommit=True) as connection:
            return bool(connection.execute("SELECT to_regclass('duraq_schema') IS NOT NULL").fetchall()[0][0])
    except psycopg.Error as error:
        raise StorageError(str(error).partition("\n")[0], path=registry.shown(url)) from error
