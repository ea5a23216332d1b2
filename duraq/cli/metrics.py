"""metrics: what monitoring reads."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import click

from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.overview import inspecting
from duraq.cli.reports import report
from duraq.exposition import FORMATS, StorageCollector, render

SHORTEST = timedelta(seconds=1)


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option(
    "--textfile", type=click.Path(path_type=Path), help="Replace FILE, for node_exporter.", metavar="FILE"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="prometheus",
    help="Default: prometheus, which is what node_exporter reads.",
)
@click.option("--loop", type=DURATION, metavar="TIME", help="With --textfile: again and again, every TIME.")
@common
def metrics(queues: tuple[str, ...], textfile: Path | None, form: str, loop: timedelta | None) -> int:
    """The metrics of QUEUES, or of all, in Prometheus' text format.

    A queue that cannot be read is told of by duraq_queue_problem, and by the exit code. With --textfile
    nothing is printed: the text is put into FILE, at once and as a whole, and anybody may read it.
    """
    said = settings()
    if loop is not None:
        if textfile is None or loop < SHORTEST:
            raise CommandError(Code.USAGE, "--loop goes with --textfile, and takes 1s or more")
        while True:
            _once(said, queues, textfile, form)
            time.sleep(loop.total_seconds())
    return _once(said, queues, textfile, form)


def _once(said: Settings, queues: tuple[str, ...], textfile: Path | None, form: str) -> int:
    with inspecting(said) as inspector:
        for name in queues:
            inspector.check_queue(name)
        collector = StorageCollector(inspector, queues)
        try:
            text = render(collector, form)
        except ImportError as error:
            if error.name is None or not error.name.startswith("prometheus_client"):
                raise
            hint = "pip install 'duraq[metrics]'"
            raise CommandError(Code.USAGE, "prometheus-client is not installed", hint) from error
    if textfile is None:
        click.echo(text, nl=False)
    else:
        _replace(textfile, text)
    codes = [report(said, error) for error in collector.problems.values()]
    return max(codes, key=lambda code: code is Code.DAMAGED, default=Code.DONE)


def _replace(file: Path, text: bytes) -> None:
    # Not *.prom, which is all that node_exporter reads; and in the same directory, so that it can be renamed.
    # To replace /dev/stdout, or what it points to, is nobody's wish.
    if not file.name or (os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode)):
        raise CommandError(Code.USAGE, f"--textfile {str(file)!r} is no file")
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    # One of that name was left by somebody who was killed, or was planted.
    with suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o644), "wb") as written:
            # Whatever the umask is: node_exporter is another user.
            os.fchmod(written.fileno(), 0o644)
            written.write(text)
        # No sync: after a power cut the next run writes it again.
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
