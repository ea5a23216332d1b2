"""Whether a storage and its queues are well: checks, and what each of them says.

Nothing here waits for those who work, or for a process that is stopped: queues are looked at as an Inspector
does, and the storage's lock is waited for only so long.
"""

from __future__ import annotations

from duraq.health.metrics import MetricsHealthCheck
from duraq.health.queues import QueueHealthCheck
from duraq.health.result import HealthCheck, HealthCheckAggregator, HealthResult, HealthStatus, worst
from duraq.health.storage import StorageHealthCheck

__all__ = [
    "HealthCheck",
    "HealthCheckAggregator",
    "HealthResult",
    "HealthStatus",
    "MetricsHealthCheck",
    "QueueHealthCheck",
    "StorageHealthCheck",
    "worst",
]
