"""What the system tells of changes is a hint: where it loses some, or tells nothing, all is found still."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from evidence import count

from duraq import FileStorage, Queue

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
IN_CREATE_OR_DELETE, IN_Q_OVERFLOW = 0x300, 0x4000

FOLLOW = """
from pathlib import Path
from duraq.inspector import Inspector

with Inspector(sys.argv[1]) as inspector:
    for view in inspector.follow(last=1):
        fds = filter(os.path.lexists, Path("/proc/self/fd").iterdir())
        watching = "anon_inode:inotify" in map(os.readlink, fds)
        say("saw", view.id, watching)
"""


@pytest.fixture
def queue(tmp_path):
    """A queue with an entry, which a follower begins with."""
    with FileStorage(tmp_path / "storage", durability="process") as storage:
        queue = Queue("jobs", storage)
        queue.enqueue(0)
        yield queue


class Unread:
    """Somebody who watches a directory and never looks what there is to see."""

    def __init__(self, directory):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self.fd, os.fsencode(directory), IN_CREATE_OR_DELETE) >= 0

    def has_lost_some(self):
        """Whether there was more than the system remembers; it says that once, and last."""
        masks = []
        while not masks or masks[-1] != IN_Q_OVERFLOW:
            try:
                events = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return False
            while events:
                _, mask, _, length = struct.unpack_from("iIII", events)
                masks.append(mask)
                events = events[16 + length :]
        os.close(self.fd)
        return True


def test_more_than_is_remembered(start_worker, queue, tmp_path):
    """A follower that missed hints, for there were more than the system remembers, sees each record."""
    program = start_worker(FOLLOW)
    program.hear("saw")
    watching = "False"
    while watching == "False":  # it takes some looks until it does
        queue.enqueue("watched")
        watching = program.hear("saw")[1]
    directory = tmp_path / "storage" / "jobs"
    noise = directory / "noise"
    unread = Unread(directory)
    program.send(signal.SIGSTOP)
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
    for _ in range(int(LIMIT.read_text()) // 2 + 10):
        noise.symlink_to("nowhere")
        noise.unlink()
    ids = [queue.enqueue(number) for number in range(5)]
    assert unread.has_lost_some()
    program.send(signal.SIGCONT)
    ids += [queue.enqueue(number) for number in range(5)]
    assert [program.hear("saw")[0] for _ in ids] == ids
    count("processes")


# In a namespace of its own, so that nobody else runs out of them.
NO_INSTANCES = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare makes the namespace")
def test_nothing_left_to_watch_with(start_worker, queue):
    """A follower that the system refuses to tell anything looks for itself."""
    alone = ("unshare", "--user", "--map-root-user", "sh", "-c", NO_INSTANCES, "sh")
    if subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("cannot make a user namespace here")
    program = start_worker(FOLLOW, *alone)
    program.hear("saw")
    ids = [queue.enqueue(number) for number in range(5)]
    assert [program.hear("saw") for _ in ids] == [[entry_id, "False"] for entry_id in ids]
    count("processes")
