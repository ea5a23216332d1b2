"""The dead letters of all queues, grouped by what they died of, filtered, looked at, and acted upon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from duraq.actions import Action, Target
from duraq.dead_index import ErrorKind
from duraq.errors import InvalidFilter
from duraq.views import EntryView
from duraq.where import Where
from duraq_dashboard import entry_text, wording
from duraq_dashboard.choosing import chosen_with, each_letter, filter_of, is_of_one, letters_of
from duraq_dashboard.copying import Copyable
from duraq_dashboard.dead_rows import (
    GROUP_COLUMNS,
    LETTER_COLUMNS,
    GroupRows,
    LetterLine,
    group_keys,
    group_lines,
    totals,
)
from duraq_dashboard.letter_reading import LetterReading
from duraq_dashboard.letters import SORTS, Choice, Group
from duraq_dashboard.orders import Selection
from duraq_dashboard.questions import Questions
from duraq_dashboard.rows import Cell, Key
from duraq_dashboard.screens.base import LETTER_ACTS, MainScreen, act
from duraq_dashboard.screens.entry import EntryScreen
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.survey import Found
from duraq_dashboard.surveying import Surroundings, Surveying
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines
from duraq_dashboard.widgets.preview import Preview
from duraq_dashboard.widgets.row_list import RowList

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
        self._questions: Questions | None = None
        self._surveying: Surveying | None = None
        self._cause: ErrorKind | None = None  # only letters that died of this are listed
        self._choice: Choice | None = None  # what is listed
        self._letter_reading: LetterReading | None = None

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
        app = self.dashboard
        self._questions = Questions(app.source, self.call_later)
        around = Surroundings(
            snapshot=lambda: app.snapshot,
            now=lambda: app.moment,
            later=self.call_later,
            after=self.set_timer,
            draw=self._redraw,
            listed=self._listed,
            told=self._show_totals,
        )
        self._surveying = Surveying(self._questions, around)
        self._letter_reading = LetterReading(self._questions, self._surveying.failed)
        self.recall(self.dashboard.kept_of(self.MODE))
        self._letters.focus()

    def on_unmount(self) -> None:
        self._asked.drop_all()

    @property
    def _asked(self) -> Questions:
        assert self._questions is not None
        return self._questions

    @property
    def _survey(self) -> Surveying:
        assert self._surveying is not None
        return self._surveying

    @property
    def _reading(self) -> LetterReading:
        assert self._letter_reading is not None
        return self._letter_reading

    @property
    def _found(self) -> Found | None:
        return self._survey.found

    @property
    def _letters(self) -> RowList:
        return self.query_one("#letters", RowList)

    @property
    def _groups(self) -> RowList:
        return self.query_one("#groups", RowList)

    # -- what is shown ---------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        self._survey.look(snapshot)
        self._show_all()

    def _listed(self) -> None:
        self._list()
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
        nothing = none if self._survey.of_whole else "\nstill reading ..."
        self._letters.show(choice, empty=nothing + problems)
        self._list_groups()

    def _list_groups(self) -> None:
        if self._found is not None:
            self._groups.show(GroupRows(self._found.groups, self._reading.names, self.dashboard.moment))

    def _show_all(self) -> None:
        self._show_totals()
        self._show_group()
        self._show_lines()
        self.query_one(Preview).draw()

    def _show_totals(self) -> None:
        snapshot = self.dashboard.snapshot
        if snapshot is None:
            return
        total = sum(queue.view.counts.dead for queue in snapshot.queues.values())
        pieces = totals(snapshot, self.dashboard.moment, self._survey.told(), len(self._letters.picked))
        self.query_one("#dlq-totals", Lines).show(pieces)
        listed = 0 if self._choice is None else len(self._choice)
        narrowed = "" if self._cause is None else "  one group"
        self.query_one("#letters-heading", Heading).show(
            "Dead letters",
            f"{wording.count(listed)} of {wording.count(total)}{narrowed}   sort: {self._survey.sort}",
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
        keys: Sequence[Sequence[Cell]] = ()
        if self._groups.has_focus:
            acts = not (self._letters.picked or self.dashboard.read_only)
            keys = group_keys(group, narrowed=self._cause == group.cause, acts=acts)
        lines.show(*group_lines(group, total, self._when, ascii_only=self.dashboard.ascii_only, keys=keys))
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
        rows = self._letters
        lines = self._reading.lines(map(rows.rows.key, rows.in_view))
        if lines:
            self._arrived(lines)

    # -- reading ---------------------------------------------------------------------------------------

    def on_row_list_wanted(self, message: RowList.Wanted) -> None:
        message.stop()
        keys = [key for key in message.keys if isinstance(key, int)]
        if self._choice is not None and keys:
            self._reading.read_lines(self._choice.letters, keys, self._arrived)

    def _arrived(self, lines: Mapping[int, LetterLine]) -> None:
        self._letters.arrived({key: line.cells(self._when) for key, line in lines.items()})

    def _name_groups(self) -> None:
        rows = self._groups.rows
        if isinstance(rows, GroupRows) and self._found is not None:
            unnamed = rows.unnamed(self._groups.in_view)
            self._reading.read_names(self._found.letters, unnamed, self._list_groups)

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        if message.row_list is self._groups:
            self._show_group()
        elif isinstance(message.key, int) and self._choice is not None:
            self._reading.read("preview", self._choice.letters, [message.key], self._previewed)
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
            self._reading.read_life(view, preview.show_life)

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
        if str(where or "") != str(self._survey.where or ""):
            self._survey.where, self._cause = where, None
            self._letters.pick(())
            self._survey.begin()

    def on_filter_bar_left(self) -> None:
        # At once, and not a moment later as by focus(): the next key is on its way.
        self.set_focus(self._letters)

    def action_sort(self) -> None:
        """Sort by the next thing."""
        self._survey.sort = SORTS[(SORTS.index(self._survey.sort) + 1) % len(SORTS)]
        self._survey.begin()
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
        self._show_group()

    def on_descendant_focus(self) -> None:
        # What keys do goes by which list has them.
        self._show_group()

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

        self._reading.read("step", self._choice.letters, [key], then)

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
        if self._survey.stop():
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
        return letters_of(found.letters, keys, where) if keys else None

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
            if len(picked) == len(rows) and self._survey.is_whole:
                where = self._filter_of(self._cause)
        elif group is not None and found.is_over:
            chosen = found.choice.of_cause(group.cause)
            keys = map(chosen.key, range(len(chosen)))
            where = self._filter_of(group.cause) if self._survey.is_whole else ""
        else:
            keys = [self._letters.cursor_key]
        return [key for key in keys if isinstance(key, int)], where

    def action_export(self) -> None:
        """Write what is selected into a file: the letters, or the group, or the letter under the cursor."""
        if self._found is not None:
            letters = self._found.letters
            keys, _ = self._chosen(self._found)
            if keys:
                from duraq_dashboard.dialogs.export import ExportDialog  # noqa: PLC0415 - as in the app

                self.app.push_screen(ExportDialog(len(keys), partial(each_letter, letters, keys)))

    def _filter_of(self, cause: ErrorKind | None) -> str:
        return filter_of(self._survey.where, cause)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        path, where = self.dashboard.source.path, self._filter_of(self._cause)
        listing = entry_text.shell("duraq", "-C", path, "dlq", "ls", "--where", where)
        return [*self.query_one(Preview).copies(path), Copyable("l", "list", listing)]

    def pager_text(self) -> str | None:
        return self.query_one(Preview).pager_text(self.dashboard.source.path)

    def remember(self) -> Mapping[str, str]:
        return {"filter": str(self._survey.where or ""), "sort": self._survey.sort}

    def recall(self, kept: Mapping[str, str]) -> None:
        if kept.get("sort") in SORTS:
            self._survey.sort = kept["sort"]
        self.query_one(FilterBar).put(kept.get("filter", ""))
