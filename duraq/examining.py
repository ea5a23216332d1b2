"""Whether everything in a storage is as it was written: all of it is read, and nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from duraq.errors import NotAStorage, QueueNotFound, StorageDamaged
from duraq.journal import checkpoint, ends, opening, reading, refusal, segment
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem, NotOurs, content, opened
from duraq.journal.index import BadIndex
from duraq.journal.lines import Lines
from duraq.journal.overlay import Overlay
from duraq.journal.reading import ReaderFileSystem, View
from duraq.journal.salvage import Salvage
from duraq.journal.survey import Found, Stretch, Survey
from duraq.model import MARKER

# What changes while it is read can look damaged; damage that is real stays.
_ATTEMPTS = 4
_PAUSE = 0.05  # seconds
_BLOCK = 4096


class Finding(NamedTuple):
    """Something that is not as it was written, or not as it should be.

    ``path`` is relative to the storage; ``line`` counts from 1, ``byte`` from 0, ``length`` is in bytes. So
    many ``records`` are lost by it; ``ids`` are the entries that it concerns, as far as can be told. What
    mends itself, or harms nothing, is no ``damage``.
    """

    queue: str | None
    path: str
    line: int | None
    byte: int | None
    length: int
    what: str
    records: int = 0
    ids: tuple[str, ...] = ()
    damage: bool = True


@dataclass
class Report:
    """What ``verify`` has found: how much was read, what is wrong, and what that means by queue.

    ``lost`` are entries that nothing is left of, ``doubtful`` those that are there, but perhaps as they were
    before: delivered again, say, though they were completed.
    """

    records: int = 0
    bytes: int = 0
    queues: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)
    doubtful: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.damage for finding in self.findings)

    def check(self, path: str, hint: str) -> None:
        """Raise the first damage that was found in that storage, as StorageDamaged."""
        for finding in self.findings:
            if finding.damage:
                raise StorageDamaged(
                    finding.what,
                    path=f"{path}/{finding.path}",
                    line=finding.line,
                    byte=finding.byte,
                    hint=hint,
                )


def verify(
    path: str | os.PathLike[str],
    queues: Iterable[str] | None = None,
    *,
    file_system: FileSystem | None = None,
) -> Report:
    """Read every record of these queues, or of all, and the journal; say what is not as it was written.

    Opens files read-only, takes no lock, writes nothing, and may run beside everything else. It takes memory
    for each entry that is in a queue. Raises NotAStorage, QueueNotFound, UnsupportedVersion, or OSError for
    what may not be read.
    """
    fs = file_system or ReaderFileSystem()
    root = open_root(fs, str(Path(path).absolute()))
    try:
        report = Report()
        view = _look(fs, root, str(path), report)
        for queue in chosen(view, queues):
            _verify_queue(view, queue, report)
        return report
    finally:
        fs.close(root)


def open_root(fs: FileSystem, path: str) -> int:
    try:
        root = fs.open_root(path)
    except FileNotFoundError:
        raise NotAStorage("there is no such directory", path=path) from None
    except NotADirectoryError:
        raise NotAStorage("not a directory", path=path) from None
    try:
        is_one = fs.exists(root, MARKER) or fs.exists(root, "journal")
    except BaseException:
        fs.close(root)
        raise
    if not is_one:
        fs.close(root)
        raise NotAStorage("not a DuraQ storage", path=path, hint="there is no duraq.json in it")
    return root


def _look(fs: FileSystem, root: int, path: str, report: Report) -> View:
    """The storage brought to rest in memory; as it is, if the journal is damaged."""
    try:
        opening.check_marker(fs, root, path)
    except (NotAStorage, FileNotFoundError) as error:
        report.findings.append(Finding(None, MARKER, None, 0, 0, f"the marker is not readable: {error}"))
    try:
        view = reading.look(fs, root)
    except StorageDamaged as error:
        report.findings.append(_of_error(None, error))
        return View(fs, root, settled=True, damaged={})
    if not view.settled and not view.damaged:
        what = "the storage was not left in an orderly way; whoever opens it next brings it to rest"
        unlike = list(_unlike_the_journal(fs, root, view))
        report.findings += unlike or [Finding(None, "journal", None, None, 0, what, damage=False)]
    return view


def _unlike_the_journal(fs: FileSystem, root: int, view: View) -> Iterator[Finding]:
    """Segments with other bytes than the journal has for them; of one that is only shorter, none."""
    assert isinstance(view.fs, Overlay)
    for path, meant in view.fs.files():
        queue, _, rest = path.partition("/")
        if rest.startswith("segments/") and rest.endswith(segment.SUFFIX):
            found = _read(fs, root, path)
            byte = _first_difference(found, meant)
            if byte < min(len(found), len(meant)):
                what = "it differs there from the journal, by which whoever opens it next makes it good"
                line = meant.count(b"\n", 0, byte) + 1
                yield Finding(queue, path, line, byte, 0, what, damage=False)


def _read(fs: FileSystem, root: int, path: str) -> bytes:
    """The file as it is; nothing if it is not there."""
    queue, directory, name = path.split("/")
    try:
        with opened(fs, root, queue) as home, opened(fs, home, directory) as segments:
            return content(fs, segments, name)
    except FileNotFoundError:
        return b""


def _first_difference(one: bytes, other: bytes) -> int:
    for start in range(0, min(len(one), len(other)), _BLOCK):
        if one[start : start + _BLOCK] != other[start : start + _BLOCK]:
            pairs = zip(one[start : start + _BLOCK], other[start : start + _BLOCK], strict=False)
            return start + next((at for at, (this, that) in enumerate(pairs) if this != that), _BLOCK)
    return min(len(one), len(other))


def chosen(view: View, queues: Iterable[str] | None) -> list[str]:
    """These queues, or all, those among them that are known only by what is missing of them."""
    names = reading.queue_names(view.fs, view.root)
    there = sorted({*(name for name in names if _has_begun(view, name)), *view.damaged})
    if queues is None:
        return there
    asked = list(queues)
    for queue in asked:
        if queue not in there:
            raise QueueNotFound.among(queue, there)
    return asked


def _has_begun(view: View, queue: str) -> bool:
    """Whether the queue has got further than its directory.

    If not, its first records were never durable: a power cut has taken them and left the name.
    """
    return segment.any_segment(view.fs, view.root, queue) or known_end(view, queue) != End(0, 0)


def _verify_queue(view: View, queue: str, report: Report) -> None:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        found = Report()
        try:
            _read_queue(view, queue, found)
        except FileNotFoundError:
            # Dropped and removed since its name was read.
            if attempt == _ATTEMPTS - 1:
                raise
        except NotOurs as error:
            found = Report(queues=[queue], findings=[Finding(queue, queue, None, None, 0, str(error))])
        except StorageDamaged as error:
            found = Report(queues=[queue], findings=[_of_error(queue, error)])
        if found.sound and found.queues:
            break
    report.records += found.records
    report.bytes += found.bytes
    report.queues += found.queues
    report.findings += found.findings
    report.lost |= found.lost
    report.doubtful |= found.doubtful


def _read_queue(view: View, queue: str, report: Report) -> None:
    with examined(view, queue) as (survey, salvage, _):
        _note(view, survey, salvage, report)


def _note(view: View, survey: Survey, salvage: Salvage, report: Report) -> None:
    queue = survey.lines.queue
    report.records, report.bytes = salvage.records, salvage.bytes
    report.findings += [_of_stretch(queue, stretch) for stretch in salvage.stretches]
    report.findings += [_of_useless(queue, found, why) for found, why in salvage.aside]
    if survey.headless:
        what = f"the segments before {survey.first} are gone, and nothing says that they were not needed"
        report.findings.append(Finding(queue, segment.path_of(queue, survey.first), None, 0, 0, what))
    if salvage.sound and not survey.headless and queue in view.damaged:
        report.findings.append(_of_error(queue, view.damaged[queue]))
    if salvage.lost:
        report.lost[queue] = salvage.lost
    if salvage.doubtful:
        report.doubtful[queue] = salvage.doubtful
    report.findings += _derived(view, queue)
    report.queues.append(queue)


@contextmanager
def examined(view: View, queue: str) -> Iterator[tuple[Survey, Salvage, set[int]]]:
    """The queue's segments gone through, and what can be saved of them.

    What is known to be missing at the queue's end is put back first, in memory; the set has the segments that
    are longer by it.
    """
    longer, known = set[int](), known_end(view, queue)
    if queue in view.damaged:
        longer = refusal.put_back(view.fs, view.root, queue, known)
    with closing(Lines(view.fs, view.root, queue)) as lines:
        survey = Survey(lines, begun=queue in view.damaged or known.segment > 0)
        yield survey, Salvage(survey), longer


def known_end(view: View, queue: str) -> End:
    """Where the queue ended when that was noted last, as far as the note can be read."""
    try:
        with opened(view.fs, view.root, "journal") as directory:
            return ends.load(view.fs, directory, required=False).queues.get(queue, End(0, 0))
    except StorageDamaged:
        return End(0, 0)


def _of_error(queue: str | None, error: StorageDamaged) -> Finding:
    return Finding(queue, error.path or "", error.line, error.byte, 0, error.reason)


def _of_stretch(queue: str, stretch: Stretch) -> Finding:
    what = stretch.why
    if stretch.hints:
        said = [f"{hint.op} of {hint.id}" if hint.id else hint.op for hint in stretch.hints[:3]]
        what += f"; it seems to have been the {', the '.join(said)}"
    ids = tuple(dict.fromkeys(hint.id for hint in stretch.hints if hint.id))
    path, length = segment.path_of(queue, stretch.segment), stretch.end - stretch.start
    return Finding(queue, path, stretch.line, stretch.start, length, what, stretch.lost, ids)


def _of_useless(queue: str, found: Found, why: str) -> Finding:
    number, start, length = found.where
    operation = found.record.operation
    entry_id = str(getattr(operation, "id", ""))
    what = f"the {operation.op} of {entry_id} is sound, but {why}"
    return Finding(queue, segment.path_of(queue, number), found.line, start, length, what, 1, (entry_id,))


def _derived(view: View, queue: str) -> Iterator[Finding]:
    """Checkpoints and indexes that cannot be read."""
    fs = view.fs
    with opened(fs, view.root, queue) as home, opened(fs, home, "segments") as directory:
        for number in checkpoint.numbers(fs, directory):
            if checkpoint.load(fs, directory, number, 0) is None:
                yield _of_derived(queue, number, checkpoint.SUFFIX)
        for number in segment.numbers(fs, directory, checkpoint.INDEX_SUFFIX):
            try:
                checkpoint.load_index(fs, directory, number)
            except (BadIndex, checkpoint.Lost):
                yield _of_derived(queue, number, checkpoint.INDEX_SUFFIX)


def _of_derived(queue: str, number: int, suffix: str) -> Finding:
    return Finding(
        queue,
        segment.path_of(queue, number, suffix),
        None,
        0,
        0,
        "it is damaged, and is made again from the records",
        damage=False,
    )
