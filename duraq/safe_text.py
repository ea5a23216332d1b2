r"""Text from payloads, errors and file names, made safe to show.

Whatever may move a cursor, change a colour, reorder a line, or hide is turned into an escape that can be
seen, such as ``\x1b`` or ``\u202e``. Everything that a person gets to see goes through here: on a terminal
an ESC in a payload is a command.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

# C0, DEL and C1; what has no width or no glyph; what reorders; line and paragraph separators; surrogates;
# non-characters. (Signs that precede a number in Arabic and Syriac count as formats in Unicode, but show.)
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U00013430-\U0001343f\U000e0000-\U000e0fff"
    + "".join(f"{chr((plane << 16) | 0xFFFE)}{chr((plane << 16) | 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NOT_ASCII = re.compile("[^\x20-\x7e]")
_MORE = "..."
# In the address of a server; up to the last @ of the word, since a password may have one in it.
_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S*(?=@)|(password=)[^&\s]*")
# A screen has room for no more, and a payload may have millions.
LONGEST = 1 << 20


def safe_text(text: object, limit: int = LONGEST) -> str:
    """One line that may be printed: ``str(text)``, escaped, and cut to ``limit`` characters.

    What is cut ends in three dots. An escape is never cut in two.
    """
    try:
        full = str(text)
    except Exception as error:  # noqa: BLE001 - a __str__ that fails must not keep the rest from being shown
        full = f"<str() failed: {type(error).__name__}>"
    # What is beyond the limit is not even looked at.
    shown = _UNSAFE.sub(_escape, full[: limit + 1])
    if len(shown) <= limit:
        return shown
    return _cut(full, limit)


def safe_lines(text: object, limit: int = LONGEST) -> str:
    """The same for text of several lines, a traceback say: its line ends stay, and its tabs become spaces."""
    lines = str(text)[: limit + 1].replace("\r\n", "\n").expandtabs(4).split("\n")
    shown = "\n".join(map(safe_text, lines))
    return shown if len(shown) <= limit else _cut_whole(shown, limit)


def without_password(text: str) -> str:
    """The text, with three stars in the place of each password in an address such as ``scheme://ann:pw@host``."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", text)


def ascii_json(value: Any) -> str:
    """JSON in which every character is printable ASCII; the rest is escaped, as JSON itself provides.

    Lone surrogates (file names and arguments bring them) are not JSON and become visible escapes.
    """
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        text = orjson.dumps(_without_surrogates(value))
    return _NOT_ASCII.sub(_json_escape, text.decode())


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


def _cut(full: str, limit: int) -> str:
    """As much of the text as fits, escape by escape, before the dots."""
    room = max(0, limit - len(_MORE))
    shown = _UNSAFE.sub(_escape, full[:room])
    if len(shown) > room:
        pieces, length = [], 0
        for character in full[:room]:
            piece = _UNSAFE.sub(_escape, character)
            length += len(piece)
            if length > room:
                break
            pieces.append(piece)
        shown = "".join(pieces)
    return (shown + _MORE)[:limit]


def _cut_whole(shown: str, limit: int) -> str:
    return shown[: max(0, limit - len(_MORE))] + _MORE
