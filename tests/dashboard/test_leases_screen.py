"""The screen of leases and workers: who holds what, until when, and who lives."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from buried import until
from duraq_dashboard import lease_view
from duraq_dashboard.widgets.row_list import RowList
from on_screen import NOW, SIZES, queue_now, queue_view, snapshot, text_of

from duraq import Cause, FileStorage, Queue
from duraq.actions import ACTIONS
from duraq.inspector import Inspector
from duraq.views import LeaseView, WorkerView

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
HOSTILE = "[/red]\x1b]52;c;aGk=\x07\u202e"


def lease(entry_id, left, worker="4711-0123abcd", *, alive=True, late=False, age=60 * SECOND):
    return LeaseView("mail", entry_id, 7, 1, worker, alive, late, NOW - age, NOW + left)


LEASES = (
    lease("01a20e32-58a9-7455-bac3-0000000000aa", timedelta(minutes=4, seconds=58)),
    lease("01a20e32-58a9-7455-bac3-0000000000bb", -20 * SECOND, late=True),
    lease("01a20e32-58a9-7455-bac3-0000000000cc", 14 * SECOND, "22-0123abcd", alive=False),
    lease("01a20e32-58a9-7455-bac3-0000000000dd", timedelta(hours=2), "", alive=None),
)
WORKERS = (
    WorkerView("4711-0123abcd", True, NOW - timedelta(hours=4), "app1", ("worker", HOSTILE), "mail.service"),
    WorkerView("22-0123abcd", False, holds={"mail": 1}),
)


@pytest.fixture
def source(source):
    source.show(snapshot(queue_now(queue_view("mail", leased=4, leases=LEASES)), workers=WORKERS))
    return source


def listed(app, name):
    rows = app.screen.query_one(name, RowList).rows
    return [[cell if isinstance(cell, str) else cell[0] for cell in rows.cells(n)] for n in range(len(rows))]


async def test_leases(dashboard, source):
    """The lease that ends first is listed first, with who holds it, and what is the matter with it."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("4")
        assert [(row[0], row[3], row[5], row[6]) for row in listed(pilot.app, "#leases")] == [
            ("EXPIRED", "..000000bb", "4711", "lives"),
            ("14s", "..000000cc", "22", "DEAD"),
            ("4m", "..000000aa", "4711", "lives"),
            ("2h00m", "..000000dd", "-", "no process"),
        ]
        lines = text_of(pilot.app)
        assert any("4 leases   1 past their deadline   1 living worker, 1 dead" in line for line in lines)
        assert any("past its deadline, its worker lives" in line for line in lines)
        await pilot.press("s", "s")
        assert pilot.app.screen.remember() == {"sort": "queue"}


async def test_workers(dashboard, source):
    """Each worker is listed with its process, what it holds, and how it was called, nothing of it obeyed."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("4")
        rows = listed(pilot.app, "#workers")
        assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
            ("4711", "lives", "0", "4h00m"),
            ("22", "DEAD", "1", "-"),
        ]
        text = "\n".join(text_of(pilot.app))
        assert "worker '[/red]\\x1b]52;c;" in text
        assert "\x1b" not in text


async def test_a_long_command_line(dashboard, source):
    """Enter on a worker shows how its program was called to the last letter, nothing of it obeyed."""
    long = ("python", "-m", "app.mail", *(f"--option-{number}=x" for number in range(30)), HOSTILE, "--end")
    worker = WorkerView("4711-0123abcd", True, NOW, "app1", long, "mail.service", holds={"mail": 2})
    source.show(snapshot(queue_now(queue_view("mail")), workers=(worker,)))
    async with dashboard().run_test(size=(80, 24)) as pilot:
        await pilot.press("4", "tab", "enter")
        shown = "".join(line.strip(" │|") for line in text_of(pilot.app))
        assert "pid 4711 on app1, lives" in shown
        assert "holds 2 of mail" in shown
        assert "--option-29=x" in shown
        assert "--end" in shown
        assert not any(character in shown for character in "\x1b\x07\u202e")
        await pilot.press("escape")
        assert len(pilot.app.screen_stack) == 1


async def test_filter(dashboard, source):
    """Words choose which leases are shown; Esc shows all again."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("4", "slash", *"000cc dead", "enter")
        assert [row[3] for row in listed(pilot.app, "#leases")] == ["..000000cc"]
        await pilot.press("escape")
        assert len(listed(pilot.app, "#leases")) == 4


async def test_seconds(dashboard, source, clock):
    """While an end is near its seconds are counted, and what has passed by then is said to be over."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("4")
        assert pilot.app.screen.shows_seconds
        clock.advance(15 * SECOND)
        pilot.app._tick()
        assert [row[0] for row in listed(pilot.app, "#leases")] == ["EXPIRED", "EXPIRED", "4m", "1h59m"]


async def test_read_only(dashboard, source):
    """Nothing can be released by whoever may only look."""
    async with dashboard(read_only=True).run_test(size=(120, 36)) as pilot:
        await pilot.press("4", "L")
        assert len(pilot.app.screen_stack) == 1
        assert not any("release" in line for line in text_of(pilot.app))


async def test_release(dashboard, source, tmp_path, anyio_backend):
    """A lease is released, uncounted and with the reason, once that was agreed to; Enter does not agree."""
    with FileStorage(tmp_path / "storage", durability="process") as storage:
        queue = Queue("mail", storage)
        queue.enqueue(1, id="one")
        queue.dequeue()
        with Inspector(storage.path) as inspector:
            held = tuple(inspector.leases())
        source.path = storage.path
        source.show(snapshot(queue_now(queue_view("mail", leased=1, leases=held))))
        async with dashboard().run_test(size=(120, 36)) as pilot:
            await pilot.press("4", "L", "enter")
            assert queue.counts().leased == 1
            await pilot.press("L")
            await pilot.pause()
            text = "\n".join(text_of(pilot.app))
            assert f"pid {os.getpid()} is alive" in text
            await pilot.click("#reason")
            await pilot.press(*"it hangs")
            assert f"duraq release mail/one/{held[0].token} --reason 'it hangs'" in "\n".join(
                text_of(pilot.app)
            )
            await pilot.click("#go")
            for _ in range(100):
                await pilot.pause(0.02)
                if not queue.counts().leased:
                    break
        (attempt,) = queue.get("one").errors
        assert (attempt.cause, queue.get("one").attempts) == (Cause.RELEASED, 0)
        assert attempt.error.message.endswith(": it hangs; not counted")


async def test_a_units_status(dashboard, source, tmp_path, monkeypatch):
    """With u it is asked what systemd says of the worker's unit, whose name is no option."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\necho "asked: $*"\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    shown = []
    async with dashboard().run_test(size=(120, 36)) as pilot:
        monkeypatch.setattr(pilot.app, "show_text", shown.append)
        await pilot.press("4", "u")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert shown == ["asked: status --no-pager --full -- mail.service\n"]
        await pilot.press("j", "u")
        await pilot.app.workers.wait_for_complete()
        assert len(shown) == 1


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_sizes(dashboard, source, size):
    """At every size there is each lease with its end and its holder, and each worker."""
    async with dashboard().run_test(size=size) as pilot:
        await pilot.press("4")

        def ends():
            return sum("EXPIRED" in line or "no process" in line for line in text_of(pilot.app))

        await until(pilot, lambda: ends() >= 2)
        lines = text_of(pilot.app)
        assert sum("4711" in line for line in lines) >= 2
        assert all(len(line) <= size[0] for line in lines)


def test_memory():
    """How much memory a process takes is told of that process only: not of another one with its number."""
    start = int(Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[19])
    mine = WorkerView(f"{os.getpid()}-0123abcd", True, host=os.uname().nodename, start_time=start)
    assert lease_view._memory(mine) > 1
    assert lease_view._memory(WorkerView(mine.id, True, host=mine.host, start_time=start + 1)) is None
    assert lease_view._memory(WorkerView(mine.id, True, host="elsewhere", start_time=start)) is None
    assert lease_view._memory(WorkerView("4194999-0123abcd", True)) is None


async def test_all_of_a_worker(dashboard, source):
    """Among the workers, what is to be released is what the one under the cursor holds, and nobody else."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("4")
        pilot.app.screen.query_one("#workers").focus()
        await pilot.pause()
        chosen = pilot.app.screen.chosen_for(ACTIONS["release"])
        assert [lease.id[-2:] for lease in chosen.leases] == ["bb", "aa"]
