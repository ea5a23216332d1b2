"""The library's log in a file: while a screen is shown, stderr is part of it. Knows no Textual."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from duraq.safe_text import safe_lines
from duraq_dashboard.remembered import state_directory

LARGEST = 1 << 20  # bytes; the file before it is kept


class _Safe(logging.Formatter):
    """What came from payloads and errors may be anything, and somebody will ``cat`` the file."""

    def format(self, record: logging.LogRecord) -> str:
        return safe_lines(super().format(record))


def log_file() -> Path:
    """Where it is."""
    return state_directory() / "dash.log"


def to_file() -> None:
    """Log to $XDG_STATE_HOME/duraq-dashboard/dash.log, and never to stderr."""
    log = logging.getLogger("duraq")
    file = log_file()
    handler: logging.Handler
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = RotatingFileHandler(file, maxBytes=LARGEST, backupCount=1, encoding="utf-8", delay=True)
    except OSError:
        # There is nowhere else to say it.
        handler = logging.NullHandler()
    handler.setFormatter(_Safe("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False
