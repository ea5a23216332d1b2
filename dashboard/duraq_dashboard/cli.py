"""``duraq-dashboard`` and ``duraq dash``: the options, and the app begun."""

from __future__ import annotations

import click

from duraq.cli.options import common, settings


@click.command()
@click.argument("directory", metavar="[ROOT]", required=False)
@click.option("--read-only", is_flag=True, help="Offer nothing that changes anything.")
@common
def dash(directory: str | None, read_only: bool) -> None:
    """Look at a storage, live: its queues, who works them, and what broke."""
    from duraq_dashboard.app import Dashboard  # noqa: PLC0415 - Textual takes longer than all before it
    from duraq_dashboard.source import StorageSource  # noqa: PLC0415

    said = settings()
    if directory is not None:
        said.root = directory
    Dashboard(StorageSource(said.storage()), read_only=read_only).run()


def main() -> None:
    """Run it and exit with its code."""
    import sys  # noqa: PLC0415

    from duraq.cli.stage import run_safely  # noqa: PLC0415

    sys.exit(run_safely(dash, sys.argv[1:]))
