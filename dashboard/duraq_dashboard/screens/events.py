"""What happens in all queues, record by record, the newest at the bottom."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import ScreenResume
from textual.message import Message

from duraq.errors import InvalidFilter
from duraq.events import Wanted, wanted
from duraq.where import Where
from duraq_dashboard import wording
from duraq_dashboard.copying import Copyable
from duraq_dashboard.happenings import EventLine, Following
from duraq_dashboard.rows import Cells, Column, Key
from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines
from duraq_dashboard.widgets.row_list import RowList
from duraq_dashboard.wording import Times

MOST = 2000  # lines that are kept
SAMPLE = 10  # lines that are shown of those that came since the last time: nobody reads more
PERIOD = 0.5  # seconds between two looks at what has come
_EMPTY = "\nNothing has happened yet."
_NONE_ADMITTED = "\nNothing that matches this has happened yet. Esc clears the filter."
_COLUMNS = (
    Column("TIME", 12),
    Column("QUEUE", 12),
    Column("EVENT", 8),
    Column("ID", 10, from_width=75),
    Column("TRY", 3, right=True, from_width=75),
    Column("WHO", 14, from_width=107),
    Column("DETAIL"),
)


class EventRows:
    """Events as rows, as they are at one moment."""

    def __init__(self, events: Sequence[EventLine], now: datetime, times: Times) -> None:
        self._events = events
        self._now, self._times = now, times
        self._numbers = {event.key: number for number, event in enumerate(events)}

    def __len__(self) -> int:
        return len(self._events)

    def key(self, number: int) -> Key:
        return self._events[number].key

    def find(self, key: Key) -> int | None:
        return self._numbers.get(key)  # type: ignore[call-overload,no-any-return] # keys are what key() gave

    def still(self, keys: set[Key]) -> set[Key]:
        return keys & self._numbers.keys()

    def cells(self, number: int) -> Cells:
        event = self._events[number]
        return (
            wording.moment(event.at, self._now, self._times, fraction=True)[-12:],
            event.queue,
            (event.op, event.role),
            f"..{event.id[-8:]}" if event.id else "",
            event.attempt,
            event.who,
            event.told(self._now, self._times),
        )


class EventsScreen(MainScreen):
    """Follows the records while it is shown."""

    MODE: ClassVar[str] = "events"
    TITLE = "Events"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "follow", id="follow"),
        Binding("slash", "filter", "filter", id="filter"),
    ]

    class More(Message):
        """There is something to take."""

    def __init__(self) -> None:
        super().__init__()
        self._events: deque[EventLine] = deque(maxlen=MOST)
        self._following: Following | None = None
        self._filter: Wanted | None = None
        self._text = ""  # of the filter, as it was typed
        self._is_waiting = False
        self._goes_along = True
        self._pace = ""

    def compose_content(self) -> ComposeResult:
        yield FilterBar()
        yield Heading("Events", id="heading")
        yield RowList(*_COLUMNS, id="events")
        yield Lines(id="event")

    def on_mount(self) -> None:
        self.recall(self.dashboard.kept_of(self.MODE))
        self.query_one(RowList).focus()

    def on_screen_resume(self, event: ScreenResume) -> None:  # noqa: ARG002 - what all screens do sees to it
        self._begin()

    def on_screen_suspend(self) -> None:
        self._end()

    def on_unmount(self) -> None:
        self._end()

    def _begin(self) -> None:
        """Read the newest records, and follow from there."""
        self._end()
        self._events.clear()
        self._following = self.dashboard.source.follow(self._tell, self._filter)

    def _tell(self) -> None:
        # In another thread; a message is what may cross.
        self.post_message(self.More())

    def _end(self) -> None:
        if self._following is not None:
            self._following.stop()
            self._following = None

    # -- what is shown ---------------------------------------------------------------------------------

    def on_events_screen_more(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            # The first at once: that is all that there is.
            self.set_timer(PERIOD if self._events else 0.05, self._take)

    def _take(self) -> None:
        self._is_waiting = False
        if self._following is None or self.dashboard.frozen:
            return
        batch = self._following.take()
        shown = list(batch.events)
        if self._events and len(shown) > SAMPLE:
            step = len(shown) / SAMPLE
            shown = [shown[int(number * step)] for number in range(SAMPLE)]
        known = {event.key for event in self._events}
        self._pace = ""
        if self._events and batch.seen > len(shown):
            per_second = f"{batch.seen / PERIOD:,.0f}/s, shown {len(shown) / PERIOD:.0f}/s (sampled)"
            self._pace = f"{per_second}   "
        self._events.extend(event for event in shown if event.key not in known)
        self._redraw()

    def draw(self, snapshot: Snapshot) -> None:  # noqa: ARG002 - of the storage's state nothing is shown
        now, times = self.dashboard.moment, self.dashboard.times
        events = self.query_one(RowList)
        rows = EventRows(list(self._events), now, times)
        events.show(rows, empty=_EMPTY if self._filter is None else _NONE_ADMITTED)
        if self._goes_along and len(rows):
            events.go_to(rows.key(len(rows) - 1))
        follows = "follows" if self._goes_along else "stands still"
        self.query_one("#heading", Heading).show("Events", f"{self._pace}{follows}   newest at the bottom")
        # No time is shown that would change by itself, but those that are relative.
        self.shows_seconds = times is Times.RELATIVE and bool(self._events)
        self._show_event()

    def on_row_list_moved(self) -> None:
        here = self.query_one(RowList).cursor_key
        if self._goes_along and self._events and here != self._events[-1].key:
            # Whoever goes up wants to read.
            self._goes_along = False
            self._redraw()
        self._show_event()

    def _under_cursor(self) -> EventLine | None:
        key = self.query_one(RowList).cursor_key
        return next((event for event in self._events if event.key == key), None)

    def _show_event(self) -> None:
        event = self._under_cursor()
        if event is None:
            self.query_one("#event", Lines).show("")
            return
        self.query_one("#event", Lines).show([(f"{event.place}  {event.id}", "note")])

    # -- what keys do ----------------------------------------------------------------------------------

    def action_follow(self) -> None:
        """Stay with the newest, or stand still."""
        self._goes_along = not self._goes_along
        self._redraw()

    def action_filter(self) -> None:
        """Only some of the records."""
        self.query_one(FilterBar).open()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        try:
            text = message.text.strip()
            self._filter = wanted(where=Where.parse(text, self.dashboard.moment)) if text else None
        except InvalidFilter as error:
            message.bar.complain(error.reason)
            return
        message.bar.complain("")
        self._text = text
        if self.is_current:
            self._begin()
            # By then there is something to take, or nothing.
            self.set_timer(PERIOD, self._redraw)

    def on_filter_bar_left(self) -> None:
        # At once, and not a moment later as by focus(): the next key is on its way.
        self.set_focus(self.query_one(RowList))

    def action_back(self) -> None:
        """No filter any more."""
        self.query_one(FilterBar).clear()

    def on_row_list_chosen(self) -> None:
        event = self._under_cursor()
        if event is not None and event.id:
            self.dashboard.open_entry(event.id, event.queue)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        event = self._under_cursor()
        if event is None:
            return ()
        file, line, _ = event.place.rsplit(":", 2)
        root = self.dashboard.source.path
        offered = [Copyable("p", "record", f"sed -n {line}p {root}/{file}")]
        if event.id:
            offered += [
                Copyable("i", "id", event.id),
                Copyable("c", "command", f"duraq -C {root} show {event.id}"),
            ]
        return offered

    def pager_text(self) -> str | None:
        lines = (
            f"{event.at.isoformat()}  {event.queue}  {event.op}  {event.id}  {event.who}"
            f"  {event.told(self.dashboard.moment, self.dashboard.times)}"
            for event in self._events
        )
        return "\n".join(lines) if self._events else None

    def remember(self) -> Mapping[str, str]:
        return {"filter": self._text}

    def recall(self, kept: Mapping[str, str]) -> None:
        self.query_one(FilterBar).put(kept.get("filter", ""))
