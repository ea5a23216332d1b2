"""What a process does while its calls fail, and what must be true whatever becomes of them.

Of a story that is told with a failure: its caller is told in DuraQ's words, and in the right ones; what was
acknowledged is there, now and after a power cut; no descriptor and no lock is left behind; and once the calls
succeed again, everything works.
"""

import errno
from collections.abc import Iterator
from random import Random

import pytest
from crash.failing import NONE, Call, FailingFileSystem, Failure, Lead
from crash.test_power_cuts import Model, Process, State, difference, script, seen, told

from duraq.errors import NotWritten, OutcomeUnknown, StorageDamaged, StorageError, StorageFailed
from duraq.operations import Enqueue
from duraq.storage.file import FileStorage

SEED, STEPS = 1, 40
SYNCS = {"datasync", "sync"}


class Story:
    """``tell`` it once; what is not as it must be is an AssertionError."""

    def __init__(self, failure: Failure = NONE) -> None:
        self.failure = failure
        self.fs = FailingFileSystem(failure)

    def tell(self) -> None:
        raise NotImplementedError

    @classmethod
    def may_fail(cls, made: list[Call], failure: Failure) -> bool:
        """Whether the promises hold when that becomes of one of these calls."""
        return True

    @property
    def where(self) -> str:
        return f"{type(self).__name__}, {self.failure}, {self.fs.struck}"

    def seen(self, storage: FileStorage) -> State:
        return seen(storage)

    def check(self, storage: FileStorage, *allowed: Model) -> Model:
        """Which of these is in it."""
        found = self.seen(storage)
        for model in allowed:
            if found == told(model):
                return model
        pytest.fail(f"{self.where}: {difference(found, told(allowed[-1]))}")

    def check_power_cut(self, *allowed: Model) -> None:
        """Cut the power now: whatever is left of the disk, it opens in one of these states."""
        for fs in (self.fs.surviving(nothing=True), self.fs.power_cut(Random(self.where))):
            self.check(Process(fs).storage, *allowed)

    def check_closed(self) -> None:
        """Nothing is left behind."""
        assert (self.fs.opened, self.fs.locked) == ([], []), self.where

    def refused(self, error: StorageError) -> None:
        """Whoever only reads may be refused, but not by an accusation."""
        if isinstance(error, StorageDamaged):
            pytest.fail(f"{self.where}: {error!r}")


class Work(Story):
    """Everything that changes queues, by two processes in turn; the calls of the first fail."""

    PATIENCE = 3  # so many steps later a disk that went on failing works again
    LEAD: Lead | None = None
    PROCESS = Process

    def __init__(self, failure: Failure = NONE) -> None:
        super().__init__(failure)
        self.first = self.PROCESS(self.fs)
        self.second = self.PROCESS(self.fs.process(), clock=self.first.clock)
        self.model: Model = {}
        self.allowed: list[Model] = [{}]  # after a power cut

    def steps(self) -> Iterator[tuple[str, int, int]]:
        return script(SEED, STEPS)

    def tell(self) -> None:
        self.fs.lead = self.LEAD
        if self.LEAD is None:
            self.fs.begin()
        self.work()
        self.fs.heal()
        for process in (self.first, self.second):
            self.check(process.storage, self.model)
            process.storage.close()
        self.check_closed()
        self.check_power_cut(*self.allowed)

    def work(self) -> None:
        patience = self.PATIENCE
        for number, step in enumerate(self.steps()):
            self._do(self.second if number % 3 == 2 else self.first, step)
            if self.LEAD is not None and self.fs.begun:
                # Of what follows upon it only the first.
                self.fs.end()
            if self.fs.struck and patience:
                patience -= 1
                if patience in {0, self.PATIENCE - 1}:
                    self.check_power_cut(*self.allowed)
                if not patience:
                    self.fs.heal()

    def _do(self, process: Process, step: tuple[str, int, int]) -> None:
        process.model = self.model
        try:
            durable = process.do(step, "first-" if process is self.first else "second-")
        except NotWritten:
            self._refused(process)
        except (OutcomeUnknown, StorageFailed) as error:
            self._reopen(process.asked, unusable="written again first" not in str(error))
        except StorageError as error:
            # Reading failed, and with it what had to be read before anything could be leased.
            if step[0] != "claim":
                pytest.fail(f"{self.where}: {error!r}")
            self.refused(error)
            self._refused(process)
        else:
            self._now(process.model, durable=durable)

    def _now(self, model: Model, *, durable: bool = False) -> None:
        self.model = model
        self.allowed = [model] if durable else [*self.allowed, model]

    def _refused(self, process: Process) -> None:
        """It is absent; the other process sees that at once."""
        assert process is self.first, self.where
        assert self.fs.struck or self.LEAD, self.where
        try:
            self._now(self.check(self.second.storage, self.model))
        except StorageFailed:
            self._reopen(self.model)

    def _reopen(self, asked: Model, *, unusable: bool = True) -> None:
        """There wholly or not at all: which, is seen by opening the storage again, once the disk works.

        Or by the next call, where a sync could not even be begun.
        """
        single = not (self.failure.for_ever or self.LEAD)
        # Only a sync, what is asked behind it, or a disk that goes on failing, may make a storage unusable.
        by_a_sync = self.fs.struck and self.fs.struck.name in {*SYNCS, "has_name"}
        assert not single or not unusable or by_a_sync, self.where
        self.first.storage.close()
        self.check_closed()
        self.fs.heal()
        self.second.storage.close()
        self.first.storage, self.second.storage = self.first.open(), self.second.open()
        self._now(self.check(self.second.storage, self.model, asked))


class Leave(Work):
    """The same, when a sync of the journal has just failed: what is done about that fails as well."""

    LEAD = Lead("datasync", ".journal", 3, errno.EIO)

    @classmethod
    def may_fail(cls, made: list[Call], failure: Failure) -> bool:
        """A disk that takes nothing at all takes no mark either.

        Whoever opens the storage once it works again could not know that what the cache shows is nowhere
        else.
        """
        return not (failure.for_ever and made[failure.at - 1].name in {"pwrite", "lock"})


class Undo(Work):
    """The same, when a segment was just found to be full: what undoes the change fails as well."""

    LEAD = Lead("pwrite", ".jsonl", 5, errno.ENOSPC)


class GiveBack(Work):
    """The same, when there was no room for a line, so that something is given back for it."""

    LEAD = Lead("pwrite", ".jsonl", 7, errno.EDQUOT)


class UndoFrame(Work):
    """The same, when a part of a frame was written."""

    LEAD = Lead("pwrite", ".journal", 5, "half")


class GoOn(Work):
    """The same, when a part of the control block was written: the rest is not."""

    LEAD = Lead("pwrite", "lock", 5, "half")


class Derive(Work):
    """The same, when there was no room for an index."""

    LEAD = Lead("pwrite", ".index.tmp", 1, errno.ENOSPC)


class Keep(Work):
    """The same, when an index could not be synced."""

    LEAD = Lead("datasync", ".index", 1, errno.EIO)


class Feeder(Process):
    """Enqueues what nothing forbids, and so need not know what is in the queue."""

    def _new(self, salt: int, tag: str) -> Enqueue:
        made = super()._new(salt, tag)
        made.fresh = True
        return made


class FillUp(Work):
    """The same, when something was given back, and there is room for it again."""

    def steps(self) -> Iterator[tuple[str, int, int]]:
        yield from (("enqueue", 0, 37 * number) for number in range(6))

    def __init__(self, failure: Failure = NONE) -> None:
        super().__init__(failure)
        assert self.first.storage._log.give(OSError(errno.EDQUOT, "no space"), 0)


class Feed(Work):
    """Two processes that only enqueue, and somebody who waits for what they bring."""

    PROCESS = Feeder

    def steps(self) -> Iterator[tuple[str, int, int]]:
        yield from ((("enqueue", "many")[number % 5 == 0], 0, 37 * number) for number in range(24))

    def __init__(self, failure: Failure = NONE) -> None:
        super().__init__(failure)
        with self.first.storage._turn:
            self.first.storage._log.note_waiters(some=True)
