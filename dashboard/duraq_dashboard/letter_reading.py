"""Dead letters in full, read as they come to be seen: lines of a list, names of groups, the life of one.

Knows no Textual.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from duraq.dead_index import ErrorKind
from duraq.views import EntryView, RecordView
from duraq_dashboard.dead_rows import LetterLine, name_of
from duraq_dashboard.letters import Group, Letters, fetch
from duraq_dashboard.questions import Questions
from duraq_dashboard.rows import Key

_KEPT = 2000  # letters whose lines are kept; without their payloads


class LetterReading:
    """What was read so far. ``failed``: called if a question could not be answered.

    ``names``: of causes, by what somebody died of it.
    """

    def __init__(self, questions: Questions, failed: Callable[[Exception], None]) -> None:
        self.names: dict[ErrorKind, str] = {}
        self._asked = questions
        self._failed = failed
        self._lines: OrderedDict[int, LetterLine] = OrderedDict()

    def read(
        self, name: str, letters: Letters, keys: Sequence[int], then: Callable[[dict[int, EntryView]], None]
    ) -> None:
        """Read the letters of these keys; a later question of that name takes the place of this one."""
        self._asked.ask(name, lambda inspector, _: fetch(inspector, letters, keys), then, self._failed)

    def lines(self, keys: Iterable[Key]) -> Mapping[int, LetterLine]:
        """Those that are known."""
        return {key: self._lines[key] for key in keys if isinstance(key, int) and key in self._lines}

    def read_lines(
        self, letters: Letters, keys: Sequence[int], then: Callable[[Mapping[int, LetterLine]], None]
    ) -> None:
        """Read these anew."""

        def keep(views: Mapping[int, EntryView]) -> None:
            # Payloads may be long, and are read again for whoever wants to see one.
            self._lines.update((key, LetterLine.of(view)) for key, view in views.items())
            while len(self._lines) > _KEPT:
                self._lines.popitem(last=False)
            then(self.lines(views))

        self.read(f"rows {keys[0]}", letters, keys, keep)

    def read_names(self, letters: Letters, groups: Iterable[Group], then: Callable[[], None]) -> None:
        """Name these groups after what died last in each."""
        keys = {letters.key(group.newest): group.cause for group in groups}
        if not keys or self._asked.is_open("names"):
            return

        def keep(views: Mapping[int, EntryView]) -> None:
            self.names.update((cause, cause.type) for cause in keys.values())
            self.names.update((keys[key], name_of(view)) for key, view in views.items())
            then()

        self.read("names", letters, list(keys), keep)

    def read_life(self, view: EntryView, then: Callable[[Sequence[RecordView]], None]) -> None:
        """Read every record of that letter."""
        self._asked.ask("life", lambda inspector, _: inspector.life(view.id, view.queue), then, self._failed)
