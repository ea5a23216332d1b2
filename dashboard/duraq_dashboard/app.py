"""The app: one storage, six screens over it, and the newest snapshot, which all of them watch."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.reactive import reactive

from duraq.clock import Clock, SystemClock, to_datetime
from duraq.safe_text import safe_lines
from duraq_dashboard import roots
from duraq_dashboard.alerts import Alerts
from duraq_dashboard.commands import Command
from duraq_dashboard.copying import show_in_pager
from duraq_dashboard.cost import Cost
from duraq_dashboard.frugal import FrugalApp
from duraq_dashboard.messages import Looked
from duraq_dashboard.options import THEMES as NAMES
from duraq_dashboard.options import Options
from duraq_dashboard.orders import Selection
from duraq_dashboard.overview import Overview
from duraq_dashboard.screens import TABS
from duraq_dashboard.screens.base import BaseScreen, MainScreen
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.source import Source
from duraq_dashboard.widgets.key_bar import hints
from duraq_dashboard.widgets.key_owners import complaints
from duraq_dashboard.wording import Times

if TYPE_CHECKING:
    from duraq_dashboard.dialogs.actor import Actor
    from duraq_dashboard.screens.entry import Neighbours

log = logging.getLogger("duraq.dashboard")

# So long after a change seconds are of interest.
LIVELY = timedelta(seconds=10)
# How often the clock is looked at. What it says is drawn only if it differs from what is shown.
TICK = 1.0
_ENDS = {"leave": "q", "quit": "ctrl+q", "copy-or-quit": "ctrl+c"}  # the names of keys, and the keys
NEVER = datetime.min.replace(tzinfo=to_datetime(0).tzinfo)


class Dashboard(FrugalApp):
    """What ``duraq-dashboard`` shows. ``read_only``: it offers nothing that changes anything."""

    TITLE = "duraq"
    CSS_PATH = "dashboard.tcss"
    MODES: ClassVar = {tab.mode: tab.make for tab in TABS}
    HORIZONTAL_BREAKPOINTS = [
        (0, "-tiny"),
        (FrugalApp.SMALLEST.width, "-small"),
        (80, "-medium"),
        (110, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (FrugalApp.SMALLEST.height, "-short"), (22, "-mid"), (30, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"show('{tab.mode}')", tab.title, show=False, id=f"show.{tab.mode}")
            for number, tab in enumerate(TABS, 1)
        ),
        Binding("y", "copy", "copy", id="copy"),
        Binding("o", "pager", "open in $PAGER", show=False, id="pager"),
        Binding("p", "freeze", "freeze", id="freeze"),
        Binding("colon,ctrl+p", "palette", "palette", show=False, id="palette"),
        Binding("t", "next_theme", "theme", show=False, id="theme"),
        Binding("comma", "next_times", "time format", show=False, id="times"),
        Binding("ctrl+o", "last_screen", "last screen", show=False, id="last-screen"),
        Binding("ctrl+l", "redraw", "redraw", show=False, id="redraw"),
        Binding("question_mark", "help", "help", id="help"),
        Binding("enter", "open_nearby", "open that one", id="open-nearby"),
        Binding("ctrl+q", "quit", "quit", show=False, id="quit"),
    ]

    snapshot: reactive[Snapshot | None] = reactive(None, repaint=False, always_update=True)
    # The time that all screens show ages as of.
    moment: reactive[datetime] = reactive(NEVER, repaint=False)
    times: reactive[Times] = reactive(Times.LOCAL, repaint=False)
    frozen = reactive(False, repaint=False)

    def __init__(
        self,
        source: Source,
        *,
        read_only: bool = False,
        options: Options | None = None,
        clock: Clock | None = None,
        opener: Callable[[str], Source] | None = None,
    ) -> None:
        self.options = options or Options()
        super().__init__(
            theme=self.options.theme,
            ascii_only=self.options.ascii_only,
            without_color=self.options.without_color,
        )
        self.source = source
        self.read_only = read_only
        self._actor: Actor | None = None
        self.clock = clock or SystemClock()
        self.alerts = Alerts()
        self.began_at, self.began_cost = self._now(), Cost.now()
        self.frozen_at: datetime | None = None
        self._newest: Snapshot | None = None  # not shown yet
        self._drawn_at = 0.0
        self._waiting_to_draw = False
        self._was_lively = True
        self.overview = Overview()
        self._last_mode: str | None = None
        self._opener = opener
        # Storages, if this is none; None: not looked for yet.
        self.nearby: list[tuple[str, int]] | None = None
        self._begun = False
        self.set_reactive(Dashboard.moment, self._now())
        self._remembered = self.options.remembered
        self._kept = {} if self._remembered is None else self._remembered.load()

    def main_screens(self) -> Sequence[tuple[str, str]]:
        """The six, in the order of their keys: mode and title."""
        return [(tab.mode, tab.title) for tab in TABS]

    # -- beginning and end -----------------------------------------------------------------------------

    def on_mount(self) -> None:
        if not self.is_headless:
            # Raised anywhere in between, as in other commands, it might leave the terminal as it is now.
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, partial(self.exit, return_code=128 + signal.SIGTERM))
        self.set_class(self.ascii_only, "-ascii")
        self._take_keys(self.options.keys)
        kept = self._kept.get("app", {})
        self.switch_mode(kept["screen"] if kept.get("screen") in self.MODES else TABS[0].mode)
        if kept.get("times") in {times.value for times in Times}:
            self.times = Times(kept["times"])
        self._begin()
        self.set_interval(TICK, self._tick)

    def _begin(self) -> None:
        # post_message is safe to call from another thread.
        def tell(snapshot: Snapshot) -> None:
            self.post_message(Looked(snapshot))

        self.source.start(tell)

    def on_unmount(self) -> None:
        if self._actor is not None:
            self._actor.close()
        self.source.stop()
        self._remember()

    def _take_keys(self, keys: Mapping[str, str]) -> None:
        """Have these keys instead of those that the bindings of these names have."""
        if not keys:
            return
        self.set_keymap(dict(keys))
        ends = (keys.get(name, key) for name, key in _ENDS.items())
        self.keys_that_end = {key.strip() for every in ends for key in every.split(",")}
        for complaint in complaints(keys):
            self.say(f"keys.toml: {complaint}", severity="warning")

    def kept_of(self, mode: str) -> dict[str, str]:
        """What was remembered of a screen."""
        return self._kept.get(mode, {})

    def keep(self, mode: str, what: Mapping[str, str]) -> None:
        """Have that remembered of a screen."""
        self._kept[mode] = dict(what)

    def _remember(self) -> None:
        if self._remembered is not None:
            self.keep("app", {"screen": self.current_mode, "times": self.times.value})
            self._remembered.save(self._kept)

    # -- what is shown ---------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return to_datetime(self.clock.now())

    @property
    def behind(self) -> timedelta:
        """For how long nobody has looked at the storage: something hangs, the disk for one."""
        looked_at = self.source.looked_at
        return timedelta(0) if looked_at is None else self.moment - looked_at

    def on_looked(self, message: Looked) -> None:
        if not self.is_running:
            return  # it is being closed, and the thread that looks has not heard of it yet
        self._newest = message.snapshot
        self.alerts.look(message.snapshot, self._now())
        self._show_newest()

    def _show_newest(self) -> None:
        """Show what is new, but not more often than is wanted: what comes in between is passed over."""
        if self.frozen or self._newest is None or self._waiting_to_draw:
            return
        wait = self._drawn_at + 1 / self.options.fps - self.clock_of_screen()
        if wait > 0:
            self._waiting_to_draw = True
            self.set_timer(wait, self._drawable)
            return
        self._drawn_at = self.clock_of_screen()
        newest, self._newest = self._newest, None
        # Whichever screen is shown: durations are told from what was seen.
        self.overview.look(newest, self._now())
        with self.batch_update():
            self.set_reactive(Dashboard.moment, self._now())
            self.snapshot = newest
        self._was_lively = True
        start = self.options.start
        if newest.trouble is None and not self._begun and (newest.whole or start in {None, *newest.queues}):
            # What is no queue is an entry; but it may be a queue that is not read yet.
            self._begun = True
            self._open_start(newest)
        if newest.trouble is not None and self.nearby is None:
            self.nearby = []
            self.run_worker(self._look_nearby, thread=True, exit_on_error=False)

    def _open_start(self, newest: Snapshot) -> None:
        """Go where whoever began it wanted to go."""
        start = self.options.start
        if self.options.dead_letters and start is not None:
            self.show_letters(f"queue:{start}")
        elif self.options.dead_letters:
            self.action_show("dlq")
        elif start is not None and start in newest.queues:
            self.open_queue(start)
        elif start is not None:
            self.open_entry(start)

    def _look_nearby(self) -> None:
        found = roots.nearby(self.source.path)
        self.call_from_thread(self._found_nearby, found)

    def _found_nearby(self, found: list[tuple[str, int]]) -> None:
        self.nearby = found
        if found:
            self.snapshot = self.snapshot
            self.refresh_bindings()

    def action_open_nearby(self) -> None:
        """Look at the storage that was probably meant."""
        if self.meant_nearby is not None and self._opener is not None:
            path, _ = self.meant_nearby
            self.source.stop()
            self.source = self._opener(path)
            if self._remembered is not None:
                self._remembered = self._remembered.of(path)
                self._kept = self._remembered.load()
            self.snapshot, self.nearby = None, None
            self._begin()

    def _drawable(self) -> None:
        self._waiting_to_draw = False
        self._show_newest()

    @staticmethod
    def clock_of_screen() -> float:
        """What frames are timed by."""
        return time.monotonic()

    def _tick(self) -> None:
        """Draw what time alone has changed: by seconds as long as they are shown, else by minutes."""
        if not self.is_running:
            return  # it is being closed
        now = self._now()
        lively = self._shows_seconds(now)
        same_minute = now.replace(second=0, microsecond=0) == self.moment.replace(second=0, microsecond=0)
        if lively or self._was_lively or not same_minute:
            self._was_lively = lively
            if now != self.moment:
                with self.batch_update():
                    self.moment = now

    def _shows_seconds(self, now: datetime) -> bool:
        screen = self.screen
        return (
            self.frozen
            or self.snapshot is None
            or now - self.snapshot.changed_at < LIVELY
            or (isinstance(screen, BaseScreen) and screen.shows_seconds)
        )

    @property
    def meant_nearby(self) -> tuple[str, int] | None:
        """A storage that was probably meant if this is none, and how many queues it has."""
        return self.nearby[0] if self.nearby and self._opener is not None else None

    # -- what keys do ----------------------------------------------------------------------------------

    def action_show(self, mode: str) -> None:
        """Go to one of the six screens; what was opened from it is left."""
        if mode != self.current_mode:
            self._last_mode = self.current_mode
        self.switch_mode(mode)
        while len(self.screen_stack) > 1:
            self.pop_screen()

    def action_last_screen(self) -> None:
        """Go back to the main screen that was shown before this one."""
        if self._last_mode is not None:
            self.action_show(self._last_mode)

    def action_freeze(self) -> None:
        """Leave everything as it is, or go on with how things are now."""
        self.frozen_at = None if self.frozen else self._now()
        self.frozen = not self.frozen
        self.screen.refresh_bindings()
        self._show_newest()

    def action_next_theme(self) -> None:
        """The next theme."""
        self.theme = NAMES[(NAMES.index(self.theme) + 1) % len(NAMES)]
        self.say(f"theme {self.theme}")

    def action_next_times(self) -> None:
        """Times local, in UTC, or relative."""
        self.times = self.times.next
        self.say(f"times are {self.times.value}")

    def action_redraw(self) -> None:
        """Draw all anew, and look at the storage."""
        self.source.look_now()
        self.refresh(layout=True, repaint=True)

    def action_help(self) -> None:
        """Every key that does something here."""
        from duraq_dashboard.screens.help import HelpScreen  # noqa: PLC0415 - imported when it is opened

        self.push_screen(HelpScreen(self.screen.title or "this screen", hints(self.screen)))

    def action_palette(self) -> None:
        """Everything that can be done here, by name."""
        from duraq_dashboard.screens.palette import PaletteScreen, commands_of  # noqa: PLC0415 - as above

        def run(command: Command | None) -> None:
            if command is not None:
                command.run()

        self.push_screen(PaletteScreen(commands_of(self)), run)

    def open_queue(self, name: str) -> None:
        """Show one queue in full."""
        from duraq_dashboard.screens.queue_detail import QueueScreen  # noqa: PLC0415 - as above

        self.action_show("queues")
        self.push_screen(QueueScreen(name))

    def action_copy(self) -> None:
        """Offer what can be copied here."""
        offered = self.screen.copies() if isinstance(self.screen, BaseScreen) else ()
        if offered:
            from duraq_dashboard.screens.copy_menu import CopyMenu  # noqa: PLC0415 - as above

            self.push_screen(CopyMenu(offered))
        else:
            self.say("there is nothing to copy here")

    def action_pager(self) -> None:
        """Open what is shown in $PAGER."""
        text = self.screen.pager_text() if isinstance(self.screen, BaseScreen) else None
        if text is None:
            self.say("there is nothing to open here")
        else:
            self.show_text(text)

    def show_text(self, text: str) -> None:
        """Open a text in $PAGER."""
        try:
            with self.suspend():
                show_in_pager(safe_lines(text))
        except SuspendNotSupported:
            self.say("a pager cannot be opened from here")
        except (OSError, ValueError) as error:
            self.say(f"the pager cannot be started: {error}")

    def leave(self) -> None:
        """End; if something goes on that was begun here, ask first."""
        if self._actor is not None and self._actor.going:
            self._actor.ask_to_leave()
        else:
            self.exit()

    async def action_quit(self) -> None:
        """From wherever one is."""
        self.leave()

    def begin(self, action: str, selection: Selection) -> None:
        """Ask whether that action shall be done to what was chosen, and if so do it."""
        if self._actor is None:
            from duraq_dashboard.dialogs.actor import Actor  # noqa: PLC0415 - as are the screens

            self._actor = Actor(self)
        self._actor.begin(action, selection)

    def open_entry(
        self, entry_id: str, queue: str | None = None, neighbours: Neighbours | None = None
    ) -> None:
        """Show one entry in full; ``neighbours``: the list that it is opened from."""
        from duraq_dashboard.screens.entry import EntryScreen  # noqa: PLC0415 - as above

        self.push_screen(EntryScreen(entry_id, queue, neighbours))

    def show_letters(self, where: str) -> None:
        """Show the dead letters that a filter means."""
        kept = self._kept["dlq"] = {**self.kept_of("dlq"), "filter": where}
        self.action_show("dlq")
        if isinstance(self.screen, MainScreen) and self.screen.is_mounted:
            self.screen.recall(kept)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Keys that mean something only at times."""
        is_unread = self.snapshot is not None and self.snapshot.trouble is not None
        if action == "open_nearby":
            return bool(self.nearby) and is_unread
        if action in {"copy", "pager", "freeze"} and is_unread:
            return False
        return not (action == "pager" and self.options.served)
