"""Memory that was freed goes back to the operating system. (shell)

glibc keeps what a program frees at the top of its heap, and more so after large pieces have come and gone: a
peer that let answers of some MiB pile up leaves tens of MiB of resident memory behind although nothing of
them is in use. ``malloc_trim`` gives all of it back; with 100 MiB of heap it takes some milliseconds, in a
thread that does not hold Python's lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

__all__ = ["trim_when_moved"]

_LOOK_SECONDS: Final = 5.0


async def trim_when_moved(work: Callable[[], float]) -> None:
    """Every few seconds in which ``work`` (a count of what was done) has moved, trim the heap.

    Returns at once where the C library has no ``malloc_trim``.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    done = work()
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        if (now := work()) != done:
            await anyio.to_thread.run_sync(trim, 0)
            done = now
