"""What to do when a sync of the journal fails, and when one may have failed that nobody has told us of.

The kernel reports a failed sync once, to one descriptor, and drops the data: the next sync of that file would
lie. But the segments hold what the journal holds. They are synced instead, and everything goes on in the
other journal file; the one that was left is marked. If that fails too, nobody can say what survives: nothing
is accepted any more, from anyone, until the storage was closed everywhere and is opened again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from duraq.errors import OutcomeUnknown, StorageError
from duraq.journal import poison
from duraq.journal.control import Standing
from duraq.journal.reserve import retrying

if TYPE_CHECKING:
    from duraq.journal.log import Log

log = logging.getLogger("duraq")


class FailedSyncs:
    """One process's part in it."""

    def __init__(self, journal_log: Log) -> None:
        self._log = journal_log
        self._fs = journal_log.fs
        self._failed = False  # a sync failed and could not be made good
        # From where on the journal may be nowhere but in the cache; None: our own syncs would have said so.
        self._doubted: int | None = None

    @property
    def failed(self) -> bool:
        """Whether a sync of ours has failed and could not be made good."""
        return self._failed

    # -- without the lock ------------------------------------------------------------------------------

    def before_sync(self) -> None:
        """Raise OutcomeUnknown if a sync would lie; make sure that our first one does not."""
        if self._failed:
            raise OutcomeUnknown("an earlier sync failed and could not be made good", path=self._log.path)
        if self._doubted is not None:
            self._write_again(self._doubted)

    def make_good(self, failed: Standing, error: OSError) -> int:
        """After a sync of this standing has failed: returns up to which position all is durable.

        Raises OutcomeUnknown if that could not be made so.
        """
        log.error("syncing the journal failed (%s); leaving the file for the other one", error)
        # Until it is made good, whatever comes between: the next sync of that file would lie.
        self._failed = True
        try:
            with self._log.recycling.alone():
                self._log.lock()
                try:
                    reached = self._make_durable(failed)
                except (OSError, StorageError):
                    self.fail()
                    raise
                finally:
                    self._log.unlock()
        except (OSError, StorageError) as worse:
            self._log.fail_at_least()
            raise OutcomeUnknown(
                f"the journal could not be synced ({error}), nor its lines elsewhere ({worse})",
                path=self._log.path,
                hint="the change is there wholly or not at all; close and reopen the storage to see",
            ) from error
        self._failed = False
        # It may have been the file before, which was given its next header meanwhile: by somebody who has
        # died of the same news, and of whose header no sync will say any more that it was dropped.
        self._doubted = failed.base
        return reached

    def _write_again(self, since: int) -> None:
        """Before our first sync: have it write whatever no sync is known to have written.

        One may have failed before we opened the files, and its process have died before it could note that.
        The kernel has told nobody else, and would pass over what it dropped.
        """
        try:
            self._log.lock()
            try:
                self._log.journal.write_again(since)
            finally:
                self._log.unlock()
        except (OSError, StorageError) as error:
            raise OutcomeUnknown(
                f"what is to be synced could not be written again first ({error})", path=self._log.path
            ) from error
        self._doubted = None

    # -- under the lock --------------------------------------------------------------------------------

    def doubt_from(self, position: int) -> None:
        """Behind it, nobody is known to have synced; the first that is said counts."""
        if self._doubted is None:
            self._doubted = position

    def fail(self) -> None:
        """Nothing is accepted any more, from anyone, until the storage is reopened."""
        self._failed = True
        self._log.control.write(self._log.journal.standing._replace(failed=1))

    def fail_at_all_costs(self) -> None:
        """The same, tried twice: whoever opens the storage later has no other sign of it."""
        try:
            self.fail()
        except OSError:
            # It is the disk that is in trouble already, and perhaps only for a moment.
            with suppress(OSError):
                self.fail()

    def is_poisoned(self, epoch: int) -> bool:
        """Whether a sync of that epoch's file has failed."""
        return poison.poisoned(self._fs, self._log.directory, self._log.journal.standing.epoch) == epoch

    def leave_file(self, standing: Standing, *, afresh: bool = False) -> None:
        """Make all frames durable through the segments and go over to the other file.

        The one place that syncs under the lock: nothing may be added to a file that is being left, and
        nobody may be told anything before this is done.
        """
        directory, give = self._log.directory, self._log.reserve.give
        retrying(lambda: poison.mark(self._fs, directory, standing.epoch), give)
        self.go_over(standing, afresh=afresh)

    def go_over(self, standing: Standing, *, afresh: bool) -> None:
        """The same, if nothing is wrong with the file. ``afresh``: whatever the other one says of itself."""
        recycling, journal = self._log.recycling, self._log.journal
        touched = recycling.touched(standing.epoch - 1) | recycling.touched(standing.epoch)
        recycling.make_durable(touched, standing.base + journal.capacity)
        if afresh or journal.try_header(standing.epoch + 1) is None:
            journal.prepare(standing, self._log.sizes.journal)
        journal.go_over_now()  # and with it, that all before is durable

    def _make_durable(self, failed: Standing) -> int:
        """Make durable, through the segments, what the file holds whose sync has failed.

        Returns up to which position.
        """
        journal, recycling = self._log.journal, self._log.recycling
        standing = journal.standing
        if standing.epoch == failed.epoch:
            self.leave_file(standing)
        elif not self.is_poisoned(failed.epoch):
            # Others have filled the file meanwhile, and know nothing.
            recycling.make_durable(recycling.touched(failed.epoch), standing.base)
            standing = journal.standing
            self._log.control.write(standing._replace(synced=max(standing.synced, standing.base)))
        return journal.standing.base
