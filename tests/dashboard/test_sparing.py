"""What is sent to the terminal: only what differs, and all of it."""

import random
from datetime import timedelta

import pyte
import pytest
from duraq_dashboard.widgets.sparing import SparingUpdate, sparing
from on_screen import NOW, queue_now, queue_view, snapshot
from textual._compositor import ChopsUpdate

pytestmark = pytest.mark.anyio


def made(rng, number):
    return queue_now(
        queue_view(
            f"queue-{number:02}", rng.randrange(5000), dead=rng.randrange(3), oldest=timedelta(hours=1)
        ),
        minutes=[{"enqueued": rng.randrange(90), "completed": rng.randrange(90)} for _ in range(15)],
    )


async def test_the_terminal_shows_what_the_app_does(dashboard, source):
    """After any number of changes the terminal shows what it would had everything been sent, for less."""
    rng = random.Random(3)
    queues = [made(rng, number) for number in range(30)]
    source.show(snapshot(*queues))
    terminal = pyte.Screen(120, 36)
    stream = pyte.Stream(terminal)
    sent, whole = [], []

    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        await pilot.pause(0.1)
        stream.feed(app.screen._compositor.render_full_update().render_segments(app.console))

        def display(_screen, update):
            if update is not None and not app._batch_count:
                if type(update) is ChopsUpdate:
                    assert type(sparing(update)) is SparingUpdate
                    whole.append(len(update.render_segments(app.console)))
                    sent.append(len(sparing(update).render_segments(app.console)))
                stream.feed(sparing(update).render_segments(app.console))

        app._display = display
        for number in range(2, 20):
            for _ in range(rng.randrange(1, 6)):
                changed = rng.randrange(30)
                queues[changed] = made(rng, changed)
            source.show(snapshot(*queues, number=number, changed_at=NOW))
            await pilot.press(rng.choice(["down", "up", "s", "pagedown", "p", "p"]))
            await pilot.pause(0.11)
            assert [line.rstrip() for line in terminal.display] == app.text()
    assert sum(sent) < sum(whole)
