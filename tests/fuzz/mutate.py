"""Inputs made of others: what a fuzzer does, without one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

LONGEST = 4096
# What is seldom hit upon by chance.
TOKENS = [
    *(b"", b"\0", b"\n", b"\r\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b"~", b"="),
    *(b"null", b"true", b"NaN", b"1e400", b"-0", b"\\u0000", b"\\ud800", b'"data":', b',"crc":"', b"DQf1"),
    *(text.encode() for text in ("\u202e", "\u2028", "\x9b", "\x1b[2J", "\ufeff", "\uffff", "\U0001f986")),
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"--", b"--where", b"\0-o\0json\0", b"\n--\n"),
]
NUMBERS = [0, 1, 7, 2**8, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**62 - 1, 2**62, 2**63, 2**64 - 1, 2**64]
_DIGITS = re.compile(rb"[0-9]+")

Mutation = Callable[[bytes, Sequence[bytes], Random], bytes]


def _span(data: bytes, chance: Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((1, 2, 4, 8, 32, 256)))


def _flip(data: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _remove(data: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + data[end:]


def _repeat(data: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    start, end = _span(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 50)) + data[end:]


def _move(data: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    start, end = _span(data, chance)
    rest = data[:start] + data[end:]
    to = chance.randint(0, len(rest))
    return rest[:to] + data[start:end] + rest[to:]


def _insert(data: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + chance.choice(TOKENS) + data[at + chance.choice((0, 0, 1)) :]


def _splice(data: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    other = chance.choice(others)
    start, end = _span(other, chance)
    at, behind = _span(data, chance)
    return data[:at] + other[start : chance.choice((end, len(other)))] + data[behind:]


def _number(data: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    """Another number in the place of one that is written, or of eight bytes."""
    found = list(_DIGITS.finditer(data))
    number = chance.choice(NUMBERS) * chance.choice((1, 1, -1))
    if found and chance.random() < 0.7:
        start, end = chance.choice(found).span()
        return data[:start] + str(number).encode() + data[end:]
    width = chance.choice((1, 4, 8))
    at = chance.randint(0, max(0, len(data) - width))
    return data[:at] + (number % (1 << 8 * width)).to_bytes(width, "little") + data[at + width :]


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _remove,
    _repeat,
    _move,
    _insert,
    _insert,
    _splice,
    _number,
    _number,
)


def mutations(seeds: Sequence[bytes], number: int, chance: Random) -> Iterator[bytes]:
    """So many inputs, each a seed that was changed in one to four ways."""
    for _ in range(number):
        data = chance.choice(seeds)
        for _ in range(chance.randint(1, 4)):
            data = chance.choice(MUTATIONS)(data, seeds, chance)[:LONGEST]
        yield data
