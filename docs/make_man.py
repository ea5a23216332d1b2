"""Makes ``docs/duraq.1``, the manual page, of what the commands say of themselves: ``make man``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from duraq.cli import EXAMPLES, GROUPS, cli
from duraq.cli.helping import TOPICS
from duraq.cli.options import Settings

PAGE = Path(__file__).parent / "duraq.1"


def escape(text: str) -> str:
    """Text as roff has it."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    # Of a macro's arguments a quote is no part.
    text = text.replace('"', "\\(dq")
    return re.sub(r"^(\.)", r"\\&\1", text, flags=re.MULTILINE)


def paragraphs(text: str) -> Iterator[str]:
    """A docstring's paragraphs; those that click is to leave as they are stay so."""
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("\b"):
            yield ".nf\n" + escape(block.removeprefix("\b\n")) + "\n.fi"
        else:
            yield escape(" ".join(block.split()))


def shared() -> set[str]:
    """The options that every command has."""
    return {"--help", *(name for option in cli.params for name in option.opts)}


def command(path: str, found: click.Command, parent: click.Context) -> Iterator[str]:
    """One command, and those in it."""
    context = click.Context(found, info_name=path.rpartition(" ")[2], parent=parent)
    usage = " ".join(found.collect_usage_pieces(context))
    yield f".SS {escape(f'{path} {usage}')}"
    yield from (f".PP\n{text}" for text in paragraphs(found.help or ""))
    common = shared()
    for option in found.get_params(context):
        record = option.get_help_record(context)
        # Arguments stand in the usage.
        if record is not None and isinstance(option, click.Option) and not common & set(option.opts):
            yield f".TP\n.B {escape(record[0])}\n{escape(record[1])}"
    if isinstance(found, click.Group):
        for name in sorted(found.list_commands(context)):
            inner = found.get_command(context, name)
            assert inner is not None
            yield from command(f"{path} {name}", inner, context)


def page() -> str:
    """The whole page."""
    context = click.Context(cli, info_name="duraq", obj=Settings(), help_option_names=["-h", "--help"])
    lines = ['.TH DURAQ 1 "" "duraq" "User Commands"', ".SH NAME"]
    lines += ["duraq \\- a durable work queue for daemons on one host"]
    lines += [".SH SYNOPSIS", ".B duraq\n[OPTIONS] COMMAND [ARGS]..."]
    lines += [".SH DESCRIPTION", *(f".PP\n{text}" for text in paragraphs(cli.help or ""))]
    lines += [".SH EXAMPLES"]
    lines += [f".TP\n.B {escape(line)}\n{escape(says)}" for line, says in EXAMPLES]
    lines += [".SH OPTIONS", "They may stand before or after the command."]
    for option in cli.get_params(context):
        record = option.get_help_record(context)
        if record is not None and "--help" not in option.opts:
            lines.append(f".TP\n.B {escape(record[0])}\n{escape(record[1])}")
    lines.append(".TP\n.B \\-h, \\-\\-help\nShow help, of a command too, and exit.")
    for title, commands in GROUPS.items():
        lines.append(f".SH {title.upper()}")
        for name in commands:
            found = cli.get_command(context, name)
            assert found is not None
            lines += command(f"duraq {name}", found, context)
    lines += [".SH SEE ALSO"]
    lines += [f".TP\n.B {escape(f'duraq help {name}')}\n{escape(says)}" for name, says in TOPICS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}\n")
    PAGE.write_text(page(), "utf-8")
