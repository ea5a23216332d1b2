"""One entry in full: what it carries, what went wrong each time, its life, and where it lies on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Protocol

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from duraq.actions import Action, Target
from duraq.errors import EntryNotFound
from duraq.inspector import Inspector
from duraq.model import EntryStatus, last_failure
from duraq.safe_text import safe_text
from duraq.views import EntryView, RecordView, held_by
from duraq_dashboard import entry_text, wording
from duraq_dashboard.choosing import chosen_with, is_of_one, letter_of
from duraq_dashboard.copying import Copyable
from duraq_dashboard.orders import Selection
from duraq_dashboard.questions import Questions
from duraq_dashboard.screens.base import LETTER_ACTS, BaseScreen
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.widgets.lines import Heading, Lines, Piece
from duraq_dashboard.widgets.text_lines import TextLines

PANES = ("attempts", "payload", "timeline", "on-disk")
_TITLES = {"attempts": "Attempts", "payload": "Payload", "timeline": "Timeline", "on-disk": "On disk"}
_SHOWN_AS = {"json": entry_text.as_json, "hex": entry_text.as_hex, "stored": entry_text.as_stored}


class Neighbours(Protocol):
    """The list that an entry was opened from."""

    def place(self) -> str:
        """Where in it, such as 2 of 104."""

    def step(self, by: int, screen: EntryScreen) -> None:
        """Have the screen show another one of it, as soon as it is known."""


class EntryScreen(BaseScreen):
    """Of an entry in any state."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "step(-1)", "previous", id="entry.previous"),
        Binding("right_square_bracket", "step(1)", "next", id="entry.next"),
        Binding("tab", "next_pane", "next pane", show=False, id="entry.next-pane"),
        Binding("enter", "whole", "library frames", show=False, id="entry.whole"),
        Binding("f", "form('json')", "payload as JSON", show=False, id="entry.json"),
        Binding("h", "form('hex')", "payload as hex", show=False, id="entry.hex"),
        Binding("r", "form('stored')", "payload as stored", show=False, id="entry.stored"),
        Binding("w", "wrap", "wrap", show=False, id="entry.wrap"),
        *LETTER_ACTS,
    ]

    def __init__(self, entry_id: str, queue: str | None = None, neighbours: Neighbours | None = None) -> None:
        super().__init__()
        self._entry_id, self._of_queue = entry_id, queue
        self._neighbours = neighbours
        self._questions: Questions | None = None
        self._view: EntryView | None = None
        self._life: Sequence[RecordView] = ()
        self._problem = ""
        self._is_gone = False  # since it was read
        self._pane = PANES[0]
        self._form = "json"
        self._whole = False
        self._seen: QueueNow | None = None

    @property
    def crumbs(self) -> Sequence[str]:
        return (self._of_queue or wording.NOTHING, self._entry_id)

    def compose_content(self) -> ComposeResult:
        yield Lines(id="entry-state")
        yield Lines(id="entry-tabs")
        with Horizontal(id="entry-panes"):
            for name in PANES[:2]:
                with Vertical(id=f"{name}-pane", classes="entry-pane"):
                    yield Heading(_TITLES[name], of=name, id=f"{name}-heading")
                    yield TextLines(id=name)
        for name in PANES[2:]:
            with Vertical(id=f"{name}-pane", classes="entry-pane"):
                yield Heading(_TITLES[name], of=name, id=f"{name}-heading")
                yield TextLines(id=name)

    def on_mount(self) -> None:
        self._questions = Questions(self.dashboard.source, self.call_later)
        self._go_to_pane(self._pane)
        self._read()

    def on_unmount(self) -> None:
        self._asked.drop_all()

    @property
    def _asked(self) -> Questions:
        assert self._questions is not None
        return self._questions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing is offered that cannot be done."""
        if action == "act" and not self._is_dead:
            return False
        if action == "step":
            return self._neighbours is not None
        return super().check_action(action, parameters)

    @property
    def _is_dead(self) -> bool:
        return self._view is not None and self._view.status is EntryStatus.DEAD and not self._is_gone

    # -- reading ---------------------------------------------------------------------------------------

    def show_entry(self, entry_id: str, queue: str) -> None:
        """Show another one."""
        self._entry_id, self._of_queue = entry_id, queue
        self._view, self._life, self._seen = None, (), None
        self._problem, self._is_gone = "", False
        self._whole = False
        self._read()
        self._show()

    def _read(self) -> None:
        entry_id, queue = self._entry_id, self._of_queue

        def question(inspector: Inspector, _: object) -> tuple[EntryView, list[RecordView]]:
            view = inspector.find(entry_id, queue)
            return view, inspector.life(view.id, view.queue)

        self._asked.ask("entry", question, self._arrived, self._failed)

    def _arrived(self, found: tuple[EntryView, Sequence[RecordView]]) -> None:
        self._view, self._life = found
        self._entry_id, self._of_queue = self._view.id, self._view.queue
        self._problem, self._is_gone = "", False
        self.refresh_bindings()
        self._show()

    def _failed(self, error: Exception) -> None:
        self._is_gone = gone = isinstance(error, EntryNotFound)
        self._problem = "it is gone: removed, or its records are no longer kept" if gone else str(error)
        self.refresh_bindings()
        if gone and self._of_queue is None:
            # Named by somebody who began the dashboard with it, who may have meant a queue.
            self._problem = f"no queue and no entry is called {self._entry_id}"
        self._show()

    def draw(self, snapshot: Snapshot) -> None:
        queue = None if self._of_queue is None else snapshot.queues.get(self._of_queue)
        if self._seen is not None and queue is not self._seen and not self._asked.is_open("entry"):
            self._read()
        self._seen = queue
        self._show()

    # -- what is shown ---------------------------------------------------------------------------------

    def _when(self, moment: datetime) -> str:
        return wording.moment(moment, self.dashboard.moment, self.dashboard.times)

    def _show(self) -> None:
        view = self._view
        pieces: list[Piece] = [" "]
        if view is not None:
            role = "crit" if view.status is EntryStatus.DEAD else "bold"
            state, _, rest = entry_text.headline(view, self.dashboard.moment).partition("  ")
            pieces += [(f" {state} ", role), f"{self._place()}{self._holder(view)}  {rest}"]
        elif not self._problem:
            pieces.append(("reading ...", "note"))
        if self._problem:
            pieces.append((f"  {safe_text(self._problem, 300)}", "warn"))
        self.query_one("#entry-state", Lines).show(pieces)
        tabs: list[Piece] = [
            (f"[{_TITLES[name]}]", "bold") if name == self._pane else f" {_TITLES[name]} " for name in PANES
        ]
        self.query_one("#entry-tabs", Lines).show([" ", *tabs, ("  Tab switches", "note")])
        if view is None:
            return
        path = self.dashboard.source.path
        payload = [*_SHOWN_AS[self._form](view.payload)]
        named = entry_text.headers(view)
        if named:
            payload += ["", ("headers", "note"), *named]
        self._fill("attempts", entry_text.attempts(view, self._when, whole=self._whole))
        self._fill("payload", payload)
        self._fill("timeline", entry_text.timeline(self._life, self._when))
        self._fill("on-disk", entry_text.on_disk(view, self._life, path, self._when))
        self.query_one("#payload-heading", Heading).show(
            f"Payload, {wording.size(len(view.payload))}, as {self._form}", "f JSON  h hex  r stored  w wrap"
        )
        self.query_one("#attempts-heading", Heading).show("Attempts", "newest first")

    def _holder(self, view: EntryView) -> str:
        leases = () if self._seen is None else self._seen.view.leases
        return next((f"  by {held_by(each.worker, each.alive)}" for each in leases if each.id == view.id), "")

    def _place(self) -> str:
        return "" if self._neighbours is None else f"  {self._neighbours.place()}"

    def _fill(self, name: str, lines: Sequence[str | tuple[str, str]]) -> None:
        self.query_one(f"#{name}", TextLines).show(lines, stay=True)

    # -- what keys do ----------------------------------------------------------------------------------

    def action_step(self, by: int) -> None:
        """The next one of the list that it was opened from."""
        if self._neighbours is not None:
            self._neighbours.step(by, self)

    def action_next_pane(self) -> None:
        """To the next pane; where there is room for one only, it is shown."""
        self._go_to_pane(PANES[(PANES.index(self._pane) + 1) % len(PANES)])
        self._show()

    def _go_to_pane(self, name: str) -> None:
        self._pane = name
        for each in PANES:
            self.query_one(f"#{each}-pane").set_class(each == name, "-here")
        self.query_one(f"#{name}").focus()

    def action_whole(self) -> None:
        """Show frames of libraries, too, or no longer."""
        self._whole = not self._whole
        self._show()

    def action_form(self, form: str) -> None:
        """Show the payload in another form."""
        self._form = form
        self._show()

    def action_wrap(self) -> None:
        """Have long lines go on below, or cut them."""
        for pane in self.query(TextLines):
            pane.wraps = not pane.wraps

    def chosen_for(self, action: Action) -> Selection | None:
        view = self._view
        if view is None or not (self._is_dead or action.target is Target.QUEUE):
            return super().chosen_for(action)
        if is_of_one(action):
            return chosen_with(view, action)
        if action.target is not Target.DEAD_LETTERS:
            return super().chosen_for(action)
        return letter_of(view)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        view = self._view
        if view is None:
            return ()
        commands = entry_text.commands(view, self._life, self.dashboard.source.path)
        last = last_failure(view.history)
        offered = [
            Copyable("i", "id", view.id),
            Copyable("d", "payload", view.payload.decode("utf-8", "backslashreplace")),
            Copyable("c", "command", commands[0]),
        ]
        offered += [Copyable("p", "place", command) for command in commands[1:]]
        if last is not None:
            text = last.error.traceback or f"{last.error.type}: {last.error.message}"
            offered.append(Copyable("e", "error", text))
        return offered

    def pager_text(self) -> str | None:
        if self._view is None:
            return None
        return entry_text.in_full(self._view, self._life, self.dashboard.source.path, self._when)
