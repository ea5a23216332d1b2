"""What makes two errors the same: kind, place, and the message without what differs each time.

Two thousand failures are often three errors. Their messages differ in numbers, ids, addresses and names; with
those replaced they are equal.
"""

from __future__ import annotations

import re
from hashlib import blake2b

_LONGEST = 200  # characters of a message that are looked at
_WHAT_DIFFERS = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE), "<url>"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+"), "<address>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"(?<![\w/])/[\w.@+-]+(/[\w.@+-]*)+"), "<path>"),
    (re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\""), "<text>"),
    (re.compile(r"\b\d+-[0-9a-f]{8}\b"), "<worker>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<n>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
)
# A status, an errno and an exit code say what kind of error it is; any other number is one of many.
_NUMBER = re.compile(
    r"(?P<kind>\b(?:HTTP(?:Error|/[\d.]+)?|status|errno|code)[ :=]*)?-?\d+(?:[.,]\d+)*", re.IGNORECASE
)
_SPACE = re.compile(r"\s+")


def normalised(message: str) -> str:
    """The message with a placeholder for whatever differs from one time to the next."""
    text = message[:_LONGEST]
    for pattern, placeholder in _WHAT_DIFFERS:
        text = pattern.sub(placeholder, text)
    text = _NUMBER.sub(lambda found: found[0] if found["kind"] else "<n>", text)
    return _SPACE.sub(" ", text).strip()


def signature(kind: str, message: str, frame: str = "") -> str:
    """Eight hexadecimal digits that are the same for errors of one kind, raised in one function.

    ``frame`` is ``file:line in function``, of which the function counts: lines move with every release.
    """
    function = frame.rpartition(" in ")[2]
    content = "\0".join((kind, function, normalised(message)))
    return blake2b(content.encode("utf-8", "replace"), digest_size=4).hexdigest()
