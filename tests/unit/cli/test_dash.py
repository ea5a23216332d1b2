"""dash: what it prints in a pipe, what it refuses, and what it does on a terminal."""

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
import pytest
from duraq_dashboard.keymap import read_keymap
from duraq_dashboard.roots import nearby

from duraq import FileStorage, Queue
from duraq.errors import InvalidOption

COLUMNS, LINES = 100, 30
SOON = 60  # seconds; only so that a failing test ends


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Nothing of the one who runs the tests is read or written."""
    for name, value in {"XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    for name in ("SSH_CONNECTION", "SSH_TTY", "NO_COLOR", "TEXTUAL_FPS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def root(environment):
    """A storage with one entry."""
    with FileStorage(environment / "queues") as storage:
        Queue("mail", storage).enqueue("x")
    return environment / "queues"


def duraq(*arguments, code=""):
    start = f"import sys; {code}\nfrom duraq.cli import main; sys.argv[0] = 'duraq'; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )


def test_in_a_pipe(root):
    """In a pipe it prints one picture of the queues as plain text, and leaves nothing behind."""
    found = duraq("-C", root, "dash")
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert len(lines) == 36
    assert any(line.split()[:4] == [">", "OK", "mail", "1"] for line in lines)
    assert "\x1b" not in found.stdout
    assert not list((root.parent / "state").rglob("*.json"))


def test_without_textual(root):
    """Where Textual is not installed it says what to install; no other command needs it."""
    found = duraq("-C", root, "dash", code="sys.modules['textual'] = None")
    assert found.returncode == 2
    assert "textual is not installed" in found.stderr
    assert "pip install 'duraq[dashboard]'" in found.stderr
    assert duraq("-C", root, "stats", code="sys.modules['textual'] = None").returncode == 0


def test_keys_that_are_no_keys(root):
    """A keys.toml that is none is refused, with its name."""
    file = root.parent / "config" / "duraq" / "keys.toml"
    file.parent.mkdir(parents=True)
    for text in ("[keys\n", "freeze = 'f'\n", "[keys]\nfreeze = 7\n", "[keys]\nfreeze = ''\n", "[other]\n"):
        file.write_text(text)
        with pytest.raises(InvalidOption, match=r"keys\.toml"):
            read_keymap()
    found = duraq("-C", root, "dash")
    assert found.returncode == 2
    assert "keys.toml" in found.stderr
    file.write_text('[keys]\nfreeze = "F"\n"show.dlq" = "2,d"\n')
    assert read_keymap() == {"freeze": "F", "show.dlq": "2,d"}


def test_storages_near_by(root, tmp_path):
    """A name that is almost that of a storage is found with its queues; what is no storage is not."""
    (tmp_path / "queuez").mkdir()
    assert nearby(str(tmp_path / "quees")) == [(str(root), 1)]
    assert nearby(str(tmp_path)) == [(str(root), 1)]
    assert nearby(str(root / "mail")) == [(str(root), 1)]
    assert nearby(str(tmp_path / "nosuch" / "deeper")) == []


class Screen:
    """A terminal with the dashboard in it."""

    def __init__(self, *arguments):
        pid, self.fd = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            os.environ["TERM"] = "xterm-256color"
            for name in ("COLUMNS", "LINES"):
                os.environ.pop(name, None)
            start = "import sys; from duraq.cli import main; sys.argv[0] = 'duraq'; main()"
            os.execv(sys.executable, [sys.executable, "-c", start, *map(str, arguments)])
        self.pid = pid
        self.written = b""
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)

    def shows(self, text):
        """Read until it is there."""
        end = time.monotonic() + SOON
        while not any(text in line for line in self.screen.display):
            assert self.read(), "\n".join(self.screen.display)
            assert time.monotonic() < end, "\n".join(self.screen.display)

    def read(self):
        if select.select([self.fd], [], [], 1)[0]:
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:
                return False
            self.written += data
            self.stream.feed(data)
            return bool(data)
        return True

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def ended(self):
        """Its exit code, once it has ended; all that it has written is read."""
        while self.read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal(root):
    """It opens where it is told to, q leads back and out, and the terminal is as it was before."""
    screen = Screen("-C", root, "dash", "mail")
    screen.shows("Queues > mail")
    screen.press("q")
    screen.shows("sort: attention")
    screen.press("s")
    screen.shows("sort: name")
    screen.press("q")
    assert screen.ended() == 0
    assert b"\x1b[?1049h" in screen.written
    assert screen.written.rindex(b"\x1b[?1049l") > screen.written.rindex(b"\x1b[?1049h")
    kept = list((root.parent / "state" / "duraq-dashboard").glob("*.json"))
    assert ['"sort": "name"' in file.read_text() for file in kept] == [True]


def test_terminated(root):
    """SIGTERM ends it with its code, and leaves the terminal as it was."""
    screen = Screen("-C", root, "dash")
    screen.shows("sort: attention")
    os.kill(screen.pid, 15)
    assert screen.ended() == 143
    assert b"\x1b[?1049l" in screen.written


def test_the_demo_ends_with_it(environment):
    """``duraq demo --dash`` shows what it has left behind; without Textual the demo still holds."""
    (environment / "files").mkdir()
    for number in range(3):
        (environment / "files" / f"{number}.txt").write_text("x" * number)
    for code in ("", "sys.modules['textual'] = None"):
        arguments = (
            "demo",
            environment / "files",
            "--storage",
            environment / "demo",
            "--workers",
            1,
            "--dash",
        )
        found = duraq(*arguments, code=code)
        assert found.returncode == 0, found.stderr
        assert "The comparison holds." in found.stdout
        if code:
            assert "no dashboard: textual is not installed" in found.stderr
        else:
            assert any(line.split()[1:2] == ["results"] for line in found.stdout.splitlines()[-36:])
