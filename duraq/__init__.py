"""DuraQ: a durable work queue for daemons on one host, with no server.

Names are imported from their modules when they are first used: the command line starts in a third of the
time, and a program that only feeds queues never loads what works them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duraq.acts import Act
    from duraq.attention import Thresholds
    from duraq.backups import Copied, backup, restore
    from duraq.dead_letters import DeadLetterQueue
    from duraq.errors import (
        ActNotFound,
        CannotMigrate,
        DuplicateEntry,
        DuraqError,
        EntryNotFound,
        GroupTooLarge,
        InvalidFilter,
        InvalidInput,
        InvalidOption,
        InvalidPayload,
        InvalidQueueName,
        LeaseLost,
        NetworkFileSystem,
        NotAStorage,
        NotEmpty,
        NotEnqueued,
        NotLeased,
        NoTransaction,
        NotWritten,
        OutcomeUnknown,
        PayloadTooLarge,
        PayloadUndecodable,
        QueueError,
        QueueFull,
        QueueNotFound,
        StorageBusy,
        StorageClosed,
        StorageDamaged,
        StorageError,
        StorageFailed,
        StorageForked,
        StorageReadOnly,
        UnsupportedVersion,
        WorkersFailed,
    )
    from duraq.examining import Finding, Report, verify
    from duraq.health import (
        HealthCheck,
        HealthCheckAggregator,
        HealthResult,
        HealthStatus,
        MetricsHealthCheck,
        QueueHealthCheck,
        StorageHealthCheck,
    )
    from duraq.inspector import Inspector
    from duraq.journal.log import Sizes
    from duraq.manager import QueueManager
    from duraq.mending import Repaired, repair
    from duraq.metrics import QueueMetrics
    from duraq.migration import Migrated, migrate
    from duraq.model import Attempt, AttemptError, Cause, Counts, EntryStatus, Pause, QueueEntry
    from duraq.queue import Queue
    from duraq.retry import ExponentialBackoff, FixedDelay, NoRetry, RetryPolicy
    from duraq.storage.file import FileStorage
    from duraq.storage.lmdb import LMDBStorage as LMDBStorage  # public, though not in __all__
    from duraq.storage.memory import MemoryStorage
    from duraq.storage.postgres import PostgresStorage as PostgresStorage
    from duraq.storage.registry import open as open  # noqa: A004 - duraq.open
    from duraq.storage.sqlite import SQLiteStorage
    from duraq.tally import WorkerStats
    from duraq.views import EntryView, LeaseView, Place, QueueView, RecordView, WorkerView
    from duraq.where import Where
    from duraq.worker import Worker
    from duraq.worker_pool import run_processes

__version__ = "0.1.0"

_HOMES = {
    "Act": "duraq.acts",
    "ActNotFound": "duraq.errors",
    "Attempt": "duraq.model",
    "AttemptError": "duraq.model",
    "backup": "duraq.backups",
    "CannotMigrate": "duraq.errors",
    "Cause": "duraq.model",
    "Copied": "duraq.backups",
    "Counts": "duraq.model",
    "DeadLetterQueue": "duraq.dead_letters",
    "DuplicateEntry": "duraq.errors",
    "DuraqError": "duraq.errors",
    "EntryNotFound": "duraq.errors",
    "EntryStatus": "duraq.model",
    "EntryView": "duraq.views",
    "ExponentialBackoff": "duraq.retry",
    "FileStorage": "duraq.storage.file",
    "Finding": "duraq.examining",
    "FixedDelay": "duraq.retry",
    "GroupTooLarge": "duraq.errors",
    "HealthCheck": "duraq.health",
    "HealthCheckAggregator": "duraq.health",
    "HealthResult": "duraq.health",
    "HealthStatus": "duraq.health",
    "Inspector": "duraq.inspector",
    "InvalidFilter": "duraq.errors",
    "InvalidInput": "duraq.errors",
    "InvalidOption": "duraq.errors",
    "InvalidPayload": "duraq.errors",
    "InvalidQueueName": "duraq.errors",
    "LeaseLost": "duraq.errors",
    "LeaseView": "duraq.views",
    "LMDBStorage": "duraq.storage.lmdb",
    "MemoryStorage": "duraq.storage.memory",
    "MetricsHealthCheck": "duraq.health",
    "migrate": "duraq.migration",
    "Migrated": "duraq.migration",
    "NetworkFileSystem": "duraq.errors",
    "NoRetry": "duraq.retry",
    "NotAStorage": "duraq.errors",
    "NotEmpty": "duraq.errors",
    "NotEnqueued": "duraq.errors",
    "NotLeased": "duraq.errors",
    "NoTransaction": "duraq.errors",
    "NotWritten": "duraq.errors",
    "open": "duraq.storage.registry",
    "OutcomeUnknown": "duraq.errors",
    "Pause": "duraq.model",
    "PayloadTooLarge": "duraq.errors",
    "PayloadUndecodable": "duraq.errors",
    "Place": "duraq.views",
    "PostgresStorage": "duraq.storage.postgres",
    "Queue": "duraq.queue",
    "QueueEntry": "duraq.model",
    "QueueError": "duraq.errors",
    "QueueFull": "duraq.errors",
    "QueueHealthCheck": "duraq.health",
    "QueueManager": "duraq.manager",
    "QueueMetrics": "duraq.metrics",
    "QueueNotFound": "duraq.errors",
    "QueueView": "duraq.views",
    "RecordView": "duraq.views",
    "repair": "duraq.mending",
    "Repaired": "duraq.mending",
    "Report": "duraq.examining",
    "restore": "duraq.backups",
    "RetryPolicy": "duraq.retry",
    "run_processes": "duraq.worker_pool",
    "Sizes": "duraq.journal.log",
    "SQLiteStorage": "duraq.storage.sqlite",
    "StorageBusy": "duraq.errors",
    "StorageClosed": "duraq.errors",
    "StorageDamaged": "duraq.errors",
    "StorageError": "duraq.errors",
    "StorageFailed": "duraq.errors",
    "StorageForked": "duraq.errors",
    "StorageHealthCheck": "duraq.health",
    "StorageReadOnly": "duraq.errors",
    "Thresholds": "duraq.attention",
    "UnsupportedVersion": "duraq.errors",
    "verify": "duraq.examining",
    "Where": "duraq.where",
    "Worker": "duraq.worker",
    "WorkersFailed": "duraq.errors",
    "WorkerStats": "duraq.tally",
    "WorkerView": "duraq.views",
}

_EXTRAS = {"LMDBStorage": "lmdb", "PostgresStorage": "postgres"}

# What ``from duraq import *`` brings: not what needs an extra, which may not be there, nor what would hide
# the ``open`` of Python.
__all__ = [
    "Act",
    "ActNotFound",
    "Attempt",
    "AttemptError",
    "CannotMigrate",
    "Cause",
    "Copied",
    "Counts",
    "DeadLetterQueue",
    "DuplicateEntry",
    "DuraqError",
    "EntryNotFound",
    "EntryStatus",
    "EntryView",
    "ExponentialBackoff",
    "FileStorage",
    "Finding",
    "FixedDelay",
    "GroupTooLarge",
    "HealthCheck",
    "HealthCheckAggregator",
    "HealthResult",
    "HealthStatus",
    "Inspector",
    "InvalidFilter",
    "InvalidInput",
    "InvalidOption",
    "InvalidPayload",
    "InvalidQueueName",
    "LeaseLost",
    "LeaseView",
    "MemoryStorage",
    "MetricsHealthCheck",
    "Migrated",
    "NetworkFileSystem",
    "NoRetry",
    "NoTransaction",
    "NotAStorage",
    "NotEmpty",
    "NotEnqueued",
    "NotLeased",
    "NotWritten",
    "OutcomeUnknown",
    "Pause",
    "PayloadTooLarge",
    "PayloadUndecodable",
    "Place",
    "Queue",
    "QueueEntry",
    "QueueError",
    "QueueFull",
    "QueueHealthCheck",
    "QueueManager",
    "QueueMetrics",
    "QueueNotFound",
    "QueueView",
    "RecordView",
    "Repaired",
    "Report",
    "RetryPolicy",
    "SQLiteStorage",
    "Sizes",
    "StorageBusy",
    "StorageClosed",
    "StorageDamaged",
    "StorageError",
    "StorageFailed",
    "StorageForked",
    "StorageHealthCheck",
    "StorageReadOnly",
    "Thresholds",
    "UnsupportedVersion",
    "Where",
    "Worker",
    "WorkerStats",
    "WorkerView",
    "WorkersFailed",
    "backup",
    "migrate",
    "repair",
    "restore",
    "run_processes",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'duraq' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(home), name)
    except ImportError as error:
        if name not in _EXTRAS:
            raise
        raise ImportError(
            f"{name}: pip install 'duraq[{_EXTRAS[name]}]' ({error})", name=error.name
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
