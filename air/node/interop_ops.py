"""What a node can be asked to do with a peer of any implementation: one operation after the other. (root)"""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from air.base.errors import Closed, Denied, Reset, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.dht.config import PROTOCOL as KADEMLIA
from air.dht.kademlia import Kademlia, Mode
from air.dht.values import Anything, PublicKeys
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.conn import Mplex
from air.node import presets
from air.node.node import Node
from air.protocols import Echo, Identify, Perf, Ping
from air.protocols.echo import PROTOCOL as ECHO
from air.protocols.perf import measure
from air.swarm.api import Service
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
    dht: str = "off"
    """``server``, ``client`` or ``off``; an operation of the DHT makes a client of a peer without."""
    key: str = "/air/k"
    value: str = "v"
    target: str = ""
    """Whom ``find-peer`` looks for; empty: the key when that is a peer id, else the dialled peer."""
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
        services: list[Service] = [self.ping, self.identify, Echo(), Perf()]
        self.dht: Kademlia | None = None
        if options.dht != "off" or KAD_OPERATIONS.keys() & set(options.ops):
            mode = Mode.SERVER if options.dht == "server" else Mode.CLIENT
            # Who provides something says where it is.
            listen = listen or ("/ip4/127.0.0.1/tcp/0",)
            self.dht = Kademlia(mode=mode, namespaces={"pk": PublicKeys(), "air": Anything()})
            services.append(self.dht)
        self.node = Node(
            options.identity,
            presets.transports(),
            [presets.security(name) for name in options.security],
            muxers,
            services,
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
            # The first that fails cancels the group: then no more are begun.
            await checkpoint()
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


async def _in_dht(bench: Bench, session: Session) -> Kademlia:
    """The DHT, once the dialled peer is in the table."""
    assert bench.dht is not None
    if KADEMLIA not in (await bench.identify.ask(session)).protocols:
        raise Denied("the peer serves no DHT", code="kad.no-server")
    while session.peer not in bench.dht.peers:
        await bench.dht.ready(len(bench.dht.peers) + 1)
    return bench.dht


def _provider_key(bench: Bench) -> bytes:
    """A multihash: sha2-256, 32 bytes."""
    return b"\x12\x20" + hashlib.sha256(bench.options.key.encode()).digest()


async def _kad_put(bench: Bench, session: Session) -> Fields:
    dht, options = await _in_dht(bench, session), bench.options
    return {"stored": await dht.put_value(options.key.encode(), options.value.encode())}


async def _kad_get(bench: Bench, session: Session) -> Fields:
    dht = await _in_dht(bench, session)
    value = await dht.get_value(bench.options.key.encode())
    return {"value": value.decode("utf-8", "replace")}


async def _provide(bench: Bench, session: Session) -> Fields:
    dht = await _in_dht(bench, session)
    return {"told": await dht.provide(_provider_key(bench))}


async def _find_providers(bench: Bench, session: Session) -> Fields:
    dht = await _in_dht(bench, session)
    return {"providers": [str(one.peer) for one in await dht.find_providers(_provider_key(bench))]}


def _target(options: Options) -> PeerId | None:
    if options.target:
        return PeerId(options.target)
    try:
        return PeerId(options.key)
    except Violation:
        return None


async def _find_peer(bench: Bench, session: Session) -> Fields:
    dht = await _in_dht(bench, session)
    found = await dht.find_peer(_target(bench.options) or session.peer)
    return {"peer": str(found.peer), "addrs": [str(address) for address in found.addresses]}


KAD_OPERATIONS: Final[dict[str, Callable[[Bench, Session], Awaitable[Fields]]]] = {
    "kad-put": _kad_put,
    "kad-get": _kad_get,
    "provide": _provide,
    "find-providers": _find_providers,
    "find-peer": _find_peer,
}
OPERATIONS: Final[dict[str, Callable[[Bench, Session], Awaitable[Fields]]]] = {
    "identify": identify,
    "ping": ping,
    "echo": _echo,
    "perf": _perf,
    "half-close": _half_close,
    "reset": _reset,
    **KAD_OPERATIONS,
}
