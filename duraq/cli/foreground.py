"""Ctrl-C while another program has the terminal: everybody there gets it; it is meant for that program."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_to_program() -> Iterator[None]:
    """In this block a program is run that has the terminal, and Ctrl-C with it."""
    # Not SIG_IGN, which the program would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
