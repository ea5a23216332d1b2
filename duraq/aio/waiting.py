"""Waiting for entries without a thread: a task sleeps on a descriptor, in a chair that tasks take in turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from anyio import CancelScope, Lock, move_on_after, wait_readable

from duraq.aio.calls import call
from duraq.storage.base import PlaceInLine, Storage, pass_on

T = TypeVar("T")


class Chairs:
    """One chair for each queue of a storage.

    Whoever sits in it has the storage's place in the line of those who wait, and sleeps there; others stand
    behind it, in the order in which they came. So a thousand tasks that wait cost no more than one.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._chairs: dict[str, Lock] = {}

    async def claim(
        self, queue: str, claim: Callable[[], list[T]], undo: Callable[[list[T]], object], until: float
    ) -> list[T]:
        """Wait until there may be something, and return what ``claim`` then finds, which may be nothing.

        ``until``, by the event loop's clock: when to give up. If the task is cancelled, a wake-up that was
        meant for it goes to the next in line.
        """
        with CancelScope(deadline=until) as patience:
            async with self._chairs.setdefault(queue, Lock()):
                return await self._claim_from_chair(queue, claim, undo, patience)
        return []

    async def _claim_from_chair(
        self,
        queue: str,
        claim: Callable[[], list[T]],
        undo: Callable[[list[T]], object],
        patience: CancelScope,
    ) -> list[T]:
        place = self._storage.place(queue)
        seconds = await call(partial(_sit_down, place), undo=lambda _: pass_on(place))
        risen = False

        def rise_and_claim() -> list[T]:
            nonlocal risen
            risen = True
            place.__exit__(None, None, None)
            return claim()

        try:
            while seconds is not None:
                with move_on_after(seconds):
                    await wait_readable(place)
                if place.sleep(0):
                    break
                seconds = await call(place.look)
            # What is there now is taken, though it takes longer.
            patience.deadline = math.inf
            # In one call: between the two a cancellation would take the wake-up with it.
            return await call(rise_and_claim, undo=undo)
        finally:
            if not risen:
                await call(partial(pass_on, place), surely=True)


def _sit_down(place: PlaceInLine) -> float | None:
    place.__enter__()
    try:
        return place.look()
    except BaseException:
        pass_on(place)
        raise
