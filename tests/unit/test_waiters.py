"""Waiting and waking, shown with real processes, threads and signals."""

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from duraq import forks
from duraq.clock import SystemClock
from duraq.journal import waiters as module
from duraq.journal.lease import WorkerPresence
from duraq.journal.waiters import Waiters

SETUP = """
import os, random, signal, sys, threading
from duraq.journal.waiters import Waiters

path = sys.argv[1]
waiters = Waiters(os.open(path, os.O_RDONLY))
"""
WAITING = (
    SETUP
    + """
with waiters.register() as waiter:
    print("waiting", flush=True)
    waiter.wait(None)
    print("woken", flush=True)
"""
)

HOLDING = """
import os, sys
from duraq.clock import SystemClock
from duraq.journal.lease import WorkerPresence

presence = WorkerPresence(os.open(os.path.join(sys.argv[1], "../leases"), os.O_RDONLY), SystemClock())
print(presence.worker, flush=True)
os.read(0, 1)
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "waiters"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def waiters(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield Waiters(fd)
    os.close(fd)


@pytest.fixture
def start(path):
    """Start a Python program; it is killed in the end, and its children find their input closed."""
    with ExitStack() as stack:

        def start(program, *arguments, **options):
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(path), *arguments],
                text=True,
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def presence(tmp_path):
    path = tmp_path / "leases"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    presence = WorkerPresence(fd, SystemClock())
    yield presence
    presence.close()
    os.close(fd)


def line(process):
    return process.stdout.readline().strip()


def until_asleep(process):
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        os.sched_yield()


def tell(process):
    process.stdin.write("x")
    process.stdin.flush()


def test_nobody_waits(waiters):
    """To wake nobody is no error."""
    assert waiters.wake(1) == 0


def test_wake(waiters, path):
    """A woken waiter is told so, and its FIFO is gone."""
    with waiters.register() as waiter:
        assert waiters.wake(1) == 1
        wake = waiter.wait(None)
        assert wake
        assert wake.woken
        assert not wake.hung_up
        assert list(path.iterdir()) == []
    assert list(path.iterdir()) == []


def test_time_is_up(waiters):
    """A wait whose time is up is false, and the waiter may still be woken."""
    with waiters.register() as waiter:
        for timeout in (0, -1, 0.001):
            assert not waiter.wait(timeout)
        assert waiters.wake(1) == 1
        assert waiter.wait(0)


def test_very_long_wait(waiters):
    """A wait may be longer than the system's call can express."""
    with waiters.register() as waiter:
        assert waiters.wake(1) == 1
        assert waiter.wait(1e12)


def test_leaving(waiters, path):
    """A waiter that leaves unwoken takes its place in the line with it, and its descriptor."""
    with waiters.register() as first, waiters.register() as second:
        assert len(list(path.iterdir())) == 2
        first.__exit__(None)
        assert waiters.wake(2) == 1
        assert second.wait(0)
        with pytest.raises(OSError):
            os.fstat(first.fileno())


def test_order_of_arrival(waiters):
    """The longest waiting is woken first."""
    with waiters.register() as first, waiters.register() as second, waiters.register() as third:
        line = [first, second, third]
        for awake in (1, 2, 3):
            assert waiters.wake(1) == 1
            assert [bool(waiter.wait(0)) for waiter in line] == [True] * awake + [False] * (3 - awake)


def test_order_of_arrival_of_processes(waiters, start):
    """The longest waiting is woken first, whichever process it is in."""
    processes = []
    for _ in range(3):
        processes.append(start(WAITING))
        assert line(processes[-1]) == "waiting"
    for process in processes:
        assert waiters.wake(1) == 1
        assert line(process) == "woken"


def test_wake_several(waiters):
    """As many are woken as were asked for, and no more than there are."""
    with waiters.register() as first, waiters.register() as second, waiters.register() as third:
        assert waiters.wake(0) == 0
        assert not first.wait(0)
        assert waiters.wake(2) == 2
        assert [bool(waiter.wait(0)) for waiter in (first, second, third)] == [True, True, False]
        assert waiters.wake(sys.maxsize) == 1
        assert third.wait(0)


def test_woken_only_once(waiters):
    """A second wake-up does not go to a waiter that has one already."""
    with waiters.register() as waiter:
        assert waiters.wake(1) == 1
        assert waiters.wake(1) == 0
        assert waiter.wait(0)


def test_registering_again(waiters):
    """Who waits again stands at the end of the line."""
    with waiters.register() as again:
        waiters.wake(1)
        assert again.wait(0)
    with waiters.register() as other, waiters.register() as again:
        assert waiters.wake(1) == 1
        assert other.wait(0)
        assert not again.wait(0)


def test_unnoticed_wake_up(waiters):
    """A wake-up that its waiter never noticed goes to the next in line."""
    with ExitStack() as leaving:
        leaving.enter_context(waiters.register())
        with waiters.register() as second, waiters.register() as third:
            assert waiters.wake(1) == 1
            assert not second.wait(0)
            leaving.close()
            assert second.wait(0)
            assert not third.wait(0)


def test_wake_up_after_another_reason(waiters):
    """A wake-up that came after the wait had ended for another reason goes to the next in line."""
    with ExitStack() as leaving:
        first = leaving.enter_context(waiters.register())
        with waiters.register() as second:
            assert not first.wait(0)
            assert waiters.wake(1) == 1
            leaving.close()
            assert second.wait(0)


def test_noticed_wake_up(waiters):
    """A wake-up that its waiter noticed is its own and goes no further."""
    with ExitStack() as leaving:
        first = leaving.enter_context(waiters.register())
        with waiters.register() as second:
            assert waiters.wake(1) == 1
            assert first.wait(0)
            leaving.close()
            assert not second.wait(0)


def test_woken_but_failing(waiters):
    """A wake-up whose waiter failed afterwards goes to the next in line."""

    def fail():
        with waiters.register() as first:
            second = leaving.enter_context(waiters.register())
            assert waiters.wake(1) == 1
            assert first.wait(0)
            assert not second.wait(0)
            line.append(second)
            raise KeyboardInterrupt

    line = []
    with ExitStack() as leaving:
        with pytest.raises(KeyboardInterrupt):
            fail()
        assert line[0].wait(0)


def test_killed_waiter(waiters, start, path):
    """A dead waiter is passed over and its FIFO removed."""
    process = start(WAITING)
    assert line(process) == "waiting"
    process.kill()
    process.wait()
    with waiters.register() as waiter:
        assert len(list(path.iterdir())) == 2
        assert waiters.wake(1) == 1
        assert waiter.wait(0)
        assert list(path.iterdir()) == []


def test_killed_waiter_and_nobody_else(waiters, start, path):
    """A dead waiter does not count as woken."""
    process = start(WAITING)
    assert line(process) == "waiting"
    process.kill()
    process.wait()
    assert waiters.wake(1) == 0
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("claimed", [True, False])
def test_killed_waker(waiters, start, path, claimed):
    """A waiter is woken even if its waker is killed on the way."""
    with waiters.register() as waiter:
        process = start(
            SETUP
            + f"""
name, = os.listdir(path)
os.open(os.path.join(path, name), os.O_WRONLY | os.O_NONBLOCK)
if {claimed}:
    os.unlink(os.path.join(path, name))
print("on the way", flush=True)
os.read(0, 1)
"""
        )
        assert line(process) == "on the way"
        assert not waiter.wait(0)
        process.kill()
        assert waiter.wait(60).woken
    assert list(path.iterdir()) == []


def test_holder_dies(waiters, presence, start):
    """A waiter learns at once that a worker it watches has died, and which."""
    processes = [start(HOLDING) for _ in range(2)]
    watches = [presence.watch(line(process)) for process in processes]
    with waiters.register() as waiter:
        assert not waiter.wait(0, watches)
        processes[1].kill()
        wake = waiter.wait(60, iter(watches))
        assert wake
        assert wake.hung_up == {watches[1]}
        assert not wake.woken
        waiters.wake(1)
        wake = waiter.wait(None, watches)
        assert wake.hung_up == {watches[1]}
        assert wake.woken


def test_many_threads(waiters):
    """Threads of one process wait each for themselves."""
    registered = threading.Barrier(51)
    woken = []

    def wait():
        with waiters.register() as waiter:
            registered.wait()
            woken.append(waiter.wait(None).woken)

    threads = [threading.Thread(target=wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    registered.wait()
    assert waiters.wake(20) == 20
    assert waiters.wake(50) == 30
    for thread in threads:
        thread.join()
    assert woken == [True] * 50


def test_wakers_of_many_processes(waiters, start):
    """Of wakers that meet at one waiter one wakes it and the others wake the next."""
    with ExitStack() as stack:
        line_up = [stack.enter_context(waiters.register()) for _ in range(100)]
        wakers = [
            start(SETUP + "os.read(0, 1)\nprint(sum(waiters.wake(1) for _ in range(20)))\n") for _ in range(4)
        ]
        for waker in wakers:
            tell(waker)
        assert [line(waker) for waker in wakers] == ["20"] * 4
        assert [bool(waiter.wait(0)) for waiter in line_up] == [True] * 80 + [False] * 20


def test_wakers_meet_at_one_waiter(waiters, monkeypatch):
    """A waker that finds its waiter woken by another meanwhile wakes the next."""
    open_fifo, meanwhile = module.open_fifo, []

    def opened(directory, name, access):
        fd = open_fifo(directory, name, access)
        if not meanwhile:
            meanwhile.append(None)
            meanwhile[0] = waiters.wake(1)
        return fd

    with waiters.register() as first, waiters.register() as second, waiters.register() as third:
        monkeypatch.setattr(module, "open_fifo", opened)
        assert waiters.wake(1) == 1
        assert meanwhile == [1]
        assert [bool(waiter.wait(0)) for waiter in (first, second, third)] == [True, True, False]


def test_no_fork_amid_a_wake_up(waiters, monkeypatch):
    """No thread can fork while another has a waiter's FIFO open: the child would keep the waiter asleep."""
    open_fifo, could_fork = module.open_fifo, []

    def try_to_fork():
        could_fork.append(forks.no_fork.acquire(blocking=False))

    def opened(directory, name, access):
        fd = open_fifo(directory, name, access)
        thread = threading.Thread(target=try_to_fork)
        thread.start()
        thread.join()
        return fd

    with waiters.register():
        monkeypatch.setattr(module, "open_fifo", opened)
        assert waiters.wake(1) == 1
    assert could_fork == [False]


# Tokens are files. Whoever unlinks one has it. Between looking and waiting nothing but a wake-up helps.
CONSUMER = (
    SETUP
    + """
tokens = sys.argv[2]

def take():
    for name in os.listdir(tokens):
        try:
            os.unlink(os.path.join(tokens, name))
        except FileNotFoundError:
            continue
        os.write(1, (name + "\\n").encode())
        return True
    return False

def consume():
    while True:
        with waiters.register() as waiter:
            if not take():
                waiter.wait(None)

def come_and_go():
    while True:
        with waiters.register() as waiter:
            woken = random.random() < 0.5 and waiter.wait(random.random() / 1000)
        while woken and take():
            pass

for target in [consume] * 3 + [come_and_go]:
    threading.Thread(target=target).start()
"""
)
PRODUCER = (
    SETUP
    + """
for number in range(200):
    os.close(os.open(os.path.join(sys.argv[2], f"{os.getpid()}-{number}"), os.O_CREAT))
    waiters.wake(1)
print("done", flush=True)
"""
)


def test_no_wake_up_is_lost(start, tmp_path):
    """Consumers that sleep without a time limit, amid others that come and go, take all there is to take."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    ours, theirs = os.pipe()
    for _ in range(3):
        start(CONSUMER, str(tokens), stdout=theirs)
    os.close(theirs)
    producers = [start(PRODUCER, str(tokens)) for _ in range(2)]
    with os.fdopen(ours) as taken:
        names = {taken.readline().strip() for _ in range(400)}
    assert names == {f"{producer.pid}-{number}" for producer in producers for number in range(200)}
    assert [line(producer) for producer in producers] == ["done"] * 2


def test_forked_child_outlives_waiter(waiters, start, path):
    """A forked child is not woken in place of its dead parent."""
    process = start(
        SETUP
        + """
def wait():
    with waiters.register() as waiter:
        registered.set()
        waiter.wait(None)

registered = threading.Event()
threading.Thread(target=wait, daemon=True).start()
registered.wait()
if os.fork() == 0:
    print("child", flush=True)
    os.read(0, 1)
    print("still here", flush=True)
    os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED)
"""
    )
    assert line(process) == "child"
    process.kill()
    process.wait()
    assert len(list(path.iterdir())) == 1
    assert waiters.wake(1) == 0
    assert list(path.iterdir()) == []
    tell(process)
    assert line(process) == "still here"


def test_fork_inside_the_line(waiters, start):
    """A child forked by the waiter itself gives up nothing of its parent's when it leaves."""
    process = start(
        SETUP
        + """
with waiters.register() as waiter:
    child = os.fork()
    if child != 0:
        os.waitpid(child, 0)
        print("waiting", flush=True)
        waiter.wait(None)
if child == 0:
    os._exit(0)
print("woken", flush=True)
"""
    )
    assert line(process) == "waiting"
    assert waiters.wake(1) == 1
    assert line(process) == "woken"


def test_forks_amid_wakers(waiters, start):
    """A child forked by another thread while a waiter is being woken does not keep it asleep."""
    process = start(
        SETUP
        + """
def wake():
    while not done.is_set():
        waiters.wake(1)

done = threading.Event()
threads = [threading.Thread(target=wake) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
keep, closed_in_the_end = os.pipe()
for _ in range(50):
    child = os.fork()
    if child == 0:
        os.close(closed_in_the_end)
        os.read(keep, 1)
        os._exit(0)
    children.append(child)
    for _ in range(5):
        with waiters.register() as waiter:
            assert waiter.wait(60)
done.set()
os.close(closed_in_the_end)
for thread in threads:
    thread.join()
print("done", flush=True)
"""
    )
    assert line(process) == "done"


def test_signals(waiters, start):
    """A signal ends a wait if its handler raises, which leaves nothing behind, and else does not."""
    process = start(
        SETUP
        + """
class Stop(Exception): pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGUSR1, lambda *_: print("signal", flush=True))
signal.signal(signal.SIGUSR2, stop)
try:
    with waiters.register() as waiter:
        print("waiting", flush=True)
        waiter.wait(None)
except Stop:
    print("stopped", flush=True)
"""
    )
    assert line(process) == "waiting"
    # Python runs a handler for a signal that comes just before poll() begins to sleep only after it.
    until_asleep(process)
    process.send_signal(signal.SIGUSR1)
    assert line(process) == "signal"
    until_asleep(process)
    process.send_signal(signal.SIGUSR2)
    assert line(process) == "stopped"
    assert waiters.wake(1) == 0


def test_closing(waiters):
    """Closing wakes the threads that wait through the same object, and no others."""
    others = Waiters(waiters.directory)
    with waiters.register() as ours, others.register() as other:
        waiters.close()
        assert ours.wait(0).woken
        assert not other.wait(0)


def test_closing_while_threads_wait(waiters, path):
    """A waiter whose storage is closed leaves in good order, and still passes on what it did not notice."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    closing = Waiters(fd)
    with ExitStack() as leaving:
        leaving.enter_context(closing.register())
        with waiters.register() as other:
            closing.close()
            os.close(fd)
            assert not other.wait(0)
            leaving.close()
            assert other.wait(0)
    assert list(path.iterdir()) == []


def test_planted_files(waiters, path, tmp_path):
    """What is no waiter's FIFO of ours is neither followed nor opened, nor removed, nor in the way."""
    elsewhere = tmp_path / "elsewhere"
    os.mkfifo(elsewhere)
    reader = os.open(elsewhere, os.O_RDONLY | os.O_NONBLOCK)
    planted = [path / f"{number:020d}-999999999-0.fifo" for number in range(4)]
    planted[0].symlink_to(elsewhere)
    planted[1].write_text("mine")
    os.link(elsewhere, planted[2])
    planted[3].mkdir()
    (path / "README").write_text("mine")
    with waiters.register() as waiter:
        assert waiters.wake(1) == 1
        assert waiter.wait(0)
    waiters.sweep()
    assert set(path.iterdir()) == {*planted, path / "README"}
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    assert [event for _, event in poller.poll(0) if event & select.POLLIN] == []
    os.close(reader)


def test_sweep(waiters, start, path):
    """A sweep removes what dead waiters left and wakes nobody that lives."""
    process = start(WAITING)
    assert line(process) == "waiting"
    process.kill()
    process.wait()
    (dead,) = path.iterdir()
    os.mkfifo(path / f"{dead.stem}.new")  # killed on the way in
    with waiters.register() as waiter:
        waiters.sweep()
        assert not waiter.wait(0)
        assert [file.name for file in path.iterdir()] == [waiter.name]


def test_unopened_fifo_is_hidden(waiters, path, monkeypatch):
    """A waiter's FIFO has no name that wakers look for before the waiter can be woken through it."""
    open_fifo, visible = module.open_fifo, []

    def opened(directory, name, access):
        visible.extend(path.glob("*.fifo"))
        return open_fifo(directory, name, access)

    monkeypatch.setattr(module, "open_fifo", opened)
    with waiters.register():
        assert visible == []


@pytest.mark.parametrize("moment", ["before opening", "after opening"])
def test_swept_on_the_way_in(waiters, path, monkeypatch, moment):
    """A waiter whose FIFO is taken for a dead one's before it has its name makes another."""
    open_fifo, swept = module.open_fifo, []

    def opened(directory, name, access):
        if not swept and moment == "before opening":
            swept.append(name)
            (path / name).unlink()
        fd = open_fifo(directory, name, access)
        if not swept:
            swept.append(name)
            (path / name).unlink()
        return fd

    monkeypatch.setattr(module, "open_fifo", opened)
    with waiters.register() as waiter:
        assert len(swept) == 1
        assert waiters.ours == {waiter}
        assert waiters.wake(1) == 1
        assert waiter.wait(0)


def test_failure_on_the_way_in(waiters, monkeypatch):
    """Who fails to register holds no place and no descriptor, and swallows no wake-up."""

    def rename(*_):
        raise KeyboardInterrupt

    with waiters.register() as next_in_line:
        with monkeypatch.context() as patch:
            patch.setattr(module._files, "rename", rename)
            waiter = waiters.register()
            with pytest.raises(KeyboardInterrupt):
                waiter.__enter__()
        assert waiters.ours == {next_in_line}
        with pytest.raises(OSError):
            os.fstat(waiter.fileno())
