"""Help, palette and the bar at the bottom are made from the bindings, so all of them say the same."""

from datetime import timedelta

import pytest
from buried import bury, until
from duraq_dashboard.app import Dashboard
from duraq_dashboard.commands import Command, matching
from duraq_dashboard.options import Options
from duraq_dashboard.remembered import Remembered
from duraq_dashboard.screens.help import HelpScreen
from duraq_dashboard.screens.palette import PaletteScreen, commands_of
from duraq_dashboard.screens.queue_detail import QueueScreen
from duraq_dashboard.screens.queues import QueuesScreen
from duraq_dashboard.widgets.key_bar import hints, key_name
from duraq_dashboard.widgets.key_owners import key_owners
from duraq_dashboard.widgets.row_list import RowList
from on_screen import NOW, FakeSource, queue_now, queue_view, snapshot, text_of
from textual import events
from textual.widgets import Input

from duraq.actions import ACTIONS
from duraq.inspector import Inspector
from duraq.model import Pause

pytestmark = pytest.mark.anyio
MAIL = queue_now(queue_view("mail", 2, dead=3, oldest=timedelta(minutes=1), waiting=1))
SCREENS = (*"123456", "1,enter")


async def test_help_has_what_is_bound(dashboard, source):
    """On every screen, help lists each key that is bound there with what it does, and nothing else."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 50)) as pilot:
        for keys in SCREENS:
            await pilot.press(*keys.split(","))
            expected = hints(pilot.app.screen)
            bound = {
                (active.binding.key, active.binding.id)
                for active in pilot.app.screen.active_bindings.values()
                if active.enabled and active.binding.id
            }
            assert {(key, hint.id) for hint in expected for key in hint.keys} == bound
            screen = HelpScreen("", expected)
            listed = ["".join(p if isinstance(p, str) else p[0] for p in line) for line in screen.lines("")]
            for hint in expected:
                assert f"{' '.join(map(key_name, hint.keys)):<12}{hint.label:<24} {hint.id:<20}" in listed
            headings = {"MOVE", "LOOK", "SELECT", "CHANGE (asks first)", "SCREENS"} & set(listed)
            keyless = [action for action in ACTIONS.values() if action.key is None]
            assert len(listed) == len(expected) + len(headings) + len(keyless)


async def test_columns_of_help(dashboard, source):
    """In help, what a key is called in keys.toml begins at the same place in each line."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        named = [line for line in pilot.app.screen.lines("") if len(line) > 2]
        assert len({len(line[0][0]) + len(line[1]) for line in named}) == 1


async def test_searching_help(dashboard, source):
    """Help is searched by a key, and by what it does."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("question_mark", "s")
        assert any("s           sort" in line for line in text_of(pilot.app))
        assert not any("freeze" in line for line in text_of(pilot.app))
        await pilot.press("backspace", *"freez")
        assert any("p           freeze" in line for line in text_of(pilot.app))
        await pilot.press("escape")
        assert pilot.app.current_mode == "queues"
        assert type(pilot.app.screen) is not HelpScreen


@pytest.mark.parametrize("size", [(80, 24), (60, 16)])
async def test_paging_help(dashboard, source, size):
    """Where help has no room for all keys, those for pages and ends that it names lead to all of them."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=size) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        listed = [
            "".join(p if isinstance(p, str) else p[0] for p in line) for line in pilot.app.screen.lines("")
        ]

        def seen():
            text = "\n".join(text_of(pilot.app))
            return [number for number, line in enumerate(listed) if line[:30].rstrip() in text]

        first = seen()
        assert len(first) < len(listed)
        pages = list(first)
        for _ in range(len(listed) // 4):
            await pilot.press("pagedown")
            pages += seen()
        assert set(pages) == set(range(len(listed)))
        assert seen()[-1] == len(listed) - 1
        for forth, back in (("end", "home"), ("ctrl+d", "ctrl+u"), ("pagedown", "pageup"), ("down", "up")):
            await pilot.press("home", forth)
            assert seen() != first
            await pilot.press(back)
            assert seen() == first


async def test_every_action_can_be_begun(dashboard, source):
    """Each action of the registry is in the palette by its name, and on some screen by its key."""
    source.show(snapshot(MAIL))
    begun = []
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        titles = [command.title for command in commands_of(app)]
        assert [title for title in titles if ":" in title] == [
            f"{name}: {action.summary}" for name, action in ACTIONS.items()
        ]
        app.begin = lambda name, selection: begun.append((name, selection.queue))
        await pilot.press("colon", *"retry", "enter")
        assert begun == [("retry", "mail")]
        await pilot.press("P")
        assert begun[1:] == [("pause", "mail")]


def test_every_key_of_an_action_is_bound():
    """Each action that has a key has it on some screen, under the action's own name."""
    bound = {(name, key) for screen in key_owners() for key, names in screen.items() for name in names}
    # What is paused is resumed by the same key.
    expected = {(f"act.{action.name}", action.key) for action in ACTIONS.values() if action.key} - {
        ("act.resume", "P")
    }
    assert expected <= bound


async def test_read_only_offers_nothing(source, clock):
    """Whoever may only read is offered no action: no key, nothing in the palette, nothing in help."""
    source.show(snapshot(MAIL))
    async with Dashboard(source, clock=clock, read_only=True).run_test(size=(120, 36)) as pilot:
        for keys in SCREENS:
            await pilot.press(*keys.split(","))
            assert not [hint for hint in hints(pilot.app.screen) if hint.id.startswith("act.")]
            assert not [each for each in commands_of(pilot.app) if each.title.partition(":")[0] in ACTIONS]


async def test_going_somewhere_by_the_palette(dashboard, source):
    """The palette finds queues and screens by parts of their names."""
    source.show(snapshot(MAIL, queue_now(queue_view("other"))))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("ctrl+p", *"health", "enter")
        assert pilot.app.current_mode == "health"
        await pilot.press("colon", *"mai", "enter")
        assert type(pilot.app.screen) is QueueScreen
        assert pilot.app.screen.queue_name == "mail"
        await pilot.press("colon", *"xyz", "enter")
        assert type(pilot.app.screen) is PaletteScreen


async def test_opened_at_a_queue(source, clock):
    """Whoever names a queue begins there; with --dlq, at the dead letters."""
    source.show(snapshot(MAIL))
    async with Dashboard(source, clock=clock, options=Options(start="mail")).run_test() as pilot:
        await pilot.pause()
        assert pilot.app.screen.queue_name == "mail"
    source.show(snapshot(MAIL))
    async with Dashboard(source, clock=clock, options=Options(dead_letters=True)).run_test() as pilot:
        await pilot.pause()
        assert pilot.app.current_mode == "dlq"


@pytest.mark.parametrize("screen", ["queues", "dlq"])
async def test_opened_at_the_dead_letters_of_a_queue(source, clock, tmp_path, screen):
    """With --dlq and a queue one begins at its dead letters, whatever filter was remembered."""
    remembered = Remembered("/srv/queues", tmp_path)
    remembered.save({"app": {"screen": screen}, "dlq": {"filter": "queue:other"}})
    source.show(snapshot(MAIL))
    options = Options(start="mail", dead_letters=True, remembered=remembered)
    async with Dashboard(source, clock=clock, options=options).run_test() as pilot:
        fields = "FilterBar Input"
        await until(
            pilot, lambda: [field.value for field in pilot.app.screen.query(fields)] == ["queue:mail"]
        )
        await pilot.pause()
        assert pilot.app.current_mode == "dlq"
        assert str(pilot.app.screen._survey.where) == "queue:mail"


@pytest.mark.parametrize("key", ["y", "question_mark", "colon"])
async def test_two_quick_keys(dashboard, source, key):
    """What is closed twice, by keys that came before it was gone, takes nothing with it."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("enter", key)
        front = pilot.app.screen
        front.dismiss(None)
        front.dismiss(None)
        await pilot.pause()
        assert type(pilot.app.screen) is QueueScreen


async def test_one_notice_at_a_time(dashboard, source):
    """What is said takes the place of what was said before, so that notices never pile up over the screen."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36), notifications=True) as pilot:
        for text in ("one thing", "another", "the last"):
            pilot.app.say(text)
            await pilot.pause()
        assert [each.message for each in pilot.app._notifications] == ["the last"]


async def test_a_digit_leaves_what_was_opened(dashboard, source):
    """The key of a screen shows that screen, whatever was opened from it before."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("enter")
        assert type(pilot.app.screen) is QueueScreen
        for keys in ("1", "21"):
            await pilot.press("enter", *keys)
            assert type(pilot.app.screen) is QueuesScreen


def test_what_begins_so_comes_first():
    """What is called as it was typed comes before what only mentions it."""
    pause, resume = (Command(title, "", print) for title in ("pause: until it is resumed", "resume: again"))
    assert matching([pause, resume], "resume") == [resume, pause]


async def test_a_screen_that_comes_back_is_of_now(dashboard, source, clock):
    """Whoever comes back to a screen sees at once which time it is."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("2")
        clock.advance(timedelta(minutes=7))
        pilot.app._tick()
        await pilot.press("1")
        await pilot.pause()
        assert "10:49" in text_of(pilot.app)[0]


@pytest.mark.parametrize("first", [("colon", ":"), ("question_mark", "?"), ("slash", "/")])
async def test_letters_right_behind_a_key(dashboard, source, first):
    """Letters that are typed before what a key opens is there go into its field, all of them, in order."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app, text = pilot.app, "pause mail Gq"
        for key, letter in (first, *((letter.replace(" ", "space"), letter) for letter in text)):
            app.post_message(events.Key(key, letter))
        await until(
            pilot, lambda: [field.value for field in app.screen.query(Input) if field.has_focus] == [text]
        )
        assert not app._exit
        assert not app.frozen


@pytest.mark.parametrize(
    ("keys", "typed", "screen"),
    [
        (("/", *"abc", "ctrl+u", *"size>1"), "size>1", "dlq"),
        (("/", *"abd", "left", "c"), "abcd", "dlq"),
        (("/", *"mail", "enter", "1", "/", *"m"), "m", "queues"),
        (("/", *"mail", "escape", "5", "6", "/", "y"), "y", "events"),
        ((":", *"health", "ctrl+u", *"errors", "enter", "/", *"x"), "x", "errors"),
    ],
)
async def test_a_burst_of_keys(dashboard, source, keys, typed, screen):
    """Keys that come all at once do what they do when they come one by one, in fields too."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        await pilot.press("2")
        names = {"/": "slash", ":": "colon", ">": "greater_than_sign"}
        for key in keys:
            app.post_message(events.Key(names.get(key, key), key if len(key) == 1 else None))
        await until(pilot, lambda: app.current_mode == screen and len(app.screen_stack) == 1)
        await until(pilot, lambda: [field.value for field in app.screen.query("FilterBar Input")] == [typed])


async def test_a_key_that_comes_too_early(dashboard, source):
    """A key that nobody before wanted, and that finds a screen which has no widgets yet, waits for them."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        key = events.Key("escape", None)
        key._set_forwarded()
        pilot.app.action_show("dlq")
        assert not pilot.app.screen.is_mounted
        await pilot.app.on_event(key)
        assert pilot.app.screen.is_mounted
        assert pilot.app.current_mode == "dlq"


async def test_opened_at_an_entry(tmp_path, clock):
    """Whoever names an entry, or a part of its id that no other has, begins there."""
    ids = bury(tmp_path / "storage", "a", "b")
    with Inspector(tmp_path / "storage", clock=clock) as inspector:
        for name in (ids[0], f"..{ids[0][-10:]}"):
            source = FakeSource(inspector=inspector)
            source.show(snapshot(MAIL))
            async with Dashboard(source, clock=clock, options=Options(start=name)).run_test() as pilot:
                await pilot.pause()
                assert pilot.app.screen.crumbs == ("mail", ids[0])
        source = FakeSource(inspector=inspector)
        source.show(snapshot(MAIL))
        async with Dashboard(source, clock=clock, options=Options(start="mial")).run_test() as pilot:
            await pilot.pause()
            assert "no queue and no entry is called mial" in "\n".join(text_of(pilot.app))


async def test_the_key_that_pauses_says_what_it_does(dashboard, source):
    """On a queue that is paused, in the list and on its own screen, the key that pauses says resume."""
    paused = queue_now(queue_view("mail", 1, pause=Pause(NOW, "ann", "")))
    source.show(snapshot(paused, queue_now(queue_view("other", 1))))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        for queue, told in (("mail", "P resume"), ("other", "P pause")):
            pilot.app.screen.query_one(RowList).go_to(queue)
            await pilot.pause()
            assert told in text_of(pilot.app)[-1]
        pilot.app.open_queue("mail")
        await until(pilot, lambda: "P resume" in (text_of(pilot.app) or [""])[-1])
        source.show(snapshot(queue_now(queue_view("mail", 1)), number=2))
        await until(pilot, lambda: "P pause" in text_of(pilot.app)[-1])
