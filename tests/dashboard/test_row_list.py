"""The list widget: what is drawn, and what stays where it is while rows come and go."""

import os
import random

import pytest
from duraq_dashboard.rows import Column, Listed
from duraq_dashboard.widgets.row_list import RowList
from textual.app import App

pytestmark = pytest.mark.anyio
DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}


@pytest.fixture
def anyio_backend():
    """Textual runs on asyncio."""
    return "asyncio"


class Lister(App):
    """One list, and what it has posted."""

    def __init__(self, **options):
        super().__init__()
        self.options = options
        self.posted = []

    def compose(self):
        yield RowList(Column("NAME", 8), Column("COUNT", 7, right=True), Column("WHAT"), **self.options)

    def on_row_list_moved(self, message):
        self.posted.append(message)

    def on_row_list_chosen(self, message):
        self.posted.append(message)

    def on_row_list_picks_changed(self, message):
        self.posted.append(message)

    def on_row_list_wanted(self, message):
        self.posted.append(message)

    def of(self, kind):
        return [message for message in self.posted if type(message) is kind]


def rows(keys, what="x"):
    return Listed((key, (f"n{key}", f"{key:,}", what)) for key in keys)


def lines(row_list):
    """What stands on the screen, line by line."""
    return [
        "".join(segment.text for segment in row_list.render_line(y)).rstrip()
        for y in range(row_list.size.height)
    ]


async def test_what_is_drawn():
    """There is a header, a sign at the cursor, numbers are flush right, and text is no markup."""
    async with (app := Lister()).run_test(size=(30, 5)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(rows([1, 2000], what="[/red]\x1b[31m\u202e"))
        await pilot.pause()
        assert lines(row_list) == [
            "  NAME       COUNT WHAT",
            "> n1             1 [/red]...",
            "  n2000      2,000 [/red]...",
            "",
            "",
        ]


async def test_an_empty_list_says_so():
    """A list without rows says what it was told to say."""
    async with (app := Lister(empty="Nothing died.\nGood.")).run_test(size=(30, 4)) as pilot:
        await pilot.press("j", "enter", "pagedown", "G")
        assert lines(app.query_one(RowList))[1:] == ["  Nothing died.", "  Good.", ""]
        assert app.query_one(RowList).cursor_key is None
        assert not app.posted


async def test_keys():
    """The keys move the cursor, and the view goes with it."""
    async with (app := Lister()).run_test(size=(30, 11)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(rows(range(100)))
        await pilot.pause()
        for key, number, first in [
            ("j", 1, 0),
            ("down", 2, 0),
            ("k", 1, 0),
            ("pagedown", 10, 9),
            ("ctrl+d", 14, 13),
            ("ctrl+u", 10, 9),
            ("pageup", 1, 0),
            ("G", 99, 90),
            ("k", 98, 90),
            ("home", 0, 0),
            ("up", 0, 0),
            ("end", 99, 90),
        ]:
            await pilot.press(key)
            assert (row_list.cursor_number, row_list.in_view[0]) == (number, first), key
        await pilot.press("enter")
        assert app.of(RowList.Chosen)[-1].key == 99


async def test_mouse():
    """A click moves the cursor, two open, and one in front of a row picks it."""
    async with (app := Lister(pickable=True)).run_test(size=(30, 11)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(rows(range(100)))
        await pilot.pause()
        await pilot.click(RowList, offset=(10, 4))
        assert row_list.cursor_key == 3
        await pilot.click(RowList, offset=(2, 6))
        assert row_list.picked == {5}
        await pilot.click(RowList, offset=(10, 2), times=2)
        assert app.of(RowList.Chosen)[-1].key == 1
        await pilot.click(RowList, offset=(10, 0))
        assert row_list.cursor_key == 1


async def test_picking():
    """Single rows, a range, all, none, and all others can be picked, on the screen or not."""
    async with (app := Lister(pickable=True)).run_test(size=(30, 6)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(rows(range(20)))
        await pilot.press("space", "space")
        assert row_list.picked == {0, 1}
        assert lines(row_list)[1].startswith(" [x]")
        await pilot.press("j", "v", "j", "j")
        assert lines(row_list)[-1].startswith(">[x]")
        assert row_list.picked == {0, 1, 3, 4, 5}
        await pilot.press("v")
        assert row_list.picked == {0, 1, 3, 4, 5}
        await pilot.press("v", "G", "escape")
        assert row_list.picked == {0, 1, 3, 4, 5}
        await pilot.press("*")
        assert row_list.picked == set(range(20)) - {0, 1, 3, 4, 5}
        await pilot.press("-")
        assert not row_list.picked
        await pilot.press("a")
        assert row_list.picked == set(range(20))


async def test_what_an_empty_list_says_is_whole():
    """What a list says that has no rows goes on in the next line where it is longer than the list is wide."""
    async with (app := Lister(empty="\nNothing.\nmail: it is damaged at line 88121")).run_test(size=(20, 6)):
        assert "".join(" ".join(lines(app.query_one(RowList))).split()).endswith(
            "mail:itisdamagedatline88121"
        )


async def test_rows_that_must_be_fetched():
    """Rows that are not in memory are asked for once, shown when they come, and kept meanwhile."""

    class Far(Listed):
        def cells(self, number):
            return None

    async with (app := Lister()).run_test(size=(30, 5)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(Far((key, ()) for key in range(1_000)))
        await pilot.pause()
        assert [wanted.keys for wanted in app.of(RowList.Wanted)] == [[0, 1, 2, 3]]
        await pilot.press("j", "k")
        assert len(app.of(RowList.Wanted)) == 1
        row_list.arrived({key: (f"n{key}", "7", "first") for key in range(4)})
        await pilot.pause()
        assert lines(row_list)[1] == "> n0             7 first"
        row_list.show(Far((key, ()) for key in range(2_000)))
        await pilot.pause()
        assert lines(row_list)[1] == "> n0             7 first"
        assert [wanted.keys for wanted in app.of(RowList.Wanted)][1:] == [[0, 1, 2, 3]]
        row_list.arrived({0: ("n0", "8", "second")})
        await pilot.pause()
        assert lines(row_list)[1] == "> n0             8 second"


async def test_only_what_differs_is_drawn():
    """Of a list that is shown again, only the lines that differ are drawn again."""
    async with (app := Lister()).run_test(size=(30, 11)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(rows(range(100)))
        await pilot.pause()
        drawn = []
        render_line = row_list.render_line
        row_list.render_line = lambda y: (drawn.append(y), render_line(y))[1]
        row_list.show(rows(range(100)))
        await pilot.pause()
        assert drawn == []
        changed = [(key, (f"n{key}", "1" if key == 4 else f"{key:,}", "x")) for key in range(100)]
        row_list.show(Listed(changed))
        await pilot.pause()
        assert drawn == [5]
        drawn.clear()
        await pilot.press("j")
        assert sorted(drawn) == [1, 2]


@pytest.mark.parametrize("seed", range(25 if DEEP else 1))
async def test_nothing_jumps(seed):
    """Whatever comes, goes and changes place, the cursor, its line on the screen and the picks stay."""
    chance = random.Random(seed)
    keys = list(range(200))
    async with (app := Lister(pickable=True)).run_test(size=(30, 21)) as pilot:
        row_list = app.query_one(RowList)
        row_list.show(rows(keys))
        await pilot.pause()
        row_list.go_to(100)
        row_list.pick({3, 50, 100, 101, 150})
        await pilot.pause()
        for _ in range(40):
            line = row_list.cursor_number - row_list.in_view[0]
            removed = set(chance.sample(keys, 5)) - {3, 50, 100, 101, 150}
            keys = [key for key in keys if key not in removed]
            for _ in range(5):
                keys.insert(chance.randrange(len(keys) + 1), chance.randrange(1_000, 1_000_000_000))
            row_list.show(rows(keys, what=str(chance.random())))
            await pilot.pause()
            assert row_list.cursor_key == 100
            assert row_list.picked == {3, 50, 100, 101, 150}
            if 20 <= row_list.cursor_number < len(keys) - 20:
                assert row_list.cursor_number - row_list.in_view[0] == line
            else:
                assert row_list.cursor_number in row_list.in_view
