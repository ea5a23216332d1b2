"""Every call of the file system fails: with each error, and with writes of a part; once, and from there on.

A story is told once to see which calls a process makes in it, and then over and over, each time with another
of them failing. See crash/stories.py for what must be true.
"""

import errno
import logging
import os
from functools import cache, partial
from random import Random

import pytest
from crash import images
from crash.failing import NONE, Failure, call_sites, failures
from crash.menders import Back, BackInVain, Bring, Mend, Verify
from crash.onlookers import About, Ask, Check, CheckInVain, Compact, CompactFull, Look, LookAgain, Open
from crash.stories import Derive, Feed, FillUp, GiveBack, GoOn, Keep, Leave, Undo, UndoFrame, Work
from evidence import count

from duraq import examining, reader
from duraq.journal import folded_by_reader, reading

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SHARES = 4 if DEEP else 1  # of a story's failures, so that they can be tried at once
SAMPLE = 4  # of them; deep: all, at every place from which a call is made, by every way that leads there

STORIES = {
    "work": Work,
    "feed": Feed,
    "a failed sync": Leave,
    "a full segment": Undo,
    "no room for a line": GiveBack,
    "room again": FillUp,
    "half a frame": UndoFrame,
    "half a block": GoOn,
    "no room for an index": Derive,
    "an index not synced": Keep,
    "open new": About(Open, images.new),
    "open killed": About(Open, images.killed),
    "open cut": About(Open, images.cut),
    "open cut by chance": About(Open, partial(images.cut, 1)),
    "open torn": About(Open, images.torn),
    "open poisoned": About(Open, images.poisoned),
    "open half prepared": About(Open, images.half_prepared),
    "open left over": About(Open, images.left_over),
    "open shortened": About(Open, images.shortened),
    "open without a lock": About(Open, images.no_lock),
    "open refused": About(Open, images.refused),
    "open restored": About(Open, images.restored),
    "open dropped": About(Open, images.dropped),
    "ask": About(Ask, images.killed),
    "ask deep": About(Ask, images.deep),
    "ask torn": About(Ask, images.torn),
    "ask refused": About(Ask, images.refused),
    "ask damaged": About(Ask, images.damaged),
    "look": About(Look, images.killed),
    "look torn": About(Look, images.torn),
    "look dropped": About(Look, images.dropped),
    "look underived": About(Look, images.underived),
    "look again": About(LookAgain, images.described),
    "compact": About(Compact, images.killed),
    "verify": About(Verify, images.killed),
    "verify torn": About(Verify, images.torn),
    "verify damaged": About(Verify, images.damaged),
    "verify refused": About(Verify, images.refused),
    "verify without a marker": About(Verify, images.no_marker),
    "mend damaged": About(Mend, images.damaged),
    "mend refused": About(Mend, images.refused),
    "mend shortened": About(Mend, images.shortened),
    "mend without a header": About(Mend, images.no_header),
    "mend without a marker": About(Mend, images.no_marker),
    "back up": About(Back, images.killed),
    "back up torn": About(Back, images.torn),
    "back up in vain": About(BackInVain, images.killed),
    "restore": About(Bring, images.killed),
    "restore cut": About(Bring, images.cut),
    "compact full": About(CompactFull, images.full),
    "check": About(Check, images.killed),
    "check cut": About(Check, images.cut),
    "check locked": About(CheckInVain, images.killed),
}

# Who waits is a matter of processes, and so of the real disk whatever the storage is on; so is a database.
ON_A_REAL_DISK = {
    *("storage/waiting.py", "storage/file_waiting.py"),
    *("storage/beside.py", "storage/sqlite.py", "storage/lmdb.py", "storage/table_reader.py"),
    "health/database.py",
}

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    # What fails in the background is logged, thousands of times.
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)
    # Nobody changes anything while a reader waits before he looks again.
    monkeypatch.setattr(reading, "_PAUSE", 0)
    monkeypatch.setattr(reader, "_PAUSE", 0)
    monkeypatch.setattr(examining, "_PAUSE", 0)
    # There are few records in these.
    monkeypatch.setattr(folded_by_reader, "WORTH_IT", 1)


@cache
def told_well(name):
    """The calls of that story, and the ways that lead to them."""
    story = STORIES[name](NONE)
    story.tell()
    return story.fs.made, story.fs.ways


def one_of_each(name):
    """Of the calls of that story that were made from one place by one way, one each."""
    made, ways = told_well(name)
    alike = {}
    for at, (call, way) in enumerate(zip(made, ways, strict=True), 1):
        alike.setdefault((call.name, way), []).append(at)
    chance = Random(name)
    return {chance.choice(each) for each in alike.values()}


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("name", STORIES)
def test_every_call_may_fail(name, share):
    """Whatever call fails: who made it is told in DuraQ's words, and nothing is lost, left behind or hung."""
    made, _ = told_well(name)
    chosen = one_of_each(name) if DEEP else range(1, len(made) + 1)
    todo = [each for each in failures(made) if each.at in chosen and STORIES[name].may_fail(made, each)][
        share::SHARES
    ]
    if not DEEP:
        todo = Random(f"{name}, {share}").sample(todo, min(SAMPLE, len(todo)))
    for failure in todo:
        story = STORIES[name](failure)
        story.tell()
        assert story.fs.struck is not None, story.where
    count("failed calls", len(todo))


def test_no_call_is_forgotten():
    """The stories pass by every line of the engine that calls a file system."""
    reached = {line for name in STORIES for way in told_well(name)[1] for line in way}
    # Called only if that fails as well.
    worse = Leave(Failure(1, errno.EIO, for_ever=False))
    worse.fs.recording = True
    worse.tell()
    reached |= {line for way in worse.fs.ways for line in way}
    missed = [
        f"{module}:{lines.start} {call}"
        for module, lines, call in call_sites()
        if module not in ON_A_REAL_DISK and not any((module, line) in reached for line in lines)
    ]
    assert missed == []
