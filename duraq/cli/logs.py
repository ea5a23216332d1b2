"""The library's log, on stderr: one safe line for each event."""

from __future__ import annotations

import logging
import os
import sys

from duraq.cli.options import Settings
from duraq.safe_text import safe_lines, safe_text, without_password

# What syslog and systemd's journal call these; a line that begins with <3> is an error to them.
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _Lines(logging.Formatter):
    """Escapes whatever came from payloads and errors; tells systemd's journal how bad it is."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        text = safe_text(without_password(record.getMessage()), 4000)
        if record.exc_info:
            # One event, one line, wherever lines are events.
            trace = without_password(self.formatException(record.exc_info))
            text += f" {safe_text(trace)}" if self._for_journal else f"\n{safe_lines(trace)}"
        return f"<{_PRIORITIES.get(record.levelname, 5)}>{text}" if self._for_journal else f"duraq: {text}"


class _ToStderr(logging.StreamHandler):  # type: ignore[type-arg] # generic in the stubs only
    """Writes to what is stderr at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


def to_stderr(said: Settings) -> None:
    """Show warnings and worse; more with -v and -vv, only errors with -q."""
    log = logging.getLogger("duraq")
    levels = {0: logging.WARNING, 1: logging.INFO}
    log.setLevel(logging.ERROR if said.quiet else levels.get(said.verbose, logging.DEBUG))
    for old in [handler for handler in log.handlers if isinstance(handler, _ToStderr)]:
        log.removeHandler(old)
    handler = _ToStderr()
    handler.setFormatter(_Lines(for_journal=_is_journal()))
    log.addHandler(handler)


def _is_journal() -> bool:
    """Whether stderr goes to systemd's journal: it says device and inode of the stream it made."""
    try:
        about = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"
