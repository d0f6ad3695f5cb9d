"""Noise, measured alone: handshakes per core-second, and how much of the cipher's own rate a stream reaches.

    python -m bench.security [--quick]

One process, one core, so a stream is sealed and opened by the same core and its rate stands against the rate
of sealing and opening alone. One JSON object is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import anyio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from air.base.clock import SystemClock
from air.base.env import Env
from air.base.keys import Identity
from air.security.api import SecureConn
from air.security.noise import Noise, NoiseConfig
from air.security.noise.core import StaticKey
from air.security.noise.frames import PLAINTEXT_BYTES_MAX, Opener, Sealer
from air.security.noise.payload import Credential
from air.security.noise.session import NoiseCore
from air.transport import tcp
from air.transport.api import ByteStream
from air.transport.memory import memory_pair

ENV = Env()
ANN, BEN = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
BLOCK = bytes(range(256)) * 1024
"""What is sent at once: 256 KiB, as a muxer joins it."""


def best(work: Callable[[], float], rounds: int) -> float:
    return max(work() for _ in range(rounds))


def handshakes(count: int) -> float:
    """Both sides' work, without streams: handshakes per core-second."""
    clock, config = SystemClock(), NoiseConfig()
    sides = [
        (key, Credential(who, key.public))
        for who, key in ((ANN, StaticKey(b"1" * 32)), (BEN, StaticKey(b"2" * 32)))
    ]
    began = time.process_time()
    for _ in range(count):
        now = clock.now()
        dialer = NoiseCore(*sides[0], dialer=True, config=config, now=now, expected=BEN.peer_id)
        listener = NoiseCore(*sides[1], dialer=False, config=config, now=now)
        listener.receive(b"".join(dialer.take_output()), now)
        dialer.receive(b"".join(listener.take_output()), now)
        listener.receive(b"".join(dialer.take_output()), now)
    return count / (time.process_time() - began)


def cipher(total: int) -> float:
    """Seal and open full frames with the bare library: Gbit/s."""
    seal, opened = ChaCha20Poly1305(b"k" * 32), ChaCha20Poly1305(b"k" * 32)
    data, nonce = BLOCK[:PLAINTEXT_BYTES_MAX], bytes(12)
    count = total // len(data)
    began = time.process_time()
    for _ in range(count):
        opened.decrypt(nonce, seal.encrypt(nonce, data, None), None)
    return count * len(data) * 8 / (time.process_time() - began) / 1e9


def frames(total: int) -> float:
    """Seal and open with Air's frames, no stream between: Gbit/s."""
    sealer, opener = Sealer(b"k" * 32), Opener(b"k" * 32)
    count = total // len(BLOCK)
    began = time.process_time()
    for _ in range(count):
        for sealed in sealer.seal(BLOCK):
            opener.receive(sealed)
    return count * len(BLOCK) * 8 / (time.process_time() - began) / 1e9


async def carry(one: ByteStream, other: ByteStream, total: int, noise: Noise | None) -> float:
    ends: list[ByteStream] = []

    async def listen() -> None:
        conn = other if noise is None else await noise.secure(other, identity=BEN, dialer=False, env=ENV)
        ends.append(conn)
        left = total
        while left > 0:
            left -= len(await conn.receive(256 * 1024))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        conn: ByteStream | SecureConn = one
        if noise is not None:
            conn = await noise.secure(one, identity=ANN, dialer=True, env=ENV)
        began = time.process_time()
        for _ in range(total // len(BLOCK)):
            await conn.send(BLOCK)
    return total * 8 / (time.process_time() - began) / 1e9


async def over_tcp(total: int, noise: Noise | None) -> float:
    result = 0.0
    accepted = anyio.Event()
    kept: list[tcp.TcpStream] = []
    done = anyio.Event()

    async def serve(stream: tcp.TcpStream) -> None:
        kept.append(stream)
        accepted.set()
        await done.wait()

    async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        stream = await tcp.dial(*listener.addresses[0])
        await accepted.wait()
        result = await carry(stream, kept[0], total, noise)
        done.set()
        listener.close()
    return result


async def secured(count: int) -> float:
    """Whole handshakes over memory streams with both shells: per second."""
    noise = Noise()

    async def listen(stream: ByteStream) -> None:
        await (await noise.secure(stream, identity=BEN, dialer=False, env=ENV)).receive()

    began = time.process_time()
    for _ in range(count):
        one, other = memory_pair()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, other)
            conn = await noise.secure(one, identity=ANN, dialer=True, expected=BEN.peer_id, env=ENV)
            await conn.send(b"x")
    return count / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, total = (1, 32 << 20) if quick else (3, 256 << 20)
    out: dict[str, object] = {
        "handshakes_per_core_second": round(best(lambda: handshakes(100 if quick else 1000), rounds)),
        "cipher_gbit": round(best(lambda: cipher(total), rounds), 2),
        "frames_gbit": round(best(lambda: frames(total), rounds), 2),
    }
    for backend, options in (("asyncio", {}), ("uvloop", {"use_uvloop": True}), ("trio", {})):
        name = "asyncio" if backend == "uvloop" else backend

        def run(
            call: Callable[..., object], *args: object, name: str = name, options: object = options
        ) -> float:
            return float(anyio.run(call, *args, backend=name, backend_options=options))  # type: ignore[arg-type]

        noise = Noise()

        async def memory(total: int = total, noise: Noise = noise) -> float:
            return await carry(*memory_pair(), total, noise)

        out[backend] = {
            "shell_handshakes_per_second": round(
                best(lambda run=run: run(secured, 50 if quick else 500), rounds)
            ),
            "memory_gbit": round(best(lambda run=run, memory=memory: run(memory), rounds), 2),
            "tcp_gbit": round(best(lambda run=run, noise=noise: run(over_tcp, total, noise), rounds), 2),
            "tcp_plain_gbit": round(best(lambda run=run: run(over_tcp, total, None), rounds), 2),
        }
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
