"""A contender, set up for one workload: its directory and server, and how processes open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from benchmarks.contender import Contender, Durability, Missing, Opener
from benchmarks.peers.registry import Peer
from benchmarks.server import HOST, Server


class Stage:
    """One contender in a directory of its own, through all rounds of a workload, as a daemon's queue is.

    ``label`` names it in the tables: the contender, and the variant of the workload if there is one.
    ``filled`` and ``worked`` are for the workload: how many entries it has put there and taken out, which
    is also the number of the next of each.
    """

    def __init__(
        self, peer: Peer, directory: Path, durability: Durability, variant: tuple[str, int] = ("", 0)
    ) -> None:
        if durability not in peer.settings:
            raise Missing(f"it has no durability like {durability!r}")
        peer.version()  # says so if it is not here at all
        self.name = peer.name
        self.label = f"{peer.name} {variant[0]}".rstrip()
        self.variant = variant[1]
        self.directory = directory
        self.filled = self.worked = 0
        self._peer = peer
        self._durability: Durability = durability
        self._server: Server | None = None
        self._serve(durability)

    @property
    def opener(self) -> Opener:
        """Opens the contender, in this process or another."""
        return self._opener(self._durability)

    @cached_property
    def contender(self) -> Contender:
        """This process's own, open until the stage is closed."""
        return self.opener()

    @property
    def server_pid(self) -> int | None:
        return None if self._server is None else self._server.pid

    def stop_server(self) -> None:
        if self._server is not None:
            self._server.stop()

    def start_server(self) -> None:
        if self._server is not None:
            self._server.start()

    @contextmanager
    def filling(self) -> Iterator[Contender]:
        """The contender, with no more durability than it takes to fill it soon; nothing else is open."""
        if "process" not in self._peer.settings:
            with self.opener() as contender:
                yield contender
            return
        self._serve("process")
        try:
            with self._opener("process")() as contender:
                yield contender
        finally:
            self._serve(self._durability)

    def bytes_on_disk(self, *, preallocated: bool = True) -> int:
        """What its files take up; without the preallocated ones, what its entries take up."""
        files = {path for path in self.directory.rglob("*") if path.is_file()}
        if not preallocated:
            for pattern in self._peer.preallocated:
                files -= set(self.directory.glob(pattern))
        # st_blocks counts in units of 512 bytes, whatever the file system's are.
        return sum(path.stat().st_blocks * 512 for path in files)

    def close(self) -> None:
        try:
            if "contender" in self.__dict__:
                self.contender.close()
        finally:
            self.stop_server()

    def _opener(self, durability: Durability) -> Opener:
        if self._server is not None:
            return partial(self._peer.connect, (HOST, self._server.port))
        return partial(self._peer.connect, self.directory, durability)

    def _serve(self, durability: Durability) -> None:
        if self._peer.serve is None:
            return
        self.stop_server()
        self._server = self._peer.serve(self.directory, durability)
        self._server.start()
