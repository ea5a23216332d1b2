"""demo: a real job on real files, a worker killed on the way, and a straight loop to compare with.

Every file below a directory becomes an entry. So do a few that cannot be worked: they are tried again, and
end among the dead letters. ``duraq.cli.demo_job`` is the job itself; what stands here sets it going, kills
one of its workers, and looks at what came of it.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import click

from duraq import DeadLetterQueue, EntryStatus, Queue
from duraq.cli.demo_job import FILES, SourceFile, measure, open_storage, queues, work
from duraq.cli.demo_report import Kill, Outcome, Report, Stretch, as_text, compare, group_by_error
from duraq.cli.failing import Code, CommandError
from duraq.cli.files_only import refuse_database
from duraq.cli.options import Settings, common, settings
from duraq.cli.stage import run_safely
from duraq.inspector import Inspector
from duraq.journal.filesystem import RealFileSystem
from duraq.safe_text import ascii_json, safe_text
from duraq.views import RecordView

BATCH = 500
TIME_TO_READ = 3.0  # seconds before the dashboard covers what was printed
LOOK_EVERY = 0.05  # seconds between two looks at how far the workers are
# What the demo keeps in the storage for itself. By its name it is no queue, so DuraQ leaves it alone.
HOME = ".demo"
EVERY_RECORD = 1 << 30
PR_SET_PDEATHSIG = 1  # prctl(2)


class Input(NamedTuple):
    """What is to be measured, in order; ``arriving`` is one of the files, and not whole yet."""

    files: Sequence[SourceFile]
    arriving: SourceFile


class Killed(NamedTuple):
    """A worker, and when it was killed, in seconds since 1970."""

    worker: str
    at: float


@click.command()
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--storage", type=click.Path(path_type=Path), help="Default: duraq-demo. It is kept.")
@click.option("--workers", type=click.IntRange(1), default=max(3, os.cpu_count() or 1), help="Processes.")
@click.option("--dash", is_flag=True, help="Then open the dashboard over it.")
@common
def demo(directory: Path | None, storage: Path | None, workers: int, *, dash: bool) -> int:
    """Measure every file below DIRECTORY (default: Python's standard library) through a queue.

    Worker processes count lines and take the SHA-256. One of them is killed midway. Then a straight loop does
    the same, and the two are compared; exit status 1 says that they differ.
    """
    said = settings()
    begin = time.monotonic()
    top = (directory or Path(sysconfig.get_path("stdlib"))).resolve()
    if storage is None and said.root:
        refuse_database("demo")
    storage = storage or Path(said.root or "duraq-demo")
    if top.is_relative_to(storage.resolve()):
        raise CommandError(Code.USAGE, f"{top} is in the storage itself", "name another --storage")
    found = _files_below(top, storage.resolve())
    if not found:
        raise CommandError(Code.USAGE, f"there are no files below {top}")
    said.say(f"{len(found):,} files below {safe_text(top)}")
    with _fresh(storage):
        run = _Run(said, storage, workers, _input(found, storage / HOME))
        report = run.report(str(top), begin)
    if said.output in {"json", "jsonl"}:
        click.echo(ascii_json(report.as_json()))
    else:
        click.echo("\n".join(as_text(report)))
        if dash:
            _open_dashboard(said, storage)
    return Code.DONE if report.comparison.holds else Code.UNEXPECTED


def _open_dashboard(said: Settings, storage: Path) -> None:
    """The dashboard over what the demo has left; in a pipe, its picture."""
    said.root = str(storage)
    again = f"{_program()} -C {shlex.quote(str(storage))} dash"
    try:
        command = importlib.import_module("duraq_dashboard.cli").dash
        if sys.stdout.isatty():
            click.echo(
                f"\nThe dashboard opens over {safe_text(storage)}; q leaves it. Later: {safe_text(again)}"
            )
            time.sleep(TIME_TO_READ)
        else:
            click.echo(f"\nThe dashboard over it, {safe_text(again)}, begins with:\n")
        click.get_current_context().invoke(command)
    except CommandError as error:
        # The demo itself needs no screen.
        said.say(f"no dashboard: {error}" + (f" ({error.hint})" if error.hint else ""))


# -- before --------------------------------------------------------------------------------------------


@contextmanager
def _fresh(path: Path) -> Iterator[None]:
    """A new storage. One of an earlier demo is replaced, unless that demo still runs; nothing else is."""
    if (path / HOME / "lock").exists():
        with _locked(path):
            shutil.rmtree(path)
    elif path.exists() and any(path.iterdir()):
        raise CommandError(
            Code.USAGE, f"{path} is not empty, and no earlier demo's", "name another --storage"
        )
    open_storage(path).close()
    with _locked(path):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # With the care of a storage: there may be links in a directory such as /tmp/duraq-demo.
    fs = RealFileSystem()
    with ExitStack() as opened:
        root = fs.open_root(str(path))
        opened.callback(fs.close, root)
        home = fs.open_dir(root, HOME, create=True)
        opened.callback(fs.close, home)
        lock = fs.open_file(home, "lock", create=True)
        opened.callback(fs.close, lock)
        # The workers inherit it, so it is free only when the last of them is gone.
        if not fs.try_lock(lock):
            raise CommandError(Code.BUSY, f"a demo is running in {path}", "name another --storage")
        yield


def _files_below(top: Path, storage: Path) -> list[SourceFile]:
    """Every regular file, by name; not what links point at, and nothing of the demo's own."""
    found: list[Path] = []
    for where, directories, names in os.walk(top):
        directories[:] = sorted(name for name in directories if Path(where, name) != storage)
        found += [Path(where, name) for name in sorted(names)]
    return [
        SourceFile(str(path))
        for path in found
        if path.is_file() and not path.is_symlink() and _is_utf8(str(path))
    ]


def _is_utf8(name: str) -> bool:
    """Whether a file's name can be in a payload, which is always UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _input(found: Sequence[SourceFile], home: Path) -> Input:
    """What was found, and among it what cannot be worked, and a file that is still arriving: a pipe."""
    quarter, half = len(found) // 4, len(found) // 2
    arriving = SourceFile(str(home.absolute() / "arriving.txt"), text=True)
    os.mkfifo(arriving.path)
    files = [*found[:quarter], *_unworkable(home), *found[quarter:half], arriving, *found[half:]]
    return Input(files, arriving)


def _unworkable(home: Path) -> list[SourceFile]:
    (home / "empty.txt").touch()
    (home / "latin-1.txt").write_bytes("naïve café\n".encode("latin-1"))
    (home / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n")
    (home / "directory.txt").mkdir()
    (home / "deleted.txt").unlink(missing_ok=True)
    names = ("empty.txt", "latin-1.txt", "image.txt", "directory.txt", "deleted.txt")
    return [SourceFile(str(home.absolute() / name), text=True) for name in names]


# -- the run -------------------------------------------------------------------------------------------


class _Run:
    """From the first entry to the comparison."""

    def __init__(self, said: Settings, storage: Path, workers: int, given: Input) -> None:
        self._said = said
        self._storage = storage
        self._log = storage / HOME / "workers.log"
        self._workers = workers
        self._given = given

    def report(self, directory: str, begin: float) -> Report:
        """Do it all, and say what came of it. No worker is left when this returns or raises."""
        paths, enqueue = self._enqueue()
        arriving = next(name for name, path in paths.items() if path == self._given.arriving.path)
        killed = self._work(arriving)
        expected, loop = self._straight_loop()
        with open_storage(self._storage) as storage:
            dead = DeadLetterQueue[SourceFile](FILES, SourceFile, storage).list()
            results = [entry.data for entry in queues(storage)[1].entries(EntryStatus.READY)]
        with Inspector(self._storage) as inspector:
            records = inspector.records([FILES], last=EVERY_RECORD)
        found: list[tuple[str, Outcome]] = [(result.path, result) for result in results]
        for entry in dead:
            error = entry.errors[-1].error
            found.append((entry.data.path, f"{error.type}: {error.message}"))
        completions = Counter(paths[str(record.id)] for record in records if record.op == "complete")
        return Report(
            directory=directory,
            storage=str(self._storage),
            workers=self._workers,
            took_part=len({record.fields["worker"] for record in records if record.op == "lease"}),
            comparison=compare(expected, found, completions),
            enqueue=enqueue,
            work=_stretch(records),
            loop=loop,
            kill=_kill(arriving, records, killed),
            dead_letters=group_by_error(dead),
            seconds=time.monotonic() - begin,
            look=_look(self._storage, arriving),
        )

    def _enqueue(self) -> tuple[dict[str, str], Stretch]:
        """An entry for every file; returns the paths by the entries' ids."""
        files = self._given.files
        begin = time.monotonic()
        ids: list[str] = []
        with open_storage(self._storage) as storage:
            queue, _ = queues(storage)
            for at in range(0, len(files), BATCH):
                ids += queue.enqueue_many(files[at : at + BATCH])
        enqueue = Stretch(len(ids), time.monotonic() - begin)
        return dict(zip(ids, (file.path for file in files), strict=True)), enqueue

    def _work(self, arriving: str) -> Killed:
        """Let the workers work until nothing is left, and kill one."""
        killed = None
        with self._pool() as pool, open_storage(self._storage) as storage, self._progress() as show:
            queue, _ = queues(storage)
            while left := queue.counts().length:
                show(len(self._given.files) - left)
                if killed is None and queue.get(arriving).status is EntryStatus.LEASED:
                    killed = self._kill_the_holder(queue, arriving)
                if not pool.is_alive():
                    raise CommandError(Code.UNEXPECTED, "the workers have ended", f"see {self._log}")
                time.sleep(LOOK_EVERY)
            show(len(self._given.files))
        if killed is None:
            raise CommandError(Code.UNEXPECTED, "the workers died of themselves", f"see {self._log}")
        return killed

    @contextmanager
    def _pool(self) -> Iterator[BaseProcess]:
        # A process that opens no storage and starts no thread: the workers, and their successors, are forked
        # from it. If the demo is killed, the kernel tells it to stop.
        pool = multiprocessing.get_context("fork").Process(
            target=_work, args=(self._storage, self._workers, self._log)
        )
        pool.start()
        try:
            yield pool
        finally:
            pool.terminate()
            pool.join()

    def _kill_the_holder(self, queue: Queue[SourceFile], arriving: str) -> Killed:
        """Kill the worker that holds this entry."""
        pipe = Path(self._given.arriving.path)
        whole = pipe.with_name("whole.txt")
        whole.write_text("This file arrived while a worker was waiting for it.\n", "utf-8")
        # To open it takes a reader: the worker is in the midst of its work, and waits for what we write.
        with pipe.open("wb"):
            worker = queue.get(arriving).worker or ""
            # Whoever gets the entry next finds a file like any other.
            whole.replace(pipe)
            killed_at = time.time()
            os.kill(int(worker.partition("-")[0]), signal.SIGKILL)
        return Killed(worker, killed_at)

    def _straight_loop(self) -> tuple[dict[str, Outcome], Stretch]:
        """The same without a queue."""
        begin = time.monotonic()
        expected: dict[str, Outcome] = {}
        for file in self._given.files:
            try:
                expected[file.path] = measure(file)
            except (OSError, ValueError) as error:
                expected[file.path] = f"{type(error).__name__}: {error}"
        return expected, Stretch(len(expected), time.monotonic() - begin)

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal; elsewhere a line every second."""
        total = len(self._given.files)
        if self._said.quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            with click.progressbar(length=total, label="working", file=sys.stderr) as bar:
                yield lambda done: bar.update(done - bar.pos)
        else:
            next_line = time.monotonic() + 1

            def show(done: int) -> None:
                nonlocal next_line
                if time.monotonic() >= next_line or done == total:
                    self._said.say(f"{done:,} of {total:,} entries are done")
                    next_line += 1

            yield show


def _work(storage: Path, workers: int, log: Path) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    work(storage, workers, log)


# -- after ---------------------------------------------------------------------------------------------


def _stretch(records: Sequence[RecordView]) -> Stretch:
    """From the first lease to the last end of an entry."""
    leased = [record.at for record in records if record.op == "lease"]
    ended = [record.at for record in records if record.op in {"complete", "dead"}]
    return Stretch(len(ended), (ended[-1] - leased[0]).total_seconds())


def _kill(arriving: str, records: Sequence[RecordView], killed: Killed) -> Kill:
    """What the records say of it: a lease, its end when the worker died, the next lease."""
    life = [record for record in records if record.id == arriving and record.op in {"lease", "fail"}]
    first = next(number for number, record in enumerate(life) if record.fields.get("worker") == killed.worker)
    _, died, again = life[first : first + 3]
    return Kill(
        id=arriving,
        worker=killed.worker,
        cause=died.fields["cause"],
        next_worker=again.fields["worker"],
        attempt=again.fields["attempt"],
        back_after=again.at.timestamp() - killed.at,
    )


def _look(storage: Path, entry_id: str) -> list[tuple[str, str]]:
    """Commands to paste, each with what it shows."""
    files = shlex.quote(str(storage / FILES / "segments")) + "/*.jsonl"
    every = shlex.quote(str(storage)) + "/*/segments/*.jsonl"
    duraq = f"{_program()} -C {shlex.quote(str(storage))}"
    return [
        (f"tail -f {files}", "each record as it is written"),
        (f"grep {entry_id} {every}", "the life of the entry whose worker was killed, and its result"),
        (f"jq -r 'select(.op == \"dead\") | .error.message' {files}", "why the others died"),
        (f"{duraq} stats", "how much is in each queue"),
        (f"{duraq} dlq ls {FILES}", "the dead letters"),
    ]


def _program() -> str:
    """How to call duraq from here."""
    if shutil.which("duraq"):
        return "duraq"
    if Path(sys.argv[0]).name == "duraq":
        return shlex.quote(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m duraq"


if __name__ == "__main__":
    sys.exit(run_safely(demo, sys.argv[1:]))
