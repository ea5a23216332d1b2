"""Several queues, one after the other: one that cannot be read keeps out only itself, and is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from duraq.cli.failing import Code, code_of_several
from duraq.cli.options import Settings
from duraq.cli.reports import report
from duraq.errors import StorageError
from duraq.inspector import Inspector

T = TypeVar("T")


class Several:
    """These queues, or all. ``problems``: what kept any of them from being read; known once all were."""

    def __init__(self, inspector: Inspector, queues: Sequence[str] = ()) -> None:
        """Raises QueueNotFound if one that is named is not there."""
        for name in queues:
            inspector.check_queue(name)
        self.names = list(queues) or inspector.queues()
        self.problems: list[StorageError] = []

    def each(self, read: Callable[[str], Iterable[T]]) -> Iterator[T]:
        """What is read of each of them. If there is but one, what is wrong with it is raised, and at once."""
        return iter(read(self.names[0])) if len(self.names) == 1 else self._one_by_one(read)

    def _one_by_one(self, read: Callable[[str], Iterable[T]]) -> Iterator[T]:
        for name in self.names:
            try:
                yield from read(name)
            except StorageError as error:
                self.problems.append(error)

    def conclude(self, said: Settings) -> Code:
        """Name those that could not be read, each with the way out; the exit code."""
        for problem in self.problems:
            report(said, problem)
        return code_of_several(self.problems)
