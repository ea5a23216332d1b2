"""A queue's state at the end of a sealed segment, so that opening does not fold all that came before.

Beside each segment, under its number, once it was sealed:

    00000000000000000001.jsonl         the segment
    00000000000000000001.index         the entries that nobody held then (``duraq.journal.index``)
    00000000000000000001.checkpoint    one line of JSON with a record's checksum: the runs that something is
                                       left of, the entries that were held, the pause, the highest token,
                                       what has happened in numbers

Derived, all of it: the newest checkpoint that is whole counts, two are kept, and without any the records are
folded from the first. None of this is synced when it is written: what a power cut takes is made again. That
may take long, so whoever prepares a journal file syncs it in passing.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import orjson

from duraq import snapshot, values
from duraq.clock import from_datetime, to_datetime
from duraq.entry import LEASED, Entry
from duraq.journal import index, record, segment
from duraq.journal.filesystem import FileSystem, write_all
from duraq.journal.index import BadIndex, Filter, Index
from duraq.journal.pieces import LONGEST_LINE, only_line
from duraq.journal.record import BadRecord
from duraq.journal.reserve import Give, retrying
from duraq.journal.run import Run
from duraq.journal.segment import SealAt, Where
from duraq.ledger import Ledger
from duraq.model import Pause

log = logging.getLogger("duraq")

# Whoever is short of these cannot read a file that is all right; any other error means that it is not.
_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
FORMAT = 3
SUFFIX = ".checkpoint"
INDEX_SUFFIX = ".index"


class Lost(ValueError):
    """A file that was derived cannot be read."""


class Checkpoint(NamedTuple):
    """The state behind a seal.

    ``first``, ``bytes`` and ``known_from`` are those of ``Segments``, ``bytes`` that of the sealed ones.
    ``finished``: runs that only the checkpoint before this one may still need. ``before``: its segment.
    """

    seal: SealAt
    first: int
    bytes: int
    known_from: Where | None
    tokens: int
    pause: Pause | None
    ledger: Ledger
    leased: list[Entry]
    runs: list[Run]
    finished: list[int]
    before: int | None


# -- writing, under the storage's lock ---------------------------------------------------------------------


def save_index(
    fs: FileSystem, directory: int, number: int, entries: Sequence[Entry], give: Give
) -> Index | None:
    """Write the index of these entries; None if there are none."""
    if not entries:
        return None
    content = index.build(number, entries)
    _replace(fs, directory, segment.file_name(number, INDEX_SUFFIX), content, give)
    return Index(content)


def save(fs: FileSystem, directory: int, checkpoint: Checkpoint, give: Give) -> None:
    """Write the checkpoint. Each run must have its image at hand."""
    pause = checkpoint.pause
    fields = {
        "op": "checkpoint",
        "format": FORMAT,
        "seal": list(checkpoint.seal),
        "first": checkpoint.first,
        "bytes": checkpoint.bytes,
        "known_from": checkpoint.known_from,
        "tokens": checkpoint.tokens,
        "pause": None if pause is None else [from_datetime(pause.at), pause.who, pause.reason],
        "ledger": checkpoint.ledger.image(),
        "leased": [[entry.id, snapshot.of(entry), list(entry.where)] for entry in checkpoint.leased],
        "runs": [run.image() for run in checkpoint.runs],
        "finished": checkpoint.finished,
        "before": checkpoint.before,
    }
    body = orjson.dumps(fields)[:-1]
    content = record.finished(body)
    _replace(fs, directory, segment.file_name(checkpoint.seal.segment, SUFFIX), content, give)


def _replace(fs: FileSystem, directory: int, name: str, content: bytes, give: Give) -> None:
    # Without a checkpoint no segment could be removed, and a full disk would stay full.
    retrying(lambda: _write(fs, directory, name, content), give, len(content))


def _write(fs: FileSystem, directory: int, name: str, content: bytes) -> None:
    temporary = name + ".tmp"
    fd = fs.open_file(directory, temporary, create=True)
    try:
        fs.truncate(fd, 0)
        # No sync: it can be made again, and its checksum tells whether it is whole.
        write_all(fs, fd, content, 0)
        fs.rename(directory, temporary, name)
    except OSError:
        # Above all where there is no space, nothing is to be left over.
        with suppress(OSError):
            fs.unlink(directory, temporary)
        raise
    finally:
        fs.close(fd)


def remove(fs: FileSystem, directory: int, checkpoint: int | None, indexes: Iterable[int]) -> None:
    """Remove what no kept checkpoint needs."""
    names = [segment.file_name(number, INDEX_SUFFIX) for number in indexes]
    if checkpoint is not None:
        names.append(segment.file_name(checkpoint, SUFFIX))
    for name in names:
        # What stays behind takes room, and that is all.
        with suppress(OSError):
            fs.unlink(directory, name)


def sync(fs: FileSystem, root: int, segments: Iterable[tuple[str, int]]) -> None:
    """Make durable what lies beside those segments, so that the next power cut costs no time."""
    for queue, number in segments:
        try:
            with ExitStack() as opened:
                home = fs.open_dir(root, queue)
                opened.callback(fs.close, home)
                directory = fs.open_dir(home, "segments")
                opened.callback(fs.close, directory)
                for name in (segment.file_name(number, INDEX_SUFFIX), segment.file_name(number, SUFFIX)):
                    if fs.exists(directory, name):
                        _sync(fs, directory, name)
        except FileNotFoundError:
            continue  # removed meanwhile, by whoever knew that nobody needs it
        except OSError as error:
            # Nothing that anybody was promised depends on it.
            log.warning("queue %s: what belongs to segment %d was not synced: %s", queue, number, error)


def _sync(fs: FileSystem, directory: int, name: str) -> None:
    fd = fs.open_file(directory, name)
    try:
        # The name itself is not synced: the file is found, or it is made again.
        fs.datasync(fd)
    except OSError:
        # The kernel has dropped what it could not write, and will not say so again.
        fs.unlink(directory, name)
        raise
    finally:
        fs.close(fd)


# -- reading -----------------------------------------------------------------------------------------------


def numbers(fs: FileSystem, directory: int) -> list[int]:
    """The segments that have a checkpoint, in order."""
    return segment.numbers(fs, directory, SUFFIX)


def load(fs: FileSystem, directory: int, number: int, position: int) -> Checkpoint | None:
    """The checkpoint of that segment if it is whole, and the segment's seal is still the same.

    ``position``: where the journal must be durable before its entries are handed out.
    """
    try:
        with _opened(fs, directory, segment.file_name(number, SUFFIX)) as fd:
            line = only_line(fs, fd)
        record.check(line)
        fields = orjson.loads(line)
        if fields["format"] != FORMAT:
            return None
        found = _restored(fields, position)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return found if found.seal.segment == number and is_sealed(fs, directory, found.seal) else None


def _restored(fields: dict[str, Any], position: int) -> Checkpoint:
    number, text = values.number, values.text
    segment, offset, length, crc, following = fields["seal"]
    pause, known_from, before = fields["pause"], fields["known_from"], fields["before"]
    if pause is not None:
        at, who, reason = pause
        pause = Pause(to_datetime(number(at)), text(who), text(reason))
    return Checkpoint(
        SealAt(number(segment), number(offset), number(length), text(crc), number(following)),
        number(fields["first"]),
        number(fields["bytes"]),
        None if known_from is None else _where(known_from),
        number(fields["tokens"]),
        pause,
        Ledger.of(fields["ledger"]),
        [_leased(entry_id, entry, where, position) for entry_id, entry, where in fields["leased"]],
        [Run(image) for image in fields["runs"]],
        [number(each) for each in fields["finished"]],
        None if before is None else number(before),
    )


def _where(found: Any) -> Where:
    segment, offset, length = found
    if values.number(length) > LONGEST_LINE:
        raise ValueError("no record is so long")
    return values.number(segment), values.number(offset), length


def _leased(entry_id: Any, entry: Any, where: Any, position: int) -> Entry:
    found = snapshot.restore(entry_id, entry, _where(where), position)
    if found.status is not LEASED:
        raise ValueError("not leased")
    return found


def load_index(fs: FileSystem, directory: int, number: int) -> Index:
    """The index of that segment. Raises BadIndex or Lost if it is not there whole."""
    with _opened(fs, directory, segment.file_name(number, INDEX_SUFFIX)) as fd:
        length = index.length(fs.pread(fd, index.HEADER_BYTES, 0))
        if length != fs.size(fd):
            raise BadIndex("not as long as it says")
        return Index(fs.pread(fd, length, 0))


def load_filter(fs: FileSystem, directory: int, number: int) -> tuple[Filter, int]:
    """The filter of that segment's index, and the crc of the index. Raises BadIndex or Lost."""
    name = segment.file_name(number, INDEX_SUFFIX)
    with _opened(fs, directory, name) as fd:
        head = fs.pread(fd, index.HEADER_BYTES, 0)
        return index.filter_of(head, fs.pread(fd, index.filter_size(head), index.HEADER_BYTES))


def is_sealed(fs: FileSystem, directory: int, seal: SealAt) -> bool:
    """Whether that seal is still what the segment ends in."""
    try:
        with _opened(fs, directory, segment.file_name(seal.segment)) as fd:
            # One byte more than the seal: there must be none.
            line = fs.pread(fd, seal.length + 1, seal.offset)
        seq, found = record.number(line)
    except (BadRecord, Lost):
        return False
    return found is not None and found.next == seal.next == seq + 1 and record.checksum(line) == seal.crc


@contextmanager
def _opened(fs: FileSystem, directory: int, name: str) -> Iterator[int]:
    """The file, to be read. Raises Lost, or the OSError if the file may be all right."""
    try:
        fd = fs.open_file(directory, name, writable=False)
        try:
            yield fd
        finally:
            fs.close(fd)
    except OSError as error:
        if error.errno in _SHORT_OF:
            raise
        raise Lost(str(error)) from error
