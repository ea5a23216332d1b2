"""check: what monitoring asks. Its exit codes are those of monitoring plugins, and of no other command.

0 OK   1 WARNING (degraded)   2 CRITICAL (unhealthy)   3 UNKNOWN: the check itself could not be made
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import click

from duraq.attention import DEFAULT
from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import DURATION, FORMATS, F, Option, common, settings
from duraq.cli.output import Row, show_one, show_rows
from duraq.cli.overview import inspecting
from duraq.cli.reports import report
from duraq.errors import DuraqError, StorageDamaged
from duraq.health import (
    HealthCheckAggregator,
    HealthResult,
    HealthStatus,
    MetricsHealthCheck,
    QueueHealthCheck,
    StorageHealthCheck,
    worst,
)
from duraq.inspector import Inspector
from duraq.safe_text import safe_text
from duraq.times import span

COLUMNS = ("status", "component", "message")
UNKNOWN = Code.NOTHING  # the same number; it means something else here
# What plugins call them, their exit code, and the role that chooses a colour.
_PLUGIN = {
    HealthStatus.HEALTHY: ("OK", 0, "plain"),
    HealthStatus.DEGRADED: ("WARNING", 1, "warn"),
    HealthStatus.UNHEALTHY: ("CRITICAL", 2, "crit"),
}
_UNITS = {"seconds": "s", "bytes": "B"}
# What a plugin prints is cut by monitoring systems at a few thousand characters.
_LINE, _MORE_LINES = 400, 40


class Size(click.ParamType[float]):
    """10%, 500M, 2G, 1000000: a share, or bytes."""

    name = "size"
    _FORM = re.compile(r"(\d+(?:\.\d+)?)(%|[KMGT](?:i?B)?|B)?")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float | int):
            return value
        found = self._FORM.fullmatch(value)
        number, unit = (float(found[1]), found[2] or "") if found else (0.0, "?")
        if unit == "%" and number <= 100:
            return number / 100
        if unit in {"%", "?"}:
            self.fail(f"{value!r} is no size such as 10%, 500M or 2G", param, ctx)
        # Of a whole number, which is one of bytes, 0 and 1 would be shares; nobody needs so few.
        return int(number * 1024 ** (" KMGT".find(unit[:1]) if unit not in {"", "B"} else 0))


class _Plugin(click.Command):
    """A command that ends with 3 if it cannot do its work, wrong usage included."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise click.exceptions.Exit(_unknown(error)) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DuraqError, OSError, CommandError, click.ClickException) as error:
            if isinstance(error, BrokenPipeError):
                raise
            return _unknown(error)


def _unknown(error: Exception) -> int:
    said = settings()
    if not said.is_json:
        # Before anything else, and on stdout: of a plugin most systems show that line only.
        click.echo(f"DURAQ UNKNOWN - {_plugin_text(error)}")
    report(said, CommandError(UNKNOWN, str(error), getattr(error, "hint", None)))
    return UNKNOWN


def _threshold(name: str, default: Any, says: str, **more: Any) -> Callable[[F], F]:
    kind = {"type": DURATION} if isinstance(default, timedelta) else {}
    return click.option(name, default=default, show_default=default is not None, help=says, **kind | more)


# Options that can be settled in the configuration, by the names of their thresholds.
_SETTLED: dict[str, str] = {}


def _limit(name: str, field: str, says: str, **more: Any) -> Callable[[F], F]:
    """One of these; asked for only when it is needed."""
    default = getattr(DEFAULT, field)
    shown = False if default is None else span(default) if isinstance(default, timedelta) else str(default)
    kind = {"type": DURATION} if isinstance(default, timedelta) else {}
    _SETTLED[name.removeprefix("--").replace("-", "_")] = field
    return click.option(name, show_default=shown, help=says, **kind | more)


@click.command(cls=_Plugin)
@click.argument("queues", type=QUEUE, nargs=-1)
@_limit("--max-error-rate", "max_error_rate", "Attempts that fail: 0 to 1.", type=click.FloatRange(0, 1))
@_limit("--error-rate-window", "error_rate_window", "Within how long.")
@_limit("--min-attempts", "min_attempts", "If so many ended.", type=click.IntRange(0))
@_limit("--max-oldest", "max_oldest_ready", "How long an entry may be ready.")
@_limit("--no-consumer-after", "no_consumer_after", "The same, while nobody takes any.")
@_limit("--stuck-after", "stuck_after", "How long a lease that is over may stay.")
@_limit("--max-dead", "max_dead", "Dead letters, in all.", type=click.IntRange(0))
@_limit("--max-dead-lately", "max_dead_lately", "Entries that died within an hour.", type=click.IntRange(0))
@_threshold("--min-free", "10%", "Space that must be left: 10%, 2G.", type=Size())
@_threshold("--max-lock-wait", timedelta(seconds=2), "How long to wait for the storage's lock.")
@_threshold("--max-sync", timedelta(seconds=1), "How long a write and its sync may take.")
@click.option("--no-write", is_flag=True, help="Write nothing, and so do not try out the disk.")
@Option(
    "-o",
    "--output",
    type=click.Choice((*FORMATS, "nagios")),
    help="Default: table; in a pipe nagios, a status line with perfdata, as plugins print it.",
)
@partial(common, without="--output")
def check(queues: tuple[str, ...], **limits: Any) -> int:
    """Whether the storage, its metrics and QUEUES, or all of them, are well.

    Ends with 0 if so, 1 if somebody should look (degraded), 2 if something does not work (unhealthy), and 3
    if that could not be found out. It opens nothing, waits for nobody who is stopped, and writes nothing but
    a file of its own for a moment; in a database nothing at all, and its lock is not tried.
    """
    said = settings()
    for name, field in _SETTLED.items():
        if limits[name] is None:
            limits[name] = getattr(said.config.thresholds, field)
    kind, where = said.place()
    path = where if kind == "file" else None
    with ExitStack() as opened:
        source: Inspector | str
        try:
            source = inspector = opened.enter_context(inspecting(said))
            for name in queues:
                inspector.check_queue(name)
        except StorageDamaged:
            # The journal. The checks find that too, and say it.
            if path is None:
                raise
            source = path
        rows = [row for result in _checks(path, source, queues, limits) for row in _rows(result)]
    overall = worst(HealthStatus(row["health"]) for row in rows)
    _show(overall, rows)
    return _PLUGIN[overall][1]


def _checks(
    path: str | None, source: Inspector | str, queues: tuple[str, ...], limits: dict[str, Any]
) -> list[HealthResult]:
    """``path``: the directory of the storage, if it is not a database."""
    about_storage = {name: limits.pop(name) for name in ("min_free", "max_lock_wait", "max_sync")}
    write = not limits.pop("no_write")
    limits["max_oldest_ready"] = limits.pop("max_oldest")
    about = source if path is None else path
    checks = HealthCheckAggregator(
        [
            StorageHealthCheck(about, write=write, **about_storage),
            MetricsHealthCheck(source),
            QueueHealthCheck(source, queues or None, **limits),
        ]
    )
    return list(checks.check_all().values())


def _rows(result: HealthResult) -> Iterator[Row]:
    """The result as a row; that of several queues as one for each."""
    each = result.details.get("queues") if result.component == "queues" else None
    if each is None:
        yield _row(result.component, result.status, result.message, result.details)
        return
    for name, about in each.items():
        details = {key: value for key, value in about.items() if key not in {"status", "message"}}
        yield _row(f"queue {name}", HealthStatus(about["status"]), about["message"], details)


def _row(component: str, health: HealthStatus, message: str, details: Mapping[str, Any]) -> Row:
    status, _, role = _PLUGIN[health]
    return {
        "component": component,
        "status": status,
        "health": health.value,
        "message": message,
        "details": details,
        "role": role,
    }


def _show(overall: HealthStatus, rows: list[Row]) -> None:
    said = settings()
    word = _PLUGIN[overall][0]
    if said.style == "json":
        show_one(said, "duraq.check/1", {"status": word, "health": overall.value, "rows": rows}, COLUMNS)
    elif said.output == "nagios" or (said.style == "tsv" and said.output is said.fields is None):
        click.echo("\n".join(_plugin(word, rows)))
    else:
        show_rows(
            said,
            "duraq.check/1",
            COLUMNS,
            rows,
            more=("health", "details"),
            name="component",
            whole="message",
        )


# -- as plugins print it -----------------------------------------------------------------------------------


def _plugin(word: str, rows: list[Row]) -> list[str]:
    """The status line with its perfdata, then a line for each component."""
    wrong = [f"{row['component']}: {row['message']}" for row in rows if row["status"] == word]
    text = "; ".join(wrong) if word != "OK" else f"all is well: {', '.join(row['component'] for row in rows)}"
    numbers = " ".join(number for row in rows for number in _numbers(row))
    first = f"DURAQ {word} - {_plugin_text(text)} | {numbers}".rstrip(" |")
    # Those that are not well first, for what is too long is cut.
    ordered = sorted(rows, key=lambda row: row["status"] == "OK")[:_MORE_LINES]
    return [
        first,
        *(
            f"{row['status']} {_plugin_text(row['component'])}: {_plugin_text(row['message'])}"
            for row in ordered
        ),
    ]


def _plugin_text(text: object) -> str:
    # What follows a | is taken for numbers.
    return safe_text(text, _LINE).replace("|", "\\x7c")


def _numbers(row: Row) -> Iterator[str]:
    for key, value in row["details"].items():
        if isinstance(value, int | float):
            name, _, unit = key.rpartition("_")
            label = f"{row['component']} {name if unit in _UNITS else key}".removeprefix("queue ")
            # Plugins' numbers have no exponent.
            number = value if isinstance(value, int) else f"{value:.6f}"
            yield f"'{safe_text(label)}'={number}{_UNITS.get(unit, '')}"
