"""config: what is settled once and for all commands, and for the dashboard."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from duraq import config as settled
from duraq.cli.completing import offered
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import common, settings
from duraq.cli.output import show_rows
from duraq.safe_text import safe_text, without_password
from duraq.times import span

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Name(click.ParamType[str]):
    """The name of a setting."""

    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in settled.NAMES:
            self.fail(settled.unknown(value), param, ctx)
        return str(value)

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return offered(settled.NAMES, incomplete)


_NAME = _Name()


@click.group(no_args_is_help=True)
@common
def config() -> None:
    """Settings: the storage, colours, how times look, and from when on a queue needs attention.

    They are in ~/.config/duraq/config.toml, or in $XDG_CONFIG_HOME, and are defaults: what is said on the
    command line or in the environment comes before them.
    """


@config.command("get")
@click.argument("name", type=_NAME, required=False)
@common
def get(name: str | None) -> None:
    """Print the value of NAME or, without it, every setting, and which of them stand in the file."""
    said = settings()
    found = said.config
    if name is not None and said.output is None:
        click.echo(_text(found.values[name]))
        return
    rows = [
        {"name": each, "value": _shown(value), "from": "file" if each in found.given else "default"}
        for each, value in found.values.items()
        if name in {None, each}
    ]
    show_rows(said, "duraq.config/1", ("name", "value", "from"), rows, name="name")


def _text(value: Any) -> str:
    if isinstance(value, timedelta):
        return span(value)
    return "" if value is None else safe_text(_shown(value))


def _shown(value: Any) -> Any:
    return without_password(value) if isinstance(value, str) else value


@config.command("set")
@click.argument("name", type=_NAME)
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Take it out of the file: the default holds again.")
@common
def set_(name: str, value: str | None, unset: bool) -> None:
    """Settle that NAME is VALUE. Comments and whatever else is in the file stay."""
    said = settings()
    if unset is (value is not None):
        raise CommandError(Code.USAGE, "say VALUE, or --unset")
    path = settled.default_path()
    before = path.read_text("utf-8") if path.exists() else ""
    after = settled.changed(before, name, value)
    # What could not be read again is not written.
    found = settled.parse(after, path)
    settled.save(path, after)
    said.say(f"{name} is {_text(found.values[name]) or 'not set'}")


@config.command("path")
@common
def path() -> None:
    """Print where the file is, or would be."""
    click.echo(safe_text(settled.default_path()))
