"""A PostgreSQL server as it is named, asked and quoted: never with a password."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

import psycopg
from psycopg.conninfo import conninfo_to_dict

from duraq.errors import InvalidOption


def check_address(server: str) -> None:
    """Raise InvalidOption unless that is a connection string; what is wrong with one may be its password."""
    if not _can_be_shown(server):
        raise InvalidOption(
            "that is no address of a PostgreSQL server: it is postgresql://USER@HOST:PORT/DATABASE,"
            " and in a password %40 stands for @, %2F for /, %25 for %"
        )


def _can_be_shown(server: str) -> bool:
    """Whether host and port are such that messages may name them."""
    try:
        found = conninfo_to_dict(server)
    except psycopg.ProgrammingError:
        return False
    # An @ or a / in a password, as it is, makes the rest of it a host or a port.
    ports = str(found.get("port", "")).replace(",", "")
    return "@" not in str(found.get("host", "")) and (not ports or ports.isdigit())


def name_of(connection: psycopg.Connection) -> str | None:
    """Which database that is, without user and password; None if it is closed."""
    with suppress(psycopg.Error):
        return f"postgresql://{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    return None


@lru_cache(256)
def with_percents(statement: str) -> str:
    return statement.replace("?", "%s")


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
