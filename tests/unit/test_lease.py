"""Who is alive, shown with real processes, real signals and real forks."""

import errno
import fcntl
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from duraq.clock import SystemClock
from duraq.errors import NotAStorage, StorageClosed, StorageForked
from duraq.journal import lease
from duraq.journal.lease import WorkerPresence

WORKER = """
import os, subprocess, sys, threading
from duraq.clock import SystemClock
from duraq.errors import StorageForked
from duraq.journal.lease import WorkerPresence

path = sys.argv[1]
directory = os.open(path, os.O_RDONLY)
presence = WorkerPresence(directory, SystemClock())
"""
LIVE = WORKER + "print(presence.worker, flush=True)\nos.read(0, 1)\n"


@pytest.fixture
def leases(tmp_path):
    path = tmp_path / "leases"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def directory(leases):
    fd = os.open(leases, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def presence(directory):
    presence = WorkerPresence(directory, SystemClock())
    yield presence
    presence.close()


@pytest.fixture
def start(leases):
    """Start a Python program; it is killed in the end, and its children find their input closed."""
    with ExitStack() as stack:

        def start(program, *arguments):
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(leases), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def line(process):
    return process.stdout.readline().strip()


def names(path):
    return {file.name for file in path.iterdir()}


def assert_hangs_up(watch):
    poller = select.poll()
    poller.register(watch, 0)
    assert poller.poll(60_000) == [(watch.fileno(), select.POLLHUP)]


def dead_worker(start, presence):
    process = start(LIVE)
    worker = line(process)
    watch = presence.watch(worker)
    process.kill()
    assert_hangs_up(watch)
    process.wait()
    return worker


def test_living_worker(presence, start):
    """A worker is alive, to itself and to others, while its process runs."""
    other = line(start(LIVE))
    assert presence.is_alive(other)
    assert not presence.watch(other).hung_up()
    assert presence.is_alive(presence.worker)


def test_killed_worker(presence, start):
    """A killed worker is dead at once, and its watch hangs up, although its parent has not waited for it."""
    process = start(LIVE)
    worker = line(process)
    watch = presence.watch(worker)
    os.kill(process.pid, signal.SIGKILL)
    assert_hangs_up(watch)
    assert not presence.is_alive(worker)
    assert presence.watch(worker) is None
    assert Path("/proc", str(process.pid)).exists()


def test_killed_worker_nobody_watched(presence, directory, start):
    """A dead worker is dead also to those who never saw it alive."""
    worker = dead_worker(start, presence)
    newcomer = WorkerPresence(directory, SystemClock())
    assert not newcomer.is_alive(worker)
    assert newcomer.watch(worker) is None


def test_stopped_worker(presence, start):
    """A stopped worker is alive."""
    process = start(LIVE)
    worker = line(process)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert presence.is_alive(worker)
    assert not presence.watch(worker).hung_up()


def test_closed_worker(presence, leases, start):
    """A worker that closes is dead to others while its process goes on, and leaves no file."""
    process = start(LIVE + "presence.close()\npresence.close()\nprint('closed', flush=True)\nos.read(0, 1)\n")
    worker = line(process)
    watch = presence.watch(worker)
    process.stdin.write("x")
    process.stdin.flush()
    assert line(process) == "closed"
    assert watch.hung_up()
    assert not presence.is_alive(worker)
    assert names(leases) == set()


def test_closed_presence_is_no_worker(presence, leases):
    """A closed presence does not appear again."""
    presence.close()
    with pytest.raises(StorageClosed):
        _ = presence.worker
    assert names(leases) == set()


def test_reader_leaves_no_trace(presence, leases, start):
    """Asking after others makes no worker of the asker."""
    presence.is_alive(line(start(LIVE)))
    presence.sweep()
    assert len(names(leases)) == 2


FORKING = (
    WORKER
    + """
print(presence.worker, flush=True)
if os.fork() == 0:
    try:
        presence.worker
    except StorageForked:
        print("child", flush=True)
    os.read(0, 1)
    print("still here", flush=True)
    os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED)
"""
)


def test_forked_child_outlives_worker(presence, start):
    """A forked child keeps nothing of its parent's presence, however long it lives."""
    process = start(FORKING)
    worker = line(process)
    assert line(process) == "child"
    watch = presence.watch(worker)
    process.kill()
    assert_hangs_up(watch)
    assert not presence.is_alive(worker)
    process.stdin.write("x")
    process.stdin.flush()
    assert line(process) == "still here"


def test_forked_child_closes(presence, leases, start):
    """A forked child that closes, abandons or sweeps does not end the presence of its parent."""
    process = start(
        WORKER
        + """
print(presence.worker, flush=True)
child = os.fork()
if child == 0:
    presence.abandon()
    presence.close()
    presence.sweep()
    os._exit(0)
os.waitpid(child, 0)
print("child has gone", flush=True)
os.read(0, 1)
"""
    )
    worker = line(process)
    assert line(process) == "child has gone"
    assert presence.is_alive(worker)
    assert len(names(leases)) == 2


def test_forked_child_is_a_worker_itself(presence, start):
    """A forked child can become a worker of its own, from any of its threads."""
    process = start(
        WORKER
        + """
def appear():
    print(WorkerPresence(directory, SystemClock()).worker, flush=True)
    os.read(0, 1)

presence.worker
if os.fork() == 0:
    thread = threading.Thread(target=appear)
    thread.start()
    thread.join()
    os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED)
"""
    )
    worker = line(process)
    assert not worker.startswith(f"{process.pid}-")
    assert presence.is_alive(worker)


def test_fork_while_another_thread_appears(start):
    """A child forked at any moment holds no descriptor of a worker of its parent."""
    process = start(
        WORKER
        + """
def appear():
    while not done.is_set():
        another = WorkerPresence(directory, SystemClock())
        another.worker
        another.close()

def inherited():
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [link for link in (os.readlink(fd) for fd in fds if os.path.lexists(fd)) if path + "/" in link]

presence.worker
done = threading.Event()
threads = [threading.Thread(target=appear) for _ in range(3)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(len(inherited()))
    statuses.append(os.waitpid(child, 0)[1])
done.set()
for thread in threads:
    thread.join()
print(statuses == [0] * 100, flush=True)
"""
    )
    assert line(process) == "True"


def test_subprocess_outlives_worker(presence, start):
    """A program started with close_fds=False keeps nothing of its parent's presence."""
    process = start(
        WORKER
        + """
print(presence.worker, flush=True)
subprocess.Popen(["cat"], close_fds=False)
print("started", flush=True)
os.waitid(os.P_ALL, 0, os.WEXITED)
"""
    )
    worker = line(process)
    assert line(process) == "started"
    watch = presence.watch(worker)
    process.kill()
    assert_hangs_up(watch)
    assert not presence.is_alive(worker)
    process.stdin.write("still here\n")
    process.stdin.flush()
    assert line(process) == "still here"


def test_recycled_pid(presence, leases, directory):
    """A living process is not the worker that had its pid before."""
    worker = f"{os.getpid()}-0badcafe"
    (leases / f"{worker}.json").write_text("{}\n")
    assert not presence.is_alive(worker)
    os.mkfifo(leases / f"{worker}.fifo")
    assert not presence.is_alive(worker)
    stranger = os.open(leases / f"{worker}.fifo", os.O_RDWR)
    assert not presence.is_alive(worker)
    os.close(stranger)
    assert presence.sweep() == [worker]


def test_dying_worker(presence, leases):
    """A worker is dead once its FIFO is closed, although the kernel has not come to its lock yet."""
    worker = "1-0badcafe"
    os.mkfifo(leases / f"{worker}.fifo")
    with (leases / f"{worker}.json").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not presence.is_alive(worker)
        assert presence.sweep() == []
        with (leases / f"{worker}.fifo").open("r+b", buffering=0):
            assert presence.is_alive(worker)
        assert not presence.is_alive(worker)


@pytest.mark.parametrize("kind", ["json", "fifo"])
def test_file_missing(presence, leases, start, kind):
    """A worker that lacks one of its files is dead."""
    worker = line(start(LIVE))
    (leases / f"{worker}.{kind}").unlink()
    assert not presence.is_alive(worker)


def test_unknown_worker(presence):
    """A worker that left nothing is dead."""
    assert not presence.is_alive("1-00000000")


@pytest.mark.parametrize(
    "worker", ["", "1", "../1-00000000", "1-00000000/x", "1-0000000g", "-1-00000000", "detached"]
)
def test_not_a_worker(presence, worker):
    """What cannot be a worker's id is refused, before it can name a file."""
    with pytest.raises(ValueError, match="not a worker"):
        presence.is_alive(worker)


def test_planted_symlink(presence, leases, start, tmp_path):
    """A symbolic link in place of a worker's file is not followed."""
    worker = line(start(LIVE))
    for kind in ("json", "fifo"):
        (leases / f"{worker}.{kind}").rename(tmp_path / kind)
        (leases / f"{worker}.{kind}").symlink_to(tmp_path / kind)
        with pytest.raises((NotAStorage, OSError), match=rf"regular file|\[Errno {errno.ELOOP}\]"):
            presence.is_alive(worker)
        (leases / f"{worker}.{kind}").unlink()
        (tmp_path / kind).rename(leases / f"{worker}.{kind}")
    assert presence.is_alive(worker)


def test_planted_file(presence, leases, start):
    """A file of another kind in place of a worker's FIFO is refused."""
    worker = line(start(LIVE))
    (leases / f"{worker}.fifo").unlink()
    (leases / f"{worker}.fifo").write_bytes(b"")
    with pytest.raises(NotAStorage):
        presence.is_alive(worker)


PROBERS = (
    WORKER
    + """
live, dead = sys.argv[2:]
wrong = []

def probe():
    barrier.wait()
    for _ in range(20):
        prober = WorkerPresence(directory, SystemClock())
        wrong.extend(["dead"] * (not prober.is_alive(live)) + ["alive"] * prober.is_alive(dead))

barrier = threading.Barrier(25)
threads = [threading.Thread(target=probe) for _ in range(25)]
print("ready", flush=True)
os.read(0, 1)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(wrong, flush=True)
"""
)


def test_many_probers(presence, leases, start):
    """However many probe at once, none takes another prober for the worker, or misses the worker."""
    dead = dead_worker(start, presence)
    live = line(start(LIVE))
    # The harder case: the FIFO says alive, so that the verdict hangs on the lock that all of them try.
    keeper = os.open(leases / f"{dead}.fifo", os.O_RDWR)
    processes = [start(PROBERS, live, dead) for _ in range(8)]
    for process in processes:
        assert line(process) == "ready"
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    assert [line(process) for process in processes] == ["[]"] * 8
    os.close(keeper)


def test_threads_share_one_worker(presence, leases):
    """Threads that ask at the same time are told the same worker."""
    barrier = threading.Barrier(8)
    workers = []

    def ask():
        barrier.wait()
        workers.append(presence.worker)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(workers) == 8
    assert {f"{worker}.{kind}" for worker in workers for kind in ("json", "fifo")} == names(leases)
    assert len(names(leases)) == 2


def test_directory_closed(presence, leases):
    """A worker can be asked, and closed, after its caller has closed the directory."""
    fd = os.open(leases, os.O_RDONLY | os.O_DIRECTORY)
    other = WorkerPresence(fd, SystemClock())
    assert presence.is_alive(other.worker)
    os.close(fd)
    assert other.is_alive(presence.worker)
    other.close()
    assert names(leases) == {f"{presence.worker}.json", f"{presence.worker}.fifo"}


def test_two_storages_of_one_process(presence, directory):
    """Two presences in one process are two workers, and one can die before the other."""
    other = WorkerPresence(directory, SystemClock())
    watch = presence.watch(other.worker)
    assert other.is_alive(presence.worker)
    other.close()
    assert watch.hung_up()
    assert not presence.is_alive(watch.worker)


def test_watch_outlives_the_verdict(presence, directory):
    """The descriptor of a watch is nobody else's while somebody may still poll it."""
    other = WorkerPresence(directory, SystemClock())
    watch = presence.watch(other.worker)
    other.close()
    assert not presence.is_alive(watch.worker)
    unrelated, end = os.pipe()
    assert watch.fileno() not in {unrelated, end}
    assert_hangs_up(watch)
    os.close(unrelated)
    os.close(end)


def test_dead_workers_are_forgotten(presence, directory):
    """What is kept open does not grow with the number of workers that came and went."""
    for _ in range(10):
        other = WorkerPresence(directory, SystemClock())
        assert presence.is_alive(other.worker)
        other.close()
    assert len(presence._watched) == 1


def test_sweep(presence, leases, start):
    """A sweep removes what dead workers left, at whatever point they died, and nothing else."""
    dead = dead_worker(start, presence)
    live = line(start(LIVE))
    kept = {f"{worker}.{kind}" for worker in (live, presence.worker) for kind in ("json", "fifo")}
    (leases / "README").write_text("not a worker's")
    os.mkfifo(leases / "1-aaaaaaaa.fifo")  # killed in the middle of a sweep
    (leases / "1-bbbbbbbb.new").write_text("")  # killed while appearing
    os.mkfifo(leases / "1-bbbbbbbb.fifo")
    assert presence.sweep() == sorted(["1-aaaaaaaa", "1-bbbbbbbb", dead])
    assert names(leases) == {*kept, "README"}
    assert presence.sweep() == []
    assert presence.is_alive(live)


def test_sweep_before_the_new_file_is_locked(presence, directory, leases, monkeypatch):
    """A worker whose file was swept before it could lock it appears under another name."""
    sweeper = WorkerPresence(directory, SystemClock())
    swept = []
    try_lock = lease._files.try_lock

    def swept_first(fd):
        if not swept:
            swept.extend(sweeper.sweep())
        return try_lock(fd)

    monkeypatch.setattr(lease._files, "try_lock", swept_first)
    assert [presence.worker] != swept
    assert len(swept) == 1
    assert sweeper.is_alive(presence.worker)
    assert len(names(leases)) == 2


def test_sweeper_stopped_on_the_new_file(presence, directory, leases, monkeypatch):
    """A worker does not wait for a sweeper that holds its file: it appears under another name."""
    sweepers = []
    try_lock = lease._files.try_lock

    def held_first(fd):
        if not sweepers:
            sweepers.append(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
            fcntl.flock(sweepers[0], fcntl.LOCK_SH)
        return try_lock(fd)

    monkeypatch.setattr(lease._files, "try_lock", held_first)
    assert WorkerPresence(directory, SystemClock()).is_alive(presence.worker)
    os.close(sweepers[0])
    assert len(presence.sweep()) == 1
    assert len(names(leases)) == 2


def test_sweepers_and_newcomers(presence, start):
    """Workers that appear amid sweepers are alive and keep their files until they close."""
    newcomers = [
        start(
            WORKER
            + """
for _ in range(100):
    another = WorkerPresence(directory, SystemClock())
    worker = another.worker
    assert presence.is_alive(worker)
    assert WorkerPresence(directory, SystemClock()).is_alive(worker)
    another.close()
    assert not presence.is_alive(worker)
print("done", flush=True)
"""
        )
        for _ in range(3)
    ]
    sweeper = start(WORKER + "print('sweeping', flush=True)\nwhile True: presence.sweep()\n")
    assert line(sweeper) == "sweeping"
    assert [line(newcomer) for newcomer in newcomers] == ["done"] * 3


def test_what_the_file_says(presence, leases):
    """The lock file tells people who the worker is, and only they may open it."""
    path = leases / f"{presence.worker}.json"
    text = path.read_bytes()
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1
    about = orjson.loads(text)
    assert list(about) == ["pid", "boot_id", "start_time", "host", "argv", "unit", "opened_at"]
    assert about["pid"] == os.getpid()
    assert about["boot_id"] == SystemClock().boot_id
    assert about["start_time"] == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert about["host"] == os.uname().nodename
    for kind in ("json", "fifo"):
        assert stat.S_IMODE((leases / f"{presence.worker}.{kind}").stat().st_mode) == 0o600


def test_long_command_line(start, leases):
    """A long command line, or one that is not UTF-8, is cut and made readable."""
    worker = line(start(LIVE, "\udcff" + "x" * 5000))
    argv = orjson.loads((leases / f"{worker}.json").read_bytes())["argv"]
    assert argv[:2] == [sys.executable, "-c"]
    assert sum(map(len, argv)) <= 1024
    assert lease._argv(b"cat\0\xff\0") == ["cat", "\\xff"]


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/mail.service\n", "mail.service"),
        ("8:pids:/\n1:name=systemd:/system.slice/mail.service/worker\n0::/\n", "mail.service"),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/app-1.scope\n", "app-1.scope"),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_systemd_unit(cgroups, unit):
    """The unit is the innermost one that the control groups name."""
    assert lease._unit(cgroups) == unit


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(presence, directory, monkeypatch, number):
    """A worker can appear although the disk has no room for its description."""

    def write(_fd, _text):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lease.os, "write", write)
    assert WorkerPresence(directory, SystemClock()).is_alive(presence.worker)


def test_failure_to_appear(presence, directory, leases, monkeypatch):
    """A worker that cannot appear leaves nothing behind, and may try again."""

    def rename(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(lease._files, "rename", rename)
        with pytest.raises(OSError):
            _ = presence.worker
    assert names(leases) == set()
    open_files = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not any(file.is_relative_to(leases) and file != leases for file in open_files)
    assert WorkerPresence(directory, SystemClock()).is_alive(presence.worker)


def test_abandoned_presence(directory):
    """An abandoned presence says that it was forked."""
    presence = WorkerPresence(directory, SystemClock())
    presence.abandon()
    with pytest.raises(StorageForked):
        _ = presence.worker
