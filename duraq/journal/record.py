r"""One operation, one line: the record.

    {"op":"enqueue","seq":7,"at":"2026-11-24T13:26:00.123456Z","id":"...",...,"data":{...},"crc":"1f2e3d4c"}\n
    `-- body: fixed key order, `op` first ------------------------------------------'`- SUFFIX, 19 bytes --'

The crc32 covers every byte left of the suffix. ``docs/FORMAT.md`` is the document of this; a test decodes
the lines printed there. This module is pure: bytes in, operations out; no file, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple
from zlib import crc32

import orjson

from duraq import snapshot, values
from duraq.clock import from_datetime, to_datetime
from duraq.flaw import raise_if_no_memory
from duraq.ledger import Ledger
from duraq.model import Cause, Pause
from duraq.operations import (
    WITH_PAYLOAD,
    Adopt,
    Bury,
    Complete,
    Drop,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Keep,
    Lease,
    Operation,
    PauseQueue,
    Release,
    Remove,
    Repair,
    Requeue,
    Restore,
    ResumeQueue,
)
from duraq.snapshot import of_headers, restore_error
from duraq.times import microseconds, rfc3339

_SUFFIX = b',"crc":"%08x"}\n'
SUFFIX_LENGTH = len(_SUFFIX % 0)
assert SUFFIX_LENGTH == 19  # FORMAT.md, "The record"

_DATA = b',"data":'
_NO_PAYLOAD = "not a record with a payload"
_NUMBER = re.compile(rb'\{"op":"([a-z]+)","seq":(\d+),')
_PLAIN_ENQUEUE = re.compile(
    # Numbers of so few digits, and ids such as these, are always in range.
    rb'\{"op":"enqueue","seq":(\d{1,18}),"at":"([^"]+)","id":"([A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127})"'
    rb',"priority":(-?\d{1,9}),"data":'
)


@dataclass(slots=True)
class Seal:
    """The last record of a segment; the next one is named after sequence number ``next``."""

    op: ClassVar[str] = "seal"
    next: int


class Record(NamedTuple):
    """What a line says: which operation, its number in the queue, and when it was decided (microseconds)."""

    operation: Operation | Seal
    seq: int
    at: int


class BadRecord(ValueError):
    """A line is not a whole, undamaged record."""


class UnknownRecord(BadRecord):
    """A line is undamaged, but of an operation this version does not know."""


# -- writing -----------------------------------------------------------------------------------------------


def encode(operation: Operation | Seal, seq: int, at: str) -> bytes:
    """The line of one operation; ``at`` is its time as rfc3339 gives it."""
    if type(operation) is Enqueue:
        extra = f',"priority":{operation.priority}'
        if operation.ready_at is not None:
            extra += f',"ready_at":"{rfc3339(operation.ready_at)}"'
        if operation.expires_at is not None:
            extra += f',"expires_at":"{rfc3339(operation.expires_at)}"'
        if operation.key is not None:
            extra += f',"key":{_text(operation.key)}'
        if operation.headers is not None:
            extra += f',"headers":{orjson.dumps(of_headers(operation.headers)).decode()}'
        head = f'{{"op":"enqueue","seq":{seq},"at":"{at}","id":"{operation.id}"{extra},"data":'
        body = head.encode() + operation.payload
    elif isinstance(operation, Keep):
        said, source = snapshot.of(operation.entry), ""
        if operation.changed:
            said["updated_at"] = at
        if isinstance(operation, Restore):
            if operation.changed or operation.source:
                said["order"] = seq
            source = f',"from":{_text(operation.source)}' if operation.source else ""
        entry = orjson.dumps(said)
        head = f'{{"op":"{operation.op}","seq":{seq},"at":"{at}","id":"{operation.id}"{source},"entry":'
        body = b"".join((head.encode(), entry, _DATA, operation.payload))
    else:
        fields = _ENCODE[type(operation)](operation)
        body = f'{{"op":"{operation.op}","seq":{seq},"at":"{at}"{fields}'.encode()
    return body + _SUFFIX % crc32(body)


def finished(body: bytes) -> bytes:
    """The whole line of a JSON object that lacks nothing but its last brace."""
    return body + _SUFFIX % crc32(body)


def checksum(line: bytes) -> str:
    """The checksum that a whole line ends in, as it stands there."""
    return line[-11:-3].decode()


def _lease(o: Lease) -> str:
    return (
        f',"id":"{o.id}","token":{o.token},"attempt":{o.attempt},"worker":"{o.worker}"'
        f',"deadline_at":"{rfc3339(o.deadline_at)}","deadline":{o.deadline},"boot":"{o.boot}"'
    )


def _extend(o: Extend) -> str:
    return (
        f',"id":"{o.id}","token":{o.token}'
        f',"deadline_at":"{rfc3339(o.deadline_at)}","deadline":{o.deadline},"boot":"{o.boot}"'
    )


def _failure(o: Fail | Bury) -> str:
    error = snapshot.of_error(o.error)
    ready = f',"ready_at":"{rfc3339(o.ready_at)}"' if isinstance(o, Fail) else ""
    return (
        f',"id":"{o.id}","token":{o.token},"cause":"{o.cause}"{ready},"error":{orjson.dumps(error).decode()}'
    )


def _release(o: Release) -> str:
    said = f',"id":"{o.id}","token":{o.token}'
    if o.ready_at is not None:
        said += f',"ready_at":"{rfc3339(o.ready_at)}"'
    if o.who:
        said += f',"who":{_text(o.who)}'
    return f'{said},"reason":{_text(o.reason)}' if o.reason else said


def _requeue(o: Requeue) -> str:
    act = f',"act":"{o.act}"' if o.act else ""
    return f',"id":"{o.id}","keep_attempts":{"true" if o.keep_attempts else "false"}{act}'


def _text(value: str) -> str:
    return orjson.dumps(value).decode()


def _head(o: Drop | Adopt) -> str:
    """What a queue is besides its entries."""
    pause = "null"
    if o.pause is not None:
        at = rfc3339(from_datetime(o.pause.at))
        pause = f'{{"at":"{at}","who":{_text(o.pause.who)},"reason":{_text(o.pause.reason)}}}'
    ledger = "" if o.ledger is None else f',"ledger":{orjson.dumps(o.ledger.image()).decode()}'
    return f',"tokens":{o.tokens},"pause":{pause}{ledger}'


_ENCODE: dict[type[Any], Callable[[Any], str]] = {
    Lease: _lease,
    Extend: _extend,
    Complete: lambda o: f',"id":"{o.id}","token":{o.token}',
    Fail: _failure,
    Bury: _failure,
    Release: _release,
    Expire: lambda o: f',"id":"{o.id}"',
    Requeue: _requeue,
    Remove: lambda o: f',"id":"{o.id}"' + (f',"to":{_text(o.to)}' if o.to else ""),
    Drop: lambda o: f',"first":{o.first},"bytes":{o.bytes}{_head(o)}',
    Adopt: _head,
    PauseQueue: lambda o: f',"who":{_text(o.who)},"reason":{_text(o.reason)}',
    ResumeQueue: lambda o: f',"who":{_text(o.who)}',
    Repair: lambda o: f',"aside":{_text(o.aside)}',
    Seal: lambda o: f',"next":{o.next}',
}


# -- reading -----------------------------------------------------------------------------------------------


def decode(line: bytes) -> Record:
    """The record of one whole line, newline included. Raises BadRecord; never a best effort.

    Payloads are left out (empty): the fold has no use for them. ``payload`` gets it.
    """
    check(line)
    try:
        fields = orjson.loads(line)
        make = _DECODE.get(fields["op"], _unknown)
        if fields["op"] in WITH_PAYLOAD and _DATA not in line:
            raise BadRecord(_NO_PAYLOAD)  # noqa: TRY301 - of an entry that nobody could be given
        return Record(make(fields), values.number(fields["seq"]), microseconds(fields["at"]))
    except BadRecord:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise_if_no_memory(error)
        raise _foreign(error) from None


def _foreign(error: Exception) -> BadRecord:
    return BadRecord(f"the checksum is right but the record is not ours: {error!r}")


def enqueued(line: bytes) -> Record:
    """The same as ``decode`` for what it nearly always is: an enqueue without a time to wait for.

    Its few fields stand where they always stand, before a payload that may be long.
    """
    found = _PLAIN_ENQUEUE.match(line)
    if found is None:
        return decode(line)
    check(line)
    seq, at, entry_id, priority = found.groups()
    try:
        return Record(Enqueue(entry_id.decode(), b"", int(priority)), int(seq), microseconds(at.decode()))
    except ValueError as error:
        raise _foreign(error) from None


def number(line: bytes) -> tuple[int, Seal | None]:
    """The number of the record in that line, and the seal if it is one. Raises BadRecord."""
    found = _NUMBER.match(line)
    if found is None or found[1] == b"seal":
        record = decode(line)
        return record.seq, record.operation if isinstance(record.operation, Seal) else None
    check(line)
    return int(found[2]), None


def _unknown(fields: dict[str, Any]) -> Operation:
    raise UnknownRecord(f"operation {fields['op']!r} is not known to this version")


def check(line: bytes) -> None:
    """Raise BadRecord unless the line is whole and its checksum right."""
    if not line.endswith(_SUFFIX % crc32(line[:-SUFFIX_LENGTH])):
        if line[-SUFFIX_LENGTH:-11] != b',"crc":"' or not line.endswith(b'"}\n'):
            raise BadRecord("the line does not end in a checksum")
        raise BadRecord("the checksum is wrong")


def payload(line: bytes) -> bytes:
    """The payload's bytes in the line of a record that has one, checksum verified."""
    check(line)
    start = line.find(_DATA)
    if start < 0:
        raise BadRecord(_NO_PAYLOAD)
    return line[start + len(_DATA) : -SUFFIX_LENGTH]


def _moment(fields: dict[str, Any], key: str) -> int | None:
    text = fields.get(key)
    return None if text is None else microseconds(text)


def _keep(fields: dict[str, Any]) -> Keep:
    return Keep(fields["id"], b"", snapshot.restore(fields["id"], fields["entry"]))


def _restore(fields: dict[str, Any]) -> Restore:
    entry = snapshot.restore(fields["id"], fields["entry"])
    return Restore(fields["id"], b"", entry, source=values.text(fields.get("from", "")))


def _read_head(fields: dict[str, Any]) -> tuple[int, Pause | None, Ledger | None]:
    found = fields["pause"]
    pause = None
    if found is not None:
        at = to_datetime(microseconds(found["at"]))
        pause = Pause(at, values.text(found["who"]), values.text(found["reason"]))
    ledger = Ledger.of(fields["ledger"]) if "ledger" in fields else None
    return values.number(fields["tokens"]), pause, ledger


_DECODE: dict[str, Callable[[dict[str, Any]], Operation | Seal]] = {
    "enqueue": lambda f: Enqueue(
        values.entry_id(f["id"]),
        b"",
        values.priority(f["priority"]),
        _moment(f, "ready_at"),
        _moment(f, "expires_at"),
        key=values.maybe_text(f.get("key")),
        headers=values.headers(f.get("headers")),
    ),
    "lease": lambda f: Lease(
        values.entry_id(f["id"]),
        values.number(f["token"]),
        values.number(f["attempt"]),
        values.worker(f["worker"]),
        values.number(f["deadline"]),
        values.text(f["boot"]),
        microseconds(f["deadline_at"]),
    ),
    "extend": lambda f: Extend(
        values.entry_id(f["id"]),
        values.number(f["token"]),
        values.number(f["deadline"]),
        values.text(f["boot"]),
        microseconds(f["deadline_at"]),
    ),
    "complete": lambda f: Complete(values.entry_id(f["id"]), values.number(f["token"])),
    "fail": lambda f: Fail(
        values.entry_id(f["id"]),
        values.number(f["token"]),
        Cause(f["cause"]),
        restore_error(f["error"]),
        microseconds(f["ready_at"]),
    ),
    "dead": lambda f: Bury(
        values.entry_id(f["id"]), values.number(f["token"]), Cause(f["cause"]), restore_error(f["error"])
    ),
    "release": lambda f: Release(
        values.entry_id(f["id"]),
        values.number(f["token"]),
        _moment(f, "ready_at"),
        values.text(f.get("who", "")),
        values.text(f.get("reason", "")),
    ),
    "expire": lambda f: Expire(values.entry_id(f["id"])),
    "requeue": lambda f: Requeue(
        values.entry_id(f["id"]), values.flag(f["keep_attempts"]), values.text(f.get("act", ""))
    ),
    "remove": lambda f: Remove(values.entry_id(f["id"]), to=values.text(f.get("to", ""))),
    "keep": _keep,
    "restore": _restore,
    "drop": lambda f: Drop(values.number(f["first"]), values.number(f["bytes"]), *_read_head(f)),
    "adopt": lambda f: Adopt(*_read_head(f)),
    "pause": lambda f: PauseQueue(values.text(f["who"]), values.text(f["reason"])),
    "resume": lambda f: ResumeQueue(values.text(f["who"])),
    "repair": lambda f: Repair(values.text(f["aside"])),
    "seal": lambda f: Seal(values.number(f["next"])),
}
