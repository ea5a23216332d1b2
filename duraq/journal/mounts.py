"""On what file system a directory lies: flock and fsync promise nothing on those that a network is behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NETWORK = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {
        "nfs",
        "nfs3",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
    }
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system_type(path: str, mountinfo: str | None = None) -> str:
    """The type of the file system that holds ``path``, as in /proc/self/mountinfo; "" if not listed there.

    ``mountinfo`` is that file's text, to be given where it is not to be read.
    """
    real = os.path.realpath(path)
    text = (
        Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape") if mountinfo is None else mountinfo
    )
    best, found = -1, ""
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # >=: of two mounts on one point the later one lies on top.
        if inside and len(point) >= best:
            best, found = len(point), right.split(" ", 1)[0]
    return found


def is_network(file_system: str) -> bool:
    """Whether that type keeps its files elsewhere, or in a user-space program."""
    return file_system in _NETWORK or file_system.partition(".")[0] in {"fuse", "fuseblk"}
