"""Python's cyclic collector, kept out of the way of traffic. (shell)

A full collection visits every container in the process. With a full cache of nodes that takes tens to
hundreds of milliseconds, in which nobody is answered, and by default it comes whenever the heap has grown
by a quarter. Reference counts free nearly everything here; the collector only matters for the odd cycle.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

import anyio

__all__ = ["collect_when_idle", "quieten"]

_YOUNG: Final = 5_000
"""New containers between collections of the youngest: a pause of about 0.3 ms."""
_MIDDLE: Final = 5
"""Youngest collections between those of the middle generation: a pause of a few milliseconds."""
_OLD: Final = 1_000
"""Middle collections before a full one comes in the midst of traffic."""
_LOOK_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 1.0


def quieten() -> None:
    """Take what is loaded by now out of collections for good, and make full ones rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


async def collect_when_idle(work: Callable[[], int]) -> None:
    """Once a minute, when ``work`` (a count of what was done) has not moved for a second, collect fully."""
    collected = -1
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        before = work()
        await anyio.sleep(_IDLE_SECONDS)
        if work() == before != collected:
            gc.collect()
            collected = before
