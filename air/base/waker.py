"""How one task of a connection waits until another has news for it. (shell)

An event of anyio serves any number of tasks and stays set. Where one task looks at a state, waits and looks
again, that is more than is needed: on asyncio an event costs 4 µs more a wait than a future, and a kilobyte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import anyio

from air.base.errors import Misuse

__all__ = ["Waker"]


class _TrioWaiter:
    """The part of a future that is used here."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, _: None) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._event.wait().__await__()


class Waker:
    """One task at a time waits; whoever changes what it waits for wakes it, and it looks again."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | _TrioWaiter | None = None

    @property
    def waiting(self) -> bool:
        """Whether a task waits that nobody has woken."""
        return self._waiter is not None and not self._waiter.done()

    async def wait(self) -> None:
        """Wait for the next ``wake``. Look at the state first: a wake that nobody waits for is lost.

        Raises Misuse when another task waits.
        """
        if self.waiting:
            raise Misuse("another task waits here")
        waiter: asyncio.Future[None] | _TrioWaiter
        try:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
        except RuntimeError:
            waiter = self._waiter = _TrioWaiter()
        try:
            await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
