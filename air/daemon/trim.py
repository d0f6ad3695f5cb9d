"""Memory that was freed goes back to the operating system. (shell)

glibc keeps what a program frees, and more so after large pieces have come and gone: it then takes pieces of
up to 32 MiB from its heaps instead of pages of their own, and what is small comes to lie above them. A peer
that let answers of some MiB pile up leaves tens of MiB of resident memory behind although nothing of them is
in use. So large pieces always get pages of their own here, and ``malloc_trim`` gives back the pages in
between; with 100 MiB of heap that takes some milliseconds, in a thread that does not hold Python's lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

from air.node.heap import keep_blocks

__all__ = ["keep_large_apart", "trim_when_moved"]

_LOOK_SECONDS: Final = 5.0
_AFTERWARDS: Final = 3
"""Looks after the last one at which something had moved: some things are freed later than they were used."""

_M_ARENA_MAX: Final = -8
"""A parameter of mallopt(3)."""
_LARGE_BYTES: Final = 512 * 1024
_ARENAS: Final = 2
"""Heaps: one for the event loop, one for the threads that work for it one at a time."""


def keep_large_apart() -> None:
    """Give large pieces pages of their own, for the whole process. Does nothing without glibc."""
    # Setting the threshold also ends its growth with each large piece that is freed.
    if keep_blocks(_LARGE_BYTES):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


async def trim_when_moved(work: Callable[[], float]) -> None:
    """Trim the heap every few seconds in which ``work``, a count of what was done, has moved, and a bit more.

    Returns at once where the C library has no ``malloc_trim``.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    done, left = work(), 0
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        if (now := work()) != done:
            done, left = now, _AFTERWARDS + 1
        if left:
            left -= 1
            await anyio.to_thread.run_sync(trim, 0)
