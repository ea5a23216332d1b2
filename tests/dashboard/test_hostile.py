"""Data is hostile: whatever it says is shown as text, and no byte of it that a terminal obeys ever leaves."""

import os
import random
import re

import pytest
from buried import until
from duraq_dashboard.app import Dashboard
from duraq_dashboard.screens.entry import EntryScreen
from duraq_dashboard.source import StorageSource
from duraq_dashboard.widgets.row_list import RowList
from duraq_dashboard.widgets.strips import fitted
from duraq_dashboard.widgets.text_lines import TextLines
from duraq_dashboard.wording import fit
from hypothesis import given, settings
from hypothesis import strategies as st
from in_terminal import in_terminal
from on_screen import text_of
from rich.cells import cell_len

from duraq import FileStorage, Queue
from duraq.model import AttemptError
from duraq.safe_text import safe_text

pytestmark = pytest.mark.anyio
DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
PIECES = (
    *("[/red]", "[b +", "[", "[[", "[@click=app.quit]x[/]", "\\[", "%s", "{x}", "$(id)", "plain "),
    *(
        "\x1b]52;c;aGk=\x07",
        "\x1b[2J",
        "\x9b31m",
        "\x1b]0;title\x1b\\",
        "\x00",
        "\x07",
        "\x08",
        "\x7f",
        "\x85",
    ),
    *("\r", "\n", "\t", "\u2028", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041"),
    *("e\u0301", "漢字", "\U0001f600"),
)
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
# Keys, each after what they are about is there to be seen: the list, an attempt, its life, all of an entry.
STEPS = (
    ("ERROR", b"jj"),
    ("Traceback", b"\t"),
    ("enqueued", b"\r"),
    ("On disk", b"h"),
    ("00000000", b"qq"),
)
# What a program that draws a screen says to its terminal.
SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[=>78cM]|\(B|\]22;[a-z-]*\x07)")


@settings(max_examples=10_000 if DEEP else 40)
@given(HOSTILE, st.integers(1, 40), st.booleans())
def test_cells_are_as_wide_as_they_should_be(text, width, right):
    """A cell of a list is exactly as wide as its column, whatever is in it, and nothing in it is obeyed."""
    cell = fitted(text, width, right=right)
    assert cell_len(cell) == width
    assert safe_text(cell) == cell


@pytest.mark.parametrize("width", range(4, 8))
def test_wide_characters_are_cut_with_dots(width):
    """Text that takes more cells than there are ends in dots, however few characters it has."""
    assert fitted("漢字漢字", width).rstrip().endswith("...")
    assert fit("漢字漢字", width).endswith("...")
    assert cell_len(fit("漢字漢字", width)) <= width
    assert fit("漢字漢字", 8) == fitted("漢字漢字", 8) == "漢字漢字"


@settings(max_examples=10_000 if DEEP else 40)
@given(HOSTILE, st.integers(2, 40))
def test_lines_are_whole(text, width):
    """A line that goes on below is all there, and no piece of it is too wide."""
    shown = safe_text(text)
    pieces = TextLines()._pieces(shown, width)
    assert "".join(pieces) == shown
    assert all(cell_len(piece) <= width for piece in pieces)


@pytest.fixture
def hostile(tmp_path):
    """A storage with hostile payloads, headers, keys, errors and reasons; and the ids of some entries."""
    chance = random.Random(7)
    root = tmp_path / "storage"

    def words(most=6):
        return "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, most)))

    with FileStorage(root, max_payload_bytes=16 << 20) as storage:
        mail = Queue("mail", storage)
        for _ in range(40):
            mail.enqueue({words(): words(), "list": [words()]}, headers={"trace": words()}, key=words())
        mail.enqueue({"one": "\x1b]52;c;aGk=\x07[/red]" * 50_000})
        mail.enqueue(["x" * 10_000_000])
        ids = []
        for entry in mail.dequeue(limit=50):
            error = AttemptError(words(), words(20), "Traceback:\n" + words(40), words())
            mail.mark_failed(entry, error, dead=True)
            ids.append(entry.id)
        mail.pause(words())
    return root, ids


def check(app):
    """Nothing that is drawn would be obeyed by a terminal, or hides, or reorders what stands around it."""
    for line in text_of(app):
        assert safe_text(line) == line


@pytest.mark.parametrize("size", [(120, 36), (80, 24)] if DEEP else [(120, 36)])
async def test_screens_show_it_as_text(hostile, size):
    """Lists, previews and entries in full show hostile data as text: none of it is markup or a command."""
    root, ids = hostile
    async with Dashboard(StorageSource(root)).run_test(size=size) as pilot:
        app = pilot.app
        app.action_show("dlq")
        await until(pilot, lambda: app.screen.query("#letters"))
        letters = app.screen.query_one("#letters", RowList)
        await until(pilot, lambda: len(letters.rows) == len(ids))
        for number in range(0, len(ids), 1 if DEEP else 5):
            letters.go_to(letters.rows.key(number))
            app.screen.action_next_pane()
            view = app.screen._questions
            await until(pilot, lambda view=view: not view._open)
            await pilot.pause()
            check(app)
        for entry_id in (*ids[:2], *ids[-2:]):
            app.open_entry(entry_id, "mail")
            await until(pilot, lambda: isinstance(app.screen, EntryScreen) and app.screen._view is not None)
            for action in ("form('hex')", "form('stored')", "whole", "next_pane", "wrap"):
                await app.screen.run_action(action)
                await pilot.pause()
                check(app)
            app.pop_screen()
        for mode in ("errors", "events", "leases", "health", "queues"):
            app.action_show(mode)
            await pilot.pause()
            await pilot.pause()
            check(app)


def test_what_reaches_the_terminal(hostile, tmp_path):
    """Of a real terminal's program, every byte that is no sequence of its own is a character that shows."""
    root, _ = hostile
    with in_terminal(tmp_path, "--dlq", "-C", str(root)) as terminal:
        for seen, keys in STEPS:
            terminal.until(seen)
            terminal.press(keys)
        assert terminal.until_it_ends() == 0, terminal.text
        said = terminal.said
    text = said.decode("utf-8")
    assert "\x1b]52" not in text
    left = SEQUENCE.sub("", text)
    assert "\\x1b]52;c;aGk=\\x07" in left
    assert sorted({character for character in left if safe_text(character) != character} - set("\r\n")) == []
