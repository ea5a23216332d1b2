"""No memory for an allocation, whichever, in the middle of a call: for that one, or for some in a row.

Each call is made by a child of its own. What has no memory may crash it (orjson does, and Python itself in
places): then it has died as any process may.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count as numbers
from pathlib import Path

import pytest
from crash.interrupting import Entries, Run, given_back, seen
from evidence import count

from duraq import transaction

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
STEP = 1 if DEEP else 67  # of the allocations, each so manyth
SHARES = 2 if DEEP else 1
LENGTHS = (1, 50) if DEEP else (1,)  # how many in a row find none
# After so many children in a row that noticed nothing there are no more allocations.
IDLE = 20 if DEEP else 2
KINDS = ("enqueue", "many", "take", "complete", "fail", "release", "transaction", "compact", "close", "open")
CRASHED = {-signal.SIGSEGV, -signal.SIGABRT}

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.version_info >= (3, 12), reason="CPython itself survives this only up to 3.11"),
]

Say = Callable[[str, object], None]


def make_call(root: Path, kind: str, at: int, length: int, say: Say) -> None:
    hooks = pytest.importorskip("_testcapi")
    run = Run(root)
    run.entries = run.do("many", 0)
    run.entries = run.do("take", 0)
    if kind == "open":
        run.entries = run.do("close", 0)
    run.asked = run.entries
    say("before", run.entries)
    raised: BaseException | None = None
    if at:
        hooks.set_nomemory(at, at + length)
    try:
        run.do(kind, 1)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is said once there is memory again
        raised = error
    hooks.remove_mem_hooks()
    name, raised = type(raised).__name__, None  # whose traceback keeps what is to go
    # Without memory for the call with which Python leaves the block, the thread is still in it.
    transaction.reset(())
    say("asked", run.asked)
    say("raised", name)
    if kind == "close":
        # Once more goes on with it.
        run.storage.close()
    run.after_interrupt(name)
    say("after", run.entries)
    run.storage.close()


def in_child(root: Path, kind: str, at: int, length: int) -> tuple[int, dict[str, object]]:
    """How it ended, and what it said until then."""
    output, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(60)  # one that hangs is killed by it
        status = 1
        try:
            make_call(root, kind, at, length, lambda *said: os.write(write, f"{json.dumps(said)}\n".encode()))
            status = 0
        except BaseException:  # noqa: BLE001 - it must not get back into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(output) as lines:
        said = dict(map(json.loads, lines))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def found_by_others(root: Path) -> Entries:
    run = Run(root)
    run.queue.settle_lapsed()
    try:
        return seen(run.queue)
    finally:
        run.storage.close()


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_allocation(tmp_path: Path, kind: str, length: int, share: int) -> None:
    """Without memory for any allocation a call is done or not; the storage knows, and so does the next."""
    status, said = in_child(tmp_path / "whole", kind, 0, 0)
    assert (status, said["raised"]) == (0, "NoneType")
    allowed = [given_back(said["before"]), given_back(said["asked"])]
    idle = 0
    for at in numbers(1 + share * STEP, SHARES * STEP):
        status, said = in_child(tmp_path / f"{at}", kind, at, length)
        where = f"{kind}, allocation {at}: {said.get('raised', status)}"
        assert status in {0, *CRASHED}, where
        found = found_by_others(tmp_path / f"{at}")
        assert found in allowed, where
        if status == 0:
            assert found == given_back(said["after"]), where
        if said.get("raised") != "NoneType":
            idle = 0
            count("interrupted")
        elif (idle := idle + 1) == IDLE:
            break
