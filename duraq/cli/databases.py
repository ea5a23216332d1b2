"""Storages in databases, as commands open them."""

from __future__ import annotations

from typing import Any

from duraq.cli.logs import to_stderr
from duraq.cli.options import Settings
from duraq.errors import NotAStorage
from duraq.inspector import Inspector
from duraq.safe_text import without_password
from duraq.storage import registry
from duraq.storage.base import Storage


def opened(said: Settings, url: str, *, create: bool, **options: Any) -> Storage:
    """The storage, to change. Raises NotAStorage if it is not there and is not to be made."""
    to_stderr(said)
    missing = not is_there(url, or_else=create)
    storage = registry.open(url, **options)
    if missing:
        said.say_made(without_password(said.url()))
    return storage


def is_there(url: str, *, or_else: bool = True) -> bool:
    """Whether there is a storage; if not, and that is not ``or_else``, NotAStorage is raised."""
    try:
        # By a look: to open it for work would make what is missing.
        Inspector.at(url).close()
    except NotAStorage:
        if not or_else:
            raise
        return False
    return True
