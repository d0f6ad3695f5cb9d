"""A node for testing against other implementations: serve, dial, and probe layer by layer. (root)"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import anyio

from air.base.address import Multiaddr
from air.base.errors import AirError, Unreachable
from air.node.interop_ops import OPERATIONS, Bench, Options, identify, ping
from air.node.node import Node
from air.node.state import tell_state
from air.swarm.lifecycle import PeerEvent, Stage
from air.swarm.session import Session

__all__ = ["Options", "dial", "listen", "probe"]


def _print(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


async def listen(options: Options) -> int:
    """Serve until stdin closes or a signal comes."""
    bench = Bench(options, options.listen)
    good = True
    async with bench.node as node, anyio.create_task_group() as tasks:
        tasks.start_soon(_stdin_closed, tasks.cancel_scope)
        tasks.start_soon(_signalled, tasks.cancel_scope)
        tasks.start_soon(_asked_for_state, node)
        good = await _joined(node, options)
        if good:
            _print(
                "listening",
                impl="air",
                peer=str(node.peer),
                addrs=[str(address) for address in node.addresses],
                protocols=list(node.protocols),
            )
        else:
            tasks.cancel_scope.cancel()
    return 0 if good else 1


async def _joined(node: Node, options: Options) -> bool:
    """Dial who was named to begin with. False when one cannot be reached."""
    for address in options.bootstrap:
        try:
            with anyio.fail_after(options.timeout_seconds):
                await node.dial(address)
        except (AirError, TimeoutError) as error:
            _print("failed", op="bootstrap", addr=address, **_told(error))
            return False
    return True


async def dial(options: Options) -> int:
    """Dial, then run the operations one after another. 0 only when all of them went well."""
    bench = Bench(options)
    async with bench.node as node:
        if not await _joined(node, options):
            return 1
        # Read first: the libraries that know address formats load when one is seen, which is not the dial.
        where = Multiaddr(options.address)
        start = time.perf_counter()
        try:
            with anyio.fail_after(options.timeout_seconds):
                session = await node.dial(where)
        except (AirError, TimeoutError) as error:
            _print("failed", op="dial", **_told(error))
            return 1
        milliseconds = (time.perf_counter() - start) * 1000
        _print(
            "connected",
            impl="air",
            peer=str(session.peer),
            addr=str(session.remote_address),
            encryption=session.security,
            muxer=session.muxer,
            ms=round(milliseconds, 3),
        )
        good = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_asked_for_state, node)
            for op in options.ops:
                good = await _result(op, bench, session) and good
            tasks.cancel_scope.cancel()
    return 0 if good else 1


async def _result(op: str, bench: Bench, session: Session) -> bool:
    start = time.perf_counter()
    try:
        with anyio.fail_after(bench.options.timeout_seconds):
            fields = await OPERATIONS[op](bench, session)
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


# Probing


async def probe(options: Options) -> int:
    """Go through the layers towards a peer and tell where it stops."""
    bench = Bench(options, guess=False)
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
            for layer, work in (("identify", identify), ("ping", ping)):
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
    descriptor = 0  # not sys.stdin, which is None when it was closed from the beginning
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


async def _asked_for_state(node: Node) -> None:
    """SIGUSR1: what every connection waits for, on stderr. For whoever looks into a test that hangs."""
    if not hasattr(signal, "SIGUSR1"):
        return
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            sys.stderr.write("\n".join(tell_state(node)) + "\n")
            sys.stderr.flush()
