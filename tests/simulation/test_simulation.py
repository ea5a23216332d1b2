"""Whole lives of a machine, each from a seed, with everything that can go wrong going wrong at random.

A failure says its seed: ``DURAQ_SEED=17 pytest tests/simulation/test_simulation.py`` lives that life again.
"""

from __future__ import annotations

import os

import pytest
from evidence import count
from simulation import interleaved, simulation
from simulation.checker import Checker
from simulation.world import make_repeatable

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
ONE = os.environ.get("DURAQ_SEED", "")
SHARES = 1 if ONE else 40 if DEEP else 2  # that can run at once
SEEDS = 30 if DEEP else 3  # of each share
CHANCES = 6 if DEEP else 1  # guesses of what a power cut leaves, at each call that is looked at
CLOSELY = 100 if DEEP else 20  # one of so many is looked at closely

pytestmark = pytest.mark.timeout(7200)


def live(life, share: int) -> None:
    for seed in [int(ONE)] if ONE else range(share * SEEDS + 1, (share + 1) * SEEDS + 1):
        # Each life anew, for what comes from a counter is to come again.
        with pytest.MonkeyPatch.context() as patch:
            make_repeatable(patch)
            checked = life.run(seed, chances=CHANCES, share=CLOSELY)
        count("simulated", checked)


@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_happens(share):
    """Whatever goes wrong, and when: what was acknowledged is there, and nothing else."""
    live(simulation, share)


@pytest.mark.parametrize("share", range(SHARES))
def test_several_at_once(share):
    """However the calls of several processes are mixed: no change is lost or half, no entry held by two."""
    live(interleaved, share)


@pytest.mark.parametrize("life", [simulation, interleaved], ids=["lives", "at once"])
def test_the_same_seed(life, monkeypatch):
    """What has failed once can be made to fail again: the same seed leads to the same bytes."""
    checkers: list[Checker] = []

    def kept(**options):
        checkers.append(Checker(**options))
        return checkers[-1]

    monkeypatch.setattr(life, "Checker", kept)
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            make_repeatable(patch)
            life.run(16, chances=1, share=1000)
    first, second = (checker.distinct for checker in checkers)
    assert len(first) > 10
    assert first == second
