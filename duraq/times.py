"""Times as the records have them, RFC 3339 in UTC with six digits; lengths of time as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

_PREFIXES = 64  # seconds whose text is kept
_LENGTH = len("2026-11-24T13:26:00.123456Z")

_DOT = len("2026-11-24T13:26:00.")

_prefixes: dict[int, str] = {}
_seconds: dict[str, int] = {}


def rfc3339(at: int) -> str:
    """UTC with microseconds, such as 2026-11-24T13:26:00.123456Z."""
    second = at // 1_000_000
    # The text of one second serves thousands of records. Single dict operations, so threads may share it.
    prefix = _prefixes.get(second)
    if prefix is None:
        if len(_prefixes) > _PREFIXES:
            _prefixes.clear()
        prefix = _prefixes[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
    # The digits behind a leading one: a format such as 06d takes several times as long.
    return f"{prefix}{str(1_000_000 + at % 1_000_000)[1:]}Z"


def microseconds(text: str) -> int:
    """The inverse of rfc3339. Raises TypeError or ValueError for what that does not give."""
    second = _seconds.get(text[:_DOT])
    if second is not None and len(text) == _LENGTH and text[-1] == "Z":
        digits = text[_DOT:-1]
        if digits.isdecimal() and digits.isascii():
            return second + int(digits)
    at = _parsed(text)
    # Those of one second have the same beginning. What is written in another way is parsed each time.
    if rfc3339(at) == text:
        if len(_seconds) > _PREFIXES:
            _seconds.clear()
        _seconds[text[:_DOT]] = at - at % 1_000_000
    return at


def _parsed(text: str) -> int:
    if len(text) != _LENGTH or text[-1] != "Z":
        raise ValueError(f"not a time in UTC with six digits: {text!r:.80}")
    moment = datetime.fromisoformat(text)
    # Of a time far ahead a float has not all the digits, and its last microsecond would be the next second's.
    second = round(moment.timestamp() - moment.microsecond / 1_000_000)
    if second < 0:
        raise ValueError(f"before 1970: {text!r}")
    return second * 1_000_000 + moment.microsecond


def in_zone(moment: datetime, zone: tzinfo | None = None) -> datetime:
    """The moment as it is there, or where this machine is; in UTC if it has no date there."""
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment.astimezone(UTC)


def span(length: timedelta) -> str:
    """A duration for people: 0.4s, 12s, 2m04s, 5m, 3h05m, 5d07h."""
    seconds = length.total_seconds()
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}" + (f"{rest:02d}{smaller}" if rest else "")
    return f"{whole}s"
