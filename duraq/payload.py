"""Payloads to JSON and back, refusing whatever would not come back equal.

The ordinary payload is written and checked in about a microsecond. Where a check fails, a slow walk over the
value finds the place and the reason, so that only a refusal pays for its message. Messages name types and
paths and never show the payload, which may be secret, hostile or huge.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import orjson

from duraq.errors import InvalidOption, InvalidPayload, PayloadTooLarge, PayloadUndecodable
from duraq.flaw import MAX_DEPTH, TOO_DEEP, explain, reason

T = TypeVar("T")

LARGEST_PAYLOAD = 16 << 20  # bytes; no storage takes more

# Dataclasses and times are for typed queues: orjson would drop fields that begin with an underscore.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_SCALARS = frozenset({str, int, float, bool, type(None)})
# Payload types that need no schema, and what JSON gives back for each.
_SIMPLE: dict[Any, tuple[type, ...]] = {t: (t,) for t in (str, int, bool, dict, list)} | {float: (float, int)}

# With digits and minus turned to "0", a run of 20 shows where an integer beyond 64 bits may stand.
_DIGITS = bytes(48 if byte in b"-0123456789" else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 20
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CONTAINERS = (dict, list)
# So many bytes have no room for the brackets of a deeper payload.
_NOT_DEEP = 2 * MAX_DEPTH


class PayloadCodec(Generic[T]):
    """Encodes and decodes the payloads of one queue.

    Without a payload type: None, bool, int of 64 bits, finite float, str, list, and dict with str keys. A
    value of another type, such as an OrderedDict or a StrEnum member, is accepted if the plain JSON value
    that comes back is equal to it by its own ``==``; so a tuple, a UUID or a plain Enum member is refused.

    With one: whatever msgspec supports (dataclasses, attrs, TypedDict, NamedTuple, datetime, UUID, Enum,
    bytes, Decimal, collections and optionals of them) and pydantic models. Each payload is decoded before
    it is accepted, and refused unless that is equal to it. A datetime's zone comes back as its offset.
    """

    def __init__(self, payload_type: type[T] | Any | None, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._name = payload_type.__name__ if isinstance(payload_type, type) else str(payload_type)
        self._accepted: tuple[type, ...] | None = None
        # None stands for JSON as it is, without a schema.
        self._dump: Callable[[Any], bytes] | None = None
        self._load: Callable[[bytes], Any] = orjson.loads
        if payload_type is None or payload_type is Any or payload_type is object:
            return
        if isinstance(payload_type, type):
            if payload_type in _SIMPLE:
                self._accepted = _SIMPLE[payload_type]
                return
            # A TypedDict is no class that a value could be an instance of; decoding checks its keys.
            self._accepted = None if issubclass(payload_type, dict) else (payload_type,)
        model: Any = payload_type
        if _is_model(model):
            self._dump, self._load = _model_json, model.model_validate_json
        else:
            self._dump, self._load = _msgspec_pair(payload_type)

    def encode(self, value: T) -> bytes:
        """The payload as one line of JSON. Raises InvalidPayload or PayloadTooLarge."""
        kind, accepted, dump = type(value), self._accepted, self._dump
        if accepted and kind not in accepted and (kind is bool or not isinstance(value, accepted)):
            raise InvalidPayload(f"expected {self._name}, got {kind.__name__}")
        back = flaw = None
        try:
            payload = orjson.dumps(value, None, _OPTIONS) if dump is None else dump(value)
            if len(payload) > self.max_bytes:
                raise _too_large(payload, self.max_bytes)  # noqa: TRY301
            if dump is None and (kind is str or (kind is dict and _is_flat(value, payload))):
                return payload
            back = self._load(payload)
            if len(payload) > _NOT_DEEP and _is_deep(payload, back if dump is None else None):
                flaw = TOO_DEEP
            elif back == value and (dump is None or payload.translate(_DIGITS).find(_LONG_NUMBER) < 0):
                return payload
        except (PayloadTooLarge, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - the payload's own code may raise anything
            flaw = reason(error)
        # Outside the handler, so that no error that quotes the payload is chained to ours.
        flaw = explain(value, back, flaw, plain=dump is None)
        if flaw is not None:
            raise InvalidPayload(*flaw)
        return payload

    def decode(self, payload: bytes) -> T:
        """The value again. Raises PayloadUndecodable, whatever is wrong with the bytes."""
        try:
            value: T = self._load(payload)
            if self._dump is None and self._accepted and type(value) not in self._accepted:
                raise TypeError(f"Expected `{self._name}`, got `{type(value).__name__}`")  # noqa: TRY301
            if len(payload) <= _NOT_DEEP or not _is_deep(payload, value if self._dump is None else None):
                return value
            message, path = TOO_DEEP
        except MemoryError:
            # Says something about this process and nothing about the payload.
            raise
        except Exception as error:  # noqa: BLE001 - the payload type's own code may raise anything
            message, path = reason(error)
        raise PayloadUndecodable(
            f"the stored payload does not decode as {self._name}: {message} - at `{path}`"
        )


def _too_large(payload: bytes, limit: int) -> PayloadTooLarge:
    more = "; FileStorage(max_payload_bytes=...) takes more, up to 16 MiB" if limit < LARGEST_PAYLOAD else ""
    return PayloadTooLarge(f"the payload is {len(payload)} bytes, the limit is {limit}{more}")


def _is_flat(value: Any, payload: bytes) -> bool:
    # JSON brings back plain scalars unchanged, but for NaN and infinity, which orjson writes as null.
    # ``find``, for ``in`` first tries its left side as a number and pays for an exception.
    if payload.find(b"null") >= 0:
        return False
    for each in value.values():  # noqa: SIM110 - all() takes twice as long over the few values of a payload
        if type(each) not in _SCALARS:
            return False
    return True


def _is_deep(payload: bytes, plain: Any) -> bool:
    """Whether the payload is nested deeper than MAX_DEPTH; ``plain`` is its JSON value, if at hand."""
    # Cheap first: so deep a payload has as many opening brackets, and as many closing ones.
    if len(payload.translate(None, _NO_BRACKETS)) <= 2 * MAX_DEPTH:
        return False
    level: list[Any] = [orjson.loads(payload) if plain is None else plain]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for parent in level:
            children += parent.values() if isinstance(parent, dict) else parent
        level = [child for child in children if isinstance(child, _CONTAINERS)]
        if not level:
            return False
    return True


def _is_model(kind: Any) -> bool:
    """Whether it is a pydantic model, told by its methods so that pydantic need not be there."""
    return (
        isinstance(kind, type) and hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump_json")
    )


def _model_json(model: Any) -> bytes:
    text: str = model.model_dump_json(by_alias=True, round_trip=True, warnings=False)
    # In JSON a line's end is white space and nothing else: one payload stays one line.
    payload = text.encode().replace(b"\n", b" ")
    # Models can be set to write Infinity, which is not JSON, and to read it again.
    orjson.loads(payload)
    return payload


def _msgspec_pair(payload_type: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgspec.inspect  # noqa: PLC0415 - costs 30 ms, which a program without typed queues need not pay

    def to_json(value: Any) -> msgspec.Raw:
        if not _is_model(type(value)):
            raise TypeError(f"{type(value).__name__} is not supported")
        return msgspec.Raw(_model_json(value))

    def from_json(kind: Any, value: Any) -> Any:
        try:
            return kind.model_validate_json(orjson.dumps(value))
        except ValueError as error:
            message, path = reason(error)
        # msgspec's own form for a place; it appends the place of the model.
        raise ValueError(f"{message} - at `{path}`")

    try:
        decoder = msgspec.json.Decoder(payload_type, dec_hook=from_json)
        todo: list[Any] = [msgspec.inspect.type_info(payload_type)]
    except Exception as error:
        raise InvalidOption(f"payload type {payload_type}: {reason(error)[0]}") from error
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            todo.extend(node)
        elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            if unfit := _unfit(node):
                raise InvalidOption(f"payload type {payload_type}: {unfit}")
            todo.extend(getattr(node, name) for name in node.__struct_fields__)
    return msgspec.json.Encoder(enc_hook=to_json).encode, decoder.decode


def _unfit(node: Any) -> str | None:
    """What msgspec accepts in a type although it would lose it, or write it unchecked."""
    shape = type(node).__name__
    if shape == "RawType":
        return "msgspec.Raw is written unchecked"
    if shape == "CustomType" and not _is_model(node.cls):
        way_out = "; use str" if issubclass(node.cls, os.PathLike) else ""
        return f"{node.cls.__name__} is not supported{way_out}"
    if shape == "DataclassType" and hasattr(node.cls, "__attrs_attrs__"):
        private = [field.name for field in node.fields if field.name.startswith("_")]
        return f"msgspec drops the private attrs field {private[0]}" if private else None
    return None
