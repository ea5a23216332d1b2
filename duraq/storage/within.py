"""Waiting for a queue within a transaction that has changed it, and alone knows how."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

from duraq.storage.base import PlaceInLine, pass_on


class PlaceWithin:
    """See PlaceInLine. ``look`` says how long to sleep, of how long it would be without the transaction."""

    def __init__(
        self,
        place: PlaceInLine,
        look: Callable[[float | None, float], float | None],
        is_paused: Callable[[], bool],
    ) -> None:
        self._place = place
        self._look = look
        self._is_paused = is_paused

    def __enter__(self) -> Self:
        self._place.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.__exit__(kind, error, trace)

    def look(self, timeout: float = math.inf) -> float | None:
        return self._look(self._place.look(timeout), timeout)

    def sleep(self, seconds: float) -> bool:
        woken = self._place.sleep(seconds)
        if woken and self._is_paused():
            # For whoever is next in line: here nothing can be taken.
            pass_on(self._place)
            self._place.__enter__()
        return woken

    def fileno(self) -> int:
        return self._place.fileno()
