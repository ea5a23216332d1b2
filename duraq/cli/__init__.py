"""The ``duraq`` command.

Commands are imported when they are called: ``duraq --help`` knows each by a line that stands here, and so
starts fast. stdout is data, stderr is talk; exit codes are those of ``duraq.cli.failing``.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import click

from duraq.actions import ACTIONS
from duraq.cli.options import common
from duraq.cli.stage import run_safely

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name: (module, what help says)
GROUPS = {
    "Look": {
        "stats": ("overview", "One line for each queue, those that need attention first."),
        "top": ("top", "The queues, live, in a few lines of the terminal."),
        "dash": ("duraq_dashboard.cli", "The screen over all this, live; needs the extra dashboard."),
        "ls": ("look", "The queues, or the entries of one."),
        "peek": ("look", "The entries that are next; leases nothing."),
        "show": ("look", "One entry: payload, attempts, life."),
        "tail": ("look", "The newest records; -f goes on."),
        "errors": ("failures", "What broke: failed attempts, grouped by what made them fail."),
        "leases": ("leases", "What is being worked: who holds it, and until when."),
        "workers": ("leases", "Who works here."),
    },
    "Feed and work": {
        "put": ("feed", "Add an entry, or one for each line of JSON from stdin."),
        "get": ("work", "Lease entries and print them with their tokens."),
        "ack": ("work", "Complete what was got."),
        "nack": ("work", "Say that what was got failed."),
        "extend": ("work", "Hold what was got for longer."),
        "run": ("run", "Work a queue with any program."),
    },
    "Dead letters": {
        "dlq": ("dead_letters", "ls, show, errors, retry, rm, export, import, purge, acts."),
        "move": ("dead_letters", ACTIONS["move"].summary),
        "undo": ("dead_letters", ACTIONS["undo"].summary),
    },
    "Control": {
        "pause": ("feed", ACTIONS["pause"].summary),
        "resume": ("feed", ACTIONS["resume"].summary),
        "release": ("leases", ACTIONS["release"].summary),
    },
    "Care": {
        "init": ("making", "Make a storage."),
        "create": ("making", "Make a queue, with nothing in it yet."),
        "check": ("check", "Whether all is well, for monitoring: 0 ok, 1 warning, 2 critical, 3 unknown."),
        "metrics": ("metrics", "Everything in numbers, for Prometheus."),
        "verify": ("mend", "Read everything, and say what is not as it was written."),
        "repair": ("mend", "Set aside what is damaged, and make the rest usable."),
        "compact": ("upkeep", ACTIONS["compact"].summary),
        "backup": ("backups", "Copy the storage, while it is worked."),
        "restore": ("backups", "Bring a backup back."),
        "migrate": ("migrating", "Move all that is in a storage to another one, be it a database."),
        "config": ("configuring", "Settings: get, set, path."),
        "completion": ("helping", "What makes a shell complete all this: bash, zsh or fish."),
        "help": ("helping", "A command, or a topic: filters, exit-codes, files, formats, systemd."),
        "demo": ("demo", "A real job on real files, with a worker killed on the way."),
    },
}
COMMANDS = {name: where for group in GROUPS.values() for name, where in group.items()}

EXAMPLES = (
    ('duraq put emails \'{"to": "ann@example.com"}\'', "add an entry"),
    ("duraq run emails -j 4 -- ./send-email", "work a queue with any program"),
    ("duraq stats", "how the queues are"),
)


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

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_usage(ctx, formatter)
        with formatter.section("Examples"):
            formatter.write_dl(EXAMPLES, col_max=60)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, commands in GROUPS.items():
            with formatter.section(title):
                # All groups in the same columns.
                width = max(map(len, COMMANDS))
                rows = [(name.ljust(width), summary) for name, (_, summary) in commands.items()]
                formatter.write_dl(rows)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # What is to be done comes before how.
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - when somebody presses Tab

        # Not click's own way, which imports every command that is offered.
        found = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - only after a slip of the pen

            near = ["dlq rm"] if args[0] == "rm" else get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    epilog="More: duraq COMMAND --help, duraq help TOPIC.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="duraq", prog_name="duraq")
@common
def cli() -> None:
    """A durable work queue for daemons on one host: no server, only files.

    The storage is the directory given by --root, by $DURAQ_ROOT, ./.duraq if it is there, by `duraq config`,
    or ~/.local/state/duraq. Instead of a directory a URL may name a database: sqlite:PATH, lmdb:PATH,
    postgresql://...
    """


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a TextIOWrapper
    sys.exit(run_safely(cli, sys.argv[1:]))
