"""Stories about caring for a storage: it is verified, repaired, copied, and made of a copy."""

import errno
from contextlib import suppress

import pytest
from crash.failing import Call, Failure, Lead
from crash.onlookers import Onlooker
from crash.test_power_cuts import SIZES, Process, seen

from duraq import backup, repair, restore, verify
from duraq.errors import NotAStorage, StorageDamaged, StorageError
from duraq.examining import Report
from duraq.storage.file import FileStorage
from duraq.testing import FakeClock, MemoryFileSystem

STORAGE, COPY, AGAIN = "/storage", "/copy", "/again"


def damage(report: Report) -> list[str]:
    return sorted(f"{each.path} {each.byte} {each.what}" for each in report.findings if each.damage)


_WANTED: dict[int, object] = {}  # by image, of which there is one for all tellings of a story


class Verify(Onlooker):
    """Somebody asks whether it is sound."""

    def tell(self) -> None:
        before = self.fs.files()
        self.fs.begin()
        report = None
        # What cannot be read is not damage, but an error that says so.
        with suppress(OSError):
            report = verify(STORAGE, file_system=self.fs)
        self.check_closed()
        self.fs.heal()
        if report is not None:
            assert damage(report) == damage(verify(STORAGE, file_system=self.fs)), self.where
        assert self.fs.files() == before, self.where


class Mend(Onlooker):
    """Somebody repairs it."""

    def tell(self) -> None:
        self.fs.begin()
        with suppress(OSError, StorageError):
            repair(STORAGE, file_system=self.fs, clock=FakeClock())
        self.check_closed()
        self.fs.heal()
        for fs in (self.fs.surviving(nothing=True), self.fs.surviving(everything=True), self.fs):
            repair(STORAGE, file_system=fs, clock=FakeClock())
            assert verify(STORAGE, file_system=fs).sound, self.where
            assert self.kept(fs) == self.wanted, self.where
        self.check_closed()

    @property
    def wanted(self) -> object:
        """What is in it after a repair in which nothing fails."""
        if id(self.image) not in _WANTED:
            fs = MemoryFileSystem(disk=self.image.disk())
            repair(STORAGE, file_system=fs, clock=FakeClock())
            _WANTED[id(self.image)] = self.kept(fs)
        return _WANTED[id(self.image)]

    def kept(self, fs: MemoryFileSystem) -> object:
        process = Process(fs.process())
        try:
            return process.storage.queues(), seen(process.storage)
        finally:
            process.storage.close()


class Copying(Onlooker):
    """``make`` copies it to that path."""

    @classmethod
    def may_fail(cls, made: list[Call], failure: Failure) -> bool:
        """All but one: a copy's journal written byte by byte, four million times, takes all memory here."""
        path = made[failure.at - 1].path
        return not (failure.for_ever and failure.how == "1 byte" and path.endswith(".journal"))

    LEAD: Lead | None = None

    def make(self, path: str) -> None:
        raise NotImplementedError

    def tell(self) -> None:
        self.fs.lead = self.LEAD
        if self.LEAD is None:
            self.fs.begin()
        with suppress(OSError, StorageError):
            self.make(COPY)
        self.check_closed()
        self.fs.heal()
        # What is there is a whole copy, or no storage at all.
        for fs in (self.fs.surviving(nothing=True), self.fs.surviving(everything=True)):
            with suppress(NotAStorage):
                self.look(fs, COPY)
                assert verify(COPY, file_system=fs).sound, self.where
        self.make(AGAIN)
        self.look(self.fs, AGAIN)
        self.check_closed()

    def look(self, fs: MemoryFileSystem, path: str) -> None:
        storage = FileStorage(
            path, file_system=fs.process(), sizes=SIZES, create=False, allow_network=True, clock=FakeClock()
        )
        try:
            self.check(storage, *self.image.allowed)
        finally:
            storage.close()


class Back(Copying):
    """Somebody makes a backup of it."""

    def make(self, path: str) -> None:
        try:
            backup(STORAGE, path, file_system=self.fs)
        except StorageDamaged as error:
            pytest.fail(f"{self.where}: {error!r}")


class BackInVain(Back):
    """The same, when it has failed at its very end: what takes the copy away fails as well."""

    LEAD = Lead("sync", ".", 2, errno.EIO)  # of the directory, when the marker has its name


class Bring(Copying):
    """Somebody makes a storage of it, as of a copy; what it is made of is only read."""

    def tell(self) -> None:
        before = self.fs.files()
        super().tell()
        assert before.items() <= self.fs.files().items(), self.where

    def make(self, path: str) -> None:
        try:
            restore(STORAGE, path, file_system=self.fs)
        except StorageDamaged as error:
            pytest.fail(f"{self.where}: {error!r}")
