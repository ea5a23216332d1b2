"""How a queue that is moved is paused, in both storages, and how that is told from any other pause."""

from __future__ import annotations

import re

from duraq.model import Pause

_REASON = re.compile(r"migration ([0-9a-f]{8}): ")
_FILLING = "it is being filled from"


def reason_in_source(migration: str, target: str) -> str:
    """Why a queue of the source is paused: while it is moved, and from then on."""
    return f"migration {migration}: its entries are in {target}, or on their way"


def reason_in_target(migration: str, source: str) -> str:
    """Why a queue of the target is paused, until all of it is there."""
    return f"migration {migration}: {_FILLING} {source}"


def migration_of(pause: Pause | None) -> str | None:
    """Which migration has paused a queue, if one has."""
    found = None if pause is None else _REASON.match(pause.reason)
    return None if found is None else found[1]


def is_being_filled(pause: Pause | None) -> bool:
    """Whether a queue is the target's, of a migration that is not over."""
    return pause is not None and migration_of(pause) is not None and _FILLING in pause.reason
