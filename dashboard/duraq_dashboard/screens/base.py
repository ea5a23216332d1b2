"""What all screens have in common: the bar at the top, the keys at the bottom, and the newest snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import ScreenResume
from textual.screen import Screen

from duraq.actions import ACTIONS, Action, Target
from duraq_dashboard.copying import Copyable
from duraq_dashboard.orders import Selection
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.key_bar import KeyBar
from duraq_dashboard.widgets.notices import TooSmall, TroubleNotice
from duraq_dashboard.widgets.top_bar import TopBar

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard


def act(name: str, label: str = "", *, show: bool = True) -> Binding:
    """The key that begins an action of ``duraq.actions`` on what is chosen here."""
    action = ACTIONS[name]
    assert action.key is not None
    return Binding(action.key, f"act('{name}')", label or name, show=show, id=f"act.{name}")


# What can be done wherever one dead letter or more are chosen, and wherever a queue is.
LETTER_ACTS = (act("retry"), act("remove"), act("move"), act("edit"))
QUEUE_ACTS = (act("pause"), act("retry", "retry dead"), act("compact", show=False), act("undo", show=False))


class BaseScreen(Screen[None]):
    """A screen over the storage. While another one is in front of it, it draws nothing.

    A subclass says what is between the bars (``compose_content``) and shows a snapshot (``draw``). It may
    offer texts to copy (``copies``) and to read in a pager (``pager_text``), and have something remembered
    until the next time (``remember``, ``recall``), and say what an action would be done to (``chosen_for``;
    its key is ``act("retry")`` among the BINDINGS). ``shows_seconds``: ages in seconds are to be seen, so it
    is drawn each second; else each minute, and whenever something has changed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back, no filter", show=False, id="back"),
        Binding("q", "leave", "quit", id="leave"),
        Binding("tab", "app.focus_next", "next pane", show=False, id="pane.next"),
        Binding("shift+tab", "app.focus_previous", "pane before", show=False, id="pane.previous"),
        Binding("ctrl+c", "copy_or_quit", "copy marked, or quit", show=False, id="copy-or-quit"),
    ]
    # Not a field that is not to be seen, which would take every key for text.
    AUTO_FOCUS = "RowList"
    shows_seconds = False
    _styled_as: str | None = None
    _resumes = False  # what the key that pauses does now

    def compose(self) -> ComposeResult:
        yield TopBar()
        with Vertical(id="content"):
            yield from self.compose_content()
        yield TroubleNotice()
        yield TooSmall()
        yield KeyBar()

    def compose_content(self) -> ComposeResult:
        """The widgets between the two bars."""
        yield from ()

    @property
    def dashboard(self) -> Dashboard:
        """The app, by its own name."""
        return cast("Dashboard", self.app)

    @property
    def crumbs(self) -> Sequence[str]:
        """Where one is, from the main screen on; a main screen is a tab, and has none."""
        return ()

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._redraw, init=False)
        self.watch(self.app, "moment", self._redraw, init=False)
        self.watch(self.app, "times", self._redraw, init=False)

    def on_screen_resume(self, event: ScreenResume) -> None:
        # While it was not seen, another theme may have been chosen; nothing else goes by it.
        event.refresh_styles = self._styled_as != self.app.theme
        self._styled_as = self.app.theme
        self._redraw()
        for bar in self.query(TopBar):
            bar.show_now()

    def on_resize(self) -> None:
        self._redraw()
        # While there was no room for it, nothing had the focus.
        if self.focused is None:
            self.call_after_refresh(self._focus_again)

    def _focus_again(self) -> None:
        if self.focused is None and self.AUTO_FOCUS and not self.has_class("-trouble"):
            for widget in self.query(self.AUTO_FOCUS):
                if widget.focusable:
                    widget.focus()
                    break

    def _redraw(self) -> None:
        snapshot = self.dashboard.snapshot
        if snapshot is None or not self.is_current:
            return
        if (snapshot.trouble is not None) is not self.has_class("-trouble"):
            self.set_class(snapshot.trouble is not None, "-trouble")
            self.refresh_bindings()
            if snapshot.trouble is None:
                # What was hidden has lost the focus.
                self.call_after_refresh(self._focus_again)
        if snapshot.trouble is None:
            self.draw(snapshot)
            self.look_at_pause()

    def draw(self, snapshot: Snapshot) -> None:
        """Show it, as of ``self.dashboard.moment``.

        Only what differs from what is shown may be touched: still means still.
        """
        raise NotImplementedError

    def unless_reading(self, nothing: str) -> str:
        """What is said where there is nothing; but before all was looked at nobody knows that."""
        snapshot = self.dashboard.snapshot
        return nothing if snapshot is None or snapshot.whole else "\nstill reading ..."

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        """What ``y`` offers to copy, of what the cursor is on."""
        return ()

    def pager_text(self) -> str | None:
        """What ``o`` opens in the pager; None if there is nothing."""
        return None

    def remember(self) -> Mapping[str, str]:
        """What is to be as it is now the next time. Asked when the screen's widgets are gone."""
        return {}

    def recall(self, kept: Mapping[str, str]) -> None:
        """Set what was remembered. It may be anything: a file was edited, a newer version wrote it."""

    # -- changing something ----------------------------------------------------------------------------

    def chosen_for(self, action: Action) -> Selection | None:
        """What the action would be done to, as things are on this screen; None: nothing is chosen for it."""
        return Selection() if action.name == "undo" else None

    def action_act(self, name: str) -> None:
        """Ask whether that shall be done; but what is listed is not meant while the filter says nothing."""
        if any(bar.is_in_doubt for bar in self.query(FilterBar)):
            self.dashboard.say(f"{name}: first mend the filter, or clear it with Esc")
            return
        action = ACTIONS[name]
        selection = self.chosen_for(action)
        if selection is None:
            self.dashboard.say(f"{name}: first choose what it shall be done to, {_WHERE[action.target]}")
            return
        if action.target is Target.QUEUE and name == "pause" and self._is_paused(selection.queue):
            # The same key takes it back.
            name = "resume"
        self.dashboard.begin(name, selection)

    def look_at_pause(self) -> None:
        """Have the key that pauses say that it resumes, if that queue is paused."""
        chosen = self.chosen_for(ACTIONS["pause"])
        resumes = chosen is not None and self._is_paused(chosen.queue)
        if resumes is not self._resumes:
            self._resumes = resumes
            self.refresh_bindings()

    def label_of(self, binding: Binding) -> str:
        """What the key does as things are."""
        if binding.action == "leave":
            return "quit" if len(self.app.screen_stack) == 1 else "back"
        if binding.action == "freeze" and self.dashboard.frozen:
            return "go on"
        return "resume" if self._resumes and binding.action == "act('pause')" else binding.description

    def _is_paused(self, queue: str) -> bool:
        snapshot = self.dashboard.snapshot
        return (
            snapshot is not None
            and queue in snapshot.queues
            and snapshot.queues[queue].view.pause is not None
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Whoever may only read is offered nothing else; where nothing can be seen, only a way out."""
        snapshot = self.dashboard.snapshot
        if snapshot is not None and snapshot.trouble is not None:
            return action in {"back", "leave", "copy_or_quit"}
        return not (action == "act" and self.dashboard.read_only)

    # -- going back ------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """One level back. A main screen has none; it may have a filter to be cleared."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_leave(self) -> None:
        """One level back; from a main screen, the end."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        else:
            self.dashboard.leave()

    def action_copy_or_quit(self) -> None:
        """Copy what is marked with the mouse; if nothing is, quit, which is what people mean by that key."""
        marked = self.get_selected_text()
        if marked:
            self.dashboard.copied(marked)
        else:
            self.dashboard.leave()


_WHERE = {
    Target.DEAD_LETTERS: "among the dead letters (2)",
    Target.ENTRY: "among the dead letters (2)",
    Target.QUEUE: "among the queues (1)",
    Target.LEASE: "among the leases (4)",
    Target.STORAGE: "",
}


class MainScreen(BaseScreen):
    """One of the six. ``MODE``: its name; ``TITLE``: what its tab says."""

    MODE: ClassVar[str]

    def on_unmount(self) -> None:
        # Its widgets are going or gone: what is remembered must not be asked of them.
        self.dashboard.keep(self.MODE, self.remember())
