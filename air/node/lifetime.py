"""What is open inside a ``with`` block, and only there. (root)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

__all__ = ["Lifetime"]


class Lifetime(ABC):
    """An object whose life is one generator: ``_opened`` sets up, yields once, and takes down.

    The object itself is what ``async with`` gives. What fails while it is set up is taken down and raised.
    """

    _stack: AsyncExitStack

    @abstractmethod
    def _opened(self) -> AbstractAsyncContextManager[None]:
        """Everything between the beginning and the end of the block."""

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._opened())
        self._stack = stack
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)
