"""Presses every key that is bound on every screen, once, and Enter in every question that comes up.

Run as a program, with a storage's directory, it does so in a dashboard that may only read.
"""

import asyncio
import os
import sys

from buried import until
from duraq_dashboard.app import Dashboard
from duraq_dashboard.dialogs.confirm import ConfirmDialog
from duraq_dashboard.dialogs.progress import ProgressDialog
from duraq_dashboard.screens.base import BaseScreen
from duraq_dashboard.screens.entry import EntryScreen
from duraq_dashboard.screens.queue_detail import QueueScreen
from duraq_dashboard.source import StorageSource

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
ENDS = {"q", "ctrl+q", "ctrl+c"}
MODES = ("queues", "dlq", "errors", "leases", "health", "events")


async def press_everything(pilot, entries):
    """All screens in turn; ``entries`` are shown in full, too. Returns how often which key was pressed."""
    app, pressed, done = pilot.app, 0, set()
    await until(pilot, lambda: app.snapshot is not None)
    for mode in MODES:
        app.action_show(mode)
        await _soon()
        pressed += await _press_all(pilot, done)
    app.open_queue("mail")
    await until(pilot, lambda: isinstance(app.screen, QueueScreen))
    pressed += await _press_all(pilot, done)
    app.pop_screen()
    for entry_id in entries:
        app.open_entry(entry_id, "mail")
        await until(pilot, lambda: isinstance(app.screen, EntryScreen) and app.screen._view is not None)
        pressed += await _press_all(pilot, done)
        app.pop_screen()
    return pressed


async def _press_all(pilot, done):
    app = pilot.app
    screen, mode, depth = app.screen, app.current_mode, len(app.screen_stack)
    assert isinstance(screen, BaseScreen)
    # From a screen that was opened from another, these lead back.
    ends = ENDS | {"escape"} if depth > 1 else ENDS
    bound = {
        key: active.binding.id or "" for key, active in screen.active_bindings.items() if key not in ends
    }
    # What is bound on every screen by the same binding does the same there, unless it changes something.
    keys = [key for key, name in sorted(bound.items()) if DEEP or name not in done or name.startswith("act.")]
    done.update(bound.values())
    for key in keys:
        app.simulate_key(key)
        await _soon()
        while app.screen is not screen:
            await _go_back(pilot, mode, depth)
        for bar in screen.query("FilterBar"):
            bar.clear()
    return len(keys)


async def _go_back(pilot, mode, depth):
    """To where the key was pressed; if it has led to a question, by Enter, which agrees to nothing."""
    app = pilot.app
    if isinstance(app.screen, ConfirmDialog):
        await until(pilot, lambda: getattr(app.focused, "id", "") in {"cancel", "to"})
        in_a_field = app.focused.id == "to"
        app.simulate_key("enter")
        if in_a_field:
            # There Enter goes on to the next field.
            app.simulate_key("escape")
        await until(pilot, lambda: not isinstance(app.screen, ConfirmDialog))
    assert not isinstance(app.screen, ProgressDialog)
    if app.current_mode != mode:
        app.action_show(mode)
    elif len(app.screen_stack) > depth:
        app.pop_screen()
    await _soon()


async def _soon():
    # Not the pilot's way, which waits until the whole process is idle.
    for _ in range(3):
        await asyncio.sleep(0.002)


async def _main(root, entries):
    async with Dashboard(StorageSource(root), read_only=True).run_test(size=(120, 36)) as pilot:
        assert await press_everything(pilot, entries) > 50


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
