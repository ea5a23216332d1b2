"""What breaks: failed attempts, put together by what they have in common."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from duraq.actions import Action, Target
from duraq.bulk import Meant
from duraq.clock import to_datetime
from duraq.failures import By, FailureGroup, Failures, Gatherer, dead_of
from duraq.inspector import Inspector
from duraq.safe_text import safe_text
from duraq_dashboard import error_view, wording
from duraq_dashboard.copying import Copyable
from duraq_dashboard.error_view import BYS, SORTS, WINDOWS
from duraq_dashboard.orders import Selection
from duraq_dashboard.rows import Listed
from duraq_dashboard.screens.base import MainScreen, act
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines, Piece
from duraq_dashboard.widgets.row_list import RowList

NEVER = to_datetime(0)
OFTEN = 2.0  # seconds between two gatherings
_STRETCHES = 64  # of a window; when one is over, what was gathered is no longer of that window
_NONE = "\nNothing has failed in the last {window}, as far as records are kept."
_NONE_ADMITTED = "\nNo failure matches this. Esc clears the filter."


class ErrorsScreen(MainScreen):
    """Failures are gathered in another thread, while this is shown and something has changed."""

    MODE: ClassVar[str] = "errors"
    TITLE = "Errors"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "window", "window", id="window"),
        Binding("b", "by", "group by", id="errors.by"),
        Binding("s", "sort", "sort", id="sort"),
        Binding("slash", "filter", "filter", id="filter"),
        Binding("m", "raw", "raw messages", id="errors.raw"),
        act("retry", "retry its dead"),
        act("remove", show=False),
        act("move", show=False),
    ]

    class Gathered(Message):
        """Here is what failed, or why that cannot be told."""

        def __init__(self, gatherer: Gatherer, found: Failures | Exception) -> None:
            super().__init__()
            self.gatherer, self.found = gatherer, found

    class Reading(Message):
        """So many queues are read, of so many, and this was found so far."""

        def __init__(self, gatherer: Gatherer, found: Failures, done: int, of: int) -> None:
            super().__init__()
            self.gatherer, self.found, self.done, self.of = gatherer, found, done, of

    def __init__(self) -> None:
        super().__init__()
        self._window = 1
        self._by = By.SIGNATURE
        self._sort = "count"
        self._raw = False
        self._words: list[str] = []
        self._gatherer: Gatherer | None = None
        self._asked: threading.Event | None = None  # what ends the gathering that goes on
        self._asked_at = 0.0
        self._as_of = NEVER
        self._is_due = False  # another gathering is about to begin
        self._is_stopped = False
        self._read: dict[str, QueueNow] = {}  # the queues as they were gathered from
        self._failures: Failures | None = None
        self._problem = ""
        self._progress = ""

    def compose_content(self) -> ComposeResult:
        yield Lines(id="errors-totals")
        yield Heading(id="errors-heading")
        yield FilterBar()
        yield RowList(*error_view.COLUMNS, id="errors")
        yield Heading(id="error-heading")
        yield Lines(id="error")
        yield Heading("Newest", id="feed-heading")
        yield Lines(id="feed")

    def on_mount(self) -> None:
        super().on_mount()
        self.recall(self.dashboard.kept_of(self.MODE))
        self.query_one(RowList).focus()

    def on_unmount(self) -> None:
        self._give_up()

    # -- gathering -------------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        self._gather(snapshot)
        self._show()

    def _gather(self, snapshot: Snapshot) -> None:
        """Have gathered what has changed; not more often than OFTEN, and only one after the other."""
        if self._asked is not None or self._is_due or self._is_stopped:
            return
        if self.dashboard.frozen and self._failures is not None:
            return
        changed = [name for name, queue in snapshot.queues.items() if self._read.get(name) is not queue]
        gone = self._read.keys() - snapshot.queues.keys()
        if self._failures is not None and not changed and not gone and not self._is_old(self._failures):
            return
        wait = self._asked_at + OFTEN - self.dashboard.clock_of_screen()
        if self._failures is not None and wait > 0:
            self._is_due = True
            self.set_timer(wait, self._is_due_now)
            return
        self._ask(snapshot, changed)

    def _is_old(self, failures: Failures) -> bool:
        """Whether the window has moved on; nothing is there to move if nothing has failed in it."""
        window = WINDOWS[self._window][1]
        return bool(failures.groups) and self.dashboard.moment - self._as_of >= window / _STRETCHES

    def _is_due_now(self) -> None:
        self._is_due = False
        self._redraw()

    def _ask(self, snapshot: Snapshot, changed: Sequence[str]) -> None:
        gatherer, by = self._gatherer, self._by
        if gatherer is None:
            gatherer = self._gatherer = Gatherer(WINDOWS[self._window][1], self.dashboard.moment)
        self._read = dict(snapshot.queues)
        self._as_of = self.dashboard.moment
        self._asked_at = self.dashboard.clock_of_screen()

        def question(inspector: Inspector, stop: threading.Event) -> Failures:
            told = monotonic()

            def tell(done: int, of: int) -> None:
                nonlocal told
                if monotonic() - told >= OFTEN / 2:
                    told = monotonic()
                    found = gatherer.report(to_datetime(inspector.clock.now()), by)
                    self.post_message(self.Reading(gatherer, found, done, of))

            gatherer.read(inspector, changed, stop, tell)
            return gatherer.report(to_datetime(inspector.clock.now()), by)

        def answer(found: Failures | Exception) -> None:
            # In another thread; a message is what may cross.
            self.post_message(self.Gathered(gatherer, found))

        self._asked = self.dashboard.source.ask(question, answer)

    def on_errors_screen_reading(self, message: Reading) -> None:
        if message.gatherer is self._gatherer and self._asked is not None:
            self._failures = message.found
            self._progress = f"reading, {message.done} of {message.of} queues   Esc stops"
            self._show()

    def on_errors_screen_gathered(self, message: Gathered) -> None:
        if message.gatherer is not self._gatherer:
            return
        self._asked, self._progress = None, ""
        if isinstance(message.found, Exception):
            self._problem = safe_text(message.found, 2000)
            self._failures, self._gatherer, self._read = None, None, {}
            self._show()
            return
        self._problem, self._failures = "", message.found
        # What has changed meanwhile is gathered next.
        self._redraw()
        self._show()

    def _give_up(self) -> None:
        """Forget what was gathered, and what is being gathered."""
        if self._asked is not None:
            self._asked.set()
        self._asked, self._gatherer, self._progress = None, None, ""
        self._read = {}

    def _begin_anew(self, gatherer: Gatherer | None = None) -> None:
        """Gather from the beginning, or go on with what was gathered."""
        self._give_up()
        self._gatherer, self._failures = gatherer, None
        self._is_stopped = False
        self._redraw()
        self._show()

    # -- what is shown ---------------------------------------------------------------------------------

    def _show(self) -> None:
        if not self.is_mounted:
            return
        name, window = WINDOWS[self._window]
        failures = self._failures
        groups = [] if failures is None else error_view.chosen(failures, self._sort, self._words)
        self._show_totals(failures, name)
        every = 0 if failures is None else len(failures.groups)
        self.query_one("#errors-heading", Heading).show(
            f"Failures by {BYS[self._by]}",
            self._progress
            or f"w {' '.join(each for each, _ in WINDOWS)}   sort: {self._sort}   {len(groups)} of {every}",
        )
        now, ascii_only = self.dashboard.moment, self.dashboard.ascii_only
        rows = error_view.rows(groups, window, now, ascii_only=ascii_only)
        self.query_one(RowList).show(Listed(rows), empty=self._nothing(name))
        self.shows_seconds = any((now - group.last).total_seconds() < wording.MINUTE for group in groups)
        self._show_group()
        lines = [] if failures is None else error_view.feed(failures, now, self.dashboard.times)
        self.query_one("#feed", Lines).show(*(f" {self._cut(line)}" for line in lines[:6]))

    def _show_totals(self, failures: Failures | None, window: str) -> None:
        if failures is None:
            self.query_one("#errors-totals", Lines).show("")
            return
        text = error_view.totals(failures, window, self.app.size.width - 2)
        line: list[Piece] = [f" {text}"]
        if failures.problems:
            line.append((f"   not read: {', '.join(failures.problems)}", "crit"))
        self.query_one("#errors-totals", Lines).show(line)

    def _cut(self, line: str) -> str:
        return wording.fit(line, self.app.size.width - 2)

    def _nothing(self, window: str) -> str:
        if self._problem:
            return f"\n{self._problem}"
        if self._failures is None:
            return "\nStopped. w begins again." if self._is_stopped else "\nreading ..."
        return self.unless_reading(_NONE_ADMITTED if self._words else _NONE.format(window=window))

    def _under_cursor(self) -> FailureGroup | None:
        key = self.query_one(RowList).cursor_key
        groups = () if self._failures is None else self._failures.groups
        return next((group for group in groups if group.key == key), None)

    def _show_group(self) -> None:
        group = self._under_cursor()
        heading, lines = self.query_one("#error-heading", Heading), self.query_one("#error", Lines)
        if group is None:
            heading.show("")
            lines.show()
            return
        heading.show("Raw messages" if self._raw else "Signature", "m raw messages   y copies")
        now, times = self.dashboard.moment, self.dashboard.times
        if self._raw:
            lines.show(*(f" {self._cut(line)}" for line in error_view.raw(group, now, times)))
        else:
            said = [f" {self._cut(line)}" for line in error_view.about(group, now, times)]
            lines.show([(said[0], "bold")], *said[1:], [(f" {self._cut(error_view.ABOUT)}", "note")])

    def on_row_list_moved(self) -> None:
        self._show_group()

    # -- what keys do ----------------------------------------------------------------------------------

    def action_window(self) -> None:
        """Failures of another time."""
        self._window = (self._window + 1) % len(WINDOWS)
        self._begin_anew()

    def action_by(self) -> None:
        """Put together by the next thing: signature, type, queue."""
        every = list(BYS)
        self._by = every[(every.index(self._by) + 1) % len(every)]
        kept = self._gatherer
        self._begin_anew(kept)

    def action_sort(self) -> None:
        """Sort by the next thing."""
        every = list(SORTS)
        self._sort = every[(every.index(self._sort) + 1) % len(every)]
        self._show()

    def action_raw(self) -> None:
        """The messages as they are, or what they have in common."""
        self._raw = not self._raw
        self._show_group()

    def action_filter(self) -> None:
        """Filter by words: of the message, the type, the place, a queue's name."""
        self.query_one(FilterBar).open()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        self._words = message.text.split()
        self._show()

    def on_filter_bar_left(self) -> None:
        # At once, and not a moment later as by focus(): the next key is on its way.
        self.set_focus(self.query_one(RowList))

    def action_back(self) -> None:
        """Stop what is being read; else, no filter any more."""
        if self._asked is not None:
            gatherer = self._gatherer
            self._give_up()
            self._gatherer, self._is_stopped = gatherer, True
            self._progress = "stopped   w begins again"
            self._show()
        else:
            self.query_one(FilterBar).clear()

    def on_row_list_chosen(self) -> None:
        """Its dead letters; if there are none, the entry that failed last."""
        group = self._under_cursor()
        if group is None:
            return
        where = error_view.where_dead(group, self._by)
        if group.dead and where is not None:
            self.dashboard.show_letters(where)
        elif group.samples:
            self.dashboard.open_entry(group.samples[0].id, group.samples[0].queue)

    def chosen_for(self, action: Action) -> Selection | None:
        """All dead letters of the group under the cursor, whenever they died."""
        group = self._under_cursor()
        if action.target is not Target.DEAD_LETTERS or action.name == "purge" or group is None:
            return super().chosen_for(action)
        key, by = group.key, self._by

        def freeze(inspector: Inspector, stop: threading.Event) -> Meant:
            return Meant.of(dead_of(inspector, key, by, stop))

        return Selection(freeze, where=error_view.where_dead(group, by) or "")

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        group = self._under_cursor()
        if group is None:
            return ()
        window = WINDOWS[self._window][0]
        shown = error_view.command(group, self._by, window, self.dashboard.source.path)
        offered = [
            Copyable("s", "signature", group.error.signature or group.key),
            Copyable("m", "message", f"{group.error.type}: {group.error.message}"),
            Copyable("c", "command", shown),
        ]
        return [*offered, *(Copyable("i", "id of the newest", each.id) for each in group.samples[:1])]

    def pager_text(self) -> str | None:
        group = self._under_cursor()
        if group is None:
            return None
        now, times = self.dashboard.moment, self.dashboard.times
        said = [*error_view.about(group, now, times), "", *error_view.raw(group, now, times)]
        return "\n".join([*said, "", group.error.traceback])

    def remember(self) -> Mapping[str, str]:
        return {"window": WINDOWS[self._window][0], "by": self._by.value, "sort": self._sort}

    def recall(self, kept: Mapping[str, str]) -> None:
        names = [name for name, _ in WINDOWS]
        if kept.get("window") in names:
            self._window = names.index(kept["window"])
        if kept.get("by") in {by.value for by in By}:
            self._by = By(kept["by"])
        if kept.get("sort") in SORTS:
            self._sort = kept["sort"]
