"""What a node can be asked to do with a peer of any implementation: one operation after the other. (root)"""

from __future__ import annotations

import os
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from air.base.errors import Closed, Reset, Violation
from air.base.keys import Identity
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.conn import Mplex
from air.node import presets
from air.node.node import Node
from air.protocols import Echo, Identify, Perf, Ping
from air.protocols.echo import PROTOCOL as ECHO
from air.protocols.perf import measure
from air.swarm.session import Session
from air.swarm.swarm import SwarmConfig
from air.swarm.upgrade import UpgradeConfig

__all__ = ["OPERATIONS", "Bench", "Fields", "Options", "identify", "ping"]

RESETS: Final = 20
"""Streams that the operation ``reset`` opens and cuts."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    identity: Identity
    muxers: tuple[str, ...]
    security: tuple[str, ...]
    listen: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()
    address: str = ""
    ops: tuple[str, ...] = ()
    echo_bytes: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    count: int = 1
    timeout_seconds: float = 30.0
    mplex_opens: int = 0
    """Streams opened a second on mplex; 0 for what the muxer does by itself."""
    json: bool = False


class Bench:
    """A node with everything the operations need."""

    def __init__(self, options: Options, listen: tuple[str, ...] = (), *, guess: bool = True) -> None:
        self.options = options
        self.ping, self.identify = Ping(), Identify()
        muxers = [presets.muxer(name) for name in options.muxers]
        if options.mplex_opens:
            paced = MplexConfig(opens_max=options.mplex_opens, opens_seconds=1.0)
            muxers = [Mplex(paced) if isinstance(one, Mplex) else one for one in muxers]
        self.node = Node(
            options.identity,
            presets.transports(),
            [presets.security(name) for name in options.security],
            muxers,
            [self.ping, self.identify, Echo(), Perf()],
            listen,
            config=SwarmConfig(upgrade=UpgradeConfig(guess=guess)),
        )


Fields = Mapping[str, Any]
"""What an operation found, as it is printed."""


async def identify(bench: Bench, session: Session) -> Fields:
    said = await bench.identify.ask(session)
    return {
        "agent": said.agent,
        "protocolVersion": said.protocol_version,
        "protocols": list(said.protocols),
        "addrs": [str(address) for address in said.addresses],
        "observed": None if said.observed is None else str(said.observed),
        "signed": said.record is not None,
    }


async def ping(bench: Bench, session: Session) -> Fields:
    found = await bench.ping.ping(session, bench.options.count)
    rounded = [round(seconds * 1000, 4) for seconds in found]
    return {"rtt": statistics.median(rounded), "min": min(rounded), "rtts": rounded[:100]}


async def _echo(bench: Bench, session: Session) -> Fields:
    options = bench.options
    async with anyio.create_task_group() as tasks:
        for number in range(options.count):
            tasks.start_soon(_echo_one, session, number, options.echo_bytes)
    return {"bytes": options.echo_bytes, "streams": options.count}


async def _echo_one(session: Session, number: int, size: int) -> None:
    block = os.urandom(min(size, 64 * 1024)) or b""
    stream = await session.open_stream(ECHO)
    async with stream, anyio.create_task_group() as tasks:
        tasks.start_soon(_send_blocks, stream, block, size)
        at = 0
        while True:
            try:
                data = await stream.receive(64 * 1024)
            except Reset:
                raise
            except Closed:
                break
            # Every block is the same, so any piece can be compared where it lies.
            where = at % len(block) if block else 0
            wanted = (block + block)[where : where + len(data)]
            if data != wanted[: len(data)] or at + len(data) > size:
                raise Violation(f"stream {number} came back changed at byte {at}", code="echo.changed")
            at += len(data)
        if at != size:
            raise Violation(f"stream {number}: {at} bytes of {size}", code="echo.truncated")


async def _send_blocks(stream: Any, block: bytes, size: int) -> None:
    left = size
    while left:
        piece = block if left >= len(block) else block[:left]
        await stream.send(piece)
        left -= len(piece)
    await stream.send_eof()


async def _perf(bench: Bench, session: Session) -> Fields:
    options = bench.options
    found = await measure(session, options.up_bytes, options.down_bytes)
    return {
        "up": options.up_bytes,
        "down": options.down_bytes,
        "upSeconds": round(found.up_seconds, 6),
        "downSeconds": round(found.down_seconds, 6),
    }


async def _half_close(bench: Bench, session: Session) -> Fields:
    """The end before a single byte: the answer to nothing is an end, and the other half works until then."""
    await _echo_one(session, 0, 0)
    return {}


async def _reset(bench: Bench, session: Session) -> Fields:
    """A reset stream takes nothing with it: the next one on the same connection is well."""
    for number in range(RESETS):
        stream = await session.open_stream(ECHO)
        await stream.send(os.urandom(1000 * number))
        await stream.reset()
        try:
            await stream.receive()
        except Reset:
            continue
        raise Violation(f"stream {number} was reset and can be read", code="reset.ignored")
    await _echo_one(session, RESETS, 100_000)
    return {"streams": RESETS}


OPERATIONS: Final[dict[str, Callable[[Bench, Session], Awaitable[Fields]]]] = {
    "identify": identify,
    "ping": ping,
    "echo": _echo,
    "perf": _perf,
    "half-close": _half_close,
    "reset": _reset,
}
