"""System calls that fail: a real process, of which ``strace -e inject`` makes one call fail.

The process does everything that changes a queue, and waits, and looks. Before each thing it says what it is
about to do, and afterwards what it was told; what it was told must be true when it has ended.
"""

import errno
import os
import select
import shutil
import signal
import subprocess
import threading
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from crash.failing import ERRORS
from evidence import count

from duraq import EntryStatus, FileStorage, NotWritten, OutcomeUnknown, Queue, StorageError, StorageFailed
from duraq.journal.log import Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
SOON = 60  # seconds; only so that a failing test ends
POINTS = 3  # of the calls of a kind that fail once, and so many from which on all do
# Those that the engine makes. (write and read are those by which the process speaks.)
CALLS = (
    "close",
    "fadvise64",
    "fcntl",
    "fdatasync",
    "flock",
    "fsync",
    "ftruncate",
    "getdents64",
    "mkdirat",
    "mknodat",
    "newfstatat",
    "openat",
    "poll",
    "pread64",
    "pwrite64",
    "renameat",
    "unlinkat",
)
SHARES = 4
SAMPLE = 6

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="strace is not installed (Debian: apt-get install strace)"
    ),
]


class Life:
    """What the process does, and what it says of it."""

    def __init__(self, root, say, hear):
        self.root, self.say, self.hear = root, say, hear
        self.storage = None
        self.made = 0

    def live(self):
        threading.excepthook = lambda about: self.complain(about.exc_value)
        before = descriptors()
        # From here on its calls may fail.
        self.say("born")
        self.hear()
        for _ in range(4):
            self.work()
        self.say("heal")
        self.hear()
        self.work()
        self.close()
        self.say(f"left {descriptors() - before}")

    def work(self):
        ids = [self.new() for _ in range(6)]
        self.attempt(f"enqueue {ids[0]}", lambda: self.queue().enqueue("x" * 200, id=ids[0]))
        self.attempt(
            f"enqueue {' '.join(ids[1:])}", lambda: self.queue().enqueue_many(["x" * 200] * 5, ids=ids[1:])
        )
        for end in ("complete", "bury", "release"):
            entry = self.attempt("dequeue", lambda: self.queue().dequeue())
            if entry is not None:
                self.attempt(f"{end} {entry.id}", lambda end=end, entry=entry: self.end(end, entry))
        self.attempt("wait", lambda: self.queue("idle").dequeue(wait=timedelta(milliseconds=5)))
        self.attempt("look", lambda: (self.open().queues(), self.queue().counts(), self.queue().metrics()))
        self.attempt("compact", lambda: self.open().compact("jobs"))

    def new(self):
        self.made += 1
        return f"e{self.made}"

    def end(self, end, entry):
        if end == "complete":
            self.queue().mark_completed(entry)
        elif end == "bury":
            self.queue().mark_failed(entry, "no", dead=True)
        else:
            self.queue().release(entry)

    def open(self):
        if self.storage is None:
            self.storage = FileStorage(self.root, sizes=SIZES)
        return self.storage

    def queue(self, name="jobs"):
        return Queue(name, self.open(), str)

    def close(self):
        storage, self.storage = self.storage, None
        if storage is not None:
            storage.close()

    def attempt(self, what, call):
        self.say(f"? {what}")
        try:
            found = call()
        except (OutcomeUnknown, StorageFailed):
            self.say("unknown")
            self.close()
        except NotWritten:
            self.say("refused")
        except StorageError as error:
            # Opening it, or reading, was refused.
            if self.storage is not None and what.startswith(("enqueue", "complete", "bury", "release")):
                self.complain(error)
            self.say("refused")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is to be heard
            self.complain(error)
        else:
            self.say("!")
            return found

    def complain(self, error):
        self.say("unexpected " + "".join(traceback.format_exception(error)).replace("\n", " | "))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


class Traced:
    """A process that lives such a life under strace; ``said`` are its lines."""

    def __init__(self, root, place, inject=()):
        self.output = place / "strace"
        self.said = []
        start, self._start = os.pipe()
        self._lines, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                Life(
                    root, lambda line: os.write(write, f"{line}\n".encode()), lambda: os.read(start, 1)
                ).live()
            except BaseException:  # noqa: BLE001 - it must not get back into pytest
                os.write(write, f"unexpected {traceback.format_exc()!r}\n".encode())
            finally:
                os._exit(0)
        os.close(write)
        os.close(start)
        self._inject = inject

    def run(self):
        """Let it live, with its calls failing until it says so."""
        try:
            self._listen(until="born")
            with self._traced():
                self._go_on()
                self._listen(until="heal")
            self._go_on()
            self._listen()
        finally:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._lines)
            os.close(self._start)

    @contextmanager
    def _traced(self):
        options = [f"--trace={','.join(CALLS)}", *(f"--inject={each}" for each in self._inject)]
        command = ["strace", "-f", "-o", self.output, *options, "-p", str(self.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            line = strace.stderr.readline()
            if "attached" not in line:
                pytest.skip(f"strace cannot attach to a process here: {line.strip()}")
            try:
                yield
            finally:
                strace.send_signal(signal.SIGINT)

    def _go_on(self):
        os.write(self._start, b".")

    def _listen(self, until=None):
        text = ""
        while select.select([self._lines], [], [], SOON)[0]:
            more = os.read(self._lines, 1 << 16).decode()
            text += more
            self.said = [*self.said, *text.split("\n")[:-1]]
            text = text.split("\n")[-1]
            if not more or (until is not None and until in self.said):
                return
        pytest.fail(f"{self._inject}: it hangs after {self.said[-3:]}")

    def calls(self):
        """How often its first thread has made each call."""
        lines = self.output.read_text().splitlines()
        return Counter(line.split("(")[0].split()[1] for line in lines if line.startswith(f"{self.pid} "))

    def injected(self):
        """The calls that failed."""
        return [line for line in self.output.read_text().splitlines() if "(INJECTED)" in line]


def check(root, said, where):
    """What it was told is true."""
    complaints = [line for line in said if line.startswith("unexpected")]
    assert complaints == [], where
    allowed = {}
    for asked, told in pairwise(said):
        if not asked.startswith("? "):
            continue
        _, what, *ids = asked.split()
        for entry_id in ids:
            before = allowed.get(entry_id, {None})
            after = {{"enqueue": "live", "complete": None, "bury": "dead", "release": "live"}[what]}
            allowed[entry_id] = {"!": after, "refused": before, "unknown": before | after}[told]
    with FileStorage(root, sizes=SIZES) as storage:
        queue = Queue("jobs", storage, str)
        dead = EntryStatus.DEAD
        found = {entry.id: "dead" if entry.status is dead else "live" for entry in queue.entries()}
    wrong = {name: found.get(name) for name, states in allowed.items() if found.get(name) not in states}
    assert wrong == {}, where
    assert found.keys() <= allowed.keys() | {"held"}, where


def points(calls):
    """Which calls are to fail, and how: strace's words for it."""
    for call in CALLS:
        number = calls[call]
        for error in ERRORS:
            name = errno.errorcode[error]
            step = max(1, number // POINTS)
            for at in range(1, number + 1, step):
                yield f"{call}:error={name}:when={at}"
                # The interpreter tries again for ever what was interrupted for ever.
                if error != errno.EINTR:
                    yield f"{call}:error={name}:when={at}+"


@pytest.mark.parametrize("others", [False, True], ids=["alone", "among-others"])
@pytest.mark.parametrize("share", range(SHARES if DEEP else 1))
def test_every_system_call_may_fail(tmp_path, share, others):
    """Whatever system call fails: what the process was told is true, and it works once they succeed again."""
    todo = list(points(run(tmp_path, others=others).calls()))[share::SHARES]
    if not DEEP:
        todo = Random(others).sample(todo, SAMPLE)
    struck = 0
    for inject in todo:
        process = run(tmp_path, inject, others=others)
        struck += bool(process.injected())
    count("failed system calls", struck)


def run(tmp_path, inject=None, *, others=False):
    """One life, checked."""
    root = tmp_path / "storage"
    process = Traced(root, tmp_path, [] if inject is None else [inject])
    other = None
    if others:
        other = FileStorage(root, sizes=SIZES)
        queue = Queue("jobs", other, str)
        queue.enqueue("x" * 200, id="held", priority=9)
        assert queue.dequeue() is not None
    process.run()
    # A call of close that is made to fail is not made.
    if inject is None or not inject.startswith("close"):
        assert process.said[-1] == "left 0", (inject, process.said[-5:])
    if other is not None:
        other.close()
    check(root, process.said, inject)
    shutil.rmtree(root)
    return process
