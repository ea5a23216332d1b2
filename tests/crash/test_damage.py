"""Damage of every kind to a storage that was lived in: found, named, contained, and repaired.

The storage is made once, with small segments and a small journal, of which every part is in use. Each case is
a copy of it on a disk in memory in which something is changed. What must hold: nothing that was changed is
given out as data; what is not sound is named by its file and byte; and a repair loses what was in the damaged
lines, and no more.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from evidence import count
from lived_in import PLACE, Entries, Files, disk, entries

from duraq import StorageError, UnsupportedVersion, examining, repair, verify
from duraq.examining import Finding, Report
from duraq.journal import reading
from duraq.journal.record import Seal, decode, encode
from duraq.testing import FakeClock

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SHARES = 8
ANY = 1 << 30
QUEUES = {"a", "b", "quiet"}
HEAD = len('{"op":"enqueue","seq":100,"at":"2026-01-01T12:00:00.000000Z","id":"m100-1",')

pytestmark = pytest.mark.timeout(7200 if DEEP else 300)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, one_thread):
    # What recovery reports, thousands of times, is not what a failing test is about.
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)
    # Nobody changes anything meanwhile, so there is nothing to look at twice.
    monkeypatch.setattr(examining, "_ATTEMPTS", 1)
    monkeypatch.setattr(reading, "_ATTEMPTS", 1)


class Case(NamedTuple):
    """A damaged storage: where it is damaged, and how many lines at most."""

    what: str
    file: str
    start: int
    end: int
    lines: int
    files: Files


def damage_in(case: Case, report: Report) -> list[Finding]:
    """The damage that was found; of a flip, where it is."""
    damage = [finding for finding in report.findings if finding.damage]
    if case.what == "flip" and case.file.endswith((".index", ".checkpoint")):
        assert not damage, "what is made again by itself"
    if case.what == "flip" and case.file.endswith(".jsonl") and "/segments/" in case.file:
        # Whatever it was: a flip changes a line, and its line is found. Or the journal has it still.
        for finding in damage:
            assert finding.path == case.file or finding.ids, case.what
        # One entry; the line may say another id by now than those that speak of the same entry.
        assert len({each for finding in damage for each in finding.ids}) <= 2, damage
        assert sum(finding.records for finding in damage if finding.path == case.file) <= 4, damage
    return damage


def check(case: Case, sound: Files, whole: Entries) -> None:
    """What is wrong is named, never shown as data, and mended without losing more than was damaged."""
    fs = disk(case.files)
    report = verify(PLACE, file_system=fs)
    damage = damage_in(case, report)
    if damage:
        # Refused, or not yet read; never shown as anything that it was not.
        with suppress(StorageError):
            assert_unaltered(entries(fs.process()), whole)
    else:
        assert_unaltered(entries(fs.process()), whole)
    planned = repair(PLACE, dry_run=True, file_system=fs, clock=FakeClock())
    done = repair(PLACE, file_system=fs, clock=FakeClock())
    assert bool(planned.steps) is bool(done.steps) is bool(damage)
    assert verify(PLACE, file_system=fs).sound
    after = entries(fs.process())
    assert_unaltered(after, whole)
    missing = whole.keys() - after.keys()
    assert len(missing) <= case.lines, missing
    if case.file.endswith(".jsonl") and "/segments/" in case.file and damage:
        said = {(queue, each) for queue, ids in report.lost.items() for each in ids}
        named = {(finding.queue, each) for finding in damage for each in finding.ids}
        # What is wrong with a line may be the very name of its entry.
        assert missing <= said | named or case.what != "flip" or is_in_head(case), missing - said
    assert entries(fs.surviving(nothing=True)) == after


@contextmanager
def kept(case: Case, place: Path) -> Iterator[None]:
    """If the check fails, the damaged storage is left there, to be looked at."""
    try:
        yield
    except Exception as error:
        for name, content in case.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        raise AssertionError(f"{case.what} {case.file} at {case.start}; it is in {place}") from error


def assert_unaltered(found: Entries, whole: Entries) -> None:
    for key, (payload, priority, _) in found.items():
        assert key not in whole or (payload, priority) == whole[key][:2], key


def is_in_head(case: Case) -> bool:
    """Whether the byte lies before the fields that say more of the entry than its name."""
    line = case.files[case.file][: case.start].rfind(b"\n") + 1
    return case.start - line < HEAD


# Flips


def lost_at_most(files: Files, name: str) -> int:
    """How many entries a damaged byte of that file may cost.

    The last frame of the journal cannot be told from a torn one, and what it wrote goes with it: the lines of
    one call. All else costs one line.
    """
    return 4 if name.startswith("journal/") else 1


def flips(sound: Files, numbers: list[int]) -> Iterator[Case]:
    """The storage with one bit changed, for each of these numbers, which count the bits of all files."""
    names, sizes = list(sound), [len(content) * 8 for content in sound.values()]
    for number in numbers:
        rest, place = number, 0
        while rest >= sizes[place]:
            rest -= sizes[place]
            place += 1
        name, byte = names[place], rest // 8
        content = bytearray(sound[name])
        content[byte] ^= 1 << (rest % 8)
        files = {**sound, name: bytes(content)}
        yield Case("flip", name, byte, byte + 1, lost_at_most(sound, name), files)


@contextmanager
def in_words(case: Case) -> Iterator[None]:
    """Of the marker's format a flip makes a later one; that is said, and nothing is touched."""
    try:
        yield
    except UnsupportedVersion:
        assert case.file == "duraq.json", case.file


@pytest.mark.parametrize("share", range(SHARES))
def test_every_bit(sound, share, tmp_path):
    """Whichever bit is another, at most one line is lost, and the line, its file and its byte are named."""
    fs = disk(sound)
    whole = entries(fs.process())
    files = {path.removeprefix("storage/"): file for path, file in fs._disk.files()}
    bits = sum(map(len, sound.values())) * 8
    numbers = list(range(share, bits, SHARES))
    every = 200 if DEEP else 1
    if not DEEP:
        numbers = sorted(Random(share).sample(numbers, 12))
    for place, case in enumerate(flips(sound, numbers)):
        with kept(case, tmp_path / "kept"):
            if place % every == 0:
                with in_words(case):
                    check(case, sound, whole)
                continue
            home = case.file.partition("/")[0]
            content = files[case.file].cache
            flipped, content[case.start] = content[case.start], case.files[case.file][case.start]
            # Of another queue nothing has changed.
            with in_words(case):
                damage_in(case, verify(PLACE, [home] if home in QUEUES else None, file_system=fs))
            content[case.start] = flipped
    assert entries(fs.process()) == whole
    count("flipped", len(numbers))


# Everything else


def segments(sound: Files) -> list[str]:
    return [name for name in sound if "/segments/" in name and name.endswith(".jsonl")]


def lines_in(content: bytes) -> int:
    """How many lines these bytes belong to, at most."""
    return content.count(b"\n") + 1


def cut(sound: Files, name: str, length: int) -> Case:
    """A file that ends there."""
    content = sound[name]
    lines = lines_in(content[length:]) if "/segments/" in name else ANY
    return Case("cut", name, length, len(content), lines, {**sound, name: content[:length]})


def zeroed(sound: Files, name: str, start: int, length: int) -> Case:
    """A file in which a run of bytes is NUL."""
    content = sound[name]
    end = min(len(content), start + length)
    files = {**sound, name: content[:start] + bytes(end - start) + content[end:]}
    lines = lines_in(content[start:end]) if "/segments/" in name else ANY
    return Case("zeroed", name, start, end, lines, files)


def with_lines(sound: Files, chance: Random) -> Case:
    """A segment in which lines are repeated, exchanged, moved, missing, or another queue's."""
    name = chance.choice(segments(sound))
    lines = sound[name].splitlines(keepends=True)
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    what = chance.choice(("repeated", "exchanged", "moved", "missing", "pasted"))
    # Of what is out of order, the longest row that is in order stays.
    lost = {"repeated": 0, "exchanged": 2, "moved": 1, "missing": 1, "pasted": 1}[what]
    if what == "repeated":
        lines.insert(other, lines[one])
    elif what == "exchanged":
        lines[one], lines[other] = lines[other], lines[one]
    elif what == "moved":
        lines.insert(other, lines.pop(one))
    elif what == "missing":
        del lines[one]
    else:
        lines.insert(other, chance.choice(sound[chance.choice(segments(sound))].splitlines(keepends=True)))
    content = b"".join(lines)
    last = [each for each in segments(sound) if each.startswith(name.partition("/")[0])][-1]
    if name == last or is_in_journal(sound, name):
        # To such a segment the journal writes what it has again, where it was, over whatever is there; and
        # behind the byte where a queue ended nothing is known to be durable: that is cut off, and kept.
        lost = max(lost, displaced(sound[name], content))
    return Case(what, name, 0, 0, lost, {**sound, name: content})


def is_in_journal(sound: Files, name: str) -> bool:
    """Whether the journal has one of the segment's lines, and so writes it there again."""
    journal = b"".join(content for other, content in sound.items() if other.endswith(".journal"))
    return any(line in journal for line in sound[name].splitlines(keepends=True))


def displaced(before: bytes, after: bytes) -> int:
    """How many lines are not where they were."""
    here, there = ({(m.start(), m[0]) for m in re.finditer(rb".*\n", each)} for each in (before, after))
    return len(here - there)


def without(sound: Files, name: str) -> Case:
    """A storage that lacks a file; of a missing segment, all of it is lost."""
    files = {other: content for other, content in sound.items() if other != name}
    return Case("without", name, 0, 0, ANY if name in segments(sound) or "journal" in name else 0, files)


def others(sound: Files, chance: Random) -> Case:
    name = chance.choice(list(sound))
    kind = chance.randrange(4)
    if kind == 0:
        return cut(sound, name, chance.randrange(len(sound[name])))
    if kind == 1:
        return zeroed(sound, name, chance.randrange(len(sound[name])), chance.choice((1, 64, 512, 4096)))
    return with_lines(sound, chance)


@pytest.mark.parametrize("share", range(SHARES))
def test_other_damage(sound, share, tmp_path):
    """Cut, zeroed, or with its lines out of order: what is lost is what was damaged, and it is said."""
    whole = entries(disk(sound))
    for number in range(share, 66_000 if DEEP else 8 * SHARES, SHARES):
        case = others(sound, Random(number))
        with kept(case, tmp_path / "kept"):
            check(case, sound, whole)
        count("damaged")


def test_a_seal_of_another_queue(sound, tmp_path):
    """A seal that was pasted in, with a number that is due there, cuts off nothing that follows it."""
    whole = entries(disk(sound))
    for name in [each for each in segments(sound) if not is_in_journal(sound, each)]:
        lines = sound[name].splitlines(keepends=True)
        for place in range(0, len(lines), 3):
            due = decode(lines[place]).seq
            seal = encode(Seal(due + 1), due, "2026-01-01T12:00:00.000000Z")
            content = b"".join([*lines[:place], seal, *lines[place:]])
            case = Case("pasted", name, 0, 0, 1, {**sound, name: content})
            with kept(case, tmp_path / "kept"):
                check(case, sound, whole)
            count("damaged")


def test_each_file_missing(sound, tmp_path):
    """Whichever file is gone, a derived one is made again, and of any other it is said what was lost."""
    whole = entries(disk(sound))
    for name in sound:
        case = without(sound, name)
        with kept(case, tmp_path / "kept"):
            check(case, sound, whole)
        count("damaged")


def test_all_derived_files_together(sound):
    """Without any derived file, or with all of them damaged, the storage is as it was."""
    whole = entries(disk(sound))
    derived = [name for name in sound if name.endswith((".index", ".checkpoint"))]
    assert len(derived) > 5
    gone = {name: content for name, content in sound.items() if name not in derived}
    spoilt = {name: content[::-1] if name in derived else content for name, content in sound.items()}
    for files in (gone, spoilt):
        fs = disk(files)
        assert verify(PLACE, file_system=fs).sound
        assert entries(fs) == whole


def test_a_checkpoint_ahead_of_its_segments(sound):
    """A queue whose segments are older than its checkpoint is as the segments say, or refused."""
    whole = entries(disk(sound))
    name = segments(sound)[-1]
    older = {other: content for other, content in sound.items() if other != name}
    check(Case("older", name, 0, 0, ANY, older), sound, whole)
