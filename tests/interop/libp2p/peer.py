"""py-libp2p as the other side of Air's interop matrix. The command line is in README.md.

This runs in an environment of its own, where Air is not installed and py-libp2p is.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import os
import signal
import socket
import statistics
import sys
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_pair
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.common import PROTOCOL_ID as KAD
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network.config import ConnectionConfig
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_PROTOCOL_ID
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID, Mplex
from libp2p.stream_muxer.mplex.mplex_stream import MplexStream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL_ID
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

ECHO = "/echo/1.0.0"
PERF = "/perf/1.0.0"
PING = "/ipfs/ping/1.0.0"
IDENTIFY = "/ipfs/id/1.0.0"
CHUNK = 64 * 1024
JOIN_SECONDS = 10.0

# A stream's bytes are a window into one repeated block, so that a byte out of place never goes unseen.
BLOCK = 65_521
PATTERN = bytes((at * 167 + (at >> 8)) & 255 for at in range(BLOCK)) * 2


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def expected(start: int, length: int) -> bytes:
    return PATTERN[start % BLOCK : start % BLOCK + length]


async def read(stream: Any, limit: int = CHUNK) -> bytes:
    """At most ``limit`` bytes; empty at the end."""
    try:
        return bytes(await stream.read(limit))
    except StreamEOF:
        return b""


async def read_exactly(stream: Any, length: int) -> bytes:
    found = b""
    while len(found) < length:
        piece = await read(stream, length - len(found))
        if not piece:
            raise EOFError(f"{len(found)} bytes of {length}, then the end")
        found += piece
    return found


async def serve_echo(stream: Any) -> None:
    try:
        while data := await read(stream):
            await stream.write(data)
        await stream.close()
    except Exception as error:
        logging.info("echo: %r", error)
        await stream.reset()


async def serve_perf(stream: Any) -> None:
    try:
        down = int.from_bytes(await read_exactly(stream, 8), "big")
        while await read(stream):
            pass
        await pour(stream, down)
        await stream.close()
    except Exception as error:
        logging.info("perf: %r", error)
        await stream.reset()


async def pour(stream: Any, count: int) -> None:
    zeroes = bytes(CHUNK)
    while count > 0:
        await stream.write(zeroes[: min(count, CHUNK)])
        count -= CHUNK


def make_host(flags: argparse.Namespace, listen: list[Multiaddr]) -> Any:
    pair = create_new_key_pair(bytes.fromhex(flags.seed) if flags.seed else os.urandom(32))
    security = {
        "noise": lambda: {
            NOISE_PROTOCOL_ID: NoiseTransport(pair, noise_privkey=create_new_noise_pair().private_key)
        },
        "tls": lambda: {TLS_PROTOCOL_ID: TLSTransport(pair)},
        "plaintext": lambda: {PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)},
    }[flags.security]()
    # The choice is passed on as a mapping: muxer_preference would offer yamux behind mplex all the same.
    muxers = {
        "yamux": {YAMUX_PROTOCOL_ID: Yamux},
        "mplex": {MPLEX_PROTOCOL_ID: Mplex},
        "both": {YAMUX_PROTOCOL_ID: Yamux, MPLEX_PROTOCOL_ID: Mplex},
    }[flags.muxer]
    # Three per peer is the default, and a runner that dials again with the same identity would meet it.
    limits = ConnectionConfig(max_connections_per_peer=1000)
    return new_host(
        key_pair=pair,
        sec_opt=security,
        muxer_opt=muxers,
        listen_addrs=listen or None,
        enable_websocket=True,
        connection_config=limits,
    )


class AnyBytes:
    """The validator of the namespace `air`: every value is valid, and the greatest bytes win."""

    def validate(self, key: str, value: bytes) -> None:
        pass

    def select(self, key: str, values: list[bytes]) -> int:
        # A server of py-libp2p resets the stream unless the newcomer, which it names last, is selected. So of
        # equals the last wins: a value may be put again.
        return max(range(len(values)), key=lambda at: (values[at], at))


@asynccontextmanager
async def running_dht(host: Any, role: str) -> AsyncIterator[KadDHT | None]:
    """To be entered before the host runs, so that identify names the protocol from the beginning."""
    if role == "off":
        yield None
        return
    dht = KadDHT(host, DHTMode[role.upper()])
    dht.register_validator("air", AnyBytes())
    async with background_trio_service(dht):
        yield dht


async def join(dht: KadDHT, peer: ID) -> None:
    """py-libp2p takes up whoever asks it; to add a server that identify has named is left to its user."""
    start = trio.current_time()
    while not dht.routing_table.peer_in_table(peer):
        if trio.current_time() - start > JOIN_SECONDS:
            raise LookupError(f"{peer} did not enter the routing table")
        if KAD in dht.host.get_peerstore().get_protocols(peer):
            await dht.add_peer(peer)
        await trio.sleep(0.01)


async def bootstrap(host: Any, dht: KadDHT | None, flags: argparse.Namespace) -> None:
    for known in flags.bootstrap:
        info = info_from_p2p_addr(Multiaddr(known))
        with trio.fail_after(flags.timeout / 1000):
            await host.connect(info)
            if dht is not None:
                await join(dht, info.peer_id)
                # The table's first refresh found nobody, and the next is ten minutes away. A py-libp2p that
                # nobody asks learns of nobody.
                await dht.refresh_routing_table()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_end_of_stdin() -> None:
    # Not sys.stdin: its lock, held by a thread that is left behind, would abort the interpreter at its end.
    while os.read(0, 4096):
        pass


async def listen(flags: argparse.Namespace) -> int:
    wanted: list[Multiaddr] = []
    # Port 0 is resolved here, as py-libp2p gives /tcp/0 and /tcp/0/ws one port and then loses connections.
    if flags.tcp_port is not None or flags.ws_port is None:
        wanted.append(Multiaddr(f"/ip4/127.0.0.1/tcp/{flags.tcp_port or free_port()}"))
    if flags.ws_port is not None:
        wanted.append(Multiaddr(f"/ip4/127.0.0.1/tcp/{flags.ws_port or free_port()}/ws"))
    host = make_host(flags, wanted)
    host.set_stream_handler(ECHO, serve_echo)
    host.set_stream_handler(PERF, serve_perf)
    async with running_dht(host, flags.dht) as dht, host.run(listen_addrs=wanted):
        await bootstrap(host, dht, flags)
        say(
            event="listening",
            impl="py",
            peer=str(host.get_id()),
            addrs=[f"{address}/p2p/{host.get_id()}" for address in wanted],
            protocols=[str(name) for name in host.get_mux().get_protocols() if name],
        )
        await trio.to_thread.run_sync(wait_for_end_of_stdin, abandon_on_cancel=True)
    return 0


async def echo_once(host: Any, peer: Any, number: int, count: int) -> None:
    stream = await host.new_stream(peer, [ECHO])

    async def send() -> None:
        for start in range(0, count, 32 * 1024):
            await stream.write(expected(number + start, min(count - start, 32 * 1024)))
        await stream.close_write()

    got = 0
    try:
        async with trio.open_nursery() as nursery:
            if isinstance(stream.muxed_stream, MplexStream):
                # Its one lock for both directions keeps a writer waiting while a reader waits for data.
                await send()
            else:
                nursery.start_soon(send)
            while data := await read(stream):
                for at in range(0, len(data), BLOCK):
                    part = data[at : at + BLOCK]
                    if part != expected(number + got, len(part)):
                        raise ValueError(f"echo differs within {len(part)} bytes after byte {got}")
                    got += len(part)
    except BaseException:
        with trio.move_on_after(1, shield=True):
            await stream.reset()
        raise
    if got != count:
        raise ValueError(f"echo: {got} bytes of {count} came back")
    await stream.close()


async def op_identify(host: Any, peer: Any, flags: argparse.Namespace) -> dict[str, Any]:
    stream = await host.new_stream(peer, [IDENTIFY])
    data = b""
    while piece := await read(stream):
        data += piece
    await stream.close()
    found = Identify()
    while data:
        length = shift = used = 0
        while True:
            byte = data[used]
            length |= (byte & 127) << shift
            shift += 7
            used += 1
            if byte < 128:
                break
        # The specification lets a peer split what it says into messages; together they are one.
        found.MergeFromString(data[used : used + length])
        data = data[used + length :]
    return {
        "agent": found.agent_version,
        "version": found.protocol_version,
        "protocols": list(found.protocols),
        "addrs": [str(Multiaddr(address)) for address in found.listen_addrs],
        "observed": str(Multiaddr(found.observed_addr)) if found.observed_addr else None,
        "signed": bool(found.signedPeerRecord),
    }


async def op_ping(host: Any, peer: Any, flags: argparse.Namespace) -> dict[str, Any]:
    stream = await host.new_stream(peer, [PING])
    times = []
    for _ in range(flags.count):
        sent = os.urandom(32)
        start = time.perf_counter()
        await stream.write(sent)
        if await read_exactly(stream, 32) != sent:
            raise ValueError("ping: another answer than the question")
        times.append(1000 * (time.perf_counter() - start))
    await stream.close()
    return {"count": flags.count, "ms": statistics.median(times)}


async def op_echo(host: Any, peer: Any, flags: argparse.Namespace) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        for number in range(flags.count):
            nursery.start_soon(echo_once, host, peer, number, flags.bytes)
    return {"count": flags.count, "bytes": flags.bytes}


async def op_perf(host: Any, peer: Any, flags: argparse.Namespace) -> dict[str, Any]:
    stream = await host.new_stream(peer, [PERF])
    start = time.perf_counter()
    await stream.write(flags.down.to_bytes(8, "big"))
    await pour(stream, flags.up)
    await stream.close_write()
    uploaded = time.perf_counter()
    got = 0
    while data := await read(stream, 1024 * 1024):
        got += len(data)
    if got != flags.down:
        raise ValueError(f"perf: {got} bytes of {flags.down} came down")
    await stream.close()
    done = time.perf_counter()
    return {
        "up": flags.up,
        "down": flags.down,
        "up_ms": 1000 * (uploaded - start),
        "down_ms": 1000 * (done - uploaded),
    }


async def op_half_close(host: Any, peer: Any, flags: argparse.Namespace) -> dict[str, Any]:
    """Half-close before a byte is sent: the answer to nothing is an end."""
    await echo_once(host, peer, 0, 0)
    return {}


async def op_reset(host: Any, peer: Any, flags: argparse.Namespace) -> dict[str, Any]:
    """A reset stream takes nothing with it: the next one on the same connection is well."""
    for number in range(20):
        stream = await host.new_stream(peer, [ECHO])
        if number:
            await stream.write(expected(number, 1000 * number))
        await stream.reset()
    await echo_once(host, peer, 7, 100_000)
    return {}


OPERATIONS: dict[str, Callable[[Any, Any, argparse.Namespace], Awaitable[dict[str, Any]]]] = {
    "identify": op_identify,
    "ping": op_ping,
    "echo": op_echo,
    "perf": op_perf,
    "half-close": op_half_close,
    "reset": op_reset,
}


async def kad_put(dht: KadDHT, flags: argparse.Namespace, target: ID) -> dict[str, Any]:
    # put_value does not tell whether anybody acknowledged, so it is counted where it is known.
    #
    # py-libp2p puts a `senderRecord` of its own into the request and takes the one in the answer for the
    # remote's. An answer that echoes the request with this unknown field, as go-libp2p's does, has the record
    # of the wrong peer: the value has arrived, and py-libp2p counts a refusal. That is reported as it is.
    acknowledged = 0
    store_at_peer = dht.value_store._store_at_peer

    async def counted(peer: ID, *about: Any, **more: Any) -> bool:
        nonlocal acknowledged
        stored: bool = await store_at_peer(peer, *about, **more)
        acknowledged += stored
        return stored

    dht.value_store._store_at_peer = counted
    try:
        await dht.put_value(flags.key, flags.value.encode())
    finally:
        dht.value_store._store_at_peer = store_at_peer
    if not acknowledged:
        raise LookupError("nobody acknowledged")
    return {"acknowledged": acknowledged}


# py-libp2p asks its own stores first, and nobody else when they have an answer. So each question begins with
# forgetting: what is reported came from others.


async def kad_get(dht: KadDHT, flags: argparse.Namespace, target: ID) -> dict[str, Any]:
    dht.value_store.remove(flags.key.encode())
    value = await dht.get_value(flags.key)
    if value is None:
        raise LookupError("nobody has a value")
    return {"value": value.decode(errors="replace")}


def multihash(flags: argparse.Namespace) -> bytes:
    return b"\x12\x20" + hashlib.sha256(flags.key.encode()).digest()


async def kad_provide(dht: KadDHT, flags: argparse.Namespace, target: ID) -> dict[str, Any]:
    if not await dht.provider_store.provide(multihash(flags)):
        raise LookupError("nobody to tell")
    return {}


async def kad_find_providers(dht: KadDHT, flags: argparse.Namespace, target: ID) -> dict[str, Any]:
    dht.provider_store.providers.pop(multihash(flags), None)
    found = await dht.provider_store.find_providers(multihash(flags))
    if not found:
        raise LookupError("nobody knows a provider")
    return {"providers": list(dict.fromkeys(str(provider.peer_id) for provider in found))}


async def kad_find_peer(dht: KadDHT, flags: argparse.Namespace, target: ID) -> dict[str, Any]:
    # Its find_peer ends at the routing table, where the dialled peer is; this is what it does for all others.
    peerstore = dht.host.get_peerstore()
    peerstore.clear_addrs(target)
    await dht.peer_routing.find_closest_peers_network(target.to_bytes())
    if target not in peerstore.peers_with_addrs():
        raise LookupError("nobody knows an address of the peer")
    return {"peer": str(target), "addrs": [str(address) for address in peerstore.addrs(target)]}


KAD_OPERATIONS: dict[str, Callable[[KadDHT, argparse.Namespace, ID], Awaitable[dict[str, Any]]]] = {
    "kad-put": kad_put,
    "kad-get": kad_get,
    "provide": kad_provide,
    "find-providers": kad_find_providers,
    "find-peer": kad_find_peer,
}


async def operate(
    op: str, host: Any, dht: KadDHT | None, peer: ID, flags: argparse.Namespace
) -> dict[str, Any]:
    if dht is None or op not in KAD_OPERATIONS:
        return await OPERATIONS[op](host, peer, flags)
    await join(dht, peer)
    return await KAD_OPERATIONS[op](dht, flags, ID.from_string(flags.target) if flags.target else peer)


def told(error: BaseException) -> str:
    """The first error inside a group: what a nursery wraps is what went wrong."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def dial(flags: argparse.Namespace) -> int:
    ops = list(filter(None, flags.ops.split(",")))
    role = "client" if flags.dht == "off" and not KAD_OPERATIONS.keys().isdisjoint(ops) else flags.dht
    # A provider is told of by its addresses, so a peer of the DHT listens.
    wanted = [] if role == "off" else [Multiaddr(f"/ip4/127.0.0.1/tcp/{free_port()}")]
    # Not told to the host itself, which would then have the transports of these addresses and dial no others.
    host = make_host(flags, [])
    info = info_from_p2p_addr(Multiaddr(flags.address))
    ok = True
    async with running_dht(host, role) as dht, host.run(listen_addrs=wanted):
        start = time.perf_counter()
        try:
            with trio.fail_after(flags.timeout / 1000):
                await host.connect(info)
        except Exception as error:
            logging.exception("dial")
            say(event="failed", error=told(error))
            return 1
        connection = host.get_network().get_connections(info.peer_id)[0]
        say(
            event="connected",
            impl="py",
            peer=str(info.peer_id),
            addr=flags.address,
            encryption=connection.get_negotiated_security_protocol(),
            muxer=connection.get_negotiated_muxer_protocol(),
            ms=1000 * (time.perf_counter() - start),
        )
        for op in ops:
            try:
                with trio.fail_after(flags.timeout / 1000):
                    about = await operate(op, host, dht, info.peer_id, flags)
                say(event="result", op=op, ok=True, **about)
            except Exception as error:
                logging.exception(op)
                ok = False
                say(event="result", op=op, ok=False, error=told(error))
    return 0 if ok else 1


def tell_state(*_: object) -> None:
    """SIGUSR1: every suspended coroutine and every yamux stream, on stderr."""
    awaited, chains = set(), {}
    for one in gc.get_objects():
        if isinstance(one, types.CoroutineType) and one.cr_frame is not None and not one.cr_running:
            words, at = [], one
            while isinstance(at, types.CoroutineType) and at.cr_frame is not None:
                words.append(f"{at.__qualname__}:{at.cr_frame.f_lineno}")
                if at is not one:
                    awaited.add(id(at))
                at = at.cr_await
            chains[id(one)] = " > ".join(words)
        elif isinstance(one, YamuxStream):
            kept = {key: value for key, value in vars(one).items() if isinstance(value, int | bytes)}
            print(f"stream {one.stream_id}: {kept}"[:1000], file=sys.stderr)
    for key, words in chains.items():
        if key not in awaited:
            print(f"waits: {words}", file=sys.stderr)
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("listen", "dial"))
    parser.add_argument("address", nargs="?")
    parser.add_argument("--tcp-port", type=int)
    parser.add_argument("--ws-port", type=int)
    parser.add_argument("--muxer", choices=("yamux", "mplex", "both"), default="yamux")
    parser.add_argument("--security", choices=("noise", "tls", "plaintext"), default="noise")
    parser.add_argument("--seed")
    parser.add_argument("--ops", default="identify,ping,echo,perf")
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--up", type=int, default=1 << 20)
    parser.add_argument("--down", type=int, default=1 << 20)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--dht", choices=("server", "client", "off"), default="off")
    parser.add_argument("--bootstrap", action="append", default=[])
    parser.add_argument("--key", default="/air/k")
    parser.add_argument("--value", default="v")
    parser.add_argument("--target")
    parser.add_argument("--timeout", type=float, default=30_000)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    signal.signal(signal.SIGUSR1, tell_state)
    return trio.run({"listen": listen, "dial": dial}[flags.mode], flags)


if __name__ == "__main__":
    sys.exit(main())
