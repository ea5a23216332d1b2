"""One module for each screen. The six main ones are modes of the app, each with a stack of its own."""

from __future__ import annotations

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.screens.queues import QueuesScreen

# In the order of their keys, 1 to 6.
MAIN_SCREENS: tuple[type[MainScreen], ...] = (QueuesScreen,)
