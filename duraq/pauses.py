"""How a queue that is moved is paused, in both storages, and how that is told from any other pause."""

from __future__ import annotations

import re

from duraq.errors import CannotMigrate
from duraq.model import ACTS, Pause

_REASON = re.compile(r"migration ([0-9a-f]{8}): ")
_LEAVING = "its entries are on their way to"
_FILLING = "it is being filled from"


def reason_while_stopping(migration: str, target: str) -> str:
    """Why a queue of the source is paused: its leases are waited for, and anybody may lift that."""
    return f"migration {migration}: its entries are about to go to {target}"


def reason_while_moving(migration: str, target: str) -> str:
    """Why a queue of the source is paused while its entries go."""
    return f"migration {migration}: {_LEAVING} {target}"


def reason_when_over(migration: str, target: str) -> str:
    """Why a queue of the source is paused for good."""
    return f"migration {migration}: its entries are in {target}"


def reason_in_target(migration: str, source: str) -> str:
    """Why a queue of the target is paused, until all of it is there."""
    return f"migration {migration}: {_FILLING} {source}"


def migration_of(pause: Pause | None) -> str | None:
    """Which migration has paused a queue, if one has."""
    return None if pause is None else named_by(pause.reason)


def named_by(reason: str) -> str | None:
    """Which migration speaks so, if one does."""
    found = _REASON.match(reason)
    return None if found is None else found[1]


def is_being_filled(pause: Pause | None) -> bool:
    """Whether a queue is the target's, of a migration that is not over."""
    return _says(pause, _FILLING)


def is_on_its_way(pause: Pause | None) -> bool:
    """Whether entries of a queue may be in two storages just now, of which this is one."""
    return _says(pause, _FILLING) or _says(pause, _LEAVING)


def check_stays(queue: str, pause: Pause | None) -> None:
    """Raise CannotMigrate if entries of it may be in two storages just now: then they are nobody else's.

    So what was sent is still as it was when it is removed from the source. New ones may come.
    """
    if pause is not None and is_on_its_way(pause):
        what = "what was done to dead letters" if queue == ACTS else f"queue {queue}"
        raise CannotMigrate(
            f"{what}: {pause.reason}; nobody else changes it until all of it is there: run `duraq migrate`"
            " again, or give that up with `duraq migrate --give-up`"
        )


def _says(pause: Pause | None, what: str) -> bool:
    found = None if pause is None else _REASON.match(pause.reason)
    return found is not None and pause is not None and pause.reason.startswith(what, found.end())
