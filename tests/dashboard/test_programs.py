"""Programs that the dashboard leaves the terminal to: whatever comes of them, it takes the terminal back."""

import sys

import pytest
from buried import bury, dead
from in_terminal import in_terminal

CTRL_C, CTRL_D = b"\x03", b"\x04"
# It hears of a Ctrl-C, and goes on until a line is typed.
HEARS = """#!{python}
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print("it was interrupted", flush=True))
print("it has the terminal", flush=True)
open("/dev/tty").readline()
"""


@pytest.fixture
def root(tmp_path):
    """A storage with one dead letter."""
    bury(tmp_path / "storage", {"to": "ann"})
    return tmp_path / "storage"


def script(path, text):
    """A program of that text."""
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


def shown_again(terminal):
    """The dashboard draws and hears keys, and ends as it should."""
    terminal.press(b"5")
    terminal.until("[5 Health]")
    terminal.press(b"q")
    assert terminal.until_it_ends() == 0


@pytest.mark.parametrize(
    ("editor", "steps", "said"),
    [
        (":", (), "the payload was not changed; nothing was done"),
        ("exit 3", (), "Editing failed"),
        ("echo { > $1", [("Go on editing", b"n\n")], "nothing was done: the payload is not JSON"),
        ("echo { > $1", [("Go on editing", CTRL_C)], "nothing was done"),
        ("echo { > $1", [("Go on editing", CTRL_D)], "nothing was done"),
    ],
)
def test_an_editor_of_which_nothing_comes(root, tmp_path, editor, steps, said):
    """An editor that changes nothing, fails or leaves no JSON leads back to the dashboard, which says so."""
    before = dead(root)
    editor = script(tmp_path / "editor", f"#!/bin/sh\n{editor}\n")
    with in_terminal(tmp_path, "--dlq", "-C", str(root), EDITOR=editor, VISUAL=editor) as terminal:
        terminal.until('"to": "ann"')
        terminal.press(b"E")
        for seen, keys in steps:
            terminal.until(seen)
            terminal.press(keys)
        terminal.until(said)
        shown_again(terminal)
    assert dead(root) == before


@pytest.mark.parametrize("pager", ["/nonexistent", "less 'x"])
def test_a_pager_that_cannot_be_started(root, tmp_path, pager):
    """A pager that is not there, or is no command, leads back to the dashboard, which says so."""
    with in_terminal(tmp_path, "--dlq", "-C", str(root), PAGER=pager) as terminal:
        terminal.until('"to": "ann"')
        terminal.press(b"o")
        terminal.until("the pager cannot be started")
        shown_again(terminal)


@pytest.mark.parametrize(("key", "said"), [(b"o", "DLQ]"), (b"E", "the payload was not changed")])
def test_ctrl_c_is_for_the_program(root, tmp_path, key, said):
    """Ctrl-C in a pager or an editor reaches it as it would anywhere, and leaves the dashboard alone."""
    program = script(tmp_path / "program", HEARS.format(python=sys.executable))
    programs = dict.fromkeys(("PAGER", "EDITOR", "VISUAL"), program)
    with in_terminal(tmp_path, "--dlq", "-C", str(root), **programs) as terminal:
        terminal.until('"to": "ann"')
        terminal.press(key)
        terminal.until("it has the terminal")
        terminal.press(CTRL_C)
        terminal.until("it was interrupted")
        terminal.press(b"\n")
        terminal.until(said)
        shown_again(terminal)
