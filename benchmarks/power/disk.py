"""A disk that loses its power: a file system in a file, and an ioctl that makes the kernel forget."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.contender import Missing

KINDS = ("ext4", "xfs")
_MKFS = {"ext4": ("-q", "-F", "-b", "4096"), "xfs": ("-q", "-f")}
_PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}
_BYTES = 400 << 20  # XFS wants 300 MB at least; the file is sparse

# Both file systems have it: from then on nothing is written, whatever has not been, their logs included.
_FS_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


class Disk:
    """A file system of that kind in a loop device, mounted at ``mounted`` within a with-block.

    Raises Missing, with the reason, where there can be none.
    """

    def __init__(self, place: Path, kind: str, size: int = _BYTES) -> None:
        self.kind, self.mounted = kind, place / "disk"
        self._size = size
        self._image = place / "image"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise Missing("mounting a loop device needs root")
        self.mounted.mkdir(exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._size)
        try:
            _run(f"mkfs.{self.kind}", *_MKFS[self.kind], self._image)
            self.mount()
        except FileNotFoundError:
            raise Missing(f"mkfs.{self.kind} is not here: Debian's package {_PACKAGES[self.kind]}") from None
        except subprocess.CalledProcessError as error:
            raise Missing(f"cannot mount a loop device here: {error.stderr.decode().strip()}") from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unmount()

    def mount(self) -> None:
        # Between finding a free loop device and taking it somebody may be quicker, and there is nothing to
        # wait for but the next try.
        for _ in range(9):
            with suppress(subprocess.CalledProcessError):
                _run("mount", "-o", "loop", self._image, self.mounted)
                return
            time.sleep(0.1)
        _run("mount", "-o", "loop", self._image, self.mounted)

    def unmount(self) -> None:
        # What was killed a moment ago may not have let go of everything yet, and nobody tells when it has.
        for _ in range(50):
            if not subprocess.run(["umount", self.mounted], check=False, capture_output=True).returncode:
                return
            time.sleep(0.1)
        # A process of a run that failed still has files there; nothing of it may stay mounted.
        subprocess.run(["umount", "-l", self.mounted], check=False, capture_output=True)

    def sync(self) -> None:
        """Have everything written that was changed so far."""
        _run("sync", "--file-system", self.mounted)

    def cut_power(self) -> None:
        """What the file system has not written is gone, and it is of no use until the power is restored."""
        fd = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def restore_power(self) -> None:
        self.unmount()
        self.mount()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
