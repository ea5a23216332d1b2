"""A contender, set up for one workload: opened here, and to be opened by further processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from benchmarks.contender import Contender


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    opener: partial[Contender]
    contender: Contender
