"""Who may open what a storage consists of: its owner, and nobody else, whatever the umask was."""

from __future__ import annotations

import os

import pytest

from duraq import DeadLetterQueue, FileStorage, NoRetry, Queue
from duraq.journal.log import Sizes

SIZES = Sizes(journal=8 << 10, segment=1 << 10)
NOBODY = 65534


@pytest.fixture(params=[0, 0o022, 0o077], ids=oct)
def umask(request):
    """Whatever is made is made under it."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def root(umask, tmp_path):
    """A storage with every kind of file there is, while a worker leases and another one waits."""
    root = tmp_path / "parent" / "q"
    for key in ("a", "b"):
        with FileStorage(root, sizes=SIZES, durability="process") as storage:
            jobs = Queue("jobs", storage, retry_policy=NoRetry())
            jobs.enqueue("once", key=key)
            for number in range(40):
                jobs.enqueue({"n": number, "x": "x" * 60})
            jobs.mark_failed(jobs.dequeue(), "no")
            dead = DeadLetterQueue("jobs", None, storage)
            dead.remove(dead.list()[0].id)
        # To be set aside at the next opening.
        last = max((root / "jobs" / "segments").glob("*.jsonl"))
        last.write_bytes(last.read_bytes() + b"torn")
    with FileStorage(root, sizes=SIZES, durability="process") as storage:
        Queue("jobs", storage).dequeue()
        with storage.place("waiting"):
            yield root


def all_of(root):
    return [root.parent, root, *root.rglob("*")]


def test_modes(root):
    """Directories are 0700 and all else is 0600: segments, journal, locks, FIFOs, and what is set aside."""
    kinds = {path.suffix or path.name for path in all_of(root)}
    assert kinds >= {
        ".jsonl",
        ".index",
        ".checkpoint",
        ".fifo",
        ".json",
        ".cut",
        ".journal",
        "lock",
        "presence",
    }
    assert list((root / "waiting" / "waiters").iterdir())
    for path in all_of(root):
        assert path.lstat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_others_can_open_nothing(root, tmp_path):
    """Another user can open nothing of it, so hold no lock, even if he may enter the directories."""
    for path in [*tmp_path.parents, tmp_path, *all_of(root)]:
        if path.is_dir() and str(path).startswith(str(tmp_path.parent.parent)):
            path.chmod(path.stat().st_mode | 0o011)
    pid = os.fork()
    if pid == 0:
        opened = 0
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            for path in all_of(root):
                try:
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                    opened += 1
                except PermissionError:
                    pass
        finally:
            os._exit(opened)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
