"""Numbers, lengths of time and moments, in as few characters as a screen has room for. Knows no Textual."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from rich.cells import cell_len, set_cell_size

from duraq.times import in_zone

NOTHING = "-"
CUT = "..."

MINUTE, HOUR, DAY = 60, 3600, 86400


class Times(StrEnum):
    """How moments are shown."""

    LOCAL = "local"
    UTC = "utc"
    RELATIVE = "relative"

    @property
    def next(self) -> Times:
        """The one after it; after the last the first."""
        every = list(Times)
        return every[(every.index(self) + 1) % len(every)]


def fit(text: str, width: int) -> str:
    """The text, cut with three dots if it takes more cells than that."""
    if (len(text) if text.isascii() else cell_len(text)) <= width:
        return text
    return (set_cell_size(text, max(0, width - len(CUT))) + CUT)[:width]


def wrapped(text: str, width: int, most: int, end: str) -> list[str]:
    """The text in lines, broken at spaces; what is longer than so many lines ends as is said."""
    lines = textwrap.wrap(text, max(width, len(end)), max_lines=most, placeholder=end, break_on_hyphens=False)
    return lines or [""]


def count(number: int) -> str:
    """1,902; from a million on 1.90M: seven characters at most."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6)):
        if number >= size:
            # Cut, not rounded: 1,000.00M would be too long.
            return f"{number * 100 // size / 100:.2f}{unit}"
    return f"{number:,}"


def rate(per_second: float) -> str:
    """How often a second: 0.0, 0.02, 18.0, 1,204."""
    per_second = max(per_second, 0.0)  # what is added up and taken apart again may end a little below
    if 0 < per_second < 0.1:
        return f"{max(per_second, 0.01):.2f}"
    return f"{per_second:.1f}" if per_second < 1000 else count(round(per_second))


def share(part: float) -> str:
    """A share in percent, without the sign."""
    return f"{part * 100:.1f}" if part < 0.9995 else "100"


def seconds(length: float | None) -> str:
    """About how long something took: 5ms, 0.4s, 12.4s, 39.8m, 2.3h."""
    if length is None:
        return NOTHING
    if length < 0.1:
        return f"{length * 1000:.0f}ms"
    for unit, size in (("s", 1), ("m", MINUTE), ("h", HOUR)):
        if length < 100 * size:
            return f"{length / size:.1f}{unit}"
    return f"{length / DAY:.1f}d"


def age(length: timedelta | None) -> str:
    """For how long: 11s, 41m, 2h10m, 3d04h. From a minute on it changes once a minute."""
    if length is None:
        return NOTHING
    whole = max(0, int(length.total_seconds()))
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02d}m"
    return f"{whole // DAY}d{whole % DAY // HOUR:02d}h"


def size(number: float) -> str:
    """412 B, 1.1 KB, 18.2 MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def moment(at: datetime, now: datetime, times: Times, *, fraction: bool = False) -> str:
    """A moment: the time of day, with the date if that is another day's; or how long ago."""
    if times is Times.RELATIVE:
        return age(now - at) if at <= now else f"in {age(at - now)}"
    zone = UTC if times is Times.UTC else None
    local, today = in_zone(at, zone), now.astimezone(zone).date()
    text = f"{local:%H:%M:%S}" + (f".{local.microsecond // 1000:03d}" if fraction else "")
    return text if local.date() == today else f"{local:%Y-%m-%d} {text}"


def brief(moment: str) -> str:
    """That without its year and seconds, if it has a date: eleven characters at most."""
    return moment if len(moment) <= 11 else moment[5:16]


def plural(number: int, thing: str) -> str:
    """1 queue, 2 queues."""
    return f"{count(number)} {thing}" + ("" if number == 1 else "s")
