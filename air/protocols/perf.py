"""Perf: how many bytes a second go each way. (shell)

The client sends the number of bytes it wants, eight bytes big-endian, then its upload, then its end; the
server reads all of it and sends that many. Source: libp2p perf.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from air.base.errors import Closed, Reset, Violation
from air.mux.api import Priority
from air.swarm.api import Host, StreamHandler
from air.swarm.session import Session
from air.swarm.stream import Stream

__all__ = ["PROTOCOL", "Perf", "PerfResult", "measure"]

PROTOCOL: Final = "/perf/1.0.0"
_PIECE: Final = bytes(256 * 1024)
_READ_BYTES: Final = 64 * 1024
"""As large as a frame: a larger read joins several, which copies them."""


class PerfResult(NamedTuple):
    """Seconds, from the first byte to the last."""

    up_seconds: float
    """Until the peer had everything, as its first answer (or end) shows."""
    down_seconds: float


class Perf:
    """Serves the perf protocol."""

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: _serve}

    async def run(self, host: Host, *, task_status: Any) -> None:
        task_status.started()


async def measure(session: Session, up_bytes: int, down_bytes: int) -> PerfResult:
    """Send ``up_bytes`` and fetch ``down_bytes``.

    Raises Violation ``perf.wrong-size`` when the peer sends another number, and what streams raise.
    """
    async with await session.open_stream(PROTOCOL, priority=Priority.BULK) as stream:
        start = time.perf_counter()
        await stream.send(down_bytes.to_bytes(8, "big"))
        await _send(stream, up_bytes)
        await stream.send_eof()
        got, first = 0, 0.0
        while True:
            try:
                piece = len(await stream.receive(_READ_BYTES))
            except Reset:
                raise
            except Closed:
                break
            first = first or time.perf_counter()
            got += piece
        end = time.perf_counter()
        if got != down_bytes:
            raise Violation(f"{got} bytes instead of {down_bytes}", code="perf.wrong-size")
        first = first or end
        return PerfResult(first - start, end - first)


async def _serve(stream: Stream) -> None:
    stream.priority = Priority.BULK
    head = b""
    while True:
        try:
            data = await stream.receive(_READ_BYTES)
        except Reset:
            raise
        except Closed:
            break
        if len(head) < 8:
            head += data[: 8 - len(head)]
    if len(head) < 8:
        raise Violation("a perf request that is cut short", code="perf.truncated")
    await _send(stream, int.from_bytes(head, "big"))


async def _send(stream: Stream, count: int) -> None:
    while count >= len(_PIECE):
        await stream.send(_PIECE)
        count -= len(_PIECE)
    if count:
        await stream.send(_PIECE[:count])
