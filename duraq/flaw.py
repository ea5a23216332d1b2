"""Why a payload would not come back equal, and where: the slow walk after something was found wrong.

A flaw is a message and the path to the place, such as ``$.items[3].price``. It names types and keys and never
shows the payload, which may be secret, hostile or huge.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson

# orjson writes 254 levels and reads 1024; this is below both, so whoever can write a payload can read it.
MAX_DEPTH = 128
TOO_DEEP = (f"nested deeper than {MAX_DEPTH}", "$")

_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT_LIMIT = 300
_KEY_LIMIT = 40


def explain(value: Any, back: Any, flaw: tuple[str, str] | None, *, plain: bool) -> tuple[str, str] | None:
    """What is wrong with a payload, and the path to it, as exactly as can be found; None if it is fine."""
    try:
        flaw = _examine(value, plain=plain) or flaw or _difference(back, value, "$")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the payload's own code may raise anything
        flaw = flaw or reason(error)
    return flaw and (flaw[0], _clip(flaw[1]))


def _examine(
    value: Any, *, plain: bool, path: str = "$", above: tuple[int, ...] = ()
) -> tuple[str, str] | None:
    """The first place that JSON (``plain``: without a schema) cannot hold."""
    if message := _scalar_flaw(value) or (_kind_flaw(value) if plain else None):
        return message, path
    if id(value) in above:
        return "refers back to what it is part of", path
    if len(above) == MAX_DEPTH and (isinstance(value, dict | list) or _parts(value)):
        return TOO_DEEP[0], path
    for key in value if isinstance(value, dict) else ():
        if flaw := _examine(key, plain=plain, path=path + _step(key)):
            return flaw
    for step, part in _parts(value):
        if flaw := _examine(part, plain=plain, path=path + step, above=(*above, id(value))):
            return flaw
    return None


def _scalar_flaw(value: Any) -> str | None:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "an integer beyond 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{float(value)} is not a JSON number"
    if isinstance(value, str) and (found := _SURROGATE.search(value)):
        return f"a lone surrogate, {found[0]!a}"
    return None


def _kind_flaw(value: Any) -> str | None:
    # orjson writes subclasses of int, str, dict and list, and of no other type.
    if value is None or type(value) is float or isinstance(value, int | str | list):
        return None
    if not isinstance(value, dict):
        # A payload type has no paths either.
        way_out = (
            "use str" if isinstance(value, os.PathLike) else "convert it, or give the queue a payload type"
        )
        return f"{type(value).__name__} is not a JSON value: {way_out}"
    foreign = {type(key).__name__ for key in value if type(key) is not str}
    return f"a key of type {min(foreign)}, where JSON has only str" if foreign else None


def _difference(back: Any, value: Any, path: str) -> tuple[str, str] | None:
    """The first place where what came back is not what was given, as message and path."""
    kind: Any = type(value)
    if back == value:
        return None
    if type(back) is not kind:
        return f"{kind.__name__} would come back as {type(back).__name__}", path
    parts, parts_back = _parts(value), dict(_parts(back))
    # Objects without an __eq__ are equal to nothing but themselves; they are compared part by part.
    equality: Any = kind.__eq__
    forgiven = equality is object.__eq__ and bool(parts)
    if isinstance(value, datetime) and value.tzinfo and back.tzinfo:
        # In the hour that a zone repeats, == between zones is False by rule, even for the same instant.
        forgiven = back.astimezone(UTC) == value.astimezone(UTC)
    for step, part in parts:
        if step not in parts_back:
            return "would be lost", path + step
        if parts_back[step] != part:
            if flaw := _difference(parts_back[step], part, path + step):
                return flaw
            forgiven = True
    return None if forgiven else ("would not come back equal", path)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What the value is made of, each with its step of the path."""
    if isinstance(value, dict):
        return [(_step(key), part) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        names = [field.name for field in getattr(kind, "__attrs_attrs__", ())]
        names += [*getattr(kind, "__struct_fields__", ()), *getattr(kind, "model_fields", ())]
    return [(f".{name}", getattr(value, name, None)) for name in names]


def _step(key: Any) -> str:
    if type(key) is int and not _scalar_flaw(key):
        return f"[{key}]"
    if not isinstance(key, str):
        return f"[{type(key).__name__}]"
    if key.isidentifier() and len(key) <= _KEY_LIMIT:
        return f".{key}"
    return f"[{key[:_KEY_LIMIT]!r}{'...' * (len(key) > _KEY_LIMIT)}]"


def raise_if_no_memory(error: Exception) -> None:
    """Raise MemoryError if that is what orjson means: it says it as if the text were at fault."""
    if isinstance(error, orjson.JSONDecodeError) and error.msg.startswith("Not enough memory"):
        raise MemoryError(error.msg) from None


def reason(error: Exception) -> tuple[str, str]:
    """An error of msgspec, pydantic, orjson or the payload's own code, as message and path."""
    raise_if_no_memory(error)
    text = type(error).__name__
    # Not even str() of it can be relied on.
    with suppress(Exception):
        if callable(errors := getattr(error, "errors", None)):
            # Pydantic's own text shows the input.
            first = errors(include_url=False, include_context=False, include_input=False)[0]
            text = f"{first['msg']} - at `${''.join(map(_step, first['loc']))}`"
        else:
            text = str(error) if isinstance(error, ValueError | TypeError) else f"{text}: {error}"
    message, *places = text.split(" - at `")
    # An error of a model within the payload names two places, the inner one first.
    path = "$" + "".join(place.strip("`$") for place in reversed(places))
    return _clip(message), _clip(path)


def _clip(text: str) -> str:
    """The text with anything that a terminal might obey escaped, and its middle cut if it is long."""
    text = repr(text)[1:-1] if not text.isprintable() else text
    half = _TEXT_LIMIT // 2
    return text if len(text) <= _TEXT_LIMIT else f"{text[:half]}...{text[-half:]}"
