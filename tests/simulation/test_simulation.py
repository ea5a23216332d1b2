"""Whole lives of a machine, each from a seed, with everything that can go wrong going wrong at random.

A failure says its seed: ``DURAQ_SEED=17 pytest tests/simulation/test_simulation.py`` lives that life again.
"""

from __future__ import annotations

import os

import pytest
from evidence import count
from simulation.simulation import run
from simulation.world import make_repeatable

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
ONE = os.environ.get("DURAQ_SEED", "")
SHARES = 1 if ONE else 40 if DEEP else 2  # that can run at once
SEEDS = 40 if DEEP else 4  # of each share
CHANCES = 6 if DEEP else 1  # guesses of what a power cut leaves, at each call that is looked at
CLOSELY = 100 if DEEP else 20  # one of so many is looked at closely

pytestmark = pytest.mark.timeout(7200)


@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_happens(share):
    """Whatever goes wrong, and when: what was acknowledged is there, and nothing else."""
    seeds = [int(ONE)] if ONE else range(share * SEEDS + 1, (share + 1) * SEEDS + 1)
    for seed in seeds:
        # Each life anew, for what comes from a counter is to come again.
        with pytest.MonkeyPatch.context() as patch:
            make_repeatable(patch)
            checked = run(seed, chances=CHANCES, share=CLOSELY)
        count("simulated", checked)
