"""The system calls of a real run: recorded with strace, read, and made again on a disk in memory.

What strace writes is in an order that may be relied on. A thread stands still from the moment at which strace
is told of its call until that is written down, and again when the call returns. So whatever one process can
have known of another's calls stands behind them. A call takes effect here when it returns; a sync covers what
had been written when it began.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from duraq.journal.filesystem import DIRECTORY_MODE, FILE_MODE
from duraq.testing.disk import Directory, Disk, File, Inode, Node

# All that change a file or a name, or make it durable, and more that could: those that are not understood
# below must not pass unseen. Not every machine has each of them, so each has a question mark.
CALLS = (
    "?open,?openat,?openat2,?creat,?mkdir,?mkdirat,?mknod,?mknodat,?rename,?renameat,?renameat2,?unlink,"
    "?unlinkat,?rmdir,?link,?linkat,?symlink,?symlinkat,?write,?writev,?pwrite64,?pwritev,?pwritev2,"
    "?truncate,?ftruncate,?fallocate,?copy_file_range,?sendfile,?splice,?fsync,?fdatasync,?sync,?syncfs,"
    "?sync_file_range,?msync"
)
SYNCS = {"fsync", "fdatasync"}
_HOLDING = SYNCS | {"pwrite64", "write", "ftruncate"}  # a descriptor, first of all
_LONGEST = 1 << 20  # bytes of one write

FIFO, DIRECTORY = "a FIFO", "a directory"
Tree = dict[str, bytes | str]

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian: apt-get install strace)"
)


def record(command: Sequence[str], trace: Path, said: Path) -> None:
    """Run it under strace; what it and its children say goes to ``said``."""
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", str(_LONGEST), "-o", str(trace)]
    with said.open("wb") as output:
        done = subprocess.run(
            [*strace, "-e", f"trace={CALLS}", "-e", "signal=none", *command],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if "ptrace" in done.stderr.lower() or "operation not permitted" in done.stderr.lower():
        pytest.skip(f"strace cannot follow a process here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


# Reading what strace has written


class Fd(NamedTuple):
    """A descriptor, by the path that its file had when the call began."""

    path: str
    removed: bool  # it had none any more


Argument = bytes | Fd | str


class Moment(NamedTuple):
    """A call begins, and ``result`` is None, or it has returned."""

    thread: int
    call: str
    arguments: list[Argument]
    result: int | None


_LINE = re.compile(r"(\d+) +(.*)")
_BEGINS = re.compile(r"(\w+)\((.*?)(?: <unfinished \.\.\.>)?$")
_RETURNS = re.compile(r"(.*)\) += (-?\d+)\b")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)$")
_ARGUMENT = re.compile(
    r'"(?P<text>[^"]*)"(?P<cut>\.\.\.)?'
    r"|(?:AT_FDCWD|\d+)<(?P<path>[^>]*)>(?P<removed>\(deleted\))?"
    r"|(?P<word>[^,\s]+)"
)
_HEX = re.compile(r"\\x([0-9a-f]{2})")
_DELETED = " (deleted)"


def moments(trace: Path) -> Iterator[Moment]:
    """All calls that were recorded: of each that it begins, and that it returns."""
    begun: dict[int, tuple[str, str]] = {}
    with trace.open(encoding="ascii") as lines:
        for line in lines:
            matched = _LINE.fullmatch(line.rstrip("\n"))
            assert matched is not None, line
            thread, rest = int(matched[1]), matched[2]
            if rest.startswith(("+++", "---")):
                continue
            if (resumed := _RESUMED.match(rest)) is not None:
                call, text = begun.pop(thread)
                assert call == resumed[1], line
                text += resumed[2]
            else:
                matched = _BEGINS.match(rest)
                assert matched is not None, line
                call, text = matched.groups()
                returned = _RETURNS.match(text)
                yield Moment(thread, call, _arguments(returned[1] if returned else text), None)
            returned = _RETURNS.match(text)
            if returned is None:
                begun[thread] = call, text
            else:
                yield Moment(thread, call, _arguments(returned[1]), int(returned[2]))
    assert not begun, begun


def _arguments(text: str) -> list[Argument]:
    found: list[Argument] = []
    for each in _ARGUMENT.finditer(text):
        assert not each["cut"], "longer than strace was told to record"
        if each["text"] is not None:
            found.append(_bytes(each["text"]))
        elif each["path"] is not None:
            path = _bytes(each["path"]).decode()
            removed = each["removed"] is not None or path.endswith(_DELETED)
            found.append(Fd(path.removesuffix(_DELETED), removed))
        else:
            found.append(each["word"])
    return found


def _bytes(text: str) -> bytes:
    return _HEX.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1")


# Making the calls again


class Replay:
    """A disk in memory on which recorded calls are made again; it holds what ``top`` held."""

    def __init__(self, top: Path) -> None:
        self.disk = Disk()
        self.fifos: set[int] = set()  # the numbers of those files that are
        self._top = str(top)
        # What a call that has begun is about, and what was not synced then.
        self._about: dict[int, tuple[Node, list]] = {}
        self._removed: dict[str, Node] = {}

    def make(self, moment: Moment) -> bool:
        """One moment; says whether it may have changed what a power cut leaves."""
        if not any(self._is_here(path) for path in _paths(moment)):
            return False
        if moment.result is None:
            if moment.call in _HOLDING:
                node = self._node(moment.arguments[0])
                self._about[moment.thread] = node, node.pending()
            return False
        if moment.result < 0:
            # It failed, as looking for what is not there does; a sync never did.
            assert moment.call not in SYNCS, moment
            self._about.pop(moment.thread, None)
            return False
        return self._make(moment, moment.result)

    def _make(self, moment: Moment, result: int) -> bool:
        arguments = moment.arguments
        match moment.call:
            case "openat":
                return self._open(arguments)
            case "mkdir" | "mkdirat":
                self._add(_named(moment)[-1], Directory)
            case "mknodat":
                assert "S_IFIFO" in arguments[2], moment
                self.fifos.add(self._add(_named(moment)[-1], File).number)
            case "unlinkat":
                assert arguments[2] == "0", moment
                self._rename(_named(moment)[-1], None)
            case "rename" | "renameat":
                self._rename(*_named(moment))
            case "pwrite64" | "write" | "ftruncate" | "fsync" | "fdatasync":
                self._change(moment, result)
            case _:
                pytest.fail(f"a call that nobody expected: {moment}")
        return True

    def _open(self, arguments: list[Argument]) -> bool:
        flags = str(arguments[2]).split("|")
        assert "O_TRUNC" not in flags, arguments
        path = _path(arguments[0], arguments[1])
        if "O_CREAT" not in flags or self._find(path) is not None:
            return False
        self._add(path, File)
        return True

    def _change(self, moment: Moment, result: int) -> None:
        """What is done with an open file."""
        node, pending = self._about.pop(moment.thread)
        if moment.call in SYNCS:
            node.finish_sync(pending)
            return
        assert isinstance(node, File)
        if moment.call == "ftruncate":
            self.disk.resize(node, int(str(moment.arguments[1])))
        elif node.number not in self.fifos:
            data, offset = moment.arguments[1], len(node.cache)
            if moment.call == "pwrite64":
                offset = int(str(moment.arguments[3]))
            assert isinstance(data, bytes)
            self.disk.write(node, data[:result], offset)

    def _add(self, path: str, kind: type[Directory | File]) -> Node:
        directory, name = self._place(path)
        return self.disk.add(directory, name, kind)

    def _rename(self, old: str, new: str | None) -> None:
        directory, name = self._place(old)
        self._removed[old] = directory.cache[name]
        if new is None:
            self.disk.rename(directory, name, None)
            return
        other, new_name = self._place(new)
        assert other is directory, new
        if new_name in directory.cache:
            self._removed[new] = directory.cache[new_name]
        self.disk.rename(directory, name, new_name)

    def _node(self, fd: Argument) -> Node:
        assert isinstance(fd, Fd)
        # That it was removed may be said before the call that does it has returned.
        node = self._removed.get(fd.path) if fd.removed else None
        node = node or self._find(fd.path)
        assert node is not None, fd
        return node

    def _is_here(self, path: str) -> bool:
        return path == self._top or path.startswith(self._top + "/")

    def _find(self, path: str) -> Node | None:
        if path == self._top:
            return self.disk.root
        directory, name = self._place(path)
        return directory.cache.get(name)

    def _place(self, path: str) -> tuple[Directory, str]:
        *parents, name = path.removeprefix(self._top + "/").split("/")
        directory: Inode = self.disk.root
        for parent in parents:
            directory = directory.cache[parent]
        assert isinstance(directory, Directory)
        return directory, name


def _paths(moment: Moment) -> list[str]:
    """Every path that a call names, by a descriptor, or by a name in a directory."""
    return [each.path for each in moment.arguments if isinstance(each, Fd)] + _named(moment)


def _named(moment: Moment) -> list[str]:
    """Those by a name."""
    if moment.call in _HOLDING:
        return []  # the bytes are no names
    paths = []
    directory: Argument = Fd("/", removed=False)
    for argument in moment.arguments:
        if isinstance(argument, Fd):
            directory = argument
        elif isinstance(argument, bytes):
            paths.append(_path(directory, argument))
    return paths


def _path(directory: Argument, name: Argument) -> str:
    assert isinstance(directory, Fd)
    assert isinstance(name, bytes)
    return str(Path(directory.path, name.decode()))


def on_disk(disk: Disk, fifos: set[int]) -> Tree:
    """Every path on a disk, and what is there: bytes, or a word for what has none."""
    found: Tree = {}
    directories = [("", disk.root)]
    while directories:
        prefix, directory = directories.pop()
        for name, node in directory.cache.items():
            if isinstance(node, Directory):
                found[prefix + name] = DIRECTORY
                directories.append((f"{prefix}{name}/", node))
            else:
                found[prefix + name] = FIFO if node.number in fifos else bytes(node.cache)
    return found


def really(top: Path) -> Tree:
    """The same of a real directory."""
    found: Tree = {}
    for path in top.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            found[str(path.relative_to(top))] = path.read_bytes()
        else:
            found[str(path.relative_to(top))] = DIRECTORY if stat.S_ISDIR(mode) else FIFO
    return found


def materialise(tree: Tree, top: Path) -> None:
    """Make a real directory of it."""
    for path, content in sorted(tree.items()):
        if isinstance(content, bytes):
            (top / path).write_bytes(content)
            (top / path).chmod(FILE_MODE)
        elif content == DIRECTORY:
            (top / path).mkdir(DIRECTORY_MODE)
        else:
            os.mkfifo(top / path, FILE_MODE)
