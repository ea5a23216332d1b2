"""Who is alive: a worker's presence in ``leases/``, and how the others learn that it has ended.

A worker is one open storage of one process. Its presence is two files, and the kernel takes both from it
when its process ends, however it ends and before anybody has waited for it:

    <pid>-<random>.json    locked with flock: the proof. What it says is for people.
    <pid>-<random>.fifo    kept open for writing: the notice. Its readers' poll() hangs up.

A worker is alive while it has both, dead for good once it lacks either. The pid decides nothing: another
process may have it by now. A worker's id, and so the name of its files, is never used again; this is why
dead is final, and why a file found here cannot have been replaced by another of the same name.

Nothing here is synced: after a power cut there is no living worker for these files to speak of.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import select
from contextlib import ExitStack, suppress
from fcntl import LOCK_NB, LOCK_SH, flock
from pathlib import Path

import orjson

from duraq import forks
from duraq.clock import Clock
from duraq.errors import StorageClosed, StorageError, StorageForked
from duraq.journal.fifo import Descriptor, make_fifo, open_fifo, unlink_if_there
from duraq.journal.filesystem import RealFileSystem
from duraq.model import WORKER
from duraq.safe_text import without_password
from duraq.times import rfc3339

_FILE = re.compile(rf"(?P<worker>{WORKER.pattern})\.(?P<kind>new|json|fifo)")
_ARGV_LIMIT = 1024
_files = RealFileSystem()


class Watch(Descriptor):
    """A descriptor that hangs up when a worker dies, for poll()."""

    __slots__ = ("worker",)

    def __init__(self, worker: str, fd: int) -> None:
        super().__init__(fd)
        self.worker = worker

    def hung_up(self) -> bool:
        """Whether the worker has died. One system call."""
        poller = select.poll()  # a new one each time: two threads may not poll the same
        poller.register(self, 0)
        return bool(poller.poll(0))


class WorkerPresence:
    """One open storage as a worker, and its view of the other workers. Thread-safe.

    ``directory`` is a descriptor of ``leases/`` and remains the caller's to close. A presence that is never
    asked for ``worker`` leaves no file, so that readers may use one too. Once closed, it raises
    StorageClosed.
    """

    def __init__(self, directory: int, clock: Clock) -> None:
        self._given = directory
        self._directory: Descriptor | None = None
        self._clock = clock
        self._worker: str | None = None
        self._held: tuple[int, ...] = ()  # descriptors: the locked file, the FIFO
        self._watched: dict[str, Watch] = {}
        self._ended: type[StorageError] | None = None
        forks.register(self)

    @property
    def known(self) -> str | None:
        """That id, if this worker is present already."""
        return self._worker

    @property
    def worker(self) -> str:
        """Id of this worker. The first call makes it present, which others see whole or not at all."""
        return self._worker or self._appear()

    def is_alive(self, worker: str) -> bool:
        """Whether the worker still lives. A stopped one does."""
        return worker == self._worker or self.watch(worker) is not None

    def watch(self, worker: str) -> Watch | None:
        """What hangs up when the worker dies; None if it is dead already."""
        watch = self._watched.get(worker)
        if watch is None:
            watch = self._begin_watch(worker)
        elif watch.hung_up():
            self._watched.pop(worker, None)
            watch = None
        return watch

    def sweep(self) -> list[str]:
        """Remove what dead workers left behind; returns who they were. Anybody may sweep at any time."""
        swept = set()
        here = self._here()
        for name in reversed(_files.names(here.fileno())):  # .new and .json before .fifo
            found = _FILE.fullmatch(name)
            if found and _remove_if_dead(here.fileno(), found["worker"], found["kind"]):
                swept.add(found["worker"])
        return sorted(swept)

    def close(self) -> None:
        """End this worker's presence: from now on it is dead to all others. Idempotent."""
        with forks.no_fork:
            if self._worker is not None:
                # In this order, as in sweep: a FIFO outlives its lock file, never the other way round. A name
                # that cannot be removed stays, as that of any dead worker.
                with suppress(OSError):
                    here = self._here()
                    unlink_if_there(here.fileno(), f"{self._worker}.json")
                    unlink_if_there(here.fileno(), f"{self._worker}.fifo")
            self._let_go(StorageClosed)

    def abandon(self) -> None:
        """In a forked child: close the parent's descriptors, leaving its lock and its files alone."""
        self._let_go(StorageForked)

    def after_fork_in_child(self) -> None:
        self.abandon()

    def _let_go(self, why: type[StorageError]) -> None:
        self._ended = self._ended or why
        self._worker = None
        self._watched.clear()
        self._directory = None
        held, self._held = self._held, ()
        for fd in held:
            os.close(fd)

    def _here(self) -> Descriptor:
        """The directory, for as long as the caller keeps it: another thread may close both meanwhile."""
        here = self._directory
        if here is None:
            with forks.no_fork:
                if self._ended is not None:
                    raise self._ended("no longer a worker", hint="open another storage")
                here = self._directory = self._directory or Descriptor(os.dup(self._given))
        return here

    def _appear(self) -> str:
        with forks.no_fork:
            while self._worker is None:
                self._try_to_appear(f"{os.getpid()}-{secrets.token_hex(4)}")
            return self._worker

    def _try_to_appear(self, worker: str) -> None:
        """Lock, make the FIFO, and only then take the name that others look for."""
        new, fifo = f"{worker}.new", f"{worker}.fifo"
        here = self._here()
        directory = here.fileno()
        with ExitStack() as undo:
            lock = _files.open_file(directory, new, exclusive=True)
            undo.callback(os.close, lock)
            if not _files.try_lock(lock) or os.fstat(lock).st_nlink == 0:
                # A sweeper came between the two calls and takes the file for a dead worker's. It may
                # have it: nobody has heard of this worker yet. Once locked, no sweeper removes it.
                return
            undo.callback(unlink_if_there, directory, new)
            make_fifo(directory, fifo)
            undo.callback(unlink_if_there, directory, fifo)
            alive = open_fifo(directory, fifo, os.O_RDWR)
            undo.callback(os.close, alive)
            _write_for_people(lock, _description(self._clock))
            _files.rename(directory, new, f"{worker}.json")
            undo.pop_all()
            self._held, self._worker = (lock, alive), worker

    def _begin_watch(self, worker: str) -> Watch | None:
        if not WORKER.fullmatch(worker):
            raise ValueError(f"{worker!r} is not a worker's id")
        here = self._here()
        try:
            watch = Watch(worker, open_fifo(here.fileno(), f"{worker}.fifo", os.O_RDONLY))
            # The writer first: a FIFO opened after its writer has gone does not hang up, it reads as ended.
            # The lock alone would not do, for a dying process may lose the two in any order.
            if not _has_writer(watch.fileno()) or not _is_locked(here.fileno(), f"{worker}.json"):
                return None
        except FileNotFoundError:
            return None
        # Workers come and go: those that went since the last one came need not be remembered.
        for other in list(self._watched.values()):
            if other.hung_up():
                self._watched.pop(other.worker, None)
        return self._watched.setdefault(worker, watch)


def _is_locked(directory: int, name: str) -> bool:
    lock = _share(directory, name)
    if lock is None:
        return True
    os.close(lock)
    return False


def _share(directory: int, name: str) -> int | None:
    """A descriptor with the file's shared lock, or None if its worker holds it.

    Shared: any number may probe at once and none takes another for the worker.
    """
    lock = _files.open_file(directory, name, writable=False)
    try:
        flock(lock, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove_if_dead(directory: int, worker: str, kind: str) -> bool:
    if kind == "fifo":
        # A living worker's lock is renamed from .new to .json: asked in this order, one of them is there.
        if any(_files.exists(directory, f"{worker}.{lock}") for lock in ("new", "json")):
            return False
        return unlink_if_there(directory, f"{worker}.fifo")
    try:
        lock = _share(directory, f"{worker}.{kind}")
    except FileNotFoundError:  # renamed by its worker, or removed by another sweeper
        return False
    if lock is None:
        return False
    # While the shared lock is held, a worker that is only just appearing cannot lock its file.
    try:
        return unlink_if_there(directory, f"{worker}.{kind}")
    finally:
        os.close(lock)


def _has_writer(fifo: int) -> bool:
    try:
        return bool(os.read(fifo, 1))
    except BlockingIOError:
        return True


def _write_for_people(fd: int, text: bytes) -> None:
    try:
        os.write(fd, text)
    except OSError as error:
        # On a full disk a worker must still be able to lease and complete, and the lock needs no content.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise


def _description(clock: Clock) -> bytes:
    proc = Path("/proc/self")
    # Fields are counted behind the command's name, which may contain anything.
    stat = (proc / "stat").read_bytes().rpartition(b") ")[2].split()
    about = {
        "pid": os.getpid(),
        "boot_id": clock.boot_id,
        "start_time": int(stat[22 - 3]),  # clock ticks since boot; the third field is the first one here
        "host": os.fsencode(os.uname().nodename).decode("utf-8", "backslashreplace"),
        "argv": _argv((proc / "cmdline").read_bytes()),
        "unit": _unit((proc / "cgroup").read_text("utf-8", "backslashreplace")),
        "opened_at": rfc3339(clock.now()),
    }
    return orjson.dumps(about, option=orjson.OPT_APPEND_NEWLINE)


def _argv(cmdline: bytes) -> list[str]:
    arguments = cmdline[:_ARGV_LIMIT].removesuffix(b"\0").split(b"\0")
    return [without_password(argument.decode("utf-8", "backslashreplace")) for argument in arguments]


def _unit(cgroups: str) -> str | None:
    """The innermost systemd unit among lines such as ``0::/system.slice/mail.service``."""
    for line in cgroups.splitlines():
        for part in reversed(line.split(":", 2)[2].split("/")):
            if part.endswith((".service", ".scope")):
                return part
    return None
