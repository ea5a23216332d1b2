"""help and completion: what there is to know, and to be offered by a shell."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

import click

from duraq.cli.completing import offered
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import common, settings
from duraq.cli.pager import paged

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TOPICS = {
    "filters": "Which entries are meant: --where.",
    "exit-codes": "What a command's exit status says.",
    "files": "What lies where, and what the environment says.",
    "formats": "Tables, JSON and the rest; how times are given.",
    "systemd": "A worker as a service, metrics from a timer.",
}
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]+\)")


def topic_text(name: str) -> str:
    """What there is to know of it, as it is written."""
    return (files("duraq.cli") / "topics" / f"{name}.md").read_text("utf-8")


def _offered(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from duraq.cli import COMMANDS  # noqa: PLC0415 - it imports this module

    return offered((*TOPICS, *COMMANDS), incomplete)


@click.command("help")
@click.argument("words", metavar="[TOPIC|COMMAND]", nargs=-1, shell_complete=_offered)
@common
def help_(words: tuple[str, ...]) -> int:
    """All there is to know of a TOPIC, or of a COMMAND; without one, what there is.

    Topics: filters, exit-codes, files, formats, systemd.
    """
    from duraq.cli import cli  # noqa: PLC0415 - it imports this module

    said = settings()
    if len(words) == 1 and words[0] in TOPICS:
        text = _LINK.sub(r"\1", topic_text(words[0])).rstrip()
    else:
        text = _command_help(cli, words)
        if not words:
            text += "\n\nTopics:\n" + "\n".join(f"  {name:<12} {says}" for name, says in TOPICS.items())
    # Text it is, in a pipe as well.
    said.output = "table"
    with paged(said):
        click.echo(text)
    return Code.DONE


def _command_help(command: click.Command, words: tuple[str, ...]) -> str:
    settings_of = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    context = click.Context(command, info_name="duraq", **settings_of)  # type: ignore[arg-type] # a mapping
    for word in words:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            raise CommandError(
                Code.USAGE, f"there is no topic and no command {word!r}", f"topics: {', '.join(TOPICS)}"
            )
        command = found
        context = click.Context(command, info_name=word, parent=context)
    return command.get_help(context)


help = help_  # noqa: A001 - as it is called


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, queues, states and fields of duraq.

    For bash: duraq completion bash > ~/.local/share/bash-completion/completions/duraq
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - for this only

    from duraq.cli import cli  # noqa: PLC0415 - it imports this module

    kind = get_completion_class(shell)
    assert kind is not None
    sys.stdout.write(kind(cli, {}, "duraq", "_DURAQ_COMPLETE").source())
