"""Where a storage is, by its URL: whether there is one, whether two are the same, and opening it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from duraq.errors import InvalidOption, NotAStorage
from duraq.inspector import Inspector
from duraq.model import MARKER
from duraq.payload import LARGEST_PAYLOAD
from duraq.storage import registry
from duraq.storage.transacting import TransactingStorage


class Endpoint:
    """A storage that is there, or is to be made. ``path``: of what is not on a server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kind, self.path = registry.taken_apart(url)
        self.name = registry.shown(url)
        if self.path and not self.is_on_server:
            # It is written down, and must be the same by whatever links somebody comes next time.
            whole = f"{self.kind}:{os.path.realpath(self.path)}"
            self.name = whole.encode("utf-8", "backslashreplace").decode()
        if self.kind == "memory":
            raise InvalidOption("memory: is over when this process is, so nothing can be moved to or from it")

    @property
    def is_file(self) -> bool:
        """Whether it is a directory of segments."""
        return self.kind == "file"

    @property
    def is_on_server(self) -> bool:
        """Whether it is a database of a server."""
        return self.kind == "postgres"

    def is_there(self) -> bool:
        """Whether there is a storage already. Nothing is made, and nothing is written."""
        if self.is_file:
            return any((Path(self.path) / name).exists() for name in (MARKER, "journal"))
        try:
            Inspector.at(self.url).close()
        except NotAStorage:
            return False
        return True

    def check_there(self) -> None:
        """Raise NotAStorage if there is none."""
        if not self.is_there():
            raise NotAStorage(f"there is no storage: {self.name}", hint="nothing was moved")

    def check_can_be(self) -> None:
        """Raise NotAStorage if something else is in the way, so that one can be neither found nor made."""
        path = Path(self.path)
        wants_directory = self.kind in {"file", "lmdb"}
        if not self.is_on_server and path.exists() and path.is_dir() is not wants_directory:
            what = "a file" if wants_directory else "a directory"
            raise NotAStorage(f"there can be no storage: {self.name} is {what}", hint="nothing was moved")

    def is_same(self, other: Endpoint) -> bool:
        """Whether it is the same, as far as the names tell."""
        if self.is_on_server:
            return self.url == other.url
        return self.kind == other.kind and os.path.realpath(self.path) == os.path.realpath(other.path)

    def open(self) -> TransactingStorage:
        """Open it, with the best durability there is; it is made if it is not there."""
        return cast("TransactingStorage", registry.open(self.url, max_payload_bytes=LARGEST_PAYLOAD))
