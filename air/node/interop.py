"""A node for testing against other implementations: serve, dial, and probe layer by layer. (root)"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio

from air.base.address import Multiaddr
from air.base.errors import AirError, Closed, Reset, Unreachable, Violation
from air.base.keys import Identity
from air.node import presets
from air.node.node import Node
from air.protocols import Echo, Identify, Perf, Ping
from air.protocols.echo import PROTOCOL as ECHO
from air.protocols.perf import measure
from air.swarm.lifecycle import PeerEvent, Stage
from air.swarm.session import Session
from air.swarm.swarm import SwarmConfig
from air.swarm.upgrade import UpgradeConfig

__all__ = ["Options", "dial", "listen", "probe"]


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
    json: bool = False


class _Bench:
    """A node with everything the operations need."""

    def __init__(self, options: Options, listen: tuple[str, ...] = (), *, guess: bool = True) -> None:
        self.options = options
        self.ping, self.identify = Ping(), Identify()
        self.node = Node(
            options.identity,
            presets.transports(),
            [presets.security(name) for name in options.security],
            [presets.muxer(name) for name in options.muxers],
            [self.ping, self.identify, Echo(), Perf()],
            listen,
            config=SwarmConfig(upgrade=UpgradeConfig(guess=guess)),
        )


def _print(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def listen(options: Options) -> int:
    """Serve until stdin closes or a signal comes."""
    bench = _Bench(options, options.listen)
    async with bench.node as node:
        for address in options.bootstrap:
            with anyio.fail_after(options.timeout_seconds):
                await node.dial(address)
        _print(
            "listening",
            impl="air",
            peer=str(node.peer),
            addrs=[str(address) for address in node.addresses],
            protocols=list(node.protocols),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stdin_closed, tasks.cancel_scope)
            tasks.start_soon(_signalled, tasks.cancel_scope)
    return 0


async def dial(options: Options) -> int:
    """Dial, then run the operations one after another. 0 only when all of them went well."""
    bench = _Bench(options)
    async with bench.node as node:
        for address in options.bootstrap:
            await node.dial(address)
        # Read first: the libraries that know address formats load when one is seen, which is not the dial.
        where = Multiaddr(options.address)
        start = time.perf_counter()
        try:
            with anyio.fail_after(options.timeout_seconds):
                session = await node.dial(where)
        except (AirError, TimeoutError) as error:
            _print("error", op="dial", **_told(error))
            return 1
        milliseconds = (time.perf_counter() - start) * 1000
        _print(
            "connected",
            peer=str(session.peer),
            addr=str(session.remote_address),
            encryption=session.security,
            muxer=session.muxer,
            ms=round(milliseconds, 3),
        )
        good = True
        for op in options.ops:
            good = await _result(op, bench, session) and good
    return 0 if good else 1


async def _result(op: str, bench: _Bench, session: Session) -> bool:
    start = time.perf_counter()
    try:
        with anyio.fail_after(bench.options.timeout_seconds):
            work = _OPS.get(op)
            if work is None:
                raise Violation(f"{op} is not in this version", code="interop.unknown-op")
            fields = await work(bench, session)
    except (AirError, TimeoutError, ExceptionGroup) as error:
        _print("result", op=op, ok=False, **_told(_first(error)))
        return False
    _print("result", op=op, ok=True, ms=round((time.perf_counter() - start) * 1000, 3), **fields)
    return True


def _first(error: Exception) -> AirError | TimeoutError:
    """The error of a group that can be told."""
    while isinstance(error, ExceptionGroup):
        known, others = error.split((AirError, TimeoutError))
        error = (others if known is None else known).exceptions[0]  # type: ignore[union-attr]
    if isinstance(error, AirError | TimeoutError):
        return error
    raise error


def _told(error: AirError | TimeoutError) -> dict[str, Any]:
    if isinstance(error, TimeoutError):
        return {"code": "interop.timeout", "error": "it took too long"}
    told: dict[str, Any] = {"code": error.code, "error": str(error)}
    if isinstance(error, Unreachable):
        told["attempts"] = [list(attempt) for attempt in error.attempts]
    return told


# Operations

_Fields = Mapping[str, Any]


async def _identify(bench: _Bench, session: Session) -> _Fields:
    said = await bench.identify.ask(session)
    return {
        "agent": said.agent,
        "protocolVersion": said.protocol_version,
        "protocols": list(said.protocols),
        "addrs": [str(address) for address in said.addresses],
        "observed": None if said.observed is None else str(said.observed),
        "signed": said.record is not None,
    }


async def _ping(bench: _Bench, session: Session) -> _Fields:
    found = await bench.ping.ping(session, bench.options.count)
    rounded = [round(seconds * 1000, 4) for seconds in found]
    return {"rtt": statistics.median(rounded), "min": min(rounded), "rtts": rounded[:100]}


async def _echo(bench: _Bench, session: Session) -> _Fields:
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


async def _perf(bench: _Bench, session: Session) -> _Fields:
    options = bench.options
    found = await measure(session, options.up_bytes, options.down_bytes)
    return {
        "up": options.up_bytes,
        "down": options.down_bytes,
        "upSeconds": round(found.up_seconds, 6),
        "downSeconds": round(found.down_seconds, 6),
    }


_OPS: Final[dict[str, Callable[[_Bench, Session], Awaitable[_Fields]]]] = {
    "identify": _identify,
    "ping": _ping,
    "echo": _echo,
    "perf": _perf,
}


# Probing


async def probe(options: Options) -> int:
    """Go through the layers towards a peer and tell where it stops."""
    bench = _Bench(options, guess=False)
    layers: list[dict[str, Any]] = []
    async with bench.node as node:
        session: Session | None = None
        watch = node.events()
        try:
            with anyio.fail_after(options.timeout_seconds):
                session = await node.dial(options.address)
        except (AirError, TimeoutError) as error:
            layers += _until_failure(await _drained(watch), error)
        else:
            layers += _reached(await _drained(watch), session)
            for layer, work in (("identify", _identify), ("ping", _ping)):
                start = time.perf_counter()
                try:
                    with anyio.fail_after(options.timeout_seconds):
                        fields = await work(bench, session)
                except (AirError, TimeoutError) as error:
                    layers.append({"layer": layer, "ok": False, **_told(error)})
                    break
                milliseconds = round((time.perf_counter() - start) * 1000, 3)
                layers.append({"layer": layer, "ok": True, "ms": milliseconds, **fields})
    for found in layers:
        print(json.dumps(found) if options.json else _line(found))
    sys.stdout.flush()
    return 0 if layers[-1]["ok"] else 1


async def _drained(watch: Any) -> list[PeerEvent]:
    watch.close()
    return [event async for event in watch]


def _times(events: list[PeerEvent]) -> dict[Stage, float]:
    return {event.stage: event.at.monotonic * 1000 for event in events}


def _reached(events: list[PeerEvent], session: Session) -> list[dict[str, Any]]:
    mine = _times([event for event in events if event.connection == session.number])
    connecting, handshaking = mine.get(Stage.CONNECTING, 0.0), mine.get(Stage.HANDSHAKING, 0.0)
    done = mine.get(Stage.AUTHENTICATED, handshaking)
    where = str(session.remote_address)
    return [
        {"layer": "transport", "ok": True, "ms": round(handshaking - connecting, 3), "address": where},
        {"layer": "security", "ok": True, "ms": round(done - handshaking, 3), "protocol": session.security},
        {"layer": "muxer", "ok": True, "protocol": session.muxer, "peer": str(session.peer)},
    ]


_MUXER_CODES: Final = ("upgrade.no-muxer", "upgrade.muxer", "yamux.", "mplex.", "mux.")


def _until_failure(events: list[PeerEvent], error: AirError | TimeoutError) -> list[dict[str, Any]]:
    stages = _times(events)
    cause = error.__cause__ if isinstance(error.__cause__, AirError) else None
    code = cause.code if cause is not None else getattr(error, "code", "")
    if Stage.CONNECTING not in stages:
        return [{"layer": "address", "ok": False, **_told(error)}]
    if Stage.HANDSHAKING not in stages:
        return [{"layer": "transport", "ok": False, **_told(error)}]
    good = [
        {
            "layer": "transport",
            "ok": True,
            "ms": round(stages[Stage.HANDSHAKING] - stages[Stage.CONNECTING], 3),
        }
    ]
    told = _told(cause if cause is not None else error)
    if code.startswith(_MUXER_CODES):
        return [*good, {"layer": "security", "ok": True}, {"layer": "muxer", "ok": False, **told}]
    return [*good, {"layer": "security", "ok": False, **told}]


def _line(layer: Mapping[str, Any]) -> str:
    words = [f"{layer['layer']:10}", "ok" if layer["ok"] else "FAILED"]
    if "ms" in layer:
        words.append(f"{layer['ms']} ms")
    words += [
        str(layer[key]) for key in ("protocol", "address", "peer", "agent", "code", "error") if layer.get(key)
    ]
    lines = [" ".join(words)]
    lines += [f"           {address}: {reason}" for address, reason in layer.get("attempts", ())]
    return "\n".join(lines)


# The end


async def _stdin_closed(scope: anyio.CancelScope) -> None:
    descriptor = sys.stdin.fileno()
    while True:
        # A file or /dev/null cannot be waited for, and never makes one wait.
        with suppress(OSError):
            await anyio.wait_readable(descriptor)
        if not os.read(descriptor, 65536):
            scope.cancel()
            return


async def _signalled(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return
