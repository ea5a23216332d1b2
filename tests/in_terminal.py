"""The dashboard at a real terminal: keys are pressed when what they are about is there to be seen."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pyte

PATIENCE = 30  # seconds; only so that a failing test ends


class Terminal:
    """One that a program has. ``said``: all that came from it."""

    def __init__(self, leader, program, size):
        self._leader = leader
        self.program = program
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self.said = b""

    def until(self, wanted):
        """Look until that is to be seen."""
        end = time.monotonic() + PATIENCE
        # Only what differs is written, so what is seen need not come in one piece.
        while wanted not in self.text:
            assert self._look(end), self.text

    def until_it_ends(self):
        """Look until nobody has the terminal any more; the program's exit code."""
        end = time.monotonic() + PATIENCE
        while self._look(end):
            pass
        return self.program.wait(PATIENCE)

    def press(self, keys):
        os.write(self._leader, keys)

    @property
    def text(self):
        """What is to be seen."""
        return "\n".join(self._screen.display)

    def _look(self, end):
        """See what comes next; whether there was anything, or may be."""
        assert time.monotonic() < end, self.text
        if not select.select([self._leader], [], [], 1)[0]:
            return True
        try:
            piece = os.read(self._leader, 65536)
        except OSError:
            piece = b""
        self._stream.feed(piece)
        self.said += piece
        return bool(piece)


@contextlib.contextmanager
def in_terminal(tmp_path, *arguments, size=(120, 36), **environment):
    """The dashboard with these arguments, at a terminal of its own, whose Ctrl-C reaches it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TERM": "xterm-256color",
        # Other tests may have left other ones, which count for more than the terminal's own.
        "COLUMNS": str(size[0]),
        "LINES": str(size[1]),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        **environment,
    }
    # The screen is drawn on its stderr.
    with subprocess.Popen(
        [sys.executable, "-m", "duraq_dashboard", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other thread is near
    ) as program:
        os.close(follower)
        try:
            yield Terminal(leader, program, size)
        finally:
            program.kill()
            os.close(leader)
