"""The application's own statements in a transaction: then that is one of the database's, from there on.

Without them a transaction holds no lock until it commits. With them it is a turn that does not end before it:
all that is done in it, to the queues and by the application, is committed together, or never was.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from duraq import stack, transaction
from duraq.errors import DuraqError, InvalidOption, NotWritten
from duraq.operations import Release
from duraq.storage.fold import TryAgain
from duraq.storage.table import TableStorage
from duraq.transaction import Transaction

# A turn within a joined transaction.
_TURN = "duraq_turn"


class JoiningStorage(TableStorage):
    """A storage in a database that the application shares."""

    _joined: Transaction | None = None

    # -- what a subclass supplies ----------------------------------------------------------------------

    @abstractmethod
    def _set_savepoint(self, name: str) -> None: ...

    @abstractmethod
    def _release_savepoint(self, name: str) -> None: ...

    @abstractmethod
    def _roll_back_to(self, name: str) -> None:
        """Undo what was done since, and release it."""

    # -- joining ---------------------------------------------------------------------------------------

    def _join(self) -> None:
        """From here on the caller's transaction is the database's. Raises NoTransaction, InvalidOption."""
        begun = self._begun()
        if self._joined is begun:
            return
        if begun.is_a_tasks:
            raise InvalidOption(
                "the application's statements cannot be part of a task's transaction: another task that waits"
                " its turn would keep this one from ending it; do both in a thread, as by asyncio.to_thread"
            )
        self._begin_turn()
        self._joined = begun
        try:
            for number in range(begun.depth + 1):
                self._set_savepoint(_name(number))
        except BaseException as error:
            self._leave(commit=False)
            raise self._translated(error) from error

    def _is_joined(self) -> bool:
        """Whether the caller is in it."""
        return self._joined is not None and self._joined.owner == transaction.owner()

    def _leave(self, *, commit: bool) -> None:
        self._joined = None
        self._inside = 0
        try:
            if commit:
                self._check_joined()
                self._keep(always=True)
            else:
                self._discard()
        except TryAgain as error:
            # Only its caller could do again what he has done in it.
            raise NotWritten(
                "the database gave the transaction up", hint="nothing was written; begin it anew"
            ) from error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._turns.give(whole=True)

    def _left_early(self) -> None:
        if not self._is_joined() or self._joined is None:
            return
        if transaction.current(self) is not self._joined:
            self._leave(commit=False)
        elif not self._undo_to(_name(self._joined.depth + 1)):
            # What was done in the savepoint cannot be told from the rest: that is over too, as its end says.
            self._undo_to(_name(0))

    @contextmanager
    def _last_turn(self) -> Iterator[None]:
        """For closing: whatever was left of one, by a Ctrl-C or by a transaction, has not happened."""
        with self._turns.mine(anew=True):
            if self._is_unended and not stack.is_running(self._call):
                self._joined, self._inside = None, 0
                self._discard()
            yield

    def _check_joined(self) -> None:
        """Raise if it is not the same transaction any more: its owner has ended it, or it was lost."""
        try:
            self._release_savepoint(_name(0))
        except BaseException as error:
            self._discard()
            raise self._translated(error) from error

    def _is_within(self) -> bool:
        return self._is_joined()

    def _begin_within(self) -> None:
        if self._inside == 2:
            self._set_savepoint(_TURN)

    def _end_within(self, error: BaseException | None) -> None:
        if self._joined is None or self._inside != 1:
            return
        if error is None or isinstance(error, (DuraqError, TryAgain)):
            try:
                # So that what is read anew, should a later one fail, is as this one has left it.
                self._save_heads()
                self._release_savepoint(_TURN)
            except BaseException as worse:
                self._undo_to(_TURN)
                raise self._translated(worse) from worse
        else:
            self._undo_to(_TURN)
            raise self._translated(error) from error

    def _undo_to(self, name: str) -> bool:
        """Undo what was done since; False if that cannot be: then it is over, which its commit will say."""
        self._forget_seen()
        try:
            self._roll_back_to(name)
        except Exception as error:
            if not isinstance(error, DuraqError) and self._in_our_words(error, committing=False) is None:
                raise
            return False
        return True

    # -- the transaction's ends ------------------------------------------------------------------------

    def begin_transaction(self) -> None:
        """Begin one, or set a savepoint; see Storage."""
        super().begin_transaction()
        if self._is_joined():
            try:
                self._set_savepoint(_name(self._begun().depth))
            except BaseException as error:
                self._begun().roll_back()
                raise self._translated(error) from error

    def commit_transaction(self) -> None:
        """Commit what was done, or give up the last savepoint; see Storage."""
        if not self._is_joined():
            super().commit_transaction()
            return
        begun = self._begun()
        if begun.is_nested:
            try:
                self._release_savepoint(_name(begun.depth))
            except BaseException as error:
                self._give_up(begun.roll_back())
                raise self._translated(error) from error
            super().commit_transaction()
            return
        super().commit_transaction()
        try:
            self._leave(commit=True)
        except BaseException:
            super()._give_up(begun.roll_back())
            raise

    def _give_up(self, leases: Sequence[tuple[str, Release]]) -> None:
        if self._is_joined():
            begun = transaction.current(self)
            if begun is not None and begun is self._joined:
                self._undo_to(_name(begun.depth + 1))
            else:
                self._leave(commit=False)
        # Those that were taken since it joined are undone by that, and are found to be over.
        super()._give_up(leases)


def _name(number: int) -> str:
    return f"duraq_{number}"
