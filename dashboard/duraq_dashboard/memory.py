"""Memory that is not needed any more goes back to the machine, and for what always is nobody looks.

The C library keeps what was freed for the next time, in a pool for each thread, and the larger the pieces are
the more of it. A program that looks at gigabytes in threads, and then shows a page of them, would keep most
of what it ever needed at once: with a million dead letters 178 MB instead of 97.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# As malloc.h has them: what is larger than that is given back when it is freed; pools for threads.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE = 1 << 20  # bytes


def give_back() -> None:
    """Have the C library give back what is large as soon as it is freed, where it is one that can be told."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_ARENA_MAX, 2)


def give_back_now() -> None:
    """Have it give back whatever else it keeps: to be called when much was made, and little of it is left."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def for_good() -> Iterator[None]:
    """What is made until the block ends lasts as long as the program: nothing of it is ever looked through.

    To find out again and again that none of the modules can be thrown away takes a tenth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
