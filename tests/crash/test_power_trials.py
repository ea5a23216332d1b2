"""The cuts that the peers are put through, tried on loops whose fate is known."""

import pytest

from benchmarks.contender import Missing
from benchmarks.power.disk import KINDS
from benchmarks.power.queues import QUEUES
from benchmarks.power.trial import try_out

pytestmark = pytest.mark.root


def figures(setting, place, kind):
    (queue,) = (queue for queue in QUEUES if (queue.name, queue.setting) == ("append", setting))
    try:
        return try_out(queue, place, kind, cuts=1)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_synced_is_lost(tmp_path, kind):
    """A loop that only writes loses what it has acknowledged, so the cuts do take what is not on the disk."""
    found = figures("write", tmp_path, kind)
    assert found.lost
    assert not found.unreadable


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_synced_is_kept(tmp_path, kind):
    """A loop that syncs each line loses none, so the cuts take nothing that a disk would have kept."""
    found = figures("write + fdatasync", tmp_path, kind)
    assert found.acknowledged > 1
    assert (found.lost, found.altered, found.unreadable) == (0, 0, 0)
