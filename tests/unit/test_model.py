"""The entry that a user holds in hand."""

import copy
import pickle
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime

import pytest

from duraq.model import EntryStatus, QueueEntry
from duraq.storage.base import StoredEntry

STORED = StoredEntry(
    "a", 1, b"{}", EntryStatus.LEASED, 3, 1_000_000, 2_000_000, None, 4_000_000, 2, 7, "1-ab", 5_000_000
)


def at(second):
    return datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC)


def handed_out():
    return QueueEntry.of(STORED, {"n": 1}, "jobs", 5)


def made_by_hand():
    """The same entry, as a user's test makes one."""
    return QueueEntry(
        id="a",
        data={"n": 1},
        queue="jobs",
        status=EntryStatus.LEASED,
        priority=3,
        created_at=at(1),
        updated_at=at(2),
        scheduled_for=None,
        expires_at=at(4),
        attempts=2,
        max_attempts=5,
        errors=(),
        token=7,
        worker="1-ab",
        lease_deadline=at(5),
    )


def test_every_field():
    assert {each.name: getattr(handed_out(), each.name) for each in fields(QueueEntry)} == asdict(
        made_by_hand()
    )


@pytest.mark.parametrize("look", [repr, asdict, replace, copy.copy, copy.deepcopy], ids=lambda f: f.__name__)
def test_times_made_late_are_times_all_the_same(look):
    assert look(handed_out()) == look(made_by_hand())


def test_equal():
    assert handed_out() == made_by_hand()
    assert made_by_hand() == handed_out()
    assert handed_out() != replace(made_by_hand(), created_at=at(9))


def test_pickled():
    assert pickle.loads(pickle.dumps(handed_out())) == made_by_hand()


def test_a_time_is_made_once():
    entry = handed_out()
    assert entry.created_at is entry.created_at
    assert (entry.created_at, entry.scheduled_for) == (at(1), None)


def test_a_field_can_be_set():
    entry = handed_out()
    entry.expires_at = at(8)
    assert entry.expires_at == at(8)


@pytest.mark.parametrize("make", [handed_out, made_by_hand])
@pytest.mark.parametrize("name", ["ready_at", "_stored_at", "nothing"])
def test_no_other_attribute(make, name):
    with pytest.raises(AttributeError, match=f"'QueueEntry' object has no attribute '{name}'"):
        getattr(make(), name)
    with pytest.raises(AttributeError):
        setattr(make(), name, 1)
