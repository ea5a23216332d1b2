"""A FileSystem in memory that keeps what a disk keeps, fails when told to, and can lose its power."""

from __future__ import annotations

import errno
from random import Random

from duraq.journal.filesystem import Mark, SomethingElse, Space
from duraq.testing.disk import Description, Directory, Disk, File, Node
from duraq.testing.faults import Crashed, FaultyProcess, WouldDeadlock, os_error
from duraq.testing.power_cut import Chance, Everything, Nothing, after_power_cut

_DEVICE = 1
_NO_LIMIT = 1 << 40


class MemoryFileSystem(FaultyProcess):
    """One process's view of a disk in memory; implements ``duraq.journal.filesystem.FileSystem``.

    ``process()`` gives another process on the same disk, with its own descriptors, locks, faults and counts.
    For tests of one thread.
    """

    def __init__(self, *, capacity: int | None = None, disk: Disk | None = None) -> None:
        super().__init__()
        self._disk = Disk(capacity) if disk is None else disk
        self._descriptions: dict[int, Description] = {}

    # What a test may do, beside planning faults

    def process(self) -> MemoryFileSystem:
        """Another process on the same disk; also after this one died."""
        return MemoryFileSystem(disk=self._disk)

    def die(self) -> None:
        """End this process like SIGKILL: descriptors closed, locks gone, the cache kept; later calls fail."""
        super().die()
        for fd in list(self._descriptions):
            self._forget(fd)

    def power_cut(self, rng: Random) -> MemoryFileSystem:
        """A disk that a power cut at this moment may leave, one of very many; this one is not changed."""
        return MemoryFileSystem(disk=after_power_cut(self._disk, Chance(rng)))

    def surviving(self, *, nothing: bool = False, everything: bool = False) -> MemoryFileSystem:
        """The extremes: a disk with nothing but what is durable, or with everything that the cache holds."""
        if nothing == everything:
            raise ValueError("either nothing survives beside what is durable, or everything does")
        return MemoryFileSystem(disk=after_power_cut(self._disk, Nothing() if nothing else Everything()))

    def drop_caches(self) -> None:
        """Read files from the disk again, so that what a failed sync lost is seen to be lost."""
        for _, file in self._disk.files():
            file.evict()

    def files(self) -> dict[str, bytes]:
        """Every file's path from the top of the disk, and its bytes as processes see them."""
        return {path: bytes(file.cache) for path, file in self._disk.files()}

    @property
    def opened(self) -> list[str]:
        """Paths of what this process has open."""
        return sorted(description.path for description in self._descriptions.values())

    @property
    def locked(self) -> list[str]:
        """Paths of what this process holds a lock on."""
        return sorted(each.path for each in self._descriptions.values() if each in each.node.locks)

    @property
    def capacity(self) -> int | None:
        """Size of the disk in bytes, None for no limit; names take no space."""
        return self._disk.capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self._disk.capacity = capacity

    @property
    def used(self) -> int:
        """Bytes that files take, those without a name but still open included."""
        return self._disk.used

    # Names

    def open_root(self, path: str, *, create: bool = False) -> int:
        self._check_alive()
        directory = self._disk.root
        missing = [part for part in path.split("/") if part not in {"", "."}]
        while missing and (node := directory.cache.get(missing[0])) is not None:
            directory = _existing_directory(node, path)
            del missing[0]
        self._begin("open_root", path, changes=create and bool(missing))
        if missing and not create:
            raise os_error(errno.ENOENT, path)
        for name in missing:
            parent, directory = directory, self._disk.add(directory, name, Directory)
            # As the contract has it: the caller has no descriptor of the parent to sync.
            parent.sync()
        return self._open(directory, ".")

    def open_dir(self, parent: int, name: str, *, create: bool = False) -> int:
        directory, path = self._entry(parent, name)
        node = directory.cache.get(name)
        creates = node is None and create
        self._begin("open_dir", path, changes=creates)
        if creates:
            node = self._disk.add(directory, name, Directory)
        if node is not None and not isinstance(node, Directory):
            raise SomethingElse(name, "it is no directory")
        return self._open(_existing_directory(node, path), path)

    def open_file(
        self,
        directory: int,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        writable: bool = True,
    ) -> int:
        parent, path = self._entry(directory, name)
        node = parent.cache.get(name)
        creates = node is None and (create or exclusive)
        self._begin("open_file", path, changes=creates)
        if creates:
            node = self._disk.add(parent, name, File)
        elif node is None:
            raise os_error(errno.ENOENT, path)
        elif exclusive:
            raise os_error(errno.EEXIST, path)
        elif isinstance(node, Directory):
            raise SomethingElse(name, "it is no regular file")
        return self._open(node, path, writable=writable)

    def close(self, fd: int) -> None:
        if self.is_dead:
            return  # what it had open has gone with it
        path = self._description(fd).path
        # Closed whether or not it fails: so does Linux.
        self._forget(fd)
        self._begin("close", path)

    def identity(self, fd: int) -> tuple[int, int]:
        description = self._description(fd)
        self._begin("identity", description.path)
        return _DEVICE, description.node.number

    def has_name(self, fd: int) -> bool:
        file, description = self._file(fd)
        self._begin("has_name", description.path)
        return any(each is file for _, each in self._disk.files())

    def mark(self, directory: int, path: str) -> Mark | None:
        node: Node | None
        node, parent = self._directory(directory)
        self._begin("mark", f"{parent}/{path}")
        for name in path.split("/"):
            if name == ".":
                continue
            node = node.cache.get(name) if isinstance(node, Directory) else None
        if node is None:
            return None
        # Time stands still here: of a directory its names tell whether it was changed.
        is_file = isinstance(node, File)
        length, about = len(node.cache), 0 if is_file else hash(tuple(sorted(node.cache)))
        return _DEVICE, node.number, length, about

    def space(self, fd: int) -> Space:
        self._begin("space", self._description(fd).path)
        total = _NO_LIMIT if self._disk.capacity is None else self._disk.capacity
        return Space(total, total - self._disk.used, 0, 0)

    def names(self, directory: int) -> list[str]:
        node, path = self._directory(directory)
        self._begin("names", path)
        return sorted(node.cache)

    def file_names(self, directory: int) -> list[str]:
        node, path = self._directory(directory)
        self._begin("file_names", path)
        return sorted(name for name, each in node.cache.items() if isinstance(each, File))

    def exists(self, directory: int, name: str) -> bool:
        parent, path = self._entry(directory, name)
        self._begin("exists", path)
        return name in parent.cache

    def rename(self, directory: int, old: str, new: str) -> None:
        parent, path = self._entry(directory, old)
        _, new_path = self._entry(directory, new)
        self._begin("rename", f"{path} -> {new_path}", changes=True)
        node, replaced = parent.cache.get(old), parent.cache.get(new)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if replaced is not None and isinstance(replaced, Directory) != isinstance(node, Directory):
            raise os_error(errno.EISDIR if isinstance(replaced, Directory) else errno.ENOTDIR, new_path)
        if isinstance(replaced, Directory) and replaced.cache:
            raise os_error(errno.ENOTEMPTY, new_path)
        if replaced is not node:
            self._disk.rename(parent, old, new)

    def unlink(self, directory: int, name: str) -> None:
        parent, path = self._entry(directory, name)
        self._begin("unlink", path, changes=True)
        node = parent.cache.get(name)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if isinstance(node, Directory):
            raise os_error(errno.EISDIR, path)
        self._disk.rename(parent, name, None)

    def rmdir(self, directory: int, name: str) -> None:
        parent, path = self._entry(directory, name)
        self._begin("rmdir", path, changes=True)
        node = parent.cache.get(name)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if not isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, path)
        if node.cache:
            raise os_error(errno.ENOTEMPTY, path)
        self._disk.rename(parent, name, None)

    # Bytes

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        file, description = self._file(fd)
        self._begin("pread", description.path)
        if offset < 0 or length < 0:
            raise os_error(errno.EINVAL, description.path)
        return bytes(file.cache[offset : offset + length])

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        file, description = self._file(fd)
        self._check_alive()
        try:
            short = self._begin("pwrite", description.path, len(data), changes=True)
        except Crashed:
            if self._tear:
                self._disk.write(file, bytes(data[: len(data) // 2]), offset)
            raise
        if not description.writable:
            raise os_error(errno.EBADF, description.path)
        if offset < 0:
            raise os_error(errno.EINVAL, description.path)
        written = self._disk.write(file, bytes(data[:short]), offset)
        if not written and data[:short]:
            raise os_error(errno.ENOSPC, description.path)
        return written

    def start_writing(self, fd: int, offset: int, length: int) -> None:  # noqa: ARG002 - the protocol's
        # Nothing to do: what is not synced may reach the disk at any time anyway.
        _, description = self._file(fd)
        self._begin("start_writing", description.path)

    def truncate(self, fd: int, length: int) -> None:
        file, description = self._file(fd)
        self._begin("truncate", description.path, length, changes=True)
        if not description.writable or length < 0:
            raise os_error(errno.EINVAL, description.path)
        self._disk.resize(file, length)

    def size(self, fd: int) -> int:
        file, description = self._file(fd)
        self._begin("size", description.path)
        return len(file.cache)

    def datasync(self, fd: int) -> None:
        self._sync("datasync", fd)

    def sync(self, fd: int) -> None:
        self._sync("sync", fd)

    def _sync(self, call: str, fd: int) -> None:
        description = self._description(fd)
        node = description.node
        try:
            self._begin(call, description.path, changes=True)
        except OSError as error:
            node.fail_sync(error.errno or errno.EIO)
            description.failures_seen = node.failures
            raise
        node.sync()
        if description.failures_seen < node.failures:
            # Opened before another description's sync failed: told once, although this sync did its work.
            description.failures_seen = node.failures
            raise os_error(node.error, description.path)

    # Locks, as flock has them: they belong to the open file description

    def lock(self, fd: int) -> None:
        self._wait_for_lock("lock", fd, exclusive=True)

    def share_lock(self, fd: int) -> None:
        self._wait_for_lock("share_lock", fd, exclusive=False)

    def try_lock(self, fd: int) -> bool:
        description = self._description(fd)
        self._begin("try_lock", description.path)
        return description.take_lock(exclusive=True)

    def unlock(self, fd: int) -> None:
        description = self._description(fd)
        self._begin("unlock", description.path)
        description.node.locks.pop(description, None)

    def _wait_for_lock(self, call: str, fd: int, *, exclusive: bool) -> None:
        description = self._description(fd)
        self._begin(call, description.path)
        if not description.take_lock(exclusive=exclusive):
            raise WouldDeadlock(
                f"{call}({description.path}) would wait for ever: another descriptor holds it"
            )

    # Descriptors

    def _open(self, node: Node, path: str, *, writable: bool = False) -> int:
        fd = next(self._disk.descriptors)
        self._descriptions[fd] = description = Description(node, path, writable)
        node.opened.add(description)
        return fd

    def _forget(self, fd: int) -> None:
        description = self._descriptions.pop(fd)
        description.node.locks.pop(description, None)
        description.node.opened.discard(description)
        self._disk.release(description.node)

    def _description(self, fd: int) -> Description:
        self._check_alive()
        try:
            return self._descriptions[fd]
        except KeyError:
            raise os_error(errno.EBADF, f"descriptor {fd}") from None

    def _directory(self, fd: int) -> tuple[Directory, str]:
        description = self._description(fd)
        if not isinstance(description.node, Directory):
            raise os_error(errno.ENOTDIR, description.path)
        return description.node, description.path

    def _file(self, fd: int) -> tuple[File, Description]:
        description = self._description(fd)
        if not isinstance(description.node, File):
            raise os_error(errno.EISDIR, description.path)
        return description.node, description

    def _entry(self, fd: int, name: str) -> tuple[Directory, str]:
        """The directory behind the descriptor, and the path of a name in it."""
        directory, path = self._directory(fd)
        if "/" in name or name in {"", ".", ".."}:
            raise ValueError(f"one name in a directory, not {name!r}")
        return directory, name if path == "." else f"{path}/{name}"


def _existing_directory(node: Node | None, path: str) -> Directory:
    if node is None:
        raise os_error(errno.ENOENT, path)
    if not isinstance(node, Directory):
        raise os_error(errno.ENOTDIR, path)
    return node
