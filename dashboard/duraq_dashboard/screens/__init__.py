"""One module for each screen. The six main ones are modes of the app, each with a stack of its own.

A screen is imported when it is first gone to: all of them together take longer than all else until the first
one is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from duraq_dashboard.screens.base import MainScreen


class Tab(NamedTuple):
    """A main screen: its mode, what its tab says, and what makes it."""

    mode: str
    title: str
    make: Callable[[], MainScreen]


def _queues() -> MainScreen:
    from duraq_dashboard.screens.queues import QueuesScreen  # noqa: PLC0415 - as all of these, see above

    return QueuesScreen()


def _dead_letters() -> MainScreen:
    from duraq_dashboard.screens.dead_letters import DeadLettersScreen  # noqa: PLC0415

    return DeadLettersScreen()


def _errors() -> MainScreen:
    from duraq_dashboard.screens.errors import ErrorsScreen  # noqa: PLC0415

    return ErrorsScreen()


def _leases() -> MainScreen:
    from duraq_dashboard.screens.leases import LeasesScreen  # noqa: PLC0415

    return LeasesScreen()


def _health() -> MainScreen:
    from duraq_dashboard.screens.health import HealthScreen  # noqa: PLC0415

    return HealthScreen()


def _events() -> MainScreen:
    from duraq_dashboard.screens.events import EventsScreen  # noqa: PLC0415

    return EventsScreen()


# In the order of their keys, 1 to 6.
TABS = (
    Tab("queues", "Queues", _queues),
    Tab("dlq", "DLQ", _dead_letters),
    Tab("errors", "Errors", _errors),
    Tab("leases", "Leases", _leases),
    Tab("health", "Health", _health),
    Tab("events", "Events", _events),
)
