"""The storage in memory belongs to the process that has made it."""

import subprocess
import sys

PROGRAM = """
import os, threading
from duraq import MemoryStorage, Queue, StorageForked

storage = MemoryStorage()
queue = Queue("jobs", storage)
queue.enqueue("only once")
in_turn, may_end = threading.Event(), threading.Event()

def hold():
    with storage._turn:
        in_turn.set()
        may_end.wait()

thread = threading.Thread(target=hold)
thread.start()
in_turn.wait()
child = os.fork()
if not child:
    for call in (queue.dequeue, lambda: queue.enqueue(1), queue.counts):
        try:
            call()
        except StorageForked:
            continue
        os._exit(1)
    storage.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
may_end.set()
thread.join()
print(os.waitstatus_to_exitcode(status), queue.dequeue().data)
"""


def test_after_a_fork():
    """A forked child that uses its copy is told so, whatever other threads did at the fork."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0 only once\n"
