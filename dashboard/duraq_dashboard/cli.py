"""``duraq-dashboard`` and ``duraq dash``: the options, and the app begun."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from duraq.cli.descriptors import allow_many
from duraq.cli.failing import Code, CommandError
from duraq.cli.files_only import files_only
from duraq.cli.options import Settings, common, settings
from duraq_dashboard.keymap import read_keymap
from duraq_dashboard.logs import to_file
from duraq_dashboard.memory import for_good, give_back
from duraq_dashboard.options import THEMES, Options
from duraq_dashboard.remembered import Remembered

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard

# Over ssh what is repainted has to travel, and the palette is that of the terminal at the other end.
REMOTE_FPS, LOCAL_FPS = 2.0, 10.0
FULL = (120, 36)  # columns and lines of a picture for a pipe


@click.command()
@click.argument("start", metavar="[QUEUE|ID]", required=False)
@click.option("--dlq", is_flag=True, help="Begin with the dead letters (of QUEUE).")
@click.option("--read-only", is_flag=True, help="Offer nothing that changes anything.")
@click.option("--theme", type=click.Choice(THEMES), help="Default: duraq-dark; over ssh ansi-dark.")
@click.option(
    "--fps", type=click.FloatRange(0.1, 60), help="Draw at most so often a second.  [default: 10; over ssh 2]"
)
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal, to mark and copy text.")
@click.option(
    "--serve",
    metavar="[HOST:PORT]",
    is_flag=False,
    flag_value="127.0.0.1:8000",
    help="To a browser on this host, and read-only; needs the extra web.  [default: 127.0.0.1:8000]",
)
@click.option("--served", is_flag=True, hidden=True)  # what --serve begins
@common
@files_only("dash")
def dash(
    start: str | None,
    *,
    dlq: bool,
    read_only: bool,
    theme: str | None,
    fps: float | None,
    no_mouse: bool,
    serve: str | None,
    served: bool,
) -> None:
    """Look at a storage, live: its queues, who works them, and what broke.

    In a pipe it prints one picture of the queues, as text. What one has set on the screens is kept in
    $XDG_STATE_HOME/duraq-dashboard; keys can be changed in ~/.config/duraq/keys.toml.
    """
    said = settings()
    is_remote = bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))
    is_bare = _without_color(said)
    root, rule = said.found_root()
    options = Options(
        theme=theme or ("ansi-dark" if is_remote or is_bare else None),
        ascii_only=said.ascii,
        fps=fps or (REMOTE_FPS if is_remote else LOCAL_FPS),
        start=start,
        dead_letters=dlq,
        rule=rule,
        keys=read_keymap(),
        # What is set in a browser is for that session.
        remembered=None if served else Remembered(str(root)),
        without_color=is_bare,
        served=served,
    )
    if serve is not None:
        raise click.exceptions.Exit(_serve(serve, said, options, theme=theme, no_mouse=no_mouse))
    if served:
        _run(_app(said, options, read_only=True), mouse=not no_mouse)
        return
    if not sys.stdout.isatty():
        print_picture(said, options)
        return
    if not sys.stdin.isatty():
        raise CommandError(Code.USAGE, "the dashboard needs a terminal for its keys, and stdin is none")
    if is_remote:
        # Textual's own scrolling in parts of a line, before it is imported.
        os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    _run(_app(said, options, read_only=read_only), mouse=not no_mouse)


def _run(app: Dashboard, *, mouse: bool) -> None:
    to_file()
    allow_many()
    give_back()
    app.run(mouse=mouse)
    if app.return_code:
        raise click.exceptions.Exit(app.return_code)


def _serve(address: str, said: Settings, options: Options, *, theme: str | None, no_mouse: bool) -> Code:
    """Serve it to browsers until that is ended; the exit code."""
    try:
        from duraq_dashboard.serving import Address, serve  # noqa: PLC0415 - only who serves has it
    except ImportError as error:
        if error.name is None or not error.name.startswith(("aiohttp", "textual_serve")):
            raise
        raise CommandError(
            Code.USAGE, "textual-serve is not installed", "pip install 'duraq[web]'"
        ) from error
    arguments = [f"--root={said.storage().absolute()}", f"--fps={options.fps}"]
    arguments += [f"--theme={theme}"] if theme else []
    arguments += ["--color=never"] if options.without_color else []
    flags = {"--ascii": said.ascii, "--dlq": options.dead_letters, "--no-mouse": no_mouse}
    arguments += [flag for flag, is_set in flags.items() if is_set]
    arguments += ["--", options.start] if options.start is not None else []

    def announce(url: str) -> None:
        # It is what whoever serves it needs, be they ever so quiet.
        click.echo(f"{url}\nread-only, for this host and who knows the address; Ctrl-C ends it", err=True)

    to_file()
    return serve(Address.parse(address), arguments, announce)


def print_picture(said: Settings, options: Options) -> None:
    """Print one picture of the queues, as plain text."""
    app = _app(said, replace(options, remembered=None), read_only=True)
    from duraq_dashboard.picture import picture  # noqa: PLC0415 - as below

    to_file()
    for line in picture(app, FULL):
        click.echo(line)


def _app(said: Settings, options: Options, *, read_only: bool) -> Dashboard:
    try:
        # Textual takes longer than all before it.
        with for_good():
            from duraq_dashboard.app import Dashboard  # noqa: PLC0415
            from duraq_dashboard.screens import queues  # noqa: F401, PLC0415 - the first to be seen, as a rule
            from duraq_dashboard.source import StorageSource  # noqa: PLC0415
    except ImportError as error:
        if error.name is None or not error.name.startswith(("textual", "rich")):
            raise
        hint = "pip install 'duraq[dashboard]'"
        raise CommandError(Code.USAGE, "textual is not installed", hint) from error
    source = partial(StorageSource, fps=options.fps, limits=said.config.thresholds)
    # A browser sees the storage that is served, and no other.
    opener = None if options.served else source
    return Dashboard(source(said.storage()), read_only=read_only, options=options, opener=opener)


def _without_color(said: Settings) -> bool:
    """Whether there shall be no colours: $NO_COLOR, if it says anything, or --color never."""
    if said.color == "never":
        os.environ["NO_COLOR"] = "1"
    elif not os.environ.get("NO_COLOR") or said.color == "always":
        # Textual would take an empty one, too, for a wish.
        os.environ.pop("NO_COLOR", None)
    return "NO_COLOR" in os.environ


def main() -> None:
    """Run it and exit with its code."""
    from duraq.cli.stage import run_safely  # noqa: PLC0415 - only for the program of its own

    sys.exit(run_safely(dash, sys.argv[1:]))
