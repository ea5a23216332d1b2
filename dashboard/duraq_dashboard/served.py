"""How a dashboard behind a socket draws and reads: in packets, over the pipes to the server that began it."""

from __future__ import annotations

from textual.drivers.web_driver import WebDriver
from textual.messages import ExitApp


class ServedDriver(WebDriver):
    """Textual's own for this, and when its input is over it ends: nobody is left who could see anything.

    So it ends with the server, however that ends.
    """

    def start_application_mode(self) -> None:
        super().start_application_mode()
        if not self._mouse:
            # It asks for the mouse in any case.
            self._disable_mouse_support()

    def run_input_thread(self) -> None:
        super().run_input_thread()
        self._app.post_message(ExitApp())
