"""The clock that tests move."""

from datetime import UTC, datetime, timedelta

import pytest

from duraq.clock import Clock, from_datetime
from duraq.testing import FakeClock

MINUTE = 60_000_000


@pytest.fixture
def clock():
    return FakeClock(now=datetime(2026, 5, 1, tzinfo=UTC), uptime=timedelta(minutes=3))


def test_it_stands_still(clock: Clock):
    """Nothing moves unless it is told to."""
    assert clock.now() == clock.now() == from_datetime(datetime(2026, 5, 1, tzinfo=UTC))
    assert clock.uptime() == clock.uptime() == 3 * MINUTE


def test_advance_moves_both(clock):
    """Time that passes is seen on the wall and in the uptime."""
    before = clock.now()
    clock.advance(timedelta(minutes=2))
    assert clock.now() == before + 2 * MINUTE
    assert clock.uptime() == 5 * MINUTE


def test_time_does_not_pass_backwards(clock):
    """advance refuses a negative duration."""
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(timedelta(seconds=-1))


def test_jump_moves_only_the_wall(clock):
    """A wall clock that is set, either way, leaves the uptime alone."""
    before = clock.now()
    clock.jump(timedelta(days=-1))
    assert clock.now() == before - 24 * 60 * MINUTE
    assert clock.uptime() == 3 * MINUTE


def test_each_is_set_alone(clock):
    """set_now leaves the uptime, and set_uptime the wall clock."""
    clock.set_now(datetime(2030, 1, 1, tzinfo=UTC))
    clock.set_uptime(timedelta(minutes=1))
    assert clock.now() == from_datetime(datetime(2030, 1, 1, tzinfo=UTC))
    assert clock.uptime() == MINUTE


def test_reboot_is_another_boot(clock):
    """After a reboot the boot id is new, the uptime restarts and the wall clock goes on."""
    boot_id, now = clock.boot_id, clock.now()
    clock.reboot()
    assert clock.boot_id != boot_id
    assert len(clock.boot_id) == len("6fbd1d0c-5e04-4d0a-8a9c-94d2c1c3a5a1")
    assert clock.uptime() == 0
    assert clock.now() == now
