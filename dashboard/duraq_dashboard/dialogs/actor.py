"""Every change begins here: what is meant is settled, somebody agrees, then it is done."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from textual.app import SuspendNotSupported

from duraq.actions import ACTIONS, Action, Target
from duraq.bulk import Meant
from duraq.cli.failing import CommandError
from duraq.cli.input import edited
from duraq.errors import DuraqError
from duraq.inspector import Inspector
from duraq.safe_text import safe_text
from duraq_dashboard.acts_done import Done, acts_done
from duraq_dashboard.dialogs import words
from duraq_dashboard.dialogs.confirm import ConfirmDialog
from duraq_dashboard.dialogs.leaving import LeaveDialog
from duraq_dashboard.dialogs.progress import ProgressDialog
from duraq_dashboard.dialogs.undo import UndoDialog
from duraq_dashboard.doing import Doing, Progress
from duraq_dashboard.orders import Order, Selection

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard


class Actor:
    """Of one app. What has begun goes on while its dialog is hidden, and is stopped when the app ends."""

    def __init__(self, app: Dashboard) -> None:
        self._app = app
        self._doing: dict[Doing, ProgressDialog] = {}

    def begin(self, name: str, selection: Selection) -> None:
        """Ask whether that action shall be done to what was chosen, and if so do it."""
        app = self._app
        if app.read_only:
            app.say("read-only: nothing is changed from here")
            return
        action = ACTIONS[name]
        if name == "edit":
            self._edit(action, selection)
        elif name == "undo" and not selection.act:
            self._choose_act(action)
        elif action.target is Target.DEAD_LETTERS:
            self._settle(action, selection)
        else:
            self._ask(self._order(action, selection))

    @property
    def going(self) -> list[tuple[Order, Progress]]:
        """What goes on, and how far it is."""
        return [(doing.order, dialog.progress) for doing, dialog in self._doing.items()]

    def ask_to_leave(self) -> None:
        """Ask whether it shall be stopped, and if so end the app."""

        def answered(is_meant: bool | None) -> None:
            if is_meant:
                self._app.exit()

        self._app.push_screen(LeaveDialog(self.going), answered)

    def close(self) -> None:
        """Stop all that goes on, and wait for it."""
        for doing in self._doing:
            doing.stop()
        for doing in self._doing:
            doing.join(5)

    def _order(self, action: Action, selection: Selection, meant: Meant | None = None) -> Order:
        return Order(
            action,
            self._app.source.path,
            datetime.now(UTC),
            meant=Meant() if meant is None else meant,
            where=selection.where,
            queue=selection.queue,
            entry=selection.entry,
            leases=selection.leases,
            act=selection.act,
            number=selection.number,
        )

    # -- asking ----------------------------------------------------------------------------------------

    def _settle(self, action: Action, selection: Selection) -> None:
        """Have it found out which dead letters are meant, while the question is there already."""
        assert selection.freeze is not None
        given_up = threading.Event()
        dialog = ConfirmDialog(self._order(action, selection), stop=given_up.set)

        def answer(found: Meant | Exception) -> None:
            # In the source's thread.
            dialog.call_later(self._settled, dialog, action, selection, found)

        freeze = selection.freeze

        def question(inspector: Inspector, ended: threading.Event) -> Meant:
            return freeze(inspector, _Either(given_up, ended))

        self._app.push_screen(dialog, self._agreed)
        self._app.source.ask(question, answer)

    def _settled(
        self, dialog: ConfirmDialog, action: Action, selection: Selection, found: Meant | Exception
    ) -> None:
        if isinstance(found, Exception):
            dialog.fail(str(found))
        else:
            dialog.settle(self._order(action, selection, found))

    def _ask(self, order: Order) -> None:
        self._app.push_screen(ConfirmDialog(order), self._agreed)

    def _choose_act(self, action: Action) -> None:
        """Let it be said what is to be brought back."""

        def chosen(done: Done | None) -> None:
            if done is not None:
                self._ask(self._order(action, Selection(act=done.name, number=done.count)))

        dialog = UndoDialog()
        self._app.push_screen(dialog, chosen)

        def answer(found: list[Done] | Exception) -> None:
            # In the source's thread.
            dialog.call_later(dialog.show, found)

        self._app.source.ask(lambda inspector, _: acts_done(inspector), answer)

    def _edit(self, action: Action, selection: Selection) -> None:
        """The payload in an editor, then the question."""
        entry = selection.entry
        assert entry is not None
        try:
            with self._app.suspend():
                payload = edited(entry.payload)
        except SuspendNotSupported:
            self._app.say("an editor cannot be opened from here")
            return
        except CommandError as unchanged:
            self._app.say(str(unchanged))
            return
        except (click.Abort, KeyboardInterrupt):
            self._app.say("nothing was done")
            return
        except (DuraqError, ValueError, OSError, click.ClickException) as error:
            self._app.say(f"nothing was done: {safe_text(error, 300)}", severity="error")
            return
        self._ask(replace(self._order(action, selection), payload=payload))

    # -- doing -----------------------------------------------------------------------------------------

    def _agreed(self, order: Order | None) -> None:
        if order is None or self._app.read_only:
            return

        def tell(progress: Progress) -> None:
            # In its thread.
            self._app.call_later(self._told, doing, progress)

        doing = Doing(order, tell)
        dialog = ProgressDialog(doing, Progress(order.count))
        self._doing[doing] = dialog
        doing.start()
        self._app.push_screen(dialog)

    def _told(self, doing: Doing, progress: Progress) -> None:
        dialog = self._doing.get(doing)
        if dialog is None:
            return
        is_seen = dialog.is_running
        dialog.show(progress)
        if not progress.is_over:
            return
        del self._doing[doing]
        self._app.source.look_now()
        if not is_seen:
            text = safe_text(words.result(doing.order, progress), 300)
            self._app.say(text, severity="error" if progress.error else "information")


class _Either(threading.Event):
    """Set as soon as one of two events is."""

    def __init__(self, *events: threading.Event) -> None:
        super().__init__()
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)
