"""One picture of a dashboard as plain text: the app runs without a terminal until it has looked."""

from __future__ import annotations

import asyncio
import time

from duraq_dashboard.app import Dashboard

PATIENCE = 30.0  # seconds; a storage on a slow disk takes long to be read


def picture(app: Dashboard, size: tuple[int, int]) -> list[str]:
    """The lines of the screen once there is something to see."""
    return asyncio.run(_picture(app, size))


async def _picture(app: Dashboard, size: tuple[int, int]) -> list[str]:
    async with app.run_test(size=size) as pilot:
        give_up = time.monotonic() + PATIENCE
        while app.snapshot is None and time.monotonic() < give_up:
            await pilot.pause(0.02)
        await pilot.pause()
        return app.text()
