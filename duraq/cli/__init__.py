"""The ``duraq`` command.

Commands are imported when they are called: ``duraq --help`` knows each by a line that stands here, and so
starts fast. stdout is data, stderr is talk; exit codes are those of ``duraq.cli.failing``.
"""

from __future__ import annotations

import importlib
import sys

import click

from duraq.cli.options import common
from duraq.cli.stage import run_safely

# name: (module, what help says)
COMMANDS = {
    "put": ("feed", "Add an entry, or one for each line of JSON from stdin."),
    "get": ("work", "Lease entries and print them with their tokens."),
    "ack": ("work", "Complete what was got."),
    "nack": ("work", "Say that what was got failed."),
    "extend": ("work", "Hold what was got for longer."),
    "run": ("run", "Work a queue with any program."),
    "stats": ("overview", "One line for each queue, those that need attention first."),
    "top": ("top", "The queues, live, in a few lines of the terminal."),
    "ls": ("look", "The queues, or the entries of one."),
    "show": ("look", "One entry: payload, attempts, life."),
    "peek": ("look", "The entries that are next; leases nothing."),
    "tail": ("look", "The newest records; -f goes on."),
    "errors": ("failures", "What broke: failed attempts, put together by what made them fail."),
    "leases": ("leases", "What is being worked: who holds it, and until when."),
    "workers": ("leases", "Who works here."),
    "check": ("check", "Whether all is well, for monitoring: 0 ok, 1 warning, 2 critical, 3 unknown."),
    "metrics": ("metrics", "Everything in numbers, for Prometheus."),
    "release": ("leases", "End a lease before its time."),
    "pause": ("feed", "Deliver nothing from a queue until it is resumed."),
    "resume": ("feed", "Deliver again."),
    "init": ("making", "Make a storage."),
    "create": ("making", "Make a queue, with nothing in it yet."),
    "compact": ("upkeep", "Free the disk space of what is over, now."),
    "verify": ("mend", "Read everything, and say what is not as it was written."),
    "repair": ("mend", "Set aside what is damaged, and make the rest usable."),
    "backup": ("backups", "Copy the storage, while it is worked."),
    "restore": ("backups", "Bring a backup back."),
    "dlq": ("dead_letters", "Dead letters: ls, show, errors, retry, rm, purge, acts."),
    "move": ("dead_letters", "Put dead letters into another queue."),
    "undo": ("dead_letters", "Bring back dead letters that were removed."),
    "dash": ("duraq_dashboard.cli", "The screen over all this, live; needs the extra dashboard."),
    "demo": ("demo", "A real job on real files, with a worker killed on the way."),
}

EXAMPLES = """\b
Examples:
  duraq put emails '{"to": "ann@example.com"}'
  duraq run emails -j 4 -- ./send-email
  duraq stats
"""


class _LazyGroup(click.Group):
    """Imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = COMMANDS[cmd_name][0]
        module = importlib.import_module(name if "." in name else f"duraq.cli.{name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - only after a slip of the pen

            near = get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    epilog=EXAMPLES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="duraq", prog_name="duraq")
@common
def cli() -> None:
    """A durable work queue for daemons on one host: no server, only files.

    The storage is the directory given by --root, by $DURAQ_ROOT, ./.duraq if it is there, or
    ~/.local/state/duraq.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a TextIOWrapper
    sys.exit(run_safely(cli, sys.argv[1:]))
