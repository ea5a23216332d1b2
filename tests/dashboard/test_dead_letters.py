"""The dead letters on the screen: counted, grouped, filtered, chosen exactly, looked at one by one."""

import shutil
import threading
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from pathlib import Path

import orjson
import pytest
from buried import bury, counts, until
from duraq_dashboard.app import Dashboard
from duraq_dashboard.dialogs.confirm import ConfirmDialog
from duraq_dashboard.letters import SORTS, Queues, fetch
from duraq_dashboard.screens.dead_letters import DeadLettersScreen
from duraq_dashboard.screens.entry import EntryScreen
from duraq_dashboard.source import StorageSource
from duraq_dashboard.survey import Survey
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.preview import Preview
from duraq_dashboard.widgets.row_list import RowList
from on_screen import text_of
from textual.widgets import Input

from duraq import DeadLetterQueue, EntryStatus, FileStorage, Queue
from duraq.inspector import Inspector
from duraq.letters import exported
from duraq.model import last_failure
from duraq.safe_text import ascii_json
from duraq.testing import FakeClock
from duraq.where import Where

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=2)
WIDE = (120, 36)


def kinds(payload):
    """Errors of three kinds, told apart by what is not a number."""
    return [TimeoutError(f"after {payload['n']}s"), KeyError(f"user {payload['n']}"), ValueError("no")][
        payload["n"] % 3
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A storage with the dead letters of two queues, that died at different times."""
    root = tmp_path_factory.mktemp("made") / "storage"
    clock = FakeClock(now=NOON)
    for number in range(6):
        clock.advance(timedelta(minutes=10))
        for queue in ("mail", "billing"):
            bury(root, *({"n": number, "k": k} for k in range(3)), queue=queue, error=kinds, clock=clock)
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "storage"))


# -- what is found -----------------------------------------------------------------------------------------


def survey(inspector, queues, **more):
    """What a survey finds in the end."""
    surveyed = Survey(
        queues, more.pop("where", None), more.pop("sort", "died"), NOON + timedelta(hours=2), **more
    )
    stop = threading.Event()
    while True:
        found = surveyed.go_on(inspector, stop, lambda _: None)
        if found.is_over:
            return found


def listed(inspector, choice):
    """Its letters, in order."""
    keys = list(map(choice.key, range(len(choice))))
    views = fetch(inspector, choice.letters, keys)
    return [views[key] for key in keys]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "queue:mail",
        "-queue:mail type:TimeoutError",
        "err:user",
        "err:KeyErr,user",
        "-err:KeyError payload.k=1",
        "err!=KeyError queue:mail",
        'err:~"Key|after" -err:no',
        "payload.n>=4",
        "attempts>=1 -type:KeyError",
        "since:2026-11-29T12:25:00Z until:2026-11-29T12:45:00Z",
        'payload.k=1 "no"',
        "state:ready",
    ],
)
def test_filter_means_what_it_means_everywhere(root, text):
    """A filter finds the letters that it matches one by one, and every sorting has the same letters."""
    where = None if text is None else Where.parse(text, LATER)
    with Inspector(root, clock=FakeClock(now=LATER)) as inspector:
        every = [view for name in inspector.queues() for view in inspector.each_entry(name, EntryStatus.DEAD)]
        meant = {(view.queue, view.id) for view in every if where is None or where.matches(view)}
        for sort in SORTS:
            found = survey(inspector, Queues(), where=where, sort=sort)
            views = listed(inspector, found.choice)
            assert {(view.queue, view.id) for view in views} == meant
            assert len(views) == len(meant)
        died = [
            view.updated_at for view in listed(inspector, survey(inspector, Queues(), where=where).choice)
        ]
        assert died == sorted(died, reverse=True)


def test_groups_are_exact(root):
    """Each letter is in the one group of what it died of, and the groups know how many they are, and when."""
    with Inspector(root) as inspector:
        found = survey(inspector, Queues())
        assert sum(group.letters for group in found.groups) == len(found.choice) == 36
        for group in found.groups:
            views = listed(inspector, found.choice.of_cause(group.cause))
            errors = {last_failure(view.history).error.signature for view in views}
            assert errors == {group.cause.signature}
            assert len(views) == group.letters == 12
            assert (group.first, group.last) == (
                min(view.updated_at for view in views),
                max(view.updated_at for view in views),
            )
            assert sum(group.hours) == group.letters


def test_ties(tmp_path):
    """What died at once, and groups of as many, stand in one order, whichever queue was read first."""
    root, clock = tmp_path / "storage", FakeClock(now=NOON)
    ids = {queue: bury(root, {"n": 0}, {"n": 1}, queue=queue, error=kinds, clock=clock) for queue in "bac"}
    clock.advance(timedelta(seconds=1))
    later = bury(root, {"n": 2}, queue="b", error=kinds, clock=clock)
    found = set()
    with Inspector(root, clock=clock) as inspector:
        for names, sort in product(permutations("abc"), SORTS):
            known = survey(inspector, Queues(), names=list(names), sort=sort)
            order = tuple(view.id for view in listed(inspector, known.choice))
            found.add((sort, order, tuple(group.cause.type for group in known.groups)))
    assert len(found) == len(SORTS)
    by_death = (*later, *(entry_id for queue in "abc" for entry_id in reversed(ids[queue])))
    assert {order for sort, order, _ in found if sort == "died"} == {by_death}
    assert {order for sort, order, _ in found if sort == "oldest"} == {by_death[::-1]}
    assert {groups for _, _, groups in found} == {("KeyError", "TimeoutError", "ValueError")}


def test_keys_stay(root):
    """A letter's key stays the same while others die, are put back and removed; its own goes with it."""
    queues = Queues()
    with Inspector(root) as inspector:
        before = survey(inspector, queues)
        keys = {before.choice.key(number): number for number in range(len(before.choice))}
        names = {key: view.id for key, view in fetch(inspector, before.letters, keys).items()}
        with FileStorage(root) as storage:
            gone = next(iter(names))
            queue, _ = queues.split(gone)
            DeadLetterQueue(queue, None, storage).remove(names[gone])
        bury(root, {"n": 7}, {"n": 8}, queue="aaa", error=kinds)
        inspector.refresh()
        after = survey(inspector, queues, before=before.letters)
        assert len(after.choice) == len(before.choice) + 1
        assert after.choice.still(set(keys)) == set(keys) - {gone}
        assert after.choice.find(gone) is None
        found = fetch(inspector, after.letters, set(keys) - {gone})
        assert {key: view.id for key, view in found.items()} == {
            key: name for key, name in names.items() if key != gone
        }


# -- on the screen -----------------------------------------------------------------------------------------


async def opened(pilot):
    """The screen, when all is counted."""
    await pilot.press("2")
    await until(pilot, lambda: isinstance(pilot.app.screen, DeadLettersScreen))
    screen = pilot.app.screen
    # The first look may be shown in parts, each of them counted.
    with Inspector(pilot.app.source.path) as inspector:
        dead = sum(inspector.counts(name).dead for name in inspector.queues())
    await until(
        pilot,
        lambda: screen._found is not None and screen._found.is_over and len(screen._found.letters) == dead,
    )
    await until(pilot, lambda: screen.query_one(Preview).view is not None)
    await pilot.pause()
    return screen


def letters(screen):
    return screen.query_one("#letters", RowList)


async def settled(pilot):
    """The question that is asked, and what is meant by it."""
    await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
    dialog = pilot.app.screen
    await until(pilot, lambda: any(not button.disabled for button in dialog.query("#go")))
    return dialog._order


async def test_groups_list_and_preview(root):
    """The screen shows groups, letters and the letter under the cursor, and no data is read as markup."""
    bury(
        root, {"n": "[/red]", "z": "\x1b]52;c;aGk=\x07"}, error=lambda _: ValueError("[b + \x9b31m\u202e [/]")
    )
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        # Where the cursor is it stays, if the newest came with a later part.
        await pilot.press("home")
        await until(pilot, lambda: any("[b + \\x9b31m" in line for line in text_of(pilot.app)))
        lines = text_of(pilot.app)
        assert " DLQ 37" in lines[1]
        assert "37 of 37   sort: died" in lines[2]
        assert any('"n": "[/red]"' in line for line in lines)
        assert any("12" in line and "TimeoutError after <n>s" in line for line in lines)
        assert "\x1b" not in "".join(lines)
        assert letters(screen).cursor_number == 0


async def test_filter_is_applied_while_typed(root):
    """What is typed narrows the list at once; what is wrong with it stands beside it; Esc has all again."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        await pilot.press("slash", *"queue:mail err:user")
        await until(pilot, lambda: len(letters(screen).rows) == 6)
        await pilot.press(*" bad:1")
        await pilot.pause()
        assert "at 21: there is no field bad" in "\n".join(text_of(pilot.app))
        assert len(letters(screen).rows) == 6
        await pilot.press("escape")
        await until(pilot, lambda: len(letters(screen).rows) == 36)


async def test_all_matching_is_exact(root):
    """All that match are selected, on the screen or not, and are what is asked about, with its command."""
    async with Dashboard(StorageSource(root)).run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        await pilot.press("slash", *"queue:mail", "enter")
        await until(pilot, lambda: len(letters(screen).rows) == 18)
        await pilot.press("a")
        assert len(letters(screen).picked) == 18
        await pilot.press("R")
        order = await settled(pilot)
        assert order.meant.queues == {"mail": 18}
        assert order.where == "queue:mail"
        await pilot.press("escape")
        await pilot.press("minus", "space", "v", "j", "v", "R")
        order = await settled(pilot)
        assert order.count == 3
        assert order.where == ""
    assert counts(root)[1] == 18


async def test_an_open_range_is_meant(root):
    """What an open range shows as selected is counted as selected, and is what an action is about."""
    async with Dashboard(StorageSource(root)).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("v", "j", "j")
        await pilot.pause()
        assert "3 selected" in "\n".join(text_of(pilot.app))
        await pilot.press("R")
        assert (await settled(pilot)).count == 3
        await pilot.press("escape", "k")
        await pilot.pause()
        assert "2 selected" in "\n".join(text_of(pilot.app))
        await pilot.press("escape")
        await pilot.pause()
        assert "selected" not in "\n".join(text_of(pilot.app))


async def test_one_group(root):
    """Enter on a group lists only its letters, Esc has all again, and R there means the group."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        assert "retry all" not in "\n".join(text_of(pilot.app))
        await pilot.press("h", "j")
        assert "R  retry all 12" in "\n".join(text_of(pilot.app))
        await pilot.press("R")
        order = await settled(pilot)
        assert order.count == 12
        assert order.where.startswith("sig:")
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(letters(screen).rows) == 12)
        assert letters(screen).has_focus
        assert "retry all" not in "\n".join(text_of(pilot.app))
        await pilot.press("escape")
        assert len(letters(screen).rows) == 36


async def test_entries_one_by_one(root):
    """Enter opens the letter, and ] and [ walk the list that it was opened from."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        first = screen.query_one(Preview).view.id
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, EntryScreen))
        entry = pilot.app.screen
        await until(pilot, lambda: entry._view is not None)
        assert entry._view.id == first
        assert "1 of 36" in "\n".join(text_of(pilot.app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: entry._view is not None and entry._view.id != first)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: entry._view is not None and entry._view.id == first)
        await pilot.press("tab", "h", "w", "enter")
        assert any("00000000  7b 22" in line for line in text_of(pilot.app))
        await pilot.press("escape")
        assert pilot.app.screen is screen


async def test_an_entry_that_is_gone(root):
    """Of an entry that is gone nothing is meant any more, and as soon as that is known nothing is offered."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        await opened(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, EntryScreen))
        entry = pilot.app.screen
        await until(pilot, lambda: entry._view is not None)
        await pilot.press("p")
        with FileStorage(root) as storage:
            DeadLetterQueue(entry._view.queue, None, storage).remove(entry._view.id)
        await pilot.press("R")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
        await until(pilot, lambda: pilot.app.screen._is_settled)
        assert "nothing is meant by this" in "\n".join(text_of(pilot.app))
        assert all(button.disabled for button in pilot.app.screen.query("#go"))
        await pilot.press("escape", "p")
        await until(pilot, lambda: "it is gone" in "\n".join(text_of(pilot.app)))
        await pilot.press("R")
        assert pilot.app.screen is entry
        assert "retry" not in text_of(pilot.app)[-1]


async def test_what_dies_meanwhile(root):
    """Letters that die while one looks come into the list; cursor and selection stay with their letters."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        await pilot.press("j", "j", "space", "k")
        key, picked = letters(screen).cursor_key, letters(screen).picked
        bury(root, {"n": 9}, error=kinds)
        pilot.app.source.look_now()
        await until(pilot, lambda: len(letters(screen).rows) == 37)
        assert letters(screen).cursor_key == key
        assert letters(screen).picked == picked


async def test_an_entry_in_any_state(root):
    """An entry that waits is shown like a dead one, without what only dead letters can undergo."""
    with FileStorage(root) as storage:
        entry_id = Queue("mail", storage).enqueue({"waiting": 1.50})
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        pilot.app.open_entry(entry_id, "mail")
        await until(pilot, lambda: isinstance(pilot.app.screen, EntryScreen))
        entry = pilot.app.screen
        await until(pilot, lambda: entry._view is not None)
        await pilot.pause()
        assert entry._view.status is EntryStatus.READY
        assert not entry.check_action("act", ("retry",))
        pilot.app.open_entry("no-such-entry")
        await until(
            pilot,
            lambda: any(
                "no queue and no entry is called no-such-entry" in line for line in text_of(pilot.app)
            ),
        )


async def test_export(root, tmp_path):
    """What is selected goes into a new file, as `duraq dlq export` has it; no file is written over."""
    taken, there = tmp_path / "taken", tmp_path / "out.jsonl"
    taken.write_text("mine")
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        await pilot.press("space", "space", "x")
        await until(pilot, lambda: pilot.app.screen.query("#file"))
        dialog = pilot.app.screen
        for path, said in (
            (root / "x", "not below the storage"),
            (taken, "not exported"),
            (there, "2 exported to"),
        ):
            dialog.query_one("#file").value = str(path)
            dialog.query_one("#file").post_message(Input.Submitted(dialog.query_one("#file"), str(path)))
            await until(pilot, lambda said=said: said in str(dialog.query_one("#export-says").content))
        assert screen is not pilot.app.screen
    with Inspector(root) as inspector:
        lines = [orjson.loads(line) for line in there.read_text().splitlines()]
        views = {view.id: view for name in inspector.queues() for view in inspector.entries(name)}
        assert lines == [orjson.loads(ascii_json(exported(views[line["id"]]))) for line in lines]
    assert len(lines) == 2
    assert taken.read_text() == "mine"


async def test_edit_and_retry(root, monkeypatch):
    """A payload is changed in the editor, asked about, and put back changed; a bad one is refused first."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        view = screen.query_one(Preview).view
        monkeypatch.setattr(pilot.app, "suspend", nullcontext)
        monkeypatch.setattr("click.edit", lambda text, extension: '{"n": NaN}')
        monkeypatch.setattr("click.confirm", lambda *_, **__: False)
        await pilot.press("E")
        assert pilot.app.screen is screen
        assert "--text" not in [*pilot.app._notifications][-1].message
        monkeypatch.setattr("click.edit", lambda text, extension: text.replace('"n": 5', '"n": 1.50'))
        await pilot.press("E")
        order = await settled(pilot)
        assert order.command.startswith(f"duraq dlq retry --edit {view.id} --queue {view.queue}")
        pilot.app.screen.query_one("#go").press()
        await until(pilot, lambda: counts(root, view.queue)[0] == 1)
    with Inspector(root) as inspector:
        found = inspector.get(view.id, view.queue)
    assert orjson.loads(found.payload)["n"] == 1.5
    assert found.redriven == 1


async def test_a_filter_that_is_none(root):
    """While what is typed is no filter nothing is done to what is listed."""
    async with Dashboard(StorageSource(root)).run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        await until(pilot, lambda: len(letters(screen).rows) == 36)
        await pilot.press("slash", *"bad:1", "enter", "a", "R")
        (notice,) = pilot.app._notifications
        assert "first mend the filter" in notice.message
        assert pilot.app.screen is screen
        await pilot.press("escape")
        bar = screen.query_one(FilterBar)
        await until(pilot, lambda: not bar.is_in_doubt and len(letters(screen).rows) == 36)
        await pilot.press("a", "R")
        assert (await settled(pilot)).meant.count == 36
