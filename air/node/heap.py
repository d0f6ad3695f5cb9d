"""Blocks that are freed stay with the process, up to a limit. (root)

A bulk transfer allocates and frees buffers of 64 KiB and more at a steady rate. By default glibc gives such
blocks back to the operating system at once and gets the next ones as pages that have to be cleared and mapped
anew, which costs a receiver 40 % of its time: 1.05 instead of 0.63 s of CPU for each GiB (bench/net.py).
"""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_blocks"]

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Names of parameters in malloc.h."""

KEPT_BYTES: Final = 16 * 1024 * 1024
"""Free memory at the end of the heap beyond which all of it goes back."""
LARGE_BYTES: Final = 2 * 1024 * 1024
"""Blocks from here on are mapped on their own and go back when they are freed."""


def keep_blocks(large_bytes: int = LARGE_BYTES) -> bool:
    """Tell the C library, once for the whole process. False where it takes no such advice.

    ``large_bytes``: blocks from here on are mapped on their own and go back when they are freed.
    For the beginning of a program: a library has no business to do it unasked.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, large_bytes)) and bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
