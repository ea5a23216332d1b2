"""What a service tells systemd of itself (sd_notify): a datagram to the socket that $NOTIFY_SOCKET names."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from datetime import timedelta

log = logging.getLogger("duraq")

# Of what systemd tells a service, what is none of the programs' business that it runs.
OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Systemd:
    """Tells it; nobody, if it was not systemd that began us. From any thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An abstract one, which has no file, is written with an @.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._said = ""
        self.watchdog = _watchdog(environment)

    @property
    def is_there(self) -> bool:
        """Whether it listens."""
        return bool(self._address)

    def tell(self, **what: object) -> None:
        """READY=1, STATUS=..., and the like."""
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in what.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
                # Nobody may have to wait because systemd does not read.
                sending.setblocking(False)
                sending.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", message, error)

    def status(self, text: str) -> None:
        """How it goes, if that has changed."""
        if text != self._said:
            self._said = text
            self.tell(STATUS=text)


def _watchdog(environment: Mapping[str, str]) -> timedelta | None:
    """How often it must hear from us; None if it does not care."""
    text = environment.get("WATCHDOG_USEC", "")
    if not text.isascii() or not text.isdigit() or not int(text):
        return None
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # it is another process of the service that it watches
    return timedelta(microseconds=int(text))
