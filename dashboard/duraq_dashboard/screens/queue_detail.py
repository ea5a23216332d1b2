"""One queue: why it is as it is, how it goes, and its entries by state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from duraq.actions import Action, Target
from duraq.attention import label
from duraq.errors import InvalidFilter
from duraq.inspector import Inspector
from duraq.model import Counts, EntryStatus
from duraq.safe_text import safe_text
from duraq.where import Where
from duraq_dashboard import wording
from duraq_dashboard.choosing import chosen_of, dead_letters_of
from duraq_dashboard.copying import Copyable
from duraq_dashboard.entry_pages import PAGE, STATES, EntryRows, Page, columns, read_pages
from duraq_dashboard.entry_search import EntrySearch
from duraq_dashboard.entry_text import shell
from duraq_dashboard.history import ENTERED, LEFT
from duraq_dashboard.orders import Selection
from duraq_dashboard.questions import Questions
from duraq_dashboard.screens.base import QUEUE_ACTS, BaseScreen
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.view_model import advice, facts, flow, outlook, why
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines, Piece
from duraq_dashboard.widgets.row_list import RowList

_WIDE = 110  # columns in which what lasted stands beside what happened
# The name of a window, its length, and how many bars it has: each is then a whole number of what is counted.
WINDOWS = (
    ("15m", timedelta(minutes=15), 15),
    ("60m", timedelta(minutes=60), 60),
    ("24h", timedelta(hours=24), 48),
    ("7d", timedelta(days=7), 56),
)


def _counted(queue: QueueNow, state: EntryStatus, written: Callable[[int], str]) -> str:
    return wording.NOTHING if queue.view.problem else written(getattr(queue.view.counts, state.value))


class QueueScreen(BaseScreen):
    """Opened from the list of queues; also by name."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "state(1)", "next state", id="queue.next-state"),
        Binding("left,h", "state(-1)", "state before", show=False, id="queue.previous-state"),
        Binding("slash", "filter", "filter", id="filter"),
        *QUEUE_ACTS,
        Binding("w", "window", "window", id="window"),
    ]

    class Read(Message):
        """Some pages have been read, or that failed."""

        def __init__(self, state: EntryStatus, pages: Sequence[Page] | Exception) -> None:
            super().__init__()
            self.state, self.pages = state, pages

    def __init__(self, name: str) -> None:
        super().__init__()
        self.queue_name = name
        self._state = "Ready"
        self._window = 1
        self._queue: QueueNow | None = None
        self._pages: list[Page] = []
        self._reading: threading.Event | None = None
        self._failure = ""  # why the pages could not be read
        self._is_behind = False  # the queue has changed since what is being read was asked for
        self._search: EntrySearch | None = None

    @property
    def crumbs(self) -> Sequence[str]:
        return ("Queues", self.queue_name)

    def compose_content(self) -> ComposeResult:
        yield Lines(id="state")
        yield Heading(id="rates-heading")
        yield Lines(id="rates")
        yield Lines(id="tabs")
        yield FilterBar()
        yield RowList(*columns(STATES[self._state]), id="entries")
        yield Heading(id="why-heading")
        yield Lines(id="reasons")

    def on_mount(self) -> None:
        later = self.call_later
        questions = Questions(self.dashboard.source, later)
        self._search = EntrySearch(
            self.queue_name, questions, self._show_found, later=later, after=self.set_timer
        )
        self.query_one(RowList).focus()

    @property
    def _found(self) -> EntrySearch:
        assert self._search is not None
        return self._search

    def on_unmount(self) -> None:
        self._found.begin(None, STATES[self._state])
        if self._reading is not None:
            self._reading.set()

    # -- what is shown ---------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        queue = snapshot.queues.get(self.queue_name)
        if queue is None:
            gone: list[Piece] = [(" GONE ", "crit"), f"  there is no queue {self.queue_name}"]
            self.query_one("#state", Lines).show(gone if snapshot.whole else ["still reading ..."])
            self.query_one(RowList).show(EntryRows(0, [], self.dashboard.moment, self.dashboard.times))
            return
        if self._queue is None:
            self._begin_where_something_is(queue.view.counts)
        changed = queue is not self._queue
        self._queue = queue
        self._show_state(queue)
        self._show_rates(queue)
        self._show_reasons(queue)
        if changed and self._found.where is None:
            self._read()
        elif changed:
            self._found.changed()
        self._show_entries()

    def _begin_where_something_is(self, counts: Counts) -> None:
        self._state = next(
            (name for name, state in STATES.items() if getattr(counts, state.value)), self._state
        )
        self.query_one(RowList).set_columns(*columns(STATES[self._state]))

    def _show_state(self, queue: QueueNow) -> None:
        # What lies before the damage, if there is any, is not all there is.
        oldest = None if queue.view.problem else queue.view.oldest_ready
        age = "" if oldest is None else f"oldest ready {wording.age(self.dashboard.moment - oldest)}  "
        numbers = "  ".join(
            f"{name.lower()} {_counted(queue, state, '{:,}'.format)}" for name, state in STATES.items()
        )
        word = label(queue.word, paused=queue.view.pause is not None)
        done = "" if queue.metrics is None else f"  done {wording.count(queue.metrics.counters.completed)}"
        self.shows_seconds = oldest is not None and self.dashboard.moment - oldest < timedelta(minutes=1)
        self.query_one("#state", Lines).show([(word, queue.role), f"  {age}{numbers}{done}"])
        self._show_tabs(queue)

    def _show_tabs(self, queue: QueueNow) -> None:
        tabs: list[Piece] = []
        for name, state in STATES.items():
            text = f"{name} {_counted(queue, state, wording.count)}"
            tabs.append((f"[{text}]", "bold") if name == self._state else f" {text} ")
        if self._found.where is not None:
            tabs.append(
                (f"   {self._found.told(getattr(queue.view.counts, STATES[self._state].value))}", "note")
            )
        self.query_one("#tabs", Lines).show(tabs)

    def _show_rates(self, queue: QueueNow) -> None:
        name, window, bars = WINDOWS[self._window]
        others = " ".join(each for each, _, _ in WINDOWS)
        self.query_one("#rates-heading", Heading).show(f"Rates {name}", f"w cycles {others}")
        rates = self.query_one("#rates", Lines)
        rates.display = queue.metrics is not None
        if queue.metrics is None:
            return
        now = self.dashboard.moment
        took = self.dashboard.overview.durations.took(queue.metrics)
        since = "ever" if took.since is None else wording.moment(took.since, now, self.dashboard.times)
        width = self.app.size.width
        lines: list[Sequence[Piece]] = []
        lasted = []
        for title, what, name, lengths in (
            ("in ", ENTERED, "wait", took.wait),
            ("out", LEFT, "run ", took.run),
        ):
            shown = flow(queue.metrics, what, window, bars, now, ascii_only=self.dashboard.ascii_only)
            room = min(bars, width - len(f"{title} 0..123.4/s   now 123.4/s   "))
            peak, current = f"{title} 0..{shown.peak + '/s':<8} ", f" now {shown.now + '/s':<8}"
            lines.append([peak, (f"{shown.bars[-room:]:<{room}}", "flow"), current])
            p50, p95 = wording.seconds(took.p50(lengths)), wording.seconds(took.p95(lengths))
            lasted.append(f"{name} p50 {p50:>6} p95 {p95:>6}")
        if width >= _WIDE:
            lines = [[*line, f"   {text}"] for line, text in zip(lines, lasted, strict=True)]
            last = f"{outlook(queue.metrics, now)}   durations: {since}"
        else:
            last = f"{'  '.join(lasted)}  {since}"
        rates.show(*lines, last)

    def _show_reasons(self, queue: QueueNow) -> None:
        self.query_one("#why-heading", Heading).show(f"Why {queue.word}")
        reasons: list[Sequence[Piece]] = [
            [(line, queue.role if number == 0 else "")] for number, line in enumerate(why(queue))
        ]
        tries: list[Sequence[Piece]] = [
            [("try  ", "note"), line] for line in advice(queue, self.dashboard.source.path)
        ]
        self.query_one("#reasons", Lines).show(*reasons, *tries, *facts(queue, self.dashboard.moment))

    def _show_entries(self) -> None:
        pages = self._pages
        if self._found.where is not None:
            lines = self._found.matches.lines
            pages = [Page(STATES[self._state], 0, lines, len(lines))]
        count = pages[0].count if pages else 0
        rows = EntryRows(count, pages, self.dashboard.moment, self.dashboard.times)
        self.query_one(RowList).show(rows, empty=self._nothing())

    def _nothing(self) -> str:
        queue = self._queue
        if queue is not None and queue.view.problem is not None:
            return self._problem(queue)
        is_filtered = self._found.where is not None
        failure = self._found.failure if is_filtered else self._failure
        if failure:
            return f"\n{failure}"
        if is_filtered and (self._found.matches.is_over or self._found.is_stopped):
            return f"\nNothing that is {STATES[self._state].value} matches. Esc clears the filter."
        if is_filtered or self._reading is not None:
            return "\nreading ..."
        return f"\nNothing is {STATES[self._state].value} here."

    def _problem(self, queue: QueueNow) -> str:
        """Why nothing can be read, and the commands that may mend it."""
        room = max(20, self.app.size.width - 6)
        text = safe_text(queue.view.problem, 2000)
        commands = [f"  $ {line}" for line in advice(queue, self.dashboard.source.path)]
        return "\n".join(["", "Its entries cannot be read.", "", *wrap(text, room), "", *commands])

    # -- entries ---------------------------------------------------------------------------------------

    def _read(self, numbers: Sequence[int] | None = None) -> None:
        """Have the pages read that are on the screen, or those with these numbers."""
        if self._reading is not None:
            self._is_behind = True
            return
        if self._queue is None or self._queue.metrics is None:
            return
        seen = self.query_one(RowList).in_view
        wanted = [*seen, *(numbers or ())]
        name, state = self.queue_name, STATES[self._state]

        def question(inspector: Inspector, _stop: threading.Event) -> list[Page]:
            return read_pages(inspector, name, state, wanted)

        def answer(found: list[Page] | Exception) -> None:
            # In another thread; a message is what may cross.
            self.post_message(self.Read(state, found))

        self._reading = self.dashboard.source.ask(question, answer)

    def on_queue_screen_read(self, message: Read) -> None:
        if message.state is not STATES[self._state]:
            return
        self._reading = None
        failed = isinstance(message.pages, Exception)
        self._pages = [] if isinstance(message.pages, Exception) else list(message.pages)
        self._failure = safe_text(message.pages, 2000) if failed else ""
        self._show_entries()
        if self._is_behind:
            self._is_behind = False
            self._read()

    def on_row_list_wanted(self, message: RowList.Wanted) -> None:
        self._read([key for key in message.keys if isinstance(key, int)])

    # -- filtering -------------------------------------------------------------------------------------

    def _show_found(self) -> None:
        if self._queue is not None:
            self._show_tabs(self._queue)
            self._show_entries()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        text = message.text.strip()
        try:
            where = Where.parse(text, self.dashboard.moment) if text else None
        except InvalidFilter as error:
            message.bar.complain(f"at {error.position + 1}: {error.reason}")
            return
        message.bar.complain("")
        if str(where or "") != str(self._found.where or ""):
            self._found.begin(where, STATES[self._state])
            if where is None:
                self._read()
            self._show_found()

    def on_filter_bar_left(self) -> None:
        # At once, and not a moment later as by focus(): the next key is on its way.
        self.set_focus(self.query_one(RowList))

    # -- what keys do ----------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Only some of the entries, by whatever entries can be filtered by."""
        self.query_one(FilterBar).open()

    def action_back(self) -> None:
        """Stop what is searched for, or have no filter, or go one level back, in this order."""
        if self._found.stop():
            self._show_found()
        elif not self.query_one(FilterBar).clear():
            super().action_back()

    def action_state(self, by: int) -> None:
        """Show the entries in another state."""
        every = list(STATES)
        self._state = every[(every.index(self._state) + by) % len(every)]
        if self._reading is not None:
            self._reading.set()
            self._reading = None
        self._pages, self._is_behind = [], False
        self._found.begin(self._found.where, STATES[self._state])
        if self._found.where is None:
            self._read([0])
        entries = self.query_one(RowList)
        entries.set_columns(*columns(STATES[self._state]))
        entries.action_go(0)
        self._redraw()

    def action_window(self) -> None:
        """Rates over another time."""
        self._window = (self._window + 1) % len(WINDOWS)
        self._redraw()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        if isinstance(message.key, str):
            self.dashboard.open_entry(message.key, self.queue_name)

    def chosen_for(self, action: Action) -> Selection | None:
        """What concerns dead letters is about those that match, whichever state is listed."""
        queue, where = self._queue, self._found.where
        if queue is not None and where is not None and action.target is Target.DEAD_LETTERS:
            return dead_letters_of(queue.name, where) if queue.view.counts.dead else None
        return super().chosen_for(action) if self._queue is None else chosen_of(self._queue, action)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        path = self.dashboard.source.path
        key = self.query_one(RowList).cursor_key
        offered = [
            Copyable("n", "queue", self.queue_name),
            Copyable("p", "path", f"{path}/{self.queue_name}"),
        ]
        if isinstance(key, str):
            offered.append(Copyable("i", "id", key))
        where = () if self._found.where is None else ("--where", str(self._found.where))
        state = STATES[self._state].value
        listing = shell("duraq", "-C", path, "ls", self.queue_name, "--state", state, *where)
        offered.append(Copyable("l", "list", listing))
        tries = advice(self._queue, path) if self._queue is not None else []
        return offered + ([Copyable("c", "command", tries[0])] if tries else [])

    def pager_text(self) -> str | None:
        if self._queue is None:
            return None
        lines = [self.queue_name, *why(self._queue), *facts(self._queue, self.dashboard.moment)]
        found = self._found.matches.lines
        if self._found.where is None:
            found = [line for page in self._pages for line in page.lines[:PAGE]]
        lines += [f"{line.id}  {line.text}" for line in found]
        return "\n".join(lines)
