"""What is around every screen: the bar at the top, the keys at the bottom, and how one gets about."""

from contextlib import nullcontext
from datetime import timedelta

import pytest
from buried import until
from duraq_dashboard.app import Dashboard
from duraq_dashboard.options import Options
from duraq_dashboard.remembered import Remembered
from duraq_dashboard.screens import TABS
from duraq_dashboard.screens.copy_menu import CopyMenu
from duraq_dashboard.screens.palette import PaletteScreen
from duraq_dashboard.screens.queue_detail import QueueScreen
from duraq_dashboard.snapshot import Trouble
from duraq_dashboard.widgets.key_bar import KeyBar, hints
from duraq_dashboard.widgets.row_list import RowList
from on_screen import NOW, SIZES, FakeSource, queue_now, queue_view, snapshot, text_of
from textual import events

from duraq import FileStorage, Queue
from duraq.testing import FakeClock

pytestmark = pytest.mark.anyio
MAIL = queue_now(queue_view("mail", 2, oldest=timedelta(minutes=1), waiting=1))


def top(app):
    return text_of(app)[0]


async def test_how_fresh_it_is(dashboard, source, clock):
    """The bar says live with the lag, then without what would change all the time, frozen, and stale."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        assert top(app).endswith("LIVE 41ms  10:42:17")
        clock.advance(timedelta(seconds=11))
        source.looked_at += timedelta(seconds=11)
        app._tick()
        await pilot.pause()
        assert top(app).endswith("LIVE  10:42")
        clock.advance(timedelta(minutes=1))
        app._tick()
        await pilot.pause()
        assert top(app).endswith("STALE 1m  10:43")
        await pilot.press("p")
        clock.advance(timedelta(seconds=12))
        app._tick()
        await pilot.pause()
        assert "FROZEN 12s" in top(app)
        source.show(snapshot(MAIL, live=False, number=2, changed_at=NOW + timedelta(minutes=2)))
        await pilot.pause()
        assert "FROZEN 12s" in top(app)
        source.looked_at += timedelta(minutes=2)
        await pilot.press("p")
        await pilot.pause(0.2)
        assert "POLL 41ms" in top(app)


async def test_read_only_is_always_seen(source, clock):
    """Whoever may only read is told so at every size, however long the path and the names are."""
    name = "q" * 64
    source.path = "/srv/" + "deep/" * 30
    source.show(snapshot(queue_now(queue_view(name, 1))))
    app = Dashboard(source, clock=clock, read_only=True)
    async with app.run_test(size=SIZES[0]) as pilot:
        for keys in ("1", "enter", "p"):
            await pilot.press(keys)
            for size in (*SIZES, (110, 36)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                assert " READ-ONLY  " in top(app), (keys, size)
                assert top(app).endswith("10:42:17")


@pytest.mark.parametrize("keys", ["2", "4", "5"])
async def test_which_pane_has_the_keys(source, clock, keys):
    """Of several panes the one that the keys go to is told by its heading, not by colours alone."""
    source.show(snapshot(MAIL))
    app = Dashboard(source, clock=clock, options=Options(ascii_only=True))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press(keys)
        panes = [pane.id for pane in app.screen.query(RowList)]
        seen = {}
        for pane in panes:
            app.screen.query_one(f"#{pane}").focus()
            await pilot.pause()
            seen[pane] = [
                line[line.index("- [") :].split("]")[0] for line in text_of(app)[1:] if "- [" in line
            ]
        assert len(panes) == 2
        assert all(len(titles) == 1 for titles in seen.values())
        assert seen[panes[0]] != seen[panes[1]]


async def test_digits_and_back(dashboard, source):
    """Each digit shows its screen, ctrl+o the one before, Enter goes into a queue, Esc and q come back."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        for number, (mode, title, _) in enumerate(TABS, 1):
            await pilot.press(str(number))
            assert (app.screen.MODE, app.screen.TITLE) == (app.current_mode, title) == (mode, title)
            assert f"[{number} {title}]" in top(app)
        await pilot.press("1", "3", "ctrl+o")
        assert app.current_mode == "queues"
        for key in ("escape", "q"):
            await pilot.press("enter")
            assert type(app.screen) is QueueScreen
            assert "Queues > mail" in top(app)
            assert "q back" in text_of(app)[-1]
            await pilot.press(key)
            assert app.current_mode == "queues"
        await pilot.press("escape")
        assert app.is_running
        assert "q quit" in text_of(app)[-1]
        await pilot.press("p")
        assert "p go on" in text_of(app)[-1]
        await pilot.press("q")
        await pilot.pause()
    assert app._exit


async def test_no_hint_is_cut(dashboard, source):
    """The keys at the bottom are whole, and those for help and back are always among them."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=SIZES[0]) as pilot:
        for number in "123456":
            await pilot.press(number)
            for size in SIZES:
                await pilot.resize_terminal(*size)
                await pilot.pause()
                shown = [hint for _, hint in pilot.app.screen.query_one(KeyBar)._shown]
                assert text_of(pilot.app)[-1] == "  ".join(hint.text for hint in shown)
                assert {"help", "leave"} <= {hint.id for hint in shown}


async def test_a_click_is_a_key(dashboard, source):
    """A click on a tab or on a hint does what its key does."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        await pilot.click("TopBar", offset=(top(app).index("6 Events") + 2, 0))
        assert app.current_mode == "events"
        await pilot.press("1")
        at = text_of(app)[-1].index("p freeze")
        await pilot.click("KeyBar", offset=(at + 2, 0))
        await pilot.pause()
        assert app.frozen


async def test_all_bindings_have_an_id(dashboard, source):
    """Every key of every screen can be given another one, and no two have the same name."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        for number in "123456":
            await pilot.press(number)
            ids = [hint.id for hint in hints(pilot.app.screen)]
            assert all(ids)
            assert len(set(ids)) == len(ids)


async def test_keys_of_ones_own(source, clock):
    """A key from keys.toml takes the place of the one that a binding has."""
    source.show(snapshot(MAIL))
    app = Dashboard(source, clock=clock, options=Options(keys={"freeze": "F"}))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("p")
        assert not app.frozen
        await pilot.press("F")
        assert app.frozen
        assert "F go on" in text_of(app)[-1]


async def test_copying(dashboard, source):
    """The menu offers what the cursor is on, and a letter sends it to the terminal's clipboard."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("y")
        assert type(pilot.app.screen) is CopyMenu
        await pilot.press("p")
        assert pilot.app.clipboard == "/srv/queues/mail"
        assert type(pilot.app.screen) is not CopyMenu


async def test_ctrl_c(dashboard, source):
    """Ctrl+C, with nothing marked, ends it."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("ctrl+c")
        await pilot.pause()
    assert pilot.app._exit


async def test_ctrl_c_in_a_filter(dashboard, source):
    """Ctrl+C in a filter clears it and goes back to the list, as Esc does; nothing ends."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("slash", *"ma", "ctrl+c")
        await pilot.pause()
        assert not pilot.app._exit
        assert not any(line.startswith("/ ") for line in text_of(pilot.app))
        assert type(pilot.app.focused) is RowList


async def test_what_is_remembered(source, clock, tmp_path):
    """Screen, sort and filter are as they were the next time; another storage has its own."""
    source.show(snapshot(MAIL))

    def make(root):
        return Dashboard(source, clock=clock, options=Options(remembered=Remembered(root, tmp_path)))

    async with make("/one").run_test(size=(120, 36)) as pilot:
        await pilot.press("s", "slash", *"ma", "enter", "6")
    source.show(snapshot(MAIL))
    async with make("/one").run_test(size=(120, 36)) as pilot:
        assert pilot.app.current_mode == "events"
        await pilot.press("1")
        await pilot.pause()
        assert "sort: name" in "\n".join(text_of(pilot.app))
        assert "/ ma" in "\n".join(text_of(pilot.app))
    async with make("/two").run_test(size=(120, 36)) as pilot:
        assert pilot.app.current_mode == "queues"


async def test_what_was_remembered_may_be_anything(source, clock, tmp_path):
    """A file that is none of ours, or has other things in it, is left out without a word."""
    source.show(snapshot(MAIL))
    kept = Remembered("/one", tmp_path)
    kept.save({"app": {"screen": "nosuch", "times": "nosuch"}, "queues": {"sort": "nosuch"}})
    (file,) = tmp_path.iterdir()
    for text in (file.read_text(), "[]", "{", '{"screens": {"app": 1, "queues": {"filter": ["x"]}}}'):
        file.write_text(text)
        async with Dashboard(source, clock=clock, options=Options(remembered=kept)).run_test() as pilot:
            assert pilot.app.current_mode == "queues"


async def test_where_there_is_no_storage(source, clock, tmp_path):
    """It says so, names a storage that was probably meant, and Enter opens it."""
    with FileStorage(tmp_path / "queues") as storage:
        Queue("mail", storage).enqueue("x")
    source.path = str(tmp_path / "quees")
    source.show(snapshot(trouble=Trouble("GONE", f"{source.path}: there is no such directory")))
    opened = []

    def opener(path):
        opened.append(FakeSource(path))
        opened[0].show(snapshot(MAIL))
        return opened[0]

    remembered = Remembered(source.path, tmp_path / "state")
    options = Options(rule="--root", remembered=remembered)
    app = Dashboard(source, clock=clock, opener=opener, options=options)
    async with app.run_test(size=(120, 36)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause()
        text = "\n".join(text_of(app))
        assert "! GONE: " in text
        assert "quees: there is no such directory" in text
        # A long path is wrapped.
        asked = f"Did you mean {tmp_path / 'queues'} (1 queue)?  Enter opens it"
        assert "".join(asked.split()) in "".join(text.split())
        assert "named by --root" in text
        assert not any(key in text_of(app)[-1] for key in ("y copy", "p freeze"))
        await pilot.press("enter")
        await pilot.pause(0.2)
        assert [source.path for source in opened] == [str(tmp_path / "queues")]
        assert "> OK" in "\n".join(text_of(app))
        await pilot.press("comma")
    # What is set is for the storage that was opened.
    assert remembered.load() == {}
    assert Remembered(str(tmp_path / "queues"), tmp_path / "state").load()["app"]["times"] == "utc"


async def test_too_small(dashboard, source):
    """Below 60 columns or 16 lines there is a plain notice, and the screen again when there is room."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(59, 16)) as pilot:
        notice = ["  duraq needs 60 columns and 16 lines"]
        assert [line for line in text_of(pilot.app) if line] == notice
        await pilot.resize_terminal(60, 15)
        await pilot.pause()
        assert [line for line in text_of(pilot.app) if line] == notice
        await pilot.resize_terminal(60, 16)
        await pilot.pause()
        assert "mail" in "\n".join(text_of(pilot.app))


@pytest.mark.parametrize("key", ["y", "colon", "question_mark"])
async def test_too_small_for_what_is_in_front(dashboard, source, key):
    """However small it gets, there is only a notice, and keys do nothing but quit, until there is room."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app = pilot.app
        await pilot.press(key)
        await pilot.pause()
        front, focused = app.screen, app.focused
        for size in ((59, 36), (120, 15), (17, 5), (5, 3), (1, 1)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.press("escape", "down", "enter", "2")
            assert app.screen is front
        await pilot.resize_terminal(40, 16)
        await pilot.pause()
        assert [line.strip() for line in text_of(app) if line] == ["duraq needs 60 columns and 16 lines"]
        await pilot.resize_terminal(60, 16)
        await pilot.pause()
        await pilot.pause()
        assert app.focused is focused
        await pilot.resize_terminal(40, 16)
        await pilot.press("q")
        assert app._exit


@pytest.mark.parametrize("key", ["y", "colon"])
@pytest.mark.parametrize("page", ["pageup", "pagedown"])
async def test_paged_before_it_is_seen(dashboard, source, key, page):
    """A list may be paged before it was drawn for the first time."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        pilot.app.post_message(events.Key(key, None))
        pilot.app.post_message(events.Key(page, None))
        await until(pilot, lambda: isinstance(pilot.app.screen, PaletteScreen | CopyMenu))
        await pilot.pause()


async def test_a_frame_for_several_snapshots(source):
    """What comes faster than is to be drawn is passed over, and the newest is shown in the end."""
    app = Dashboard(source, clock=FakeClock(now=NOW), options=Options(fps=5))
    async with app.run_test(size=(120, 36)) as pilot:
        drawn = []
        draw = app.screen.draw
        app.screen.draw = lambda shown: (drawn.append(shown.number), draw(shown))
        for number in range(1, 21):
            source.show(snapshot(MAIL, number=number))
            await pilot.pause()
        await pilot.pause(0.3)
        assert drawn[-1] == 20
        assert len(drawn) < 10


async def test_keys_that_are_unknown_or_taken(source, clock):
    """What keys.toml gets wrong is said, and everything else goes on."""
    source.show(snapshot(MAIL))
    app = Dashboard(source, clock=clock, options=Options(keys={"nosuch": "F", "sort": "slash"}))
    said = []
    app.say = lambda text, **_: said.append(text)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("1", "slash")
        assert said == [
            "keys.toml: there is no nosuch; ? lists all names",
            "keys.toml: the same key for filter and sort",
        ]


async def test_when_it_fails(dashboard, source, caplog, capsys, monkeypatch):
    """What kills it is logged whole; the terminal gets two lines, in which nothing is obeyed."""
    source.show(snapshot(MAIL))
    app = dashboard()
    with pytest.raises(RuntimeError):  # noqa: PT012 - the app ends, and raises then
        async with app.run_test(size=(120, 36)) as pilot:
            monkeypatch.setattr(
                app.screen, "draw", lambda _: (_ for _ in ()).throw(RuntimeError("[/red] \x1b[2J"))
            )
            source.show(snapshot(MAIL, number=2))
            await pilot.pause(0.2)
    text = capsys.readouterr().err
    assert text.startswith(
        "duraq: the dashboard has failed: RuntimeError: [/red] \\x1b[2J\nThe whole story is in "
    )
    assert caplog.records[-1].exc_info[1].args == ("[/red] \x1b[2J",)


async def test_a_storage_that_comes_and_goes(dashboard, source):
    """When the storage can be read again, the screen is there again, and so is the cursor."""
    source.show(snapshot(MAIL))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        source.show(snapshot(trouble=Trouble("GONE", "there is no such directory"), number=2))
        await pilot.pause(0.2)
        assert "> OK" not in "\n".join(text_of(pilot.app))
        source.show(snapshot(MAIL, queue_now(queue_view("other")), number=3))
        await pilot.pause(0.2)
        await pilot.press("down")
        assert any(line.startswith("> OK            other") for line in text_of(pilot.app))


async def test_a_pager(dashboard, source, monkeypatch):
    """What is shown is handed to the pager as plain text; without a terminal it says that it cannot."""
    source.show(snapshot(MAIL))
    app = dashboard()
    said, shown = [], []
    app.say = lambda text, **_: said.append(text)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("o")
        assert said == ["a pager cannot be opened from here"]
        monkeypatch.setattr(app, "suspend", nullcontext)
        monkeypatch.setattr("duraq_dashboard.app.show_in_pager", shown.append)
        await pilot.press("o")
        assert shown[0].startswith("mail\nnothing is the matter\n")


async def test_a_part_is_not_shown_as_if_it_were_all(dashboard, source):
    """Until all queues were looked at no screen says that there is nothing: each says that it still reads."""
    source.show(snapshot(whole=False))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        for number, (screen, *_) in enumerate(TABS[:5], 1):
            await pilot.press(str(number))
            await pilot.pause()
            assert "still reading  10:42:17" in top(pilot.app)
            text = "\n".join(text_of(pilot.app)[1:])
            for claim in ("No queues here", "no alerts", "No dead letters", "Nothing", "Nobody"):
                assert claim not in text, (screen, claim)
        source.show(snapshot(MAIL, number=2, whole=False))
        await pilot.press("1")
        await pilot.pause(0.2)
        assert "1 of 1 so far" in "\n".join(text_of(pilot.app))
        source.show(snapshot(MAIL, number=3))
        await pilot.pause(0.2)
        assert "LIVE" in top(pilot.app)
        assert "so far" not in "\n".join(text_of(pilot.app))


async def test_begun_at_a_queue_that_comes_later(source, clock):
    """A queue that is named and not read yet is not taken for an entry."""
    source.show(snapshot(queue_now(queue_view("other")), whole=False))
    async with Dashboard(source, clock=clock, options=Options(start="mail")).run_test() as pilot:
        await pilot.pause()
        assert pilot.app.screen.crumbs == ()
        source.show(snapshot(queue_now(queue_view("other")), MAIL, number=2, whole=False))
        await pilot.pause(0.2)
        assert pilot.app.screen.crumbs == ("Queues", "mail")


def _styled(app):
    strips = app.screen._compositor.render_strips()
    return [[(segment.text, str(segment.style)) for segment in strip] for strip in strips]


async def _looks(pilot, theme):
    """What each screen looks like, all seen before that theme was chosen; and one of them before that."""
    for number, _ in enumerate(TABS, 1):
        await pilot.press(str(number))
    await pilot.press("1", "enter", "2")
    before = _styled(pilot.app)
    pilot.app.theme = theme
    looks = []
    for mode in ("queues", "errors", "leases", "events", "dlq"):
        pilot.app.action_show(mode)
        await pilot.pause(0.1)
        looks.append(_styled(pilot.app))
    pilot.app.open_queue("mail")
    await pilot.pause(0.1)
    looks.append(_styled(pilot.app))
    await pilot.press("escape")
    await pilot.pause(0.1)
    return [*looks, _styled(pilot.app)], before


async def test_a_theme_reaches_what_was_not_seen(source, clock):
    """A screen that was left looks, when one comes back, as if the theme had been this one from the start."""
    source.show(snapshot(MAIL))
    async with Dashboard(source, clock=clock).run_test(size=(120, 36)) as pilot:
        switched, dark = await _looks(pilot, "duraq-light")
    light = Options(theme="duraq-light")
    async with Dashboard(source, clock=clock, options=light).run_test(size=(120, 36)) as pilot:
        from_the_start, before = await _looks(pilot, "duraq-light")
    assert switched == from_the_start
    assert before == from_the_start[4] != dark
