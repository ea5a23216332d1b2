"""Which widget a key is for: the one that has the keys when whatever was typed before has been done."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from weakref import WeakKeyDictionary

from textual import events
from textual.app import App, ScreenStackError
from textual.widget import Widget
from textual.widgets import Input

# Seconds that a screen may take to come, before keys are believed to be for it all the same.
PATIENCE = 10.0
# And that a field may take for what was typed into it.
_SOON = 1.0


class Addressing:
    """Of the keys of one app."""

    def __init__(self, app: App[None]) -> None:
        self._app = app
        self._sent_to: WeakKeyDictionary[events.Key, Widget] = WeakKeyDictionary()

    async def addressed(self, key: events.Key) -> events.Key:
        """The key, for what has the keys now.

        A key goes to the widget that has them, and comes back if it means nothing there. By then a key before
        it may have opened a field or a screen: what was typed behind that is for the new one.
        """
        with suppress(ScreenStackError):
            await self._wait_for_screen()
            front: Widget = self._app.focused or self._app.screen
            if key.is_forwarded and self._sent_to.get(key, front) is not front:
                key = events.Key(key.key, key.character)
            if not key.is_forwarded:
                self._sent_to[key] = front
        return key

    async def _wait_for_screen(self) -> None:
        """Of two quick keys the second may come before the screen that the first opens has its widgets."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not self._app.screen.is_mounted:
                    is_there: asyncio.Event = self._app.screen._mounted_event  # noqa: SLF001 - nothing else tells
                    await is_there.wait()


async def at_rest(field: Input) -> None:
    """Wait until the field, and all that it is in, have taken what was sent to them, and what came of it."""
    way = [field, *(node for node in field.ancestors if isinstance(node, Widget))]
    with suppress(TimeoutError):
        async with asyncio.timeout(_SOON):
            # Once for what is on its way up, and once for what that is answered with.
            for node in way * 2:
                is_at_rest = asyncio.Event()
                if node.call_later(is_at_rest.set):
                    await is_at_rest.wait()
