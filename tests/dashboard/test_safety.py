"""Looking changes nothing: no key does by itself, and who may only read makes no call that could."""

import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pressing
import pytest
from buried import bury, tree
from duraq_dashboard.app import Dashboard
from duraq_dashboard.source import StorageSource

from duraq import FileStorage, Queue

pytestmark = pytest.mark.anyio
# Calls that change something whatever their arguments are; open only does if it may write or make a file.
CHANGES = (
    "?creat,?mkdir,?mkdirat,?mknod,?mknodat,?rename,?renameat,?renameat2,?unlink,?unlinkat,?rmdir,?link,?linkat,"
    "?symlink,?symlinkat,?truncate,?ftruncate,?fallocate,?chmod,?fchmod,?fchmodat,?fchmodat2,?chown,?fchown,"
    "?fchownat,?setxattr,?fsetxattr,?utimensat,?write,?writev,?pwrite64,?pwritev,?pwritev2,?copy_file_range,"
    "?sendfile"
)
OPENS = "?open,?openat,?openat2"
MAY_WRITE = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC|APPEND)")


@pytest.fixture
def lived_in(tmp_path):
    """A storage with entries in all states, a lease past its deadline among them; and some entries' ids."""
    root = tmp_path / "storage"
    dead = bury(root, *({"n": number} for number in range(5)))
    with FileStorage(root) as storage:
        mail = Queue("mail", storage, lock_duration=timedelta(milliseconds=1))
        leased = mail.enqueue({"leased": True})
        mail.dequeue()
        mail.enqueue({"ready": True})
        mail.enqueue({"later": True}, delay=timedelta(days=1))
        mail.pause("for the test")
    return root, [dead[0], leased]


async def test_no_key_changes_anything(lived_in):
    """Every key that is bound, pressed once on every screen, leaves every file as it was."""
    root, entries = lived_in
    before = tree(root)
    async with Dashboard(StorageSource(root)).run_test(size=(120, 36)) as pilot:
        assert await pressing.press_everything(pilot, entries) > 70
    assert tree(root) == before


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_read_only_makes_no_call_that_changes(lived_in, tmp_path):
    """Read-only, no system call writes, makes, renames, cuts or removes a file of the storage."""
    root, entries = lived_in
    trace = tmp_path / "trace"
    program = [sys.executable, pressing.__file__, str(root), *entries]
    path = os.pathsep.join([str(Path(pressing.__file__).parent), *sys.path])
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-y", "-o", trace, "-e", f"trace={OPENS},{CHANGES}", *program],
        env=os.environ | {"PYTHONPATH": path, "XDG_STATE_HOME": str(tmp_path / "state")},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr.lower() or "operation not permitted" in done.stderr.lower():
        pytest.skip(f"strace cannot follow a process here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    about_it = [line for line in trace.read_text(errors="replace").splitlines() if str(root) in line]
    opened = [line for line in about_it if "open" in line.partition("(")[0]]
    assert len(opened) > 10
    changing = [line for line in about_it if line not in opened or MAY_WRITE.search(line)]
    assert changing == []
