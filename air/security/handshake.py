"""A handshake in its time: either it ends well, or the stream below is closed. (shell)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from air.base.errors import Violation
from air.transport.api import ByteStream

__all__ = ["handshaking"]


@asynccontextmanager
async def handshaking(conn: ByteStream, seconds: float, code: str) -> AsyncIterator[None]:
    """Whatever goes wrong inside the block closes ``conn``; too slow is Violation ``code``."""
    try:
        with anyio.fail_after(seconds):
            yield
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await conn.aclose()
        if isinstance(error, TimeoutError):
            raise Violation("the handshake took too long", code=code, fatal=True) from None
        raise
