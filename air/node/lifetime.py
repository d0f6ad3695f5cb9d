"""What is open inside a ``with`` block, and only there. (root)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

from air.base.groups import lone

__all__ = ["Lifetime"]


class Lifetime(ABC):
    """An object whose life is one generator: ``_opened`` sets up, yields once, and takes down.

    The object itself is what ``async with`` gives. What fails while it is set up is taken down and raised.
    One error comes out as it is, also where tasks inside would wrap it in a group: ``except Unreachable``
    around the block catches what the block raised. Only several at once stay a group.
    """

    _stack: AsyncExitStack

    @abstractmethod
    def _opened(self) -> AbstractAsyncContextManager[None]:
        """Everything between the beginning and the end of the block."""

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(self._opened())
        except BaseExceptionGroup as group:
            found = lone(group)
            if isinstance(found, BaseExceptionGroup):
                raise
        else:
            self._stack = stack
            return self
        # Not where the group is handled, whose trace would be shown as well.
        raise found

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            found = lone(group)
            if isinstance(found, BaseExceptionGroup):
                raise
        if found is error:
            return False
        raise found
