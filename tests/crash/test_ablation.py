"""The tests themselves: each safety step of the engine is taken out once, and some test must miss it.

Every day it is only seen that the steps are still where this list has them. In deep runs each is taken out in
a copy, and the tests named beside it are run there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from evidence import count

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
TOP = Path(__file__).parent.parent.parent
MINUTE = 60

CUTS = "tests/crash/test_power_cuts.py"
SWEEP = "tests/crash/test_compaction_sweep.py"


class Ablation(NamedTuple):
    """A step: in which file, what stands there, what instead, and which tests miss it."""

    name: str
    file: str
    step: str
    instead: str
    tests: tuple[str, ...]


STEPS = [
    Ablation(
        "the journal's sync",
        "journal/journal.py",
        "            self._fs.datasync(self.files[(standing.epoch - 1) & 1])\n"
        "        self._fs.datasync(self.files[standing.epoch & 1])\n",
        "            pass\n",
        (CUTS,),
    ),
    Ablation(
        "the sync of the file before",
        "journal/journal.py",
        "            self._fs.datasync(self.files[(standing.epoch - 1) & 1])\n",
        "            pass\n",
        (CUTS,),
    ),
    Ablation(
        "the segments' sync",
        "journal/recovery.py",
        "                    self._fs.datasync(fd)\n",
        "                    pass\n",
        (CUTS,),
    ),
    Ablation(
        "the sync of segments' names",
        "journal/recovery.py",
        "                sync_once(self._fs, fd)\n        finally:",
        "                pass\n        finally:",
        (CUTS, SWEEP),
    ),
    Ablation(
        "the sync before a rename",
        "journal/opening.py",
        "        sync_once(fs, fd)\n    finally:\n        fs.close(fd)\n    fs.rename(",
        "        pass\n    finally:\n        fs.close(fd)\n    fs.rename(",
        (CUTS,),
    ),
    Ablation(
        "the sync of the directory after a rename",
        "journal/opening.py",
        "    sync_once(fs, directory)\n\n\ndef sync_once",
        "    del directory\n\n\ndef sync_once",
        (CUTS, "tests/unit/test_recovery.py"),
    ),
    Ablation(
        "the order of a new storage's names",
        "journal/opening.py",
        "    fs.sync(root)\n    # Last, and durable",
        "    # Last, and durable",
        (CUTS,),
    ),
    Ablation(
        "the sync of a marker whose maker has died",
        "journal/log.py",
        "                opening.sync_once(self.fs, self.root)\n",
        "                pass\n",
        (CUTS,),
    ),
    Ablation(
        "the checksum of a record",
        "journal/record.py",
        "    if not line.endswith(_SUFFIX % crc32(line[:-SUFFIX_LENGTH])):\n",
        "    if not line.endswith(b'\"}\\n'):\n",
        ("tests/crash/test_damage.py",),
    ),
    Ablation(
        "the checksum of a frame",
        "journal/frame.py",
        "!= crc:\n        return None\n",
        "!= crc and False:\n        return None\n",
        (CUTS,),
    ),
    Ablation(
        "the token of a lease",
        "checks.py",
        "    if entry.token != token:\n",
        "    if entry.token > token + 1_000_000:\n",
        ("tests/contract/test_leases.py",),
    ),
    Ablation(
        "undoing a short write",
        "journal/tail.py",
        "            self._fs.truncate(self._files.get(segment), offset)\n",
        "            pass\n",
        ("tests/unit/test_surroundings.py", CUTS),
    ),
    Ablation(
        "wiping a frame that was taken back",
        "journal/journal.py",
        "        self.control.write(NOTHING)\n        self._wipe(now.start, now)\n",
        "        self.control.write(NOTHING)\n",
        (CUTS,),
    ),
    Ablation(
        "the mark of a file whose sync failed",
        "journal/failed_syncs.py",
        "        retrying(lambda: poison.mark(self._fs, directory, standing.epoch), give)\n",
        "",
        (CUTS,),
    ),
    Ablation(
        "the note that a file could not be prepared",
        "journal/recycling.py",
        "            self._log.fail_at_least()\n",
        "",
        (CUTS,),
    ),
    Ablation(
        "writing again what may have been dropped before we came",
        "journal/failed_syncs.py",
        "            self._write_again(self._doubted)\n",
        "            pass\n",
        ("tests/crash/test_unlucky_moments.py",),
    ),
    Ablation(
        "writing lines again if whoever synced them has died at it",
        "journal/recycling.py",
        "        if self._log.control.syncing:\n            self._write_again()\n",
        "",
        ("tests/crash/test_unlucky_moments.py",),
    ),
    Ablation(
        "giving up what a fork has brought along",
        "journal/log.py",
        "        self.forked = self.forked or not self.closed\n",
        "        return\n",
        ("tests/unit/test_lease.py", "tests/contract/test_processes.py", "tests/unit/test_surroundings.py"),
    ),
    Ablation(
        "a lease's entry being durable first",
        "storage/file.py",
        "    def _settle_to_read(self, position: int) -> int:\n",
        "    def _settle_to_read(self, position: int) -> int:\n        return 0\n",
        (CUTS, "tests/contract/test_dequeue.py", "tests/crash/test_unsynced_power_cut.py"),
    ),
    Ablation(
        "a drop being durable before its files go",
        "storage/compactor.py",
        "            self._log.settle(durable)\n",
        "            pass\n",
        (SWEEP,),
    ),
    Ablation(
        "completing the frame of somebody who died",
        "journal/log.py",
        "                retrying(lambda: Replay(self.fs, self.root).run([frame]), self.reserve.give)\n",
        "                pass\n",
        ("tests/unit/test_deep_neighbours.py", CUTS),
    ),
    Ablation(
        "wiping what is left over of a later epoch",
        "journal/log.py",
        "            self.journal.clear(found.newest)\n",
        "            pass\n",
        ("tests/crash/test_unlucky_moments.py", CUTS),
    ),
    Ablation(
        "convicting a journal that lacks what was durable",
        "journal/recovery.py",
        "        if later.epoch == header.epoch and later.synced > end:\n",
        "        if later.epoch == header.epoch and later.synced > end + (1 << 60):\n",
        ("tests/unit/test_recovery.py",),
    ),
    Ablation(
        "looking whether a lock file is still there once it is locked",
        "journal/lease.py",
        "or os.fstat(lock).st_nlink == 0:",
        "or False:",
        ("tests/unit/test_lease.py",),
    ),
    Ablation(
        "putting back what was kept of a refused queue",
        "examining.py",
        "        longer = refusal.put_back(view.fs, view.root, queue, known)\n",
        "        pass\n",
        ("tests/crash/test_repair.py", "tests/crash/test_damage.py"),
    ),
    Ablation(
        "the copy that a repair makes",
        "journal/repair.py",
        "                write_durably(fs, quarantine, rewrite.aside, before)\n",
        "                del before\n",
        ("tests/crash/test_repair.py",),
    ),
    Ablation(
        "noting a longer end before the segment is replaced",
        "journal/repair.py",
        "    if end > known:\n        note_end(end)\n",
        "",
        ("tests/crash/test_repair.py", "tests/crash/test_damage.py"),
    ),
    Ablation(
        "telling everybody that what is kept for a full disk was given back",
        "journal/reserve.py",
        "        self._note(short=True)\n        fs.truncate(",
        "        fs.truncate(",
        ("tests/unit/test_reserve.py",),
    ),
    Ablation(
        "leaving something to what removes segments",
        "journal/reserve.py",
        "        left = size - max(_HEAD, leave * piece)\n",
        "        left = size - _HEAD\n",
        ("tests/unit/test_reserve.py",),
    ),
]


def take_out(step: Ablation, copy: Path) -> None:
    """A copy of the project without that step."""
    for name in ("duraq", "tests", "benchmarks", "fixtures", "docs"):
        shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(TOP / name, copy / name)
    file = copy / "duraq" / step.file
    file.write_text(file.read_text("utf-8").replace(step.step, step.instead), "utf-8")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_step_is_there(step):
    """What is to be taken out stands in the engine, once."""
    assert (TOP / "duraq" / step.file).read_text("utf-8").count(step.step) == 1


@pytest.mark.skipif(not DEEP, reason="takes minutes; it is part of deep runs")
@pytest.mark.timeout(130 * MINUTE)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_some_test_misses_it(step, tmp_path):
    """Without the step, at least one of the tests that are named beside it fails."""
    take_out(step, tmp_path / "copy")
    # The everyday forms first, for they are quick; the deep ones look at every point instead of at a few.
    assert fails(step, tmp_path / "copy", deep="") or fails(step, tmp_path / "copy", deep="1")
    count("ablated")


def fails(step: Ablation, copy: Path, deep: str) -> bool:
    """Whether one of its tests fails in the copy; an end of any other kind is no verdict, and an error."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *step.tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": ".", "DURAQ_TEST_DEEP": deep},
        capture_output=True,
        text=True,
        timeout=60 * MINUTE,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout[-2000:]
    return done.returncode == 1
