"""Whether a call is still going on: a Ctrl-C may have broken it off before it could say that it is over."""

from __future__ import annotations

import sys
from types import FrameType


def caller_of_caller() -> FrameType:
    """The call that made the one which asks."""
    return sys._getframe(2)  # noqa: SLF001 - named so, and documented


def is_running(call: FrameType | None) -> bool:
    """Whether this thread is in that call, or in one that it has made, as a signal handler is."""
    each: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while each is not None:
        if each is call:
            return True
        each = each.f_back
    return False
