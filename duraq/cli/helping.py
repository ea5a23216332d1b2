"""help and completion: what there is to know, and to be offered by a shell."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING

import click

from duraq.cli.completing import offered
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import common, settings
from duraq.cli.output import wrapped
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
_WIDEST = 100  # of a line that is easily read
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
        if said.at_terminal:
            text = "\n".join(_fitting(text.split("\n"), min(_WIDEST, shutil.get_terminal_size().columns)))
    else:
        text = _command_help(cli, words)
        if not words:
            text += "\n\nTopics:\n" + "\n".join(f"  {name:<12} {says}" for name, says in TOPICS.items())
    # Text it is, in a pipe as well.
    said.output = "table"
    with paged(said):
        click.echo(text)
    return Code.DONE


def _fitting(lines: list[str], width: int) -> Iterator[str]:
    """The lines of a topic on a screen of that width: tables in columns, prose broken at spaces."""
    for is_table, group in groupby(_joined(lines), _is_row):
        if is_table:
            yield from _columns([_cells(line) for line in group], width)
            continue
        for line in group:
            indent = "  " if line.startswith("- ") else ""
            if line.startswith("    "):
                yield line  # as it is
                continue
            first, *more = wrapped(line, width, width - len(indent))
            yield first
            yield from (indent + each for each in more)


def _joined(lines: list[str]) -> Iterator[str]:
    """Paragraphs and items as one line each, and code indented."""
    paragraph: list[str] = []
    is_code = False
    for line in [*lines, ""]:
        is_fence = line.startswith("```")
        if is_fence or is_code or not line or _is_row(line) or line.startswith(("- ", "#")):
            if paragraph:
                yield " ".join(paragraph)
            paragraph = []
        if is_fence:
            is_code = not is_code
        elif is_code:
            yield f"    {line}"
        elif not line or _is_row(line):
            yield line
        else:
            paragraph.append(line.strip())


def _is_row(line: str) -> bool:
    return line.startswith("|")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _columns(rows: list[list[str]], width: int) -> Iterator[str]:
    """A table; its last column goes on below."""
    rows = [row for row in rows if not all(set(cell) <= set("-: ") and cell for cell in row) and any(row)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    # What is too wide has a line of its own.
    widths = [min(each, max(8, width // 3)) for each in widths]
    indent = sum(widths) + 2 * len(widths)
    for row in rows:
        head = "  ".join(cell.ljust(each) for cell, each in zip(row, widths, strict=False))
        pieces = wrapped(row[-1], max(10, width - indent), max(10, width - indent))
        if len(head) + 2 > indent:
            yield from wrapped(head.rstrip(), width, width)
        else:
            yield f"{head}  {pieces.pop(0)}".rstrip()
        yield from (" " * indent + piece for piece in pieces if piece)


def _command_help(command: click.Command, words: tuple[str, ...]) -> str:
    settings_of = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    context = click.Context(command, info_name="duraq", **settings_of)  # type: ignore[arg-type] # a mapping
    for word in words:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            there = (*TOPICS, *(command.list_commands(context) if isinstance(command, click.Group) else ()))
            near = get_close_matches(word, there, 1)
            raise CommandError(
                Code.USAGE,
                f"there is no topic and no command {word!r}"
                + (f"; did you mean {near[0]!r}?" if near else ""),
                f"topics: {', '.join(TOPICS)}",
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
