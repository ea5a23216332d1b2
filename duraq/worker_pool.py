"""Working queues off in several processes: for handlers that keep a processor busy, leak, or crash.

    def open_emails():
        return QueueManager(FileStorage("/var/lib/mail")).queue("emails", Email)

    run_processes(open_emails, send, processes=4)  # until SIGTERM or SIGINT

The calling process forks and supervises, and opens nothing: every child opens a storage of its own, so that
each holds its own leases. The handler is inherited through the fork; nothing is pickled.

A pair of sockets joins parent and child. The parent says on it when to stop; a signal would not do, for
terminals and systemd send theirs to all processes, and a second one means haste. A child that reads its end
stops as well: the parent has died. And the child says on it why it cannot begin.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, TypeVar

from duraq import options
from duraq.errors import InvalidInput, StorageForked, WorkersFailed
from duraq.handling import Handler, check_handler
from duraq.queue import Queue
from duraq.retry import RetryPolicy
from duraq.worker import BACKOFF, GRACE, Worker, one_wait, signals_to

T = TypeVar("T")

log = logging.getLogger("duraq")

# What a child may take beyond its grace, in seconds, to give back its entries and to close the storage.
_MARGIN = 5.0
# A child that lived this long, in seconds, had nothing to do with the deaths before.
_SOUND = 60.0
_STOP, _STOP_NOW = b"s", b"n"
_CANNOT_BEGIN = 78  # as EX_CONFIG in sysexits.h: trying again is of no use
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def run_processes(
    open_queue: Callable[[], Queue[T] | Iterable[Queue[T]]],
    handler: Handler[T],
    *,
    processes: int,
    threads: int = 1,
    grace: timedelta = GRACE,
    backoff: RetryPolicy = BACKOFF,
    transactional: bool = False,
    drain: bool = False,
) -> None:
    """Work in ``processes`` children, each a Worker with ``threads`` threads, until SIGTERM or SIGINT.

    ``open_queue`` is called in every child; it opens a storage there and returns a queue of it, or several.
    The storage is closed when the child ends. A child that dies is replaced, after a pause that grows while
    its successors die as well (``backoff``). With ``drain``, a child whose queues are empty ends and is not
    replaced; this returns when all have ended.

    On the first signal the children stop gracefully, on the second without grace (see Worker). Those that
    have not ended 5 seconds after their grace are killed, and their attempts count. If this process is
    killed, its children notice and stop gracefully. ``threads``, ``grace``, ``backoff`` and ``transactional``
    are those of each Worker.

    Call it in the main thread, with no other running: threads do not survive the fork, but the locks that
    they hold do. Raises WorkersFailed if a child cannot even open its queue when all begin, and InvalidInput
    in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise InvalidInput("run_processes handles signals, so it must be called in the main thread")
    options.positive("threads", threads)
    check_handler(handler)
    patience = options.duration("grace", grace, zero=True) / 1e6 + _MARGIN

    def work(line: socket.socket) -> int:
        def make(queues: Queue[T] | Iterable[Queue[T]]) -> Worker[T]:
            return Worker(
                queues, handler, threads=threads, grace=grace, backoff=backoff, transactional=transactional
            )

        return _work(line, lambda: make(open_queue()), drain=drain)

    _Pool(work, options.positive("processes", processes), patience, backoff, drain=drain).run()


# -- the child -----------------------------------------------------------------------------------------


def _work(line: socket.socket, make_worker: Callable[[], Worker[T]], *, drain: bool) -> int:
    """A child's life; returns its exit status."""
    try:
        worker = make_worker()
    except Exception as error:  # noqa: BLE001 - anything may go wrong in the caller's code
        return _cannot_begin(line, error)
    threading.Thread(target=_obey, args=(line, worker), name="duraq-parent", daemon=True).start()
    try:
        worker.run(drain=drain)
    except StorageForked as error:
        return _cannot_begin(line, error)
    except SystemExit:
        return 1  # a handler's; whatever it says, it is not what a child says by its own
    finally:
        for queue in worker.queues:
            queue.storage.close()  # it was opened for this worker, and nobody else will
    return 0


def _obey(line: socket.socket, worker: Worker[Any]) -> None:
    with suppress(ConnectionResetError):
        while word := line.recv(1):
            worker.stop(now=word == _STOP_NOW)
    worker.stop()


def _cannot_begin(line: socket.socket, error: Exception) -> int:
    log.error("worker process cannot begin", exc_info=error, extra={"event": "worker_process_failed"})
    with suppress(OSError):
        line.send(f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")[:4096])
    return _CANNOT_BEGIN


def _exit_after(work: Callable[[], int]) -> NoReturn:
    """End this process as the interpreter would, but run nothing that the parent meant for its own end."""
    status = 1
    try:
        status = work()
    except SystemExit as end:
        status = end.code & 0xFF if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        log.exception("worker process failed", extra={"event": "worker_process_failed"})
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # there is none, it is closed, it is broken
            stream.flush()


# -- the parent ----------------------------------------------------------------------------------------


class _Seat:
    """The place of one child, and of those that replace it."""

    def __init__(self) -> None:
        self.pid = 0  # 0: nobody sits here
        self.line: socket.socket | None = None
        self.started_at = 0.0
        self.start_at: float | None = 0.0  # when the next one is due; None: none will be
        self.starts = 0
        self.deaths = 0  # in a row

    def tell(self, word: bytes) -> None:
        if self.line is not None:
            # It may just have died; and never SIGPIPE, which some programs let themselves be killed by.
            with suppress(OSError):
                self.line.send(word, socket.MSG_NOSIGNAL)

    def hear(self) -> str:
        """The last words of a child that is dead."""
        if self.line is None:
            return ""
        with self.line, suppress(OSError):
            return self.line.recv(4096, socket.MSG_DONTWAIT).decode("utf-8", "replace")
        return ""


class _Pool:
    def __init__(
        self,
        work: Callable[[socket.socket], int],
        processes: int,
        patience: float,
        backoff: RetryPolicy,
        *,
        drain: bool,
    ) -> None:
        self._work = work
        self._seats = [_Seat() for _ in range(processes)]
        self._patience = patience
        self._backoff = backoff
        self._drain = drain
        self._inbox: SimpleQueue[int] = SimpleQueue()  # signals; see Worker
        self._told: bytes | None = None
        self._kill_at: float | None = None
        self._failure = ""

    def run(self) -> None:
        with signals_to(self._inbox.put, *_SIGNALS):
            try:
                while self._start_what_is_due():
                    self._wait()
                    self._bury_the_dead()
                    self._kill_if_due()
            finally:
                # If an error ends this, the children take it for our death.
                for seat in self._seats:
                    if seat.line is not None:
                        seat.line.close()
        if self._failure:
            raise WorkersFailed(self._failure)

    def _wait(self) -> None:
        """Wait for a signal or for what is due; on SIGTERM and SIGINT, have the children stop."""
        due = [seat.start_at for seat in self._seats if seat.start_at is not None]
        if self._kill_at is not None:
            due.append(self._kill_at)
        with suppress(Empty):
            if self._inbox.get(timeout=one_wait(min(due, default=None))) != signal.SIGCHLD:
                self._stop(_STOP if self._told is None else _STOP_NOW)

    def _stop(self, word: bytes) -> None:
        log.info("stopping the worker processes", extra={"event": "worker_processes_stopping"})
        self._told = word
        for seat in self._seats:
            seat.start_at = None
            seat.tell(word)
        kill_at = time.monotonic() + (self._patience if word == _STOP else _MARGIN)
        # Who signals again and again is in a hurry: that must not put it off.
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    def _kill_if_due(self) -> None:
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return
        self._kill_at = None
        for seat in self._seats:
            if seat.pid:
                _say(logging.ERROR, "worker_process_killed", seat.pid, "did not end in time, killing it")
                os.kill(seat.pid, signal.SIGKILL)

    def _start_what_is_due(self) -> bool:
        """Start those that are due; False if there is no child and there will be none."""
        for seat in self._seats:
            if seat.start_at is not None and seat.start_at <= time.monotonic():
                self._start(seat)
        return any(seat.pid or seat.start_at is not None for seat in self._seats)

    def _start(self, seat: _Seat) -> None:
        seat.start_at, seat.started_at = None, time.monotonic()
        seat.starts += 1
        try:
            seat.pid, seat.line = self._fork()
        except OSError as error:
            log.error("no worker process could be started: %s", error, extra={"event": "fork_failed"})
            self._start_again(seat)
        else:
            _say(logging.INFO, "worker_process_started", seat.pid, "started")

    def _fork(self) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        _flush()  # else the child writes it, too
        # Until the child has its own, a signal to it must not run our handlers there, and be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                _exit_after(lambda: self._begin_child(ours, theirs, before))
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        return pid, ours

    def _begin_child(self, ours: socket.socket, theirs: socket.socket, mask: set[int]) -> int:
        # Also the lines of the others: they would not read our parent's death while we live.
        ours.close()
        for seat in self._seats:
            if seat.line is not None:
                seat.line.close()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return self._work(theirs)

    def _bury_the_dead(self) -> None:
        for seat in self._seats:
            if seat.pid:
                pid, status = os.waitpid(seat.pid, os.WNOHANG)
                if pid:
                    self._ended(seat, os.waitstatus_to_exitcode(status))

    def _ended(self, seat: _Seat, status: int) -> None:
        """``status``: the exit status, or minus the number of the signal."""
        pid, words = seat.pid, seat.hear()
        seat.pid, seat.line = 0, None
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        wanted = status == 0 and (self._drain or self._told is not None)
        _say(logging.INFO if wanted else logging.WARNING, "worker_process_ended", pid, how)
        if wanted or self._told is not None:
            return
        if status == _CANNOT_BEGIN and seat.starts == 1:
            self._failure = f"worker process {pid} cannot begin: {words}"
            self._stop(_STOP)
        else:
            self._start_again(seat)

    def _start_again(self, seat: _Seat) -> None:
        lived = time.monotonic() - seat.started_at
        seat.deaths = 1 if lived >= _SOUND else seat.deaths + 1
        seat.start_at = time.monotonic() + self._backoff.get_retry_delay(seat.deaths).total_seconds()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _say(level: int, event: str, pid: int, text: str) -> None:
    log.log(level, "worker process %d %s", pid, text, extra={"event": event, "worker_pid": pid})
