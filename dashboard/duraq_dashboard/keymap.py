"""The keys that a person wants instead: ``~/.config/duraq/keys.toml``. Knows no Textual.

    [keys]
    freeze = "F"
    "show.dlq" = "2,d"

Each name is a binding's id, as the help shows it; the keys are separated by commas.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from duraq.errors import InvalidOption


def keys_file() -> Path:
    """Where it lies: $XDG_CONFIG_HOME/duraq/keys.toml."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "duraq" / "keys.toml"


def read_keymap(file: Path | None = None) -> Mapping[str, str]:
    """Keys by the ids of bindings; none if there is no file. Raises InvalidOption if it is another."""
    file = file or keys_file()
    try:
        with file.open("rb") as opened:
            found = tomllib.load(opened)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidOption(f"{file}: {error}") from error
    keys = found.get("keys", {})
    others = set(found) - {"keys"}
    if others or not isinstance(keys, dict):
        raise InvalidOption(f"{file}: expected one table, [keys], of a key for each id")
    for name, key in keys.items():
        if not isinstance(key, str) or not key.strip(", "):
            raise InvalidOption(f'{file}: expected a key such as "f" or "ctrl+f" for {name}')
    return dict(keys)
