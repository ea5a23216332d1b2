"""A PostgreSQL session that says that a storage lives: its advisory lock, and the notices it listens to.

The server gives the lock back when the connection is gone, however that ended; whoever asks then finds the
worker dead. A worker whose session was lost is never the same again: it begins anew under another name.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg

from duraq.storage.pg_connections import execute

log = logging.getLogger("duraq")

# The first of an advisory lock's two numbers; the second is of the worker's own.
LOCKS = 0x64757261
CHANNEL = "duraq"
# Whether somebody holds the lock of these two numbers.
IS_ALIVE = (
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = ? AND objid = ? AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Session:
    """One connection that holds a worker's lock; ``heard`` is called with each queue that was fed."""

    def __init__(self, connection: psycopg.Connection, heard: Callable[[str | None], None]) -> None:
        self.connection = connection
        self._heard = heard
        self.lost = False
        self.worker = self._appear()
        connection.execute(f"LISTEN {CHANNEL}")
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._listener = threading.Thread(target=self._listen, name="duraq-listener", daemon=True)
        self._listener.start()

    def _appear(self) -> str:
        while True:
            number = secrets.token_hex(4)
            ((is_ours,),) = execute(
                self.connection, "SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, lock_number(number))
            )
            if is_ours:
                return f"{os.getpid()}-{number}"

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        poller.register(self.connection.fileno(), select.POLLIN)
        try:
            while not self.connection.closed:
                if any(fd == self._bell for fd, _ in poller.poll()):
                    return
                for notice in self.connection.notifies(timeout=0):
                    self._heard(notice.payload)
        except (psycopg.Error, OSError) as error:
            log.warning("a worker's session has ended: %s", error)
        finally:
            self.lost = True
            self._heard(None)

    def close(self) -> None:
        """End it: the worker is dead to all others."""
        os.eventfd_write(self._bell, 1)
        if self._listener is not threading.current_thread():
            self._listener.join()
        with suppress(psycopg.Error):
            self.connection.close()
        os.close(self._bell)

    def abandon(self, kept: list[psycopg.Connection]) -> None:
        """In a forked child: it is the parent's; what must not be closed here is kept."""
        kept.append(self.connection)
        os.close(self._bell)


def lock_number(number: str) -> int:
    """Eight hexadecimal digits as what PostgreSQL takes: an integer with a sign."""
    return int.from_bytes(bytes.fromhex(number), "big", signed=True)


def lock_of(worker: str) -> tuple[int, int]:
    """What ``IS_ALIVE`` is asked with. Raises ValueError if that is no worker's name."""
    return LOCKS, lock_number(worker.rpartition("-")[2]) & 0xFFFFFFFF
