"""Where the figures were measured."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from pathlib import Path

# Nothing there is durable, so nothing measured there says what durability costs.
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def file_system(directory: Path) -> str:
    """Type of the file system that holds the directory, from the table of mounts."""
    return type_of_mount(directory.resolve(), Path("/proc/self/mountinfo").read_text())


def type_of_mount(directory: Path, mountinfo: str) -> str:
    """Type of the deepest mount above the directory; of two on one point the later covers the earlier."""
    deepest, found = -1, "unknown"
    for line in mountinfo.splitlines():
        # 27 1 254:0 / /mnt\040point rw,relatime shared:1 - ext4 /dev/vda rw
        left, right = line.split(" - ", 1)
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4]))
        if len(point.parts) >= deepest and directory.is_relative_to(point):
            deepest, found = len(point.parts), right.split()[0]
    return found


def describe(directory: Path) -> dict[str, str]:
    return {
        "cpus": f"{os.cpu_count()}, {_processor()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "file system": file_system(directory),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1] if model else platform.machine()
