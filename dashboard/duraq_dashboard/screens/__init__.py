"""One module for each screen. The six main ones are modes of the app, each with a stack of its own."""

from __future__ import annotations

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.screens.dead_letters import DeadLettersScreen
from duraq_dashboard.screens.errors import ErrorsScreen
from duraq_dashboard.screens.events import EventsScreen
from duraq_dashboard.screens.health import HealthScreen
from duraq_dashboard.screens.leases import LeasesScreen
from duraq_dashboard.screens.queues import QueuesScreen

# In the order of their keys, 1 to 6.
MAIN_SCREENS: tuple[type[MainScreen], ...] = (
    QueuesScreen,
    DeadLettersScreen,
    ErrorsScreen,
    LeasesScreen,
    HealthScreen,
    EventsScreen,
)
