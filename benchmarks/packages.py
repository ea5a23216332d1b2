"""The peers' Python packages: beside the environment of DuraQ, not in it.

A package that is merely installed is not without effect: others import it where they find it, and each start
would pay for that. So ``make bench`` and ``make power-cuts`` install them into a directory of their own, and
only the processes that open a peer look into it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.contender import Missing

DIRECTORY = Path(sys.prefix) / "bench-peers"


def library(name: str) -> Any:
    """A peer's module, imported when the peer is opened."""
    if str(DIRECTORY) not in sys.path:
        sys.path.append(str(DIRECTORY))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(str(error)) from None


def version(package: str) -> str:
    """Name and version of a peer's package; raises Missing if it is not installed."""
    for found in metadata.distributions(name=package, path=[str(DIRECTORY), *sys.path]):
        return f"{package} {found.version}"
    raise Missing(f"the Python package {package} is not installed (the Makefile installs it as a peer)")


@contextmanager
def hidden() -> Iterator[None]:
    """A process that is spawned meanwhile does not inherit the way to the peers' packages."""
    path = sys.path[:]
    sys.path[:] = [entry for entry in path if entry != str(DIRECTORY)]
    try:
        yield
    finally:
        sys.path[:] = path
