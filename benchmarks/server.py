"""Servers that the benchmark starts for itself, on loopback, and stops again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from benchmarks.contender import Missing

HOST = "127.0.0.1"
# A server that has a million entries to read reads them before it answers.
START_SECONDS = 120.0
STOP_SECONDS = 30.0
PORT_ATTEMPTS = 3


class Server:
    """One process; ``command`` makes its command line for a port, ``answers`` asks it whether it is up."""

    def __init__(
        self, command: Callable[[int], Sequence[str]], answers: Callable[[int], bool], log: Path
    ) -> None:
        self._command = command
        self._answers = answers
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Return when it answers; raises Missing with its own last words if it does not come up."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = _free_port()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(self.port), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            try:
                self._await_answer()
            except Missing:
                self.stop()
                # Somebody else may have taken the port between the look and the start.
                if attempt == PORT_ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _await_answer(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not self._answers(self.port):
            if self._process is not None and (status := self._process.poll()) is not None:
                raise Missing(f"the server ended with status {status}: {self._last_words()}")
            if time.monotonic() > until:
                raise Missing(f"the server did not answer within {START_SECONDS:.0f} s")
            time.sleep(0.002)

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


def program(name: str, debian: str) -> str:
    """Path of a server's program; raises Missing with the package that has it."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not on the PATH (Debian: apt-get install {debian})")
    return path


def program_output(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return (found.stdout + found.stderr).strip()


def connects(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
