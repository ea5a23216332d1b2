"""What Textual's app is to do otherwise: draw at once, send no more than differs, tell nobody what it knew.

Knows nothing of storages.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import RenderableType
from rich.text import Text
from textual import events
from textual.app import App
from textual.filter import LineFilter
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Input

from duraq.safe_text import safe_text
from duraq_dashboard.logs import log_file
from duraq_dashboard.options import THEMES as NAMES
from duraq_dashboard.theme import THEMES, VARIABLES
from duraq_dashboard.widgets.addressing import Addressing, at_rest
from duraq_dashboard.widgets.ascii_only import AsciiOnly
from duraq_dashboard.widgets.sparing import sparing

log = logging.getLogger("duraq.dashboard")


class FrugalApp(App[None]):
    """``theme``: the first if None. ``ascii_only``: it draws with nothing else."""

    SMALLEST = Size(60, 16)  # in which a screen can be shown
    ENABLE_COMMAND_PALETTE = False  # there is one of our own, which shows what is asked of it as plain text

    def __init__(self, *, theme: str | None, ascii_only: bool, without_color: bool) -> None:
        # With it, what is drawn has no colours at all; without, Textual would turn them to shades of grey.
        super().__init__(ansi_color=True if without_color else None)
        self.ascii_only = ascii_only
        self._ascii_filter = AsciiOnly()
        self.animation_level = "none"
        self._addressing = Addressing(self)
        self._styled_as: str | None = None  # the theme that the style sheets were read for
        self.keys_that_end = {"q", "ctrl+q", "ctrl+c"}
        for each in THEMES:
            self.register_theme(each)
        self.theme = theme or NAMES[0]

    # -- how it draws ----------------------------------------------------------------------------------

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return VARIABLES

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = super().get_line_filters()
        return [*filters, self._ascii_filter] if self.ascii_only else filters

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        super()._display(screen, sparing(renderable))

    def refresh_css(self, animate: bool = True) -> None:
        """Read the style sheets again, if that can make a difference: they depend on nothing but the theme.

        Textual calls it up to three times for each screen that is new, and takes 40 ms for it.
        """
        if self._styled_as != self.theme:
            self._styled_as = self.theme
            super().refresh_css(animate)

    def delay_update(self, delay: float = 0.05) -> None:
        """Draw nothing until the screen that is gone to has shown what is known, or for so many seconds.

        Textual calls it when the mode is switched, and waits that long: longer than all the rest takes.
        """
        held = ExitStack()
        held.callback(self._draw_all)
        held.enter_context(self.batch_update())

        def await_screen() -> None:
            # By now it is the new one. It is at rest when it has heard that it is resumed.
            if self.screen_stack:
                self.screen.call_after_refresh(held.close)

        self.call_later(await_screen)
        # Should that screen be gone before.
        self.set_timer(delay, held.close)

    def _draw_all(self) -> None:
        if self.screen_stack:  # else it is being closed
            self.screen.refresh()

    def text(self) -> list[str]:
        """What is on the screen, line by line, without its colours."""
        strips = self.screen._compositor.render_strips()  # noqa: SLF001 - there is no other way to it
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @contextmanager
    def suspend(self) -> Iterator[None]:
        """Leave the terminal to something else, and take it back whatever comes of that.

        What is raised within is raised after that: Textual's own would leave the terminal as it is. Ctrl-C is
        a KeyboardInterrupt, as in any command; asyncio's handler would end the app instead.
        """
        raised: BaseException | None = None
        with super().suspend():
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - it is raised below
                raised = error
            finally:
                signal.signal(signal.SIGINT, before)
        if raised is not None:
            raise raised

    @property
    def is_too_small(self) -> bool:
        """Whether nothing but a notice is seen."""
        return self.size.width < self.SMALLEST.width or self.size.height < self.SMALLEST.height

    # -- keys and words --------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key):
            if self.is_too_small:
                # Whatever else it did could not be seen.
                if event.key in self.keys_that_end:
                    await self.action_quit()
                return
            event = await self._addressing.addressed(event)
            if not self.screen_stack:
                return  # it is being closed
            field = self.focused
            if isinstance(field, Input) and not event.is_printable and not event.is_forwarded:
                # A field takes letters itself, and leaves the rest to bindings: on its way to them and back
                # such a key would be overtaken by letters that were typed later.
                await at_rest(field)
                if not await self._check_bindings(event.key, priority=True):
                    await self._check_bindings(event.key)
                await at_rest(field)
                return
        await super().on_event(event)

    def say(self, text: str, *, severity: str = "information") -> None:
        """Tell the person something, for a moment, instead of what was told before.

        A pile of notices would hide the screen, and Textual does not always take all of it away again.
        """
        self.clear_notifications()
        level = severity if severity in {"information", "warning", "error"} else "information"
        self.notify(text, severity=level, markup=False, timeout=3)  # type: ignore[arg-type]

    def copied(self, text: str) -> None:
        """Hand a text to the clipboard."""
        self.copy_to_clipboard(text)
        # OSC 52 is never acknowledged.
        self.say("sent to the terminal's clipboard")

    def _fatal_error(self) -> None:
        """What kills it goes to the log, whole. The terminal gets a line: nobody can read more there.

        Textual would print all local variables as well, and with them what strangers wrote.
        """
        error = self._exception
        log.critical("the dashboard has failed", exc_info=error)
        shown = safe_text(f"{type(error).__name__}: {error}", 500)
        self.panic(Text(f"duraq: the dashboard has failed: {shown}\nThe whole story is in {log_file()}"))
