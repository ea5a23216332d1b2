"""Commands about a storage's files: over a database they are refused, and what there is instead is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from duraq.cli.failing import Code, CommandError
from duraq.cli.options import settings

F = TypeVar("F", bound=Callable[..., Any])

# What there is instead, by command and by kind of database; "" stands for any.
INSTEAD: dict[str, dict[str, str]] = {
    "backup": {
        "sqlite": "sqlite3 FILE '.backup COPY' copies a database while it is worked",
        "lmdb": "mdb_copy DIR COPY copies an environment while it is worked",
        "postgres": "pg_dump copies a database while it is worked",
    },
    "restore": {
        "sqlite": "put the copy in the place of the file, and remove FILE-wal and FILE-shm",
        "lmdb": "put the copy in the place of data.mdb",
        "postgres": "psql or pg_restore bring back what pg_dump has written",
    },
    "verify": {
        "sqlite": "sqlite3 FILE 'PRAGMA integrity_check'",
        "lmdb": "mdb_copy DIR >/dev/null reads every page",
        "postgres": "pg_amcheck",
    },
    "repair": {
        "sqlite": "sqlite3 FILE .recover, or a backup",
        "lmdb": "a backup",
        "postgres": "a backup",
    },
    "compact": {
        "sqlite": "sqlite3 FILE VACUUM; space of what is over is used again without it",
        "lmdb": "mdb_copy -c; space of what is over is used again without it",
        "postgres": "autovacuum does it by itself",
    },
    "tail": {"": "duraq errors has what failed, duraq top and duraq stats --watch what goes on"},
    "show --where-is": {"": "duraq show has all that is known"},
    "dash": {"": "duraq top and duraq stats --watch show the queues, live"},
    "demo": {"": "name a directory: --storage DIR"},
}


def files_only(command: str) -> Callable[[F], F]:
    """The command ends with a usage error, before it does anything, if the storage is a database."""

    def decorate(call: F) -> F:
        @wraps(call)
        def checked(*args: Any, **kwargs: Any) -> Any:
            refuse_database(command)
            return call(*args, **kwargs)

        return checked  # type: ignore[return-value] # it takes and returns the same

    return decorate


def refuse_database(command: str) -> None:
    """Raise CommandError if the storage is a database."""
    kind = settings().place()[0]
    if kind != "file":
        hint = INSTEAD[command].get(kind) or INSTEAD[command][""]
        raise CommandError(Code.USAGE, f"{command} is for storages in files, and this is {kind}:", hint)
