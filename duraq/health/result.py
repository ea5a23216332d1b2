"""What a check says, and many checks as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from duraq.errors import InvalidOption


class HealthStatus(StrEnum):
    """How well something is, the best first."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # it works, and somebody should look at it
    UNHEALTHY = "unhealthy"  # it does not work, or soon will not


@dataclass(frozen=True, slots=True)
class HealthResult:
    """What a check found. ``details`` are values that JSON can hold: durations in seconds, sizes in bytes."""

    component: str
    status: HealthStatus
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)


class HealthCheck(Protocol):
    """Something that can be asked how it is. Yours may stand beside DuraQ's."""

    @property
    def component(self) -> str:
        """What is checked; of the checks of one aggregator each has another one."""

    def check(self) -> HealthResult:
        """Look now. What it raises counts as unhealthy."""


class HealthCheckAggregator:
    """Several checks, asked together. Raises InvalidOption if two of them are of one component."""

    def __init__(self, checks: Iterable[HealthCheck]) -> None:
        self._checks: dict[str, HealthCheck] = {}
        for check in checks:
            if check.component in self._checks:
                raise InvalidOption(f"there are two checks of {check.component!r}")
            self._checks[check.component] = check

    def check_all(self) -> dict[str, HealthResult]:
        """What each check says, by its component, in their order. Never raises what a check does."""
        return {component: _ask(component, check) for component, check in self._checks.items()}

    def overall_status(self) -> HealthStatus:
        """Ask all; the worst counts. Of no checks: healthy."""
        return worst(result.status for result in self.check_all().values())


def _ask(component: str, check: HealthCheck) -> HealthResult:
    try:
        return check.check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what there is to tell
        return failed(component, error)


def failed(component: str, error: Exception) -> HealthResult:
    """The result of a check that could not come to an end."""
    name = type(error).__name__
    return HealthResult(component, HealthStatus.UNHEALTHY, f"{name}: {error}", {"error": name})


def worst(statuses: Iterable[HealthStatus]) -> HealthStatus:
    """The worst of them; healthy if there are none."""
    return max(statuses, key=list(HealthStatus).index, default=HealthStatus.HEALTHY)
