"""Dead letters into a file: where to, how many, and what came of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from duraq.inspector import Inspector
from duraq.letters import exported
from duraq.safe_text import ascii_json, safe_text
from duraq.views import EntryView
from duraq_dashboard.dialogs.base import Dialog
from duraq_dashboard.widgets.lines import Lines

# The letters that are meant, one after the other. The event, once set, ends it early.
Read = Callable[[Inspector, threading.Event], Iterable[EntryView]]


class ExportDialog(Dialog[None]):
    """A line of JSON for each, as `duraq dlq export` prints it, into a file that is not there yet."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="dialog.close"),
    ]

    def __init__(self, count: int, read: Read) -> None:
        super().__init__()
        self._count = count
        self._read = read
        self._stop = threading.Event()
        self._is_begun = False

    def compose_box(self) -> ComposeResult:
        yield Input(id="file", compact=True, placeholder="a file that is not there yet")
        yield Lines(id="export-says")

    def on_mount(self) -> None:
        self.say_title(f"Export {self._count:,} dead letter{'' if self._count == 1 else 's'} to")
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        # None, if it was closed again at once.
        for field in self.query("#file").results(Input):
            field.cursor_blink = False
            field.focus()
        self._say("Enter exports: a line of JSON each, for `duraq dlq import`", "note")

    def _say(self, text: str, role: str = "") -> None:
        for lines in self.query("#export-says").results(Lines):
            lines.show([(safe_text(text, 400), role)])

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        path = Path(event.value).expanduser()
        if self._is_begun or not event.value.strip():
            return
        root = Path(self.dashboard.source.path).resolve()
        if root in {path.resolve(), *path.resolve().parents}:
            self._say("not below the storage: everything there is its own", "warn")
            return
        self._is_begun = True
        self._say("exporting ...", "note")
        stop = self._stop

        def question(inspector: Inspector, _: threading.Event) -> int:
            return _write(path, self._read(inspector, stop))

        def answer(found: int | Exception) -> None:
            # In the source's thread.
            self.app.call_later(self._ended, path, found)

        self.dashboard.source.ask(question, answer)

    def _ended(self, path: Path, found: int | Exception) -> None:
        if isinstance(found, Exception):
            self._is_begun = False
            text, role = f"not exported: {found}", "warn"
        else:
            text, role = f"{found:,} exported to {path}", ""
        if self.is_running:
            self._say(text, role)
        else:
            self.dashboard.say(safe_text(text, 300), severity="error" if role else "information")

    def action_close(self) -> None:
        """Close it; what is being exported ends there."""
        self._stop.set()
        self.dismiss(None)


def _write(path: Path, views: Iterable[EntryView]) -> int:
    """How many were written. Raises OSError; nobody's file is written over."""
    count = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        for view in views:
            file.write(ascii_json(exported(view)) + "\n")
            count += 1
    return count
