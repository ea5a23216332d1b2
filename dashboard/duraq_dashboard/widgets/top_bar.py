"""The line at the top: which storage, which screen, and how old what is shown is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from textual import events
from textual.content import Content
from textual.widgets import Static

from duraq.safe_text import safe_text
from duraq_dashboard import wording
from duraq_dashboard.wording import Times

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard
    from duraq_dashboard.screens.base import BaseScreen

ONE_LINE = 110  # columns in which everything fits into one
QUIET = timedelta(seconds=10)  # so long after a change the seconds have gone
STALE = timedelta(seconds=5)  # so long after a look it is no longer how things are
REVERSE = "reverse bold"
Piece = tuple[str, str]


@dataclass
class _Line:
    """Text with styles, and which tab is where."""

    pieces: list[Piece] = field(default_factory=list)
    tabs: list[tuple[int, int, str]] = field(default_factory=list)
    width: int = 0

    def add(self, text: str, style: str = "", mode: str = "") -> None:
        if mode:
            self.tabs.append((self.width, self.width + len(text), mode))
        self.pieces.append((text, style))
        self.width += len(text)

    def end_with(self, right: Sequence[Piece], width: int) -> None:
        """Put these at the right edge."""
        self.add(" " * max(1, width - self.width - sum(len(text) for text, _ in right)))
        for text, style in right:
            self.add(text, style)


class TopBar(Static):
    """Where one is, and whether what is seen is still so."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._lines: list[_Line] = []
        self._lag: tuple[datetime | None, str] = (None, "")

    def on_mount(self) -> None:
        for name in ("snapshot", "frozen", "moment", "times"):
            self.watch(self.app, name, self.show_now, init=False)
        self.show_now()

    def on_resize(self) -> None:
        self.show_now()

    def on_show(self) -> None:
        self.show_now()

    def on_click(self, event: events.Click) -> None:
        if event.y < len(self._lines):
            for start, end, mode in self._lines[event.y].tabs:
                if start <= event.x < end:
                    self._dashboard.action_show(mode)

    @property
    def _dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    def show_now(self) -> None:
        """Show how things are now, if its screen is in front."""
        if not self.screen.is_current:
            return
        lines = self._laid_out()
        if [line.pieces for line in lines] == [line.pieces for line in self._lines]:
            return
        self._lines = lines
        # Content, not a string: a string would be read as markup.
        self.update(Content("\n").join(Content.assemble(*line.pieces) for line in lines), layout=False)

    def _laid_out(self) -> list[_Line]:
        width = self.app.size.width
        right = self._freshness()
        first = _Line()
        first.add("duraq", "bold")
        if width >= ONE_LINE:
            room = width - len("duraq   ") - sum(len(text) for text, _ in right) - 1
            tabs = self._tabs(" ", room)
            room -= sum(len(text) for text, _, _ in tabs)
            first.add(f"  {_fit_path(self._path, room)} ")
            for text, style, mode in tabs:
                first.add(text, style, mode)
            first.end_with(right, width)
            return [first]
        room = width - len("duraq   ") - sum(len(text) for text, _ in right)
        first.add(f"  {_fit_path(self._path, room)}")
        first.end_with(right, width)
        second = _Line()
        for text, style, mode in self._tabs("", width):
            second.add(text, style, mode)
        return [first, second]

    @property
    def _path(self) -> str:
        return safe_text(self._dashboard.source.path, 200)

    def _tabs(self, gap: str, room: int) -> list[tuple[str, str, str]]:
        """The six screens, or the way down from one of them."""
        screen = cast("BaseScreen", self.screen)
        if screen.crumbs:
            way = " " + " > ".join(safe_text(crumb, 60) for crumb in screen.crumbs)
            return [(wording.fit(way, room), "bold", "")]
        tabs = []
        for number, (mode, title) in enumerate(self._dashboard.main_screens(), 1):
            is_here = mode == self.app.current_mode
            text = f"{number}{gap}{title}"
            tabs.append((f"[{text}]" if is_here else f" {text} ", "bold" if is_here else "", mode))
        return tabs

    def _freshness(self) -> list[Piece]:
        """Whether it only reads and is live, and the time; without what alone would change all the time."""
        dashboard = self._dashboard
        snapshot, now = dashboard.snapshot, dashboard.moment
        zone = UTC if dashboard.times is Times.UTC else None
        quiet = snapshot is not None and now - snapshot.changed_at >= QUIET
        clock = f"{now.astimezone(zone):%H:%M}" if quiet else f"{now.astimezone(zone):%H:%M:%S}"
        if dashboard.frozen_at is not None:
            state, style = f"FROZEN {wording.age(now - dashboard.frozen_at)}", REVERSE
        elif snapshot is None:
            state, style = "reading", ""
        elif snapshot.trouble is not None:
            state, style = snapshot.trouble.word, REVERSE
        elif (behind := dashboard.behind) > STALE:
            state, style = f"STALE {wording.age(behind)}", REVERSE
        elif not snapshot.whole:
            state, style = "still reading", ""
        else:
            state, style = ("LIVE" if snapshot.live else "POLL"), ""
            if not quiet:
                second = now.replace(microsecond=0)
                if second != self._lag[0]:
                    # One a second is enough to read.
                    self._lag = second, wording.seconds(snapshot.lag.total_seconds())
                state += f" {self._lag[1]}"
        only = " READ-ONLY  " if dashboard.read_only else " "
        return [(only, ""), (state, style), (f"  {clock}", "")]


def _fit_path(path: str, width: int) -> str:
    """The path, its end if there is no room for all of it."""
    if len(path) <= width:
        return path
    return "" if width < len(wording.CUT) + 1 else wording.CUT + path[len(wording.CUT) - width :]
