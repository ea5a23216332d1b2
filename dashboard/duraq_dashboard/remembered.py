"""What a person had set on the screens, kept for the next time, for each storage. Knows no Textual.

It lies outside the storage, and is a convenience: what cannot be read or written is left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("duraq.dashboard")

LARGEST = 64 * 1024  # bytes that are read of a file; ours are a few hundred


def state_directory() -> Path:
    """Where it is kept: $XDG_STATE_HOME/duraq-dashboard, for in ``duraq`` is the default storage."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "duraq-dashboard"


class Remembered:
    """One JSON file a storage: texts by screen and by name."""

    def __init__(self, root: str, directory: Path | None = None) -> None:
        whole = os.path.realpath(root)
        name = hashlib.sha256(os.fsencode(whole)).hexdigest()[:16]
        self._root = os.fsencode(whole).decode("utf-8", "backslashreplace")
        self._directory = directory or state_directory()
        self._file = self._directory / f"{name}.json"

    def of(self, root: str) -> Remembered:
        """The same for another storage."""
        return Remembered(root, self._directory)

    def load(self) -> dict[str, dict[str, str]]:
        """What was kept; empty if nothing was, or if it is not what was written."""
        try:
            with self._file.open("rb") as file:
                found = json.loads(file.read(LARGEST))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("what was remembered of the screens is left out: %s", error)
            return {}
        screens = found.get("screens") if isinstance(found, dict) else None
        return _texts(screens) if isinstance(screens, dict) else {}

    def save(self, screens: Mapping[str, Mapping[str, str]]) -> None:
        """Keep it."""
        text = json.dumps({"root": self._root, "screens": screens}, indent=1)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._file.with_suffix(f".{os.getpid()}.tmp")
            new.write_text(text + "\n", "utf-8")
            new.replace(self._file)
        except OSError as error:
            log.warning("the screens are not remembered: %s", error)


def _texts(screens: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Only what has the form that ``save`` gives it."""
    return {
        name: {key: value for key, value in kept.items() if isinstance(value, str)}
        for name, kept in screens.items()
        if isinstance(kept, dict)
    }
