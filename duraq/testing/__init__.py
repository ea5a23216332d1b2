"""Stand-ins for the clock and the disk, for tests of DuraQ and of what is built on it."""

from duraq.testing.clock import FakeClock
from duraq.testing.faults import Crashed, Fault, WouldDeadlock
from duraq.testing.killing_filesystem import KillingFileSystem
from duraq.testing.memory_filesystem import MemoryFileSystem

__all__ = ["Crashed", "FakeClock", "Fault", "KillingFileSystem", "MemoryFileSystem", "WouldDeadlock"]
