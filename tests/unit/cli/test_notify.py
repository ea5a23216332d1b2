"""run --notify: what systemd is told, over a real socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time

import pytest

from duraq import FileStorage, Queue
from duraq.cli.notify import Systemd


class Manager:
    """Whoever reads what services say."""

    def __init__(self, address, shown):
        self.shown = shown
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(30)
        self.heard = []

    def hear(self, timeout=30):
        """The next message, as a mapping."""
        self._socket.settimeout(timeout)
        message = dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())
        self.heard.append(message)
        return message

    def until(self, name, value=None):
        """The next message that says this."""
        while name not in (message := self.hear()) or value not in {None, message[name]}:
            pass
        return message

    def is_silent_for(self, seconds, within):
        """Whether at last nothing is said for so long."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            try:
                self.hear(seconds)
            except TimeoutError:
                return True
        return False

    def close(self):
        self._socket.close()


@pytest.fixture(params=["a file", "abstract"])
def manager(request, tmp_path):
    name = (
        str(tmp_path / "notify")
        if request.param == "a file"
        else f"@duraq-{os.getpid()}-{time.monotonic_ns()}"
    )
    manager = Manager(name.replace("@", "\0", 1) if name.startswith("@") else name, name)
    yield manager
    manager.close()


def service(duraq, manager, *arguments, **environment):
    """`duraq run` as systemd would begin it."""
    known = {**os.environ, "DURAQ_ROOT": str(duraq.root), "NOTIFY_SOCKET": manager.shown}
    return duraq.start("run", "jobs", "--notify", *arguments, env=known | environment)


def test_a_service_s_life(duraq, queue, manager, tmp_path):
    """It is ready once it works, says how it goes, lives as long as it is heard, and says that it stops."""
    queue.enqueue(1)
    seen = tmp_path / "environment"
    process = service(
        duraq, manager, "--", "sh", "-c", f"env > {seen}.new; mv {seen}.new {seen}", WATCHDOG_USEC="400000"
    )
    assert manager.until("READY") == {"READY": "1"}
    assert manager.until("STATUS")["STATUS"].startswith("jobs: ")
    for _ in range(3):
        manager.until("WATCHDOG", "1")
    while not seen.exists():
        manager.until("WATCHDOG", "1")
    assert "NOTIFY_SOCKET" not in seen.read_text()
    assert "WATCHDOG_USEC" not in seen.read_text()
    process.send_signal(signal.SIGTERM)
    stopping = manager.until("STOPPING", "1")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 30_000_000
    assert process.wait() == 143


def test_a_worker_that_hangs_is_not_heard(duraq, queue, root, manager):
    """While looking for entries does not get on nothing is heard for long enough; later it is again."""
    queue.enqueue(1)
    process = service(duraq, manager, "--", "true", WATCHDOG_USEC="400000")
    manager.until("WATCHDOG")
    while queue.counts().ready:
        manager.until("WATCHDOG")
    with (root / "journal" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Longer than a look may take it hears nothing for as long as it waits, and would kill it.
        assert manager.is_silent_for(0.4, within=20)
        fcntl.flock(lock, fcntl.LOCK_UN)
    manager.until("WATCHDOG")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143


def test_nobody_listens(duraq, queue):
    """Without systemd --notify changes nothing; that its socket is gone is no reason to fail."""
    queue.enqueue_many([1, 2])
    assert duraq.run("run", "jobs", "--notify", "--once", "--", "true")[0] == 0
    environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "NOTIFY_SOCKET": "/nonexistent/socket"}
    code, _, err = duraq.run("run", "jobs", "--notify", "--once", "--", "true", env=environment)
    assert (code, b"systemd was not told READY=1" in err) == (0, True)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often(environment, seconds):
    """It is heard as often as systemd wants, if it is this process that it watches."""
    watchdog = Systemd(environment).watchdog
    assert (None if watchdog is None else watchdog.total_seconds()) == seconds


def test_an_abstract_address():
    """A socket that has no file is named with an @."""
    name = f"duraq-{os.getpid()}-{time.monotonic_ns()}"
    with contextlib.closing(Manager(f"\0{name}", f"@{name}")) as manager:
        Systemd({"NOTIFY_SOCKET": f"@{name}"}).tell(READY=1, STATUS="x=y")
        assert manager.hear() == {"READY": "1", "STATUS": "x=y"}


def test_ready_means_usable(duraq, root, manager):
    """Whoever begins after it finds the storage open, and can put into it."""
    with FileStorage(root, durability="process") as storage:
        Queue("jobs", storage).enqueue(1)
    process = service(duraq, manager, "--", "true")
    manager.until("READY")
    assert duraq("put", "jobs", "2").exit_code == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
