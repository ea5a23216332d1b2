"""The dead letters of all queues, grouped by what they died of, filtered, looked at, and acted upon."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from duraq.actions import Action, Target
from duraq.bulk import Meant
from duraq.dead_index import Cause
from duraq.errors import InvalidFilter
from duraq.inspector import Inspector
from duraq.safe_text import safe_text
from duraq.views import EntryView
from duraq.where import Where
from duraq_dashboard import entry_text, wording
from duraq_dashboard.choosing import chosen_with, is_of_one
from duraq_dashboard.copying import Copyable
from duraq_dashboard.dead_rows import (
    GROUP_COLUMNS,
    LETTER_COLUMNS,
    GroupRows,
    LetterLine,
    error_of,
    group_lines,
    name_of,
)
from duraq_dashboard.dialogs.export import ExportDialog
from duraq_dashboard.history import number_of
from duraq_dashboard.letters import SORTS, Choice, Group, Letters, Queues, fetch
from duraq_dashboard.orders import Selection
from duraq_dashboard.questions import Questions
from duraq_dashboard.rows import Key
from duraq_dashboard.screens.base import LETTER_ACTS, MainScreen, act
from duraq_dashboard.screens.entry import EntryScreen
from duraq_dashboard.seldom import Seldom
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.survey import Found, Survey
from duraq_dashboard.view_model import AN_HOUR
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines, Piece
from duraq_dashboard.widgets.preview import Preview
from duraq_dashboard.widgets.row_list import RowList

_KEPT = 2000  # letters whose lines are kept; without their payloads
_AT_ONCE = 200  # letters that are read together
_TOLD = 0.1  # seconds between two tellings of how far the counting is
_CHANGES = ("dead", "requeued", "removed", "restored")
_EMPTY = """
No dead letters.

What fails too often comes here, and stays until somebody decides.
"""


class DeadLettersScreen(MainScreen):
    """Groups at the left, letters at the right, the one under the cursor below."""

    MODE: ClassVar[str] = "dlq"
    TITLE = "DLQ"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", id="filter"),
        Binding("s", "sort", "sort", id="sort"),
        Binding("b", "groups", "groups", id="dlq.groups"),
        Binding("left,h", "pane('groups')", "to the groups", show=False, id="dlq.to-groups"),
        Binding("right,l", "pane('letters')", "to the letters", show=False, id="dlq.to-letters"),
        Binding("tab", "next_pane", "next pane", show=False, id="dlq.next-pane"),
        Binding("x", "export", "export", show=False, id="export"),
        *LETTER_ACTS,
        act("undo"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._queues = Queues()
        self._questions: Questions | None = None
        self._where: Where | None = None
        self._sort = SORTS[0]
        self._found: Found | None = None
        self._letters_known: Letters | None = None  # all of them, when they were counted last
        self._cause: Cause | None = None  # only letters that died of this are listed
        self._choice: Choice | None = None  # what is listed
        self._lines: OrderedDict[int, LetterLine] = OrderedDict()
        self._names: dict[Cause, str] = {}
        self._counted = -1  # how many, while they are being counted
        self._seen: object = None  # what the newest survey has seen
        self._of_whole = False  # whether it was of all queues
        self._seldom = Seldom()
        self._is_put_off = False  # there is to be another survey, but not yet
        self._is_stopped = False
        self._problem = ""

    def compose_content(self) -> ComposeResult:
        yield Lines(id="dlq-totals")
        yield FilterBar()
        with Horizontal(id="dlq"):
            with Vertical(id="groups-pane"):
                yield Heading("Groups by error", of="groups", id="groups-heading")
                yield RowList(*GROUP_COLUMNS, id="groups")
                yield Lines(id="group")
            with Vertical(id="letters-pane"):
                yield Heading("Dead letters", of="letters", id="letters-heading")
                yield RowList(*LETTER_COLUMNS, pickable=True, id="letters")
        yield Preview()

    def on_mount(self) -> None:
        self._questions = Questions(self.dashboard.source, self.app.call_later)
        self.recall(self.dashboard.kept_of(self.MODE))
        self._letters.focus()

    def on_unmount(self) -> None:
        self._asked.drop_all()

    @property
    def _asked(self) -> Questions:
        assert self._questions is not None
        return self._questions

    @property
    def _letters(self) -> RowList:
        return self.query_one("#letters", RowList)

    @property
    def _groups(self) -> RowList:
        return self.query_one("#groups", RowList)

    # -- surveys ---------------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        seen = (
            snapshot.whole,
            frozenset(
                (name, queue.view.counts.dead, *(getattr(queue.metrics.counters, each) for each in _CHANGES))
                for name, queue in snapshot.queues.items()
                if queue.metrics is not None
            ),
        )
        if seen != self._seen and not self._is_stopped and not self._asked.is_open("survey"):
            wait = self._seldom.wait
            is_all_new = snapshot.whole and not self._of_whole
            if self._found is None or wait <= 0 or is_all_new:
                self._seen, self._of_whole = seen, snapshot.whole
                self._survey(counted=True)
            elif not self._is_put_off:
                self._is_put_off = True
                self.set_timer(wait, self._no_longer_put_off)
        self._show_all()

    def _no_longer_put_off(self) -> None:
        self._is_put_off = False
        self._redraw()

    def _survey(self, *, counted: bool = False) -> None:
        """Find out what is dead; unless it is ``counted`` anew, only order and filter are other ones."""
        known = self._letters_known
        so_far = known if known is not None or self._found is None else self._found.letters
        survey = Survey(
            self._queues,
            self._where,
            self._sort,
            self.dashboard.moment,
            names=self._with_letters(),
            letters=None if counted else known,
            before=so_far,
        )
        began = monotonic()
        told = [began]

        def tell(number: int) -> None:
            # In the source's thread.
            if monotonic() - told[0] >= _TOLD:
                told[0] = monotonic()
                self.app.call_later(self._count, number)

        # What is shown stays until the same is known anew; what a key has asked for comes as it is found.
        waits = counted and self._found is not None
        self._is_stopped = False
        self._go_on(partial(survey.go_on, tell=tell), began, waits=waits)

    def _with_letters(self) -> list[str]:
        """The queues that have any, or cannot be read and say why; those with fewest first."""
        snapshot = self.dashboard.snapshot
        queues = [] if snapshot is None else list(snapshot.queues.values())
        found = [queue for queue in queues if queue.view.counts.dead or queue.metrics is None]
        return [queue.name for queue in sorted(found, key=lambda queue: queue.view.counts.dead)]

    def _go_on(
        self,
        question: Callable[[Inspector, threading.Event], Found | None],
        began: float,
        *,
        waits: bool,
    ) -> None:
        def then(found: Found | None) -> None:
            if found is None:
                return
            if found.is_over or not waits:
                self._found = found
                self._list()
            if found.is_over:
                self._seldom.over(began)
                self._problem, self._counted = "", -1
                self._letters_known = found.letters
            else:
                self._go_on(question, began, waits=waits)
            self._show_all()

        self._asked.ask("survey", question, then, self._failed)

    def _count(self, number: int) -> None:
        if self._asked.is_open("survey"):
            self._counted = number
            self._show_totals()

    def _failed(self, error: Exception) -> None:
        self._counted = -1
        self._problem = safe_text(error, 400)
        self._seen = None  # it is tried again
        self._seldom.over()
        self._show_all()

    def _list(self) -> None:
        """Have that listed which was found, of the cause that was chosen."""
        assert self._found is not None
        choice = self._found.choice
        if self._cause is not None:
            choice = choice.of_cause(self._cause)
        self._choice = choice
        problems = "".join(f"\n{name}: {text}" for name, text in self._found.letters.problems.items())
        none = "\nNone of them matches. Esc clears the filter." if len(self._found.letters) else _EMPTY
        nothing = none if self._of_whole else "\nstill reading ..."
        self._letters.show(choice, empty=nothing + problems)
        self._groups.show(GroupRows(self._found.groups, self._names, self.dashboard.moment))

    # -- what is shown ---------------------------------------------------------------------------------

    def _show_all(self) -> None:
        self._show_totals()
        self._show_group()
        self._show_lines()
        self.query_one(Preview).draw()

    def _show_totals(self) -> None:
        snapshot, found = self.dashboard.snapshot, self._found
        if snapshot is None:
            return
        now = self.dashboard.moment
        metrics = [queue.metrics for queue in snapshot.queues.values() if queue.metrics is not None]
        died = sum(number_of(each, ("dead",), AN_HOUR, now) for each in metrics)
        total = sum(queue.view.counts.dead for queue in snapshot.queues.values())
        pieces: list[Piece] = [
            (f" DLQ {wording.count(total)}", "dead"),
            f"  +{wording.count(died)} last hour",
        ]
        if self._problem:
            pieces.append((f"  {self._problem}", "warn"))
        elif self._is_stopped:
            pieces.append(("  stopped; / or s begins again", "warn"))
        elif self._counted >= 0 or (found is not None and found.counted is not None):
            pieces.append((f"  counting: {wording.count(max(0, self._counted))} (Esc stops)", "note"))
        elif found is None:
            pieces.append(("  reading ...", "note"))
        elif not found.is_over:
            looked = f"{wording.count(found.looked_at)} of {wording.count(found.candidates)}"
            pieces.append((f"  looked at {looked} (Esc stops)", "note"))
        elif not self._of_whole:
            pieces.append(("  still reading the other queues", "note"))
        picked = len(self._letters.picked)
        pieces.append(f"  {wording.count(picked)} selected" if picked else "")
        self.query_one("#dlq-totals", Lines).show(pieces)
        listed = 0 if self._choice is None else len(self._choice)
        narrowed = "" if self._cause is None else "  one group"
        self.query_one("#letters-heading", Heading).show(
            "Dead letters",
            f"{wording.count(listed)} of {wording.count(total)}{narrowed}   sort: {self._sort}",
        )

    def _show_group(self) -> None:
        groups = () if self._found is None else self._found.groups
        self.query_one("#groups-heading", Heading).show("Groups by error", wording.count(len(groups)))
        group = self._group
        lines = self.query_one("#group", Lines)
        if group is None or self._found is None:
            lines.show()
            return
        total = len(self._found.choice)
        lines.show(*group_lines(group, total, self._when, ascii_only=self.dashboard.ascii_only))
        self._name_groups()

    @property
    def _group(self) -> Group | None:
        key = self._groups.cursor_key
        groups = () if self._found is None else self._found.groups
        return next((group for group in groups if group.cause == key), None)

    def _when(self, moment: datetime) -> str:
        return wording.moment(moment, self.dashboard.moment, self.dashboard.times)

    def _show_lines(self) -> None:
        """Times are told as of now."""
        if self._lines:
            self._letters.arrived({key: line.cells(self._when) for key, line in self._seen_lines()})

    def _seen_lines(self) -> list[tuple[int, LetterLine]]:
        rows = self._letters
        keys = [rows.rows.key(number) for number in rows.in_view]
        return [(key, self._lines[key]) for key in keys if isinstance(key, int) and key in self._lines]

    # -- reading ---------------------------------------------------------------------------------------

    def on_row_list_wanted(self, message: RowList.Wanted) -> None:
        message.stop()
        keys = [key for key in message.keys if isinstance(key, int)]
        if self._choice is not None and keys:
            self._read(f"rows {keys[0]}", self._choice.letters, keys, self._arrived)

    def _read(
        self, name: str, letters: Letters, keys: Sequence[int], then: Callable[[dict[int, EntryView]], None]
    ) -> None:
        self._asked.ask(name, lambda inspector, _: fetch(inspector, letters, keys), then, self._failed)

    def _arrived(self, views: Mapping[int, EntryView]) -> None:
        # Payloads may be long, and are read again for whoever wants to see one.
        self._lines.update((key, LetterLine.of(view)) for key, view in views.items())
        while len(self._lines) > _KEPT:
            self._lines.popitem(last=False)
        self._letters.arrived({key: self._lines[key].cells(self._when) for key in views})

    def _name_groups(self) -> None:
        rows = self._groups.rows
        if not isinstance(rows, GroupRows) or self._found is None or self._asked.is_open("names"):
            return
        letters = self._found.letters
        unnamed = rows.unnamed(self._groups.in_view)
        keys = {letters.key(group.newest): group.cause for group in unnamed}
        if not keys:
            return

        def then(views: dict[int, EntryView]) -> None:
            self._names.update((cause, cause.type) for cause in keys.values())
            self._names.update((keys[key], name_of(view)) for key, view in views.items())
            if self._found is not None:
                self._groups.show(GroupRows(self._found.groups, self._names, self.dashboard.moment))

        self._read("names", letters, list(keys), then)

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        if message.row_list is self._groups:
            self._show_group()
        elif isinstance(message.key, int) and self._choice is not None:
            self._read("preview", self._choice.letters, [message.key], self._previewed)
        else:
            self.query_one(Preview).show(None)

    def _previewed(self, views: Mapping[int, EntryView]) -> None:
        view = next(iter(views.values()), None)
        self.query_one(Preview).show(view, "It is dead no more.")
        self._read_life()

    def _read_life(self) -> None:
        preview = self.query_one(Preview)
        view = preview.view
        if view is not None and preview.needs_life:
            self._asked.ask(
                "life",
                lambda inspector, _: inspector.life(view.id, view.queue),
                preview.show_life,
                self._failed,
            )

    # -- what keys do ----------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Filter by whatever entries can be filtered by."""
        self.query_one(FilterBar).open()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        text = message.text.strip()
        try:
            where = Where.parse(text, self.dashboard.moment) if text else None
        except InvalidFilter as error:
            message.bar.complain(f"at {error.position + 1}: {error.reason}")
            self._letters.pick(())
            return
        message.bar.complain("")
        if str(where or "") != str(self._where or ""):
            self._where, self._cause = where, None
            self._letters.pick(())
            self._survey()

    def on_filter_bar_left(self) -> None:
        self._letters.focus()

    def action_sort(self) -> None:
        """Sort by the next thing."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._survey()
        self._show_totals()

    def action_groups(self) -> None:
        """Show the groups in place of the letters, where there is no room for both; else go there."""
        to_groups = not self._groups.has_focus
        self.action_pane("groups" if to_groups else "letters")

    def action_pane(self, pane: str) -> None:
        """Go to one of the two lists."""
        self.set_class(pane == "groups", "-groups")
        self.query_one(f"#{pane}").focus()

    def action_next_pane(self) -> None:
        """Show the next pane of the letter."""
        self.query_one(Preview).next_pane()
        self._read_life()

    def on_row_list_picks_changed(self) -> None:
        self._show_totals()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        if message.row_list is self._groups:
            self._narrow(None if self._cause == message.key else self._group)
            return
        view = self.query_one(Preview).view
        if view is not None:
            self.dashboard.open_entry(view.id, view.queue, self)

    # -- for the entry that is opened from here --------------------------------------------------------

    def place(self) -> str:
        """Where the cursor is in the list."""
        return f"{self._letters.cursor_number + 1:,} of {len(self._letters.rows):,}"

    def step(self, by: int, screen: EntryScreen) -> None:
        """Move the cursor, and have the screen show the letter that is there."""
        self._letters.action_move(by)
        key = self._letters.cursor_key
        if not isinstance(key, int) or self._choice is None:
            return

        def then(views: dict[int, EntryView]) -> None:
            for view in views.values():
                screen.show_entry(view.id, view.queue)

        self._read("step", self._choice.letters, [key], then)

    def _narrow(self, group: Group | None) -> None:
        """List only the letters of that group, or all again."""
        self._cause = None if group is None else group.cause
        self._letters.pick(())
        if self._found is not None:
            self._list()
        self.action_pane("letters")
        self._show_all()

    def action_back(self) -> None:
        """Stop what goes on, or leave the group, or have no filter, in this order."""
        if self._asked.is_open("survey") and (self._found is None or not self._found.is_over):
            self._asked.drop("survey")
            self._is_stopped, self._counted = True, -1
            self._show_totals()
        elif self._cause is not None:
            self._narrow(None)
        else:
            self.query_one(FilterBar).clear()

    # -- changes ---------------------------------------------------------------------------------------

    def chosen_for(self, action: Action) -> Selection | None:
        """The letters that are selected, else the group where the cursor is, else the letter."""
        if is_of_one(action):
            view = self.query_one(Preview).view
            return None if view is None else chosen_with(view, action)
        if action.target is Target.DEAD_LETTERS:
            return self._selection()
        return super().chosen_for(action)

    def _selection(self) -> Selection | None:
        found = self._found
        if found is None:
            return None
        keys, where = self._chosen(found)
        return Selection(partial(_settle, found.letters, keys), where=where) if keys else None

    def _chosen(self, found: Found) -> tuple[list[int], str]:
        """The keys of what is chosen, and the filter that means the same, if one does."""
        picked = self._letters.picked
        group = self._group if self._groups.has_focus else None
        where = ""
        keys: Iterable[Key | None]
        if picked:
            # In the order in which they are listed.
            rows = self._letters.rows
            keys = filter(picked.__contains__, map(rows.key, range(len(rows))))
            if len(picked) == len(rows) and found.is_over and self._of_whole:
                where = self._filter_of(self._cause)
        elif group is not None and found.is_over:
            chosen = found.choice.of_cause(group.cause)
            keys = map(chosen.key, range(len(chosen)))
            where = self._filter_of(group.cause) if self._of_whole else ""
        else:
            keys = [self._letters.cursor_key]
        return [key for key in keys if isinstance(key, int)], where

    def action_export(self) -> None:
        """Write what is selected into a file: the letters, or the group, or the letter under the cursor."""
        if self._found is not None:
            letters = self._found.letters
            keys, _ = self._chosen(self._found)
            if keys:
                self.app.push_screen(ExportDialog(len(keys), partial(_each, letters, keys)))

    def _filter_of(self, cause: Cause | None) -> str:
        """The filter that means the same; empty if none does."""
        if cause is not None and not cause.signature:
            return ""
        terms = [str(self._where)] if self._where is not None else []
        terms += [f"sig:{cause.signature}"] if cause is not None else []
        return " ".join(terms) or "state:dead"

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        preview = self.query_one(Preview)
        view, path = preview.view, self.dashboard.source.path
        offered = []
        if view is not None:
            commands = entry_text.commands(view, preview.life or (), path)
            offered = [
                Copyable("i", "id", view.id),
                Copyable("c", "command", commands[0]),
                Copyable("e", "error", error_of(view)),
                Copyable("d", "payload", view.payload.decode("utf-8", "backslashreplace")),
            ]
            offered += [Copyable("p", "place", command) for command in commands[1:]]
        where = self._filter_of(self._cause)
        listing = entry_text.shell("duraq", "-C", path, "dlq", "ls", "--where", where)
        return [*offered, Copyable("l", "list", listing)]

    def pager_text(self) -> str | None:
        preview = self.query_one(Preview)
        if preview.view is None:
            return None
        return entry_text.in_full(preview.view, preview.life or (), self.dashboard.source.path, self._when)

    def remember(self) -> Mapping[str, str]:
        return {"filter": str(self._where or ""), "sort": self._sort}

    def recall(self, kept: Mapping[str, str]) -> None:
        if kept.get("sort") in SORTS:
            self._sort = kept["sort"]
        self.query_one(FilterBar).put(kept.get("filter", ""))


def _settle(letters: Letters, keys: Sequence[int], inspector: Inspector, stop: threading.Event) -> Meant:
    """Which of them are dead as of now, and under which token."""
    return Meant.of(_each(letters, keys, inspector, stop))


def _each(
    letters: Letters, keys: Sequence[int], inspector: Inspector, stop: threading.Event
) -> Iterator[EntryView]:
    """Those of them that are dead as of now, in full."""
    for at in range(0, len(keys), _AT_ONCE):
        if stop.is_set():
            return
        yield from fetch(inspector, letters, keys[at : at + _AT_ONCE]).values()
