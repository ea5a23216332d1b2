"""Stories about a storage that is there already: it is opened, asked, looked at, checked, compacted."""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from crash.failing import Call, FailingFileSystem, Failure
from crash.images import Image
from crash.stories import Story
from crash.test_power_cuts import QUEUES, SIZES, Model, Process, State

from duraq.clock import to_datetime
from duraq.errors import (
    NotAStorage,
    OutcomeUnknown,
    QueueError,
    StorageDamaged,
    StorageError,
    StorageFailed,
    UnsupportedVersion,
)
from duraq.failures import Gatherer
from duraq.health import HealthCheckAggregator, HealthStatus, StorageHealthCheck
from duraq.inspector import Inspector
from duraq.storage.file import FileStorage
from duraq.testing import FakeClock, MemoryFileSystem
from duraq.views import QueueView


class Onlooker(Story):
    """``image``: the storage."""

    def __init__(self, image: Image, failure: Failure) -> None:
        super().__init__(failure)
        self.image = image
        self.fs = FailingFileSystem(failure, image.disk())

    def seen(self, storage: FileStorage) -> State:
        """All but the queue that is refused, which is."""
        refused = self.image.refused
        if not refused:
            return super().seen(storage)
        with pytest.raises(StorageDamaged):
            storage.entries(refused)
        names = storage.queues
        storage.queues = lambda: [name for name in names() if name != refused]
        try:
            return super().seen(storage)
        finally:
            del storage.queues

    def check(self, storage: FileStorage, *allowed: Model) -> Model:
        refused = self.image.refused
        return super().check(storage, *({q: m for q, m in each.items() if q != refused} for each in allowed))


@dataclass(frozen=True)
class About:
    """That story about a storage as this leaves it."""

    story: type[Onlooker]
    image: Callable[[], Image]
    _made: list[Image] = field(default_factory=list)

    def __call__(self, failure: Failure) -> Onlooker:
        if not self._made:
            self._made.append(self.image())
        return self.story(self._made[0], failure)

    def may_fail(self, made: list[Call], failure: Failure) -> bool:
        return self.story.may_fail(made, failure)


class Open(Onlooker):
    """Somebody opens it."""

    def tell(self) -> None:
        self.fs.begin()
        with suppress(StorageError):
            try:
                day = timedelta(days=1)
                FileStorage(
                    "/storage", file_system=self.fs, sizes=SIZES, allow_network=True, history=day
                ).close()
            except (NotAStorage, UnsupportedVersion, StorageDamaged) as error:
                pytest.fail(f"{self.where}: {error!r}")
        self.check_closed()
        self.fs.heal()
        process = Process(self.fs)
        model = self.check(process.storage, *self.image.allowed)
        self.check_power_cut(model)
        process.storage.close()
        self.check_closed()


class Ask(Onlooker):
    """Somebody who has it open asks all that can be asked."""

    def tell(self) -> None:
        storage = Process(self.fs).storage
        self.fs.begin()
        answers = list(self.ask(storage))
        self.fs.heal()
        for given, wanted in zip(answers, self.ask(storage), strict=True):
            assert wanted is not None
            assert given in (wanted, None), self.where
        self.check(storage, *self.image.allowed)
        storage.close()
        self.check_closed()

    def ask(self, storage: FileStorage) -> Iterator[object]:
        """The answers; None for one that was refused."""
        yield self.answer(storage.queues)
        for queue in QUEUES:
            yield self.answer(storage.counts, queue)
            yield self.answer(storage.entries, queue)
            yield self.answer(storage.metrics, queue)
            yield self.answer(storage.get, queue, "5-0")

    def answer(self, ask: Callable[..., object], queue: str = "", *about: object) -> object:
        try:
            return ask(*([queue] if queue else []), *about)
        except QueueError as error:
            return str(error)
        except StorageError as error:
            if isinstance(error, StorageDamaged) and queue and queue == self.image.refused:
                return str(error)
            self.refused(error)
            return None


class Look(Onlooker):
    """The same is asked of an inspector, which takes no lock and writes nothing."""

    def tell(self) -> None:
        before = self.fs.files()
        self.fs.begin()
        answers: list[object] = []
        with suppress(StorageError), self.open() as inspector:
            answers = list(self.look(inspector))
        self.check_closed()
        self.fs.heal()
        with self.open() as inspector:
            whole = list(self.look(inspector))
        # Whoever may not look into a queue sees it as it lies there; his next look is refused.
        if self.failure.how != errno.EACCES:
            for given, wanted in zip(answers, whole, strict=bool(answers)):
                assert wanted is not None
                assert given in (wanted, None), self.where
        self.check_closed()
        assert self.fs.files() == before

    def open(self) -> Inspector:
        return Inspector("/storage", clock=FakeClock(), file_system=self.fs)

    def look(self, inspector: Inspector) -> Iterator[object]:
        yield self.answer(inspector.queues)
        for queue in QUEUES:
            yield self.answer(_overview, inspector, queue)
            yield self.answer(inspector.metrics, queue)
            yield self.answer(inspector.entries, queue)
            yield self.answer(inspector.life, "first-1", queue)
        yield self.answer(inspector.records)
        self.answer(inspector.refresh)
        for queue in QUEUES:
            yield self.answer(_overview, inspector, queue)

    def answer(self, ask: Callable[..., object], *about: object) -> object:
        try:
            return ask(*about)
        except StorageError as error:
            self.refused(error)
            return None


class LookAgain(Look):
    """The same of somebody who has looked before, and who watches what changes, and who works."""

    def __init__(self, image: Image, failure: Failure) -> None:
        super().__init__(image, failure)
        self.bookmarks: dict[str, bytes] = {}
        before = MemoryFileSystem(disk=self.fs._disk)
        with Inspector(
            "/storage", clock=FakeClock(), file_system=before, bookmarks=self.bookmarks
        ) as inspector:
            for queue in QUEUES:
                inspector.counts(queue)
        assert set(self.bookmarks) == set(QUEUES)

    def open(self) -> Inspector:
        # What cannot be gone on from is thrown away.
        return Inspector("/storage", clock=FakeClock(), file_system=self.fs, bookmarks=dict(self.bookmarks))

    def look(self, inspector: Inspector) -> Iterator[object]:
        yield self.answer(inspector.pulse)
        yield self.answer(inspector.changed)
        yield from super().look(inspector)
        # Where a look has failed, the next one finds more.
        self.answer(inspector.changed)
        self.answer(lambda: inspector.changed(thorough=False))
        failures = Gatherer(timedelta(days=7), to_datetime(inspector.clock.now()))
        for _ in range(2):
            self.answer(failures.read, inspector)
        # What they say of themselves is for people; where it cannot be read, it is left out.
        yield self.answer(lambda: [worker.id for worker in inspector.workers()])


def _overview(inspector: Inspector, queue: str) -> QueueView:
    view = inspector.overview(queue)
    if view.problem is not None:
        raise view.problem
    return view


class Compact(Onlooker):
    """Somebody removes what is over, from all queues."""

    def tell(self) -> None:
        process = Process(self.fs)
        storage = process.storage
        self.fs.begin()
        for queue in QUEUES:
            try:
                storage.compact(queue)
            except (OutcomeUnknown, StorageFailed):
                storage.close()
                self.check_closed()
                self.fs.heal()
                storage = process.open()
            except StorageError as error:
                self.refused(error)
        self.fs.heal()
        self.check(storage, *self.image.allowed)
        for queue in QUEUES:
            storage.compact(queue)
        self.check_power_cut(self.check(storage, *self.image.allowed))
        storage.close()
        self.check_closed()


class CompactFull(Compact):
    """The same on a full disk, on which there is space once the calls succeed again."""

    def __init__(self, image: Image, failure: Failure) -> None:
        super().__init__(image, failure)
        heal = self.fs.heal

        def make_room() -> None:
            heal()
            self.fs.capacity = None

        self.fs.heal = make_room


class Check(Onlooker):
    """Somebody checks whether it is well."""

    def tell(self) -> None:
        before = self.fs.files()
        self.fs.begin()
        check = StorageHealthCheck("/storage", min_free=0, file_system=self.fs)
        found = HealthCheckAggregator([check]).check_all()["storage"]
        # What cannot be seen of the queues is for those who check the queues; a short write is gone on with.
        if self.fs.struck and self.fs.struck.path.startswith("journal") and isinstance(self.failure.how, int):
            assert found.status is HealthStatus.UNHEALTHY, self.where
        self.check_closed()
        self.fs.heal()
        assert check.check().status is HealthStatus.HEALTHY, self.where
        assert self.fs.files() == before, self.where


class CheckInVain(Onlooker):
    """The same, while somebody has the lock and does not give it up."""

    def tell(self) -> None:
        with ExitStack() as opened:
            other = self.fs.process()
            root = other.open_root("/storage")
            other.lock(other.open_file(other.open_dir(root, "journal"), "lock"))
            opened.callback(other.die)
            self.fs.begin()
            check = StorageHealthCheck(
                "/storage", min_free=0, max_lock_wait=timedelta(0), file_system=self.fs
            )
            found = HealthCheckAggregator([check]).check_all()["storage"]
            assert found.status is HealthStatus.UNHEALTHY, self.where
        self.check_closed()
