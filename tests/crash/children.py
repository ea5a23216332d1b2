"""Jobs for a child process, because they change it for good."""

import os
import select
import traceback
from contextlib import contextmanager

SOON = 60  # seconds; only so that a failing test ends


class Child:
    """A forked process that does a job, which is given the child: to ``say`` lines and to ``hear`` a word."""

    def __init__(self, job):
        self._ears, self._mouth = os.pipe()
        self.lines, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            self.lines = write
            try:
                job(self)
                status = 0
            except BaseException:  # noqa: BLE001 - it must not get back into pytest
                os.write(write, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(write)
        self.said = ""

    # in the child

    def say(self, line):
        os.write(self.lines, f"{line}\n".encode())

    def hear(self):
        os.read(self._ears, 1)

    # in its parent

    def go_on(self):
        os.write(self._mouth, b".")

    def listen(self, until=None):
        """Until it says that line, or to its end."""
        while until is None or f"{until}\n" not in self.said:
            if not select.select([self.lines], [], [], SOON)[0]:
                raise TimeoutError(self.said)
            more = os.read(self.lines, 1 << 16).decode()
            if not more:
                break
            self.said += more
        return self.said

    def end(self):
        """All that it said; it must have ended well."""
        said = self.listen()
        pid, self.pid = self.pid, 0
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
        return said

    def close(self):
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        for fd in (self._ears, self._mouth, self.lines):
            os.close(fd)


@contextmanager
def child(job):
    """Such a child; killed, if it is still there in the end."""
    made = Child(job)
    try:
        yield made
    finally:
        made.close()


def in_child(job):
    """What the job said; it must end well."""
    with child(job) as made:
        return made.end()
