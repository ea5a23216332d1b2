"""Processes that open a contender, begin a task together, and send back what came of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Self

from benchmarks import packages
from benchmarks.contender import Lost, Opener

# Far beyond every budget: what has not arrived by then is lost.
PATIENCE_SECONDS = 60.0

spawn = multiprocessing.get_context("spawn")  # nothing of the parent's: no descriptors, no locks


class Crew:
    """``hire`` everybody, then ``go``, then ``results``: in the order of hiring."""

    def __init__(self) -> None:
        self._members: list[tuple[BaseProcess, Connection]] = []

    def hire(self, opener: Opener, task: Callable[..., Any], *arguments: Any) -> None:
        """A process that will call ``task(contender, *arguments)``."""
        pipe, theirs = spawn.Pipe()
        process = spawn.Process(target=_member, args=(theirs, opener, task, arguments), daemon=True)
        with packages.hidden():
            process.start()
        theirs.close()
        self._members.append((process, pipe))

    def go(self) -> None:
        """Let them begin, as soon as the last one is ready."""
        for _, pipe in self._members:
            _receive(pipe)
        for _, pipe in self._members:
            pipe.send(None)

    def results(self) -> list[Any]:
        return [_receive(pipe) for _, pipe in self._members]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process, pipe in self._members:
            pipe.close()
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(PATIENCE_SECONDS):
        raise Lost(f"a process said nothing for {PATIENCE_SECONDS:.0f} s")
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise Lost("a process died") from None
    if kind == "error":
        raise Lost(value)
    return value


def _member(pipe: Connection, opener: Opener, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        with opener() as contender:
            pipe.send(("ready", None))
            pipe.recv()
            pipe.send(("result", task(contender, *arguments)))
    except EOFError:
        return  # nobody wants to know any more
    except Exception as error:  # noqa: BLE001 - whatever it is, the table names it
        pipe.send(("error", f"{type(error).__name__}: {error}"))
