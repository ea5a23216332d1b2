"""Changes: nothing happens before somebody agrees, then exactly what was shown, and it can be undone."""

import asyncio
import os
import shlex
import subprocess
import sys
from dataclasses import replace

import orjson
import pytest
from buried import SOON, bury, counts, dead, tree, until
from duraq_dashboard.app import Dashboard
from duraq_dashboard.dialogs import words
from duraq_dashboard.dialogs.confirm import ConfirmDialog
from duraq_dashboard.dialogs.export import ExportDialog
from duraq_dashboard.dialogs.leaving import LeaveDialog
from duraq_dashboard.dialogs.progress import ProgressDialog
from duraq_dashboard.dialogs.undo import UndoDialog
from duraq_dashboard.doing import Doing
from duraq_dashboard.orders import Order, Selection
from duraq_dashboard.source import StorageSource
from on_screen import NOW, text_of

from duraq import DeadLetterQueue, EntryStatus, FileStorage, Queue
from duraq.actions import ACTIONS
from duraq.acts import Acts
from duraq.bulk import Meant
from duraq.inspector import Inspector

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path):
    """A storage's directory."""
    return tmp_path / "storage"


def all_dead(inspector, stop):
    return Meant.of(inspector.each_entry("mail", EntryStatus.DEAD))


def can_agree(dialog):
    """Whether there is something to agree to."""
    return any(not button.disabled for button in dialog.query("#go"))


def number_of_rows(dialog):
    """How many can be chosen from."""
    return sum(len(each.rows) for each in dialog.query("#acts"))


def says(dialog, name):
    """What stands there."""
    return "".join(str(each.content) for each in dialog.query(f"#{name}"))


async def begun(pilot, name, selection):
    """The question about it, once it is settled what is meant."""
    pilot.app.begin(name, selection)
    await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
    dialog = pilot.app.screen
    await until(pilot, lambda: can_agree(dialog) and dialog.focused is not None)
    assert dialog.focused.id == "cancel"
    return dialog


async def done(pilot):
    """Agree, and wait until it is over; what is said of it."""
    pilot.app.screen.query_one("#go").press()
    await until(pilot, lambda: isinstance(pilot.app.screen, ProgressDialog))
    dialog = pilot.app.screen
    await until(pilot, lambda: dialog.progress.is_over)
    await pilot.pause()
    return says(dialog, "numbers")


async def test_enter_changes_nothing(root):
    """In a question that has just come up the focus is on Cancel, so Enter and Esc change nothing."""
    bury(root, "a", "b")
    before = tree(root)
    async with Dashboard(StorageSource(root)).run_test() as pilot:
        for key in ("enter", "escape"):
            await begun(pilot, "retry", Selection(all_dead))
            await pilot.press(key)
            assert not isinstance(pilot.app.screen, ConfirmDialog | ProgressDialog)
    assert tree(root) == before


async def test_what_is_shown_is_done(root):
    """The number on the button is the number that is done; what dies after that is not touched."""
    bury(root, *"abc")
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        dialog = await begun(pilot, "retry", Selection(all_dead))
        assert str(dialog.query_one("#go").label) == "Retry 3"
        assert "3 dead letters, settled at" in says(dialog, "exactly")
        bury(root, "d")
        assert await done(pilot) == "3 put back"
        await pilot.press("enter")
        assert not isinstance(pilot.app.screen, ProgressDialog)
    assert counts(root) == (3, 1)


async def test_undo_restores(root):
    """What was removed and is brought back is equal to what it was."""
    bury(root, *"abc")
    before = dead(root)
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        await begun(pilot, "remove", Selection(all_dead))
        assert await done(pilot) == "3 removed"
        assert dead(root) == []
        await pilot.press("escape")
        pilot.app.begin("undo", Selection())
        await until(pilot, lambda: isinstance(pilot.app.screen, UndoDialog))
        await until(pilot, lambda: number_of_rows(pilot.app.screen) == 1)
        await pilot.press("enter")
        await until(pilot, lambda: can_agree(pilot.app.screen))
        assert str(pilot.app.screen.query_one("#go").label) == "Bring back 3"
        assert await done(pilot) == "3 brought back"
        await pilot.press("escape")
        pilot.app.begin("undo", Selection())
        await until(pilot, lambda: isinstance(pilot.app.screen, UndoDialog))
        await until(pilot, lambda: number_of_rows(pilot.app.screen) == 2)
        await pilot.press("G", "enter")
        assert "it was undone already" in says(pilot.app.screen, "undo-says")
    assert dead(root) == before


async def test_reason_rate_and_command(root):
    """What is filled in becomes part of the act and of the command that does the same."""
    bury(root, *"abc")
    async with Dashboard(StorageSource(root)).run_test(size=(120, 36)) as pilot:
        dialog = await begun(pilot, "retry", Selection(all_dead, where="queue:mail"))
        dialog.query_one("#rate").value = "200"
        dialog.query_one("#failing").value = "5"
        dialog.query_one("#reason").value = "psp is back"
        await pilot.pause()
        command = dialog._filled_in().command
        assert command == (
            "duraq dlq retry --where queue:mail --expect 3 --rate 200/s --stop-if-failing 5"
            f" --reason 'psp is back' -C {root}"
        )
        dialog.query_one("#rate").value = "fast"
        await pilot.pause()
        assert dialog.query_one("#go").disabled
        dialog.query_one("#rate").value = "200"
        await pilot.pause()
        await done(pilot)
    with FileStorage(root) as storage:
        (act,) = Acts(storage).all()
    assert (act.verb, act.count, act.where, act.reason) == ("retry", 3, "queue:mail", "psp is back")


@pytest.mark.parametrize(
    ("rate", "failing", "says"),
    [
        ("10", "150", "between 0 and 100 %, not 150"),
        ("10", "-1", "between 0 and 100 %, not -1"),
        ("10", "nan", "between 0 and 100 %, not nan"),
        ("inf", "", "a rate is a number above 0 a second, not inf"),
        ("1e400", "", "a rate is a number above 0 a second, not inf"),
        ("nan", "", "a rate is a number above 0 a second, not nan"),
    ],
)
async def test_a_pace_that_is_none(root, rate, failing, says):
    """A rate or a share that is none is told in the words of its field, and not agreed to."""
    bury(root, "a")
    async with Dashboard(StorageSource(root)).run_test(size=(120, 36)) as pilot:
        dialog = await begun(pilot, "retry", Selection(all_dead))
        dialog.query_one("#rate").value, dialog.query_one("#failing").value = rate, failing
        await until(pilot, lambda: says in "\n".join(text_of(pilot.app)))
        assert dialog.query_one("#go").disabled


async def test_undo_leaves_room(root):
    """The list of what can be undone stands in front of the screen, and does not hide all of it."""
    bury(root, "a")
    async with Dashboard(StorageSource(root)).run_test(size=(120, 36)) as pilot:
        pilot.app.begin("undo", Selection())
        await until(pilot, lambda: isinstance(pilot.app.screen, UndoDialog))
        await until(pilot, lambda: number_of_rows(pilot.app.screen) == 0 and pilot.app.focused is not None)
        await pilot.pause()
        assert 10 < pilot.app.screen.query_one(".dialog").outer_size.height < 20


async def test_undone_from_its_result(root):
    """What was removed just now is brought back by the key that the result names, after a question."""
    bury(root, *"abc")
    before = dead(root)
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        await begun(pilot, "remove", Selection(all_dead))
        assert await done(pilot) == "3 removed"
        assert "U undoes it" in says(pilot.app.screen, "keys")
        await pilot.press("U")
        await until(pilot, lambda: can_agree(pilot.app.screen))
        assert await done(pilot) == "3 brought back"
        await pilot.press("U")
        assert isinstance(pilot.app.screen, ProgressDialog)
    assert dead(root) == before


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (60, 16)])
async def test_a_command_that_is_too_long(root, size):
    """What is seen of a command that does not fit ends in a sign: a shorter one would do something else."""
    ids = bury(root, *range(15))
    async with Dashboard(StorageSource(root)).run_test(size=size) as pilot:
        dialog = await begun(pilot, "remove", Selection(all_dead))
        await pilot.pause()
        assert all(entry_id in dialog._command() for entry_id in ids)
        lines = [line.strip(" │|") for line in text_of(pilot.app)]
        at = next(number for number, line in enumerate(lines) if line.startswith("Command"))
        end = next(number for number, line in enumerate(lines) if number > at and "..." in line)
        assert end - at < 3
        assert lines[end].endswith("... (y copies all of it)")


async def test_purge_wants_the_name(root):
    """To purge a queue's dead letters its name must be typed."""
    bury(root, *"ab")
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        pilot.app.begin("purge", Selection(all_dead, queue="mail"))
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
        dialog = pilot.app.screen
        await until(pilot, lambda: says(dialog, "exactly").startswith("2 dead letters"))
        assert str(dialog.query_one("#go").label) == "Purge 2"
        assert dialog.query_one("#go").disabled
        dialog.query_one("#typed").value = "mai"
        await pilot.pause()
        assert dialog.query_one("#go").disabled
        dialog.query_one("#typed").value = "mail"
        await pilot.pause()
        assert await done(pilot) == "2 purged for good"
    assert counts(root) == (0, 0)


async def test_queues_and_moves(root):
    """Queues are paused and resumed, and dead letters go to another queue."""
    bury(root, *"ab")
    with FileStorage(root) as storage:
        Queue("later", storage).enqueue("there")
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        dialog = await begun(pilot, "pause", Selection(queue="mail"))
        dialog.query_one("#reason").value = "no"
        assert await done(pilot) == "queue mail: paused"
        with Inspector(root) as inspector:
            assert inspector.paused("mail").reason == "no"
        await pilot.press("escape")
        await begun(pilot, "resume", Selection(queue="mail"))
        await done(pilot)
        with Inspector(root) as inspector:
            assert inspector.paused("mail") is None
        await pilot.press("escape")
        await begun(pilot, "compact", Selection(queue="mail"))
        assert (await done(pilot)).startswith("queue mail: compacted; ")
        await pilot.press("escape")
        pilot.app.begin("move", Selection(all_dead))
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
        dialog = pilot.app.screen
        await until(pilot, lambda: says(dialog, "exactly").startswith("2 dead letters"))
        assert (dialog.focused.id, says(dialog, "wrong"), can_agree(dialog)) == ("to", "", False)
        for typed, wrong in (
            ("latre", "(did you mean 'later'?); duraq create latre makes it"),
            ("mail", "there already"),
        ):
            dialog.query_one("#to").value = typed
            await until(pilot, lambda wrong=wrong: wrong in says(dialog, "wrong"))
            assert not can_agree(dialog)
        dialog.query_one("#to").value = "later"
        await until(pilot, lambda: can_agree(dialog))
        assert await done(pilot) == "2 moved"
    assert counts(root) == (0, 0)
    assert counts(root, "later") == (3, 0)


async def test_what_was_stopped(root):
    """What is stopped midway says how many it was done to, and the rest is as it was."""
    bury(root, *map(str, range(40)))
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        dialog = await begun(pilot, "retry", Selection(all_dead))
        dialog.query_one("#rate").value = "4"
        await pilot.pause()
        dialog.query_one("#go").press()
        await until(pilot, lambda: isinstance(pilot.app.screen, ProgressDialog))
        await until(pilot, lambda: counts(root)[0] > 0)
        await pilot.press("c")
        progress = pilot.app.screen
        await until(pilot, lambda: progress.progress.is_over)
        result = progress.progress
        assert result.stopped
        assert result.done + result.left == 40
    assert counts(root) == (result.done, 40 - result.done)


async def test_stopped_within_a_batch(root):
    """Without a rate, too, what is said to be done when it is stopped is what was done."""
    bury(root, *map(str, range(600)))
    told = []
    with Inspector(root) as inspector:
        meant = all_dead(inspector, None)
    order = Order(ACTIONS["retry"], str(root), NOW, meant=meant)
    doing = Doing(order, told.append)
    doing.stop()
    doing.start()
    doing.join(SOON)
    assert told[-1].is_over
    assert 0 < told[-1].done < 600
    assert counts(root) == (told[-1].done, 600 - told[-1].done)


def test_an_undo_that_was_stopped(root):
    """An undo ends a batch after it was stopped at most, and says how many are left and how they return."""
    ids = bury(root, *map(str, range(600)))
    with FileStorage(root) as storage:
        letters = DeadLetterQueue("mail", None, storage)
        letters.remove_many(ids, act="gone")
    order = Order(ACTIONS["undo"], str(root), NOW, act="gone", number=600)
    told = []
    doing = Doing(order, told.append)
    doing.stop()
    doing.start()
    doing.join(SOON)
    last = told[-1]
    assert 0 < last.done < 600
    assert (last.is_over, last.left, last.passed_over) == (True, 600 - last.done, 0)
    assert counts(root) == (0, last.done)
    assert f"{600 - last.done} not attempted; it was stopped; duraq undo gone" in words.result(order, last)
    again = Doing(order, told.append)
    again.start()
    again.join(SOON)
    assert words.result(order, told[-1]) == f"{600 - last.done} brought back"
    assert counts(root) == (0, 600)


KILLED = """
import sys
from datetime import UTC, datetime
from duraq import EntryStatus
from duraq.actions import ACTIONS
from duraq.bulk import Meant, Pace
from duraq.inspector import Inspector
from duraq_dashboard.doing import Doing
from duraq_dashboard.orders import Order

with Inspector(sys.argv[1]) as inspector:
    meant = Meant.of(inspector.each_entry("mail", EntryStatus.DEAD))
order = Order(ACTIONS["retry"], sys.argv[1], datetime.now(UTC), meant=meant, pace=Pace(400))
doing = Doing(order, lambda progress: print(progress.done, flush=True))
doing.start()
doing.join()
"""


async def test_killed_midway(root):
    """If the program is killed while it retries many, and begun again, each is put back exactly once."""
    bury(root, *map(str, range(400)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(root)]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else goes on here
        command, env=environment, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout.readline()
        program.kill()
    back, left = counts(root)
    assert 0 < back < 400
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        await begun(pilot, "retry", Selection(all_dead))
        assert await done(pilot) == f"{left} put back"
    with Inspector(root) as inspector:
        found = inspector.entries("mail", EntryStatus.READY)
    assert sorted(int(orjson.loads(view.payload)) for view in found) == list(range(400))
    assert {view.redriven for view in found} == {1}


async def test_closed_as_it_opens(root):
    """A dialog that is closed before it has begun fails nothing."""
    bury(root, "a")
    order = Order(ACTIONS["pause"], str(root), NOW, queue="mail")
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        for dialog in (ExportDialog(1, all_dead), ConfirmDialog(order)):
            await pilot.app.push_screen(dialog)
            dialog.dismiss(None)
            await until(pilot, lambda dialog=dialog: not dialog.is_attached)
            dialog._begin()


async def test_hidden_dialog(root):
    """An action whose dialog is hidden goes on, and its result is told."""
    bury(root, *"abc")
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        dialog = await begun(pilot, "retry", Selection(all_dead))
        dialog.query_one("#rate").value = "20"
        await pilot.pause()
        dialog.query_one("#go").press()
        await until(pilot, lambda: isinstance(pilot.app.screen, ProgressDialog))
        await pilot.press("escape")
        await until(pilot, lambda: counts(root) == (3, 0))
        await until(pilot, lambda: len(pilot.app._notifications) == 1)
        (told,) = pilot.app._notifications
        assert told.message == "3 put back"
        assert not told.markup


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
async def test_leaving_what_goes_on(root, key):
    """Whoever quits while an action goes on is asked first, and told how the rest is done."""
    bury(root, *range(40))
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        app = pilot.app
        dialog = await begun(pilot, "retry", Selection(all_dead))
        dialog.query_one("#rate").value = "4"
        await pilot.pause()
        dialog.query_one("#go").press()
        await until(pilot, lambda: isinstance(app.screen, ProgressDialog))
        ((order, _),) = app._actor.going
        await pilot.press("escape")
        await until(pilot, lambda: app._actor.going[0][1].act)
        ((_, progress),) = app._actor.going
        for answer in ("q", "escape", "c"):
            assert not app._exit
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, LeaveDialog))
            await pilot.pause()
            assert progress.act in "".join(line.strip(" │") for line in text_of(app))
            await pilot.press(answer)
        assert app._exit
    put_back, left = counts(root)
    assert left == 40 - put_back > 0
    command = [sys.executable, "-m", *shlex.split(order.going_on(progress.act)), "--yes"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    assert counts(root) == (40, 0)


async def test_over_just_as_it_is_hidden(root, monkeypatch):
    """What ends while its dialog is being taken away is told, and fails nothing."""
    bury(root, *"abc")
    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        actor = None

        def ends(dialog):
            # Its parts are gone by now, and it is not yet.
            assert dialog.is_attached
            assert not dialog.query("#bar")
            (doing,) = actor._doing
            actor._told(doing, replace(dialog.progress, done=3, is_over=True))

        monkeypatch.setattr(ProgressDialog, "on_unmount", ends, raising=False)
        dialog = await begun(pilot, "retry", Selection(all_dead))
        actor = pilot.app._actor
        dialog.query_one("#rate").value = "1"
        await pilot.pause()
        dialog.query_one("#go").press()
        await until(pilot, lambda: isinstance(pilot.app.screen, ProgressDialog))
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app._notifications) == 1)
        assert [told.message for told in pilot.app._notifications] == ["3 put back"]


async def test_read_only(root):
    """Read-only, no question is ever asked and nothing is changed."""
    bury(root, *"ab")
    before = tree(root)
    async with Dashboard(StorageSource(root), read_only=True).run_test() as pilot:
        for name in ("retry", "remove", "purge", "move", "undo", "pause", "compact"):
            pilot.app.begin(name, Selection(all_dead, queue="mail"))
            await pilot.pause()
            assert not isinstance(pilot.app.screen, ConfirmDialog)
    assert tree(root) == before


async def test_what_cannot_be_settled(root):
    """If it cannot be found out what is meant, the question says why and has nothing to agree to."""
    bury(root, "a")

    def freeze(inspector, stop):
        return Meant.of(inspector.each_entry("[/no] such \x1b queue", EntryStatus.DEAD))

    async with Dashboard(StorageSource(root)).run_test(size=(100, 30)) as pilot:
        pilot.app.begin("retry", Selection(freeze))
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
        dialog = pilot.app.screen
        await until(pilot, lambda: says(dialog, "wrong"))
        assert "there is no queue" in says(dialog, "wrong")
        assert "\x1b" not in says(dialog, "wrong")
        assert dialog.query_one("#go").disabled


async def test_a_storage_that_vanished(root):
    """Where the storage has vanished since it was asked, none is made in its place, and that is said."""
    bury(root, "a")
    async with Dashboard(StorageSource(root)).run_test() as pilot:
        await begun(pilot, "retry", Selection(all_dead))
        root.rename(root.with_name("elsewhere"))
        assert "there is no such directory" in await done(pilot)
    assert not root.exists()


async def test_what_is_typed_is_seen(root):
    """What is typed into a field of a question can be read while it is typed."""
    bury(root, "a")
    async with Dashboard(StorageSource(root)).run_test(size=(80, 24)) as pilot:
        dialog = await begun(pilot, "retry", Selection(all_dead))
        field = dialog.query_one("#reason")
        await pilot.pause()
        field.focus()
        await until(pilot, lambda: field.has_focus)
        await pilot.press(*"because")
        assert field.has_focus
        await until(pilot, lambda: any("Reason    because" in line for line in text_of(pilot.app)))
