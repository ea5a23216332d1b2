"""What somebody has settled once: ``~/.config/duraq/config.toml``.

    root = "/srv/queues"        # the storage, unless the command or its surroundings name one
    color = "never"
    time = "local"

    [attention]                 # from when on something is worth a word (duraq.attention)
    max_oldest_ready = "30m"
    max_dead = 100

Only what is there is read, and only what is known may be there: a slip of the pen is told, with what may have
been meant, and does not pass for a default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from duraq.attention import DEFAULT, Thresholds
from duraq.errors import InvalidOption
from duraq.safe_text import without_password

COLORS = ("auto", "always", "never")
TIMES = ("relative", "local", "utc", "unix")
_TABLE = "attention"
_LINE = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")
_HEAD = re.compile(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]\s*(#.*)?")


def default_path() -> Path:
    """Where the file is, or would be."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "duraq" / "config.toml"


@dataclass(frozen=True, slots=True)
class Config:
    """What is settled. ``given``: the names of what stands in the file."""

    path: Path
    root: str | None = None
    color: str = "auto"
    time: str | None = None
    thresholds: Thresholds = DEFAULT
    given: frozenset[str] = frozenset()

    @property
    def values(self) -> dict[str, Any]:
        """Everything that can be settled, by its name, as it is."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        found |= {f"{_TABLE}.{name}": getattr(self.thresholds, name) for name in _LIMITS}
        return found


def load(path: Path | None = None) -> Config:
    """What the file says; the defaults, if there is none. Raises InvalidOption, which names the place."""
    where = default_path() if path is None else path
    try:
        text = where.read_text("utf-8")
    except FileNotFoundError:
        return Config(where)
    except (OSError, ValueError) as error:
        raise InvalidOption(f"{where} cannot be read: {error}") from None
    return parse(text, where)


def parse(text: str, path: Path) -> Config:
    """What a file of this text says. Raises InvalidOption."""
    import tomllib  # noqa: PLC0415 - only who has such a file pays for it

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidOption(f"{path} is not TOML: {error}") from None
    limits = found.pop(_TABLE, {})
    if not isinstance(limits, dict):
        raise InvalidOption(f"{path}: {_TABLE} is a table, [{_TABLE}]")
    plain = {name: _read(path, name, _PLAIN, value) for name, value in found.items()}
    read = {name: _read(path, name, _LIMITS, value, _TABLE) for name, value in limits.items()}
    try:
        thresholds = replace(DEFAULT, **read)
    except InvalidOption as error:
        raise InvalidOption(f"{path}: [{_TABLE}] {error}") from None
    given = frozenset((*plain, *(f"{_TABLE}.{name}" for name in read)))
    return Config(path, **plain, thresholds=thresholds, given=given)


# -- values ------------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """What a setting may be: read from TOML, written as TOML, and in words."""

    read: Callable[[Any], Any]
    says: str


def _root(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return os.path.expanduser(value)  # noqa: PTH111 - a text goes in and comes out


def _one_of(*names: str) -> _Kind:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError
        found: str = value
        return found

    return _Kind(read, f"one of {', '.join(names)}")


def _duration(value: Any) -> timedelta:
    import durationpy  # noqa: PLC0415 - as above

    if not isinstance(value, str) or not re.fullmatch(r"0|([0-9.]+[a-zµμ]+)+", value):
        raise ValueError
    try:
        return timedelta(0) if value == "0" else durationpy.from_str(value)
    except (durationpy.DurationError, OverflowError):
        raise ValueError from None


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _share(value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value <= 1:
        raise ValueError
    return float(value)


_PLAIN: Mapping[str, _Kind] = {
    "root": _Kind(_root, "a directory, or a storage's URL"),
    "color": _one_of(*COLORS),
    "time": _one_of(*TIMES),
}
_KINDS: Mapping[type, _Kind] = {
    timedelta: _Kind(_duration, 'a duration such as "30s" or "1h30m"'),
    float: _Kind(_share, "a number from 0 to 1"),
    int: _Kind(_whole, "a whole number"),
    type(None): _Kind(_whole, "a whole number"),
}
_LIMITS: Mapping[str, _Kind] = {
    each.name: _KINDS[type(getattr(DEFAULT, each.name))] for each in fields(Thresholds)
}
NAMES = (*_PLAIN, *(f"{_TABLE}.{name}" for name in _LIMITS))


def _read(path: Path, name: str, kinds: Mapping[str, _Kind], value: Any, table: str = "") -> Any:
    whole = f"{table}.{name}" if table else name
    if name not in kinds:
        raise InvalidOption(f"{path}: {unknown(whole)}")
    try:
        return kinds[name].read(value)
    except ValueError:
        raise InvalidOption(f"{path}: {whole} is {kinds[name].says}, not {value!r:.100}") from None


def unknown(name: str) -> str:
    """That there is no such setting, and which may be meant."""
    near = get_close_matches(name, NAMES, 1) or [
        each for each in NAMES if each.rpartition(".")[2] == name.rpartition(".")[2]
    ]
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
    return f"there is no setting {name!r:.100}; {hint}"


# -- changing the file -------------------------------------------------------------------------------------


def changed(text: str, name: str, value: str | None) -> str:
    """The file's text with that setting; without it, for None. What else stands there stays as it is.

    ``value`` is as somebody types it: 30m, 0.2, 100, never. Raises InvalidOption.
    """
    if name not in NAMES:
        raise InvalidOption(unknown(name))
    table, _, key = name.rpartition(".")
    lines = (
        [line for line in text.splitlines() if not line.isspace()] if not text.strip() else text.splitlines()
    )
    first, last = _section(lines, table)
    at = next(
        (at for at in range(first, last) if (found := _LINE.match(lines[at])) and found[1] == key), None
    )
    line = [] if value is None else [f"{key} = {_written(name, value)}"]
    if at is not None:
        lines[at : at + 1] = line
    elif line and first > len(lines):
        lines += [*([""] if lines else []), f"[{table}]", *line]
    else:
        while last > first and not lines[last - 1].strip():
            last -= 1  # before the space that sets it apart from the next table
        lines[last:last] = line
    return "".join(f"{each}\n" for each in lines)


def _section(lines: list[str], table: str) -> tuple[int, int]:
    """The first line that belongs to the table, and the one behind its last; beyond all, if it has none."""
    heads = [(at, found[1]) for at, line in enumerate(lines) if (found := _HEAD.fullmatch(line))]
    starts = [(-1, ""), *heads]
    for number, (at, name) in enumerate(starts):
        if name == table:
            return at + 1, starts[number + 1][0] if number + 1 < len(starts) else len(lines)
    return len(lines) + 1, len(lines) + 1


def _written(name: str, value: str) -> str:
    """The value in TOML."""
    kind = _PLAIN.get(name) or _LIMITS[name.rpartition(".")[2]]
    if kind.read in {_whole, _share}:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def save(path: Path, text: str) -> None:
    """Replace the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if without_password(text) != text:
            temporary.touch(0o600)
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
