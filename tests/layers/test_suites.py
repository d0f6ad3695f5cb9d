"""The public suites themselves: a part with a fault does not pass, and the suite says what is wrong.

Each part is Air's own, or a small one, with one fault that somebody who writes his first might have.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from air.base.errors import Closed, Denied, Misuse, Reset, Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.graph.mesh import Role
from air.model.cell import Cell
from air.model.message import Ack, Put
from air.mux.yamux.conn import Yamux
from air.sync.hub import Hub
from air.testing import check_muxer, check_security, check_transport, check_wire
from air.transport.api import ByteStream
from air.transport.memory import memory_pair
from air.transport.memory_transport import Memory, MemoryNetwork

pytestmark = pytest.mark.anyio


async def pair() -> tuple[ByteStream, ByteStream]:
    return memory_pair()


class Around:
    """Another object, with a fault: what is not overridden is passed on."""

    def __init__(self, inner: Any, fault: str) -> None:
        self.__dict__.update(inner=inner, fault=fault)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)


class Stream(Around):
    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        try:
            data: bytes = await self.inner.receive(65536 if self.fault == "gives too much" else max_bytes)
        except Closed as error:
            if self.fault == "ends with nothing" and not isinstance(error, Reset):
                return b""
            if self.fault == "mistakes a reset for an end":
                raise Closed from None
            raise
        if self.fault == "cancelled, loses bytes":
            await checkpoint()
        return data

    async def send_eof(self) -> None:
        await (self.inner.aclose() if self.fault == "closes at an end" else self.inner.send_eof())

    async def send_many(self, pieces: Any, /) -> None:
        if self.fault == "forgets pieces":
            pieces = pieces[:1]
        await self.inner.send(b"".join(pieces))


# Transports


class Listener(Around):
    def close(self) -> None:
        if self.fault != "goes on listening":
            self.inner.close()

    async def serve(self, handler: Callable[[Any], Awaitable[None]], /) -> None:
        await self.inner.serve(lambda conn: handler(Stream(conn, self.fault)))


class Pigeon(Around):
    def __init__(self, fault: str) -> None:
        super().__init__(Memory(MemoryNetwork()), fault)

    async def dial(self, address: Any, /) -> Any:
        return Stream(await self.inner.dial(address), self.fault)

    @asynccontextmanager
    async def listen(self, address: Any, /) -> AsyncIterator[Any]:
        async with self.inner.listen(address) as below:
            yield Listener(below, self.fault)


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ("gives too much", "bytes_go_both_ways", "receive returned more than was asked for"),
        ("ends with nothing", "many_connect_at_once", "receive returned nothing, where the end is told by"),
        ("cancelled, loses bytes", "a_cancelled_receive_loses_nothing", "bytes got lost with a receive that"),
        ("closes at an end", "one_end_leaves_the_other_direction", "send_eof has ended the other direction"),
        ("goes on listening", "closing_a_listener_spares_connections", "a dial succeeded although nobody"),
    ],
)
async def test_a_faulty_transport_is_told_what_is_wrong(fault: str, check: str, says: str) -> None:
    await check_transport(Pigeon(""), "/memory/0", only=check, seconds=20)
    with pytest.raises(AssertionError, match=f"{check}: {says}"):
        await check_transport(Pigeon(fault), "/memory/0", only=check, seconds=20)


async def test_pieces_that_do_not_arrive_have_the_check_named() -> None:
    with pytest.raises(TimeoutError, match=r"bytes_go_both_ways: no end within 0\.5 s"):
        await check_transport(Pigeon("forgets pieces"), "/memory/0", only="bytes_go_both_ways", seconds=0.5)
    with pytest.raises(Misuse, match="there is no check 'flight'; there are both_ends_have_addresses"):
        await check_transport(Pigeon(""), "/memory/0", only="flight")


# Muxers


class Below(Around):
    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        data: bytes = await self.inner.receive(max_bytes)
        if self.fault == "wants whole headers" and len(data) < 12:
            raise ValueError("a header has 12 bytes")
        return data

    async def aclose(self) -> None:
        if self.fault != "leaves the stream below open":
            await self.inner.aclose()


class MuxedStream(Stream):
    @property
    def id(self) -> int:
        number: int = self.inner.id
        return number // 2 if self.fault == "gives an id twice" else number


class Conn(Around):
    @property
    def streams(self) -> int:
        number: int = self.inner.streams
        return max(number, 1) if self.fault == "counts what has ended" else number

    async def open(self, *how: Any) -> Any:
        return MuxedStream(await self.inner.open(*how), self.fault)

    async def accept(self) -> Any:
        stream = await self.inner.accept()
        if self.fault == "cancelled, loses a stream":
            await anyio.sleep(0.001)
        return MuxedStream(stream, self.fault)

    async def run(self) -> None:
        await self.inner.run()
        if self.fault == "falls over garbage" and isinstance(self.inner.error, Violation):
            raise ValueError("a version nobody knows")


class Plait(Around):
    def __init__(self, fault: str) -> None:
        super().__init__(Yamux(), fault)

    def wrap(self, conn: ByteStream, /, **how: Any) -> Any:
        return Conn(self.inner.wrap(Below(conn, self.fault), **how), self.fault)


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ("gives too much", "receive_gives_at_most_what_was_asked_for", "asked for 1 bytes, got"),
        ("ends with nothing", "receive_gives_at_most_what_was_asked_for", "got 0"),
        ("mistakes a reset for an end", "resets_are_seen", "an orderly end"),
        ("cancelled, loses bytes", "a_cancelled_call_breaks_nothing", "bytes got lost with a receive that"),
        ("cancelled, loses a stream", "a_cancelled_call_breaks_nothing", "a stream got lost with an accept"),
        ("gives an id twice", "what_has_ended_is_forgotten", "two open streams have the same id"),
        ("counts what has ended", "what_has_ended_is_forgotten", "all is closed, and 1 and 1 streams"),
        ("wants whole headers", "bytes_come_in_any_pieces", "a header has 12 bytes"),
        ("falls over garbage", "garbage_ends_the_connection", "a version nobody knows"),
        (
            "leaves the stream below open",
            "cancelled_anywhere_leaves_no_task",
            "what it was made from is open",
        ),
    ],
)
async def test_a_faulty_muxer_is_told_what_is_wrong(fault: str, check: str, says: str) -> None:
    await check_muxer(Plait(""), pair, only=check, seconds=20)
    with pytest.raises(AssertionError, match=f"{check}, the .* side first: .*{says}"):
        await check_muxer(Plait(fault), pair, only=check, seconds=20)


# Security


class Toy:
    """A handshake of one message each way, then frames with a counter for a nonce."""

    protocol = "/toy/1"

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    async def secure(self, conn: ByteStream, /, *, muxers: Any = (), env: Any = None, **who: Any) -> Any:
        try:
            return await self._secure(conn, **who)
        except (Violation, Denied, Closed):
            if self.fault != "leaves a failure open":
                await conn.aclose()
            raise

    async def _secure(self, conn: ByteStream, identity: Any, dialer: bool, expected: Any = None) -> Any:
        secret = X25519PrivateKey.generate()
        mine = secret.public_key().public_bytes_raw()
        said = mine + identity.public_key.to_bytes() + identity.sign(mine)
        await conn.send(len(said).to_bytes(2, "big") + said)
        frames = Frames(conn)
        heard = (await conn.receive())[2:] if self.fault == "wants whole messages" else await frames.next()
        if self.fault == "forgets what came early":
            frames.unread = b""
        if len(heard) != 132:
            if self.fault == "falls over garbage":
                raise IndexError("a greeting has 132 bytes")
            raise Violation("not a greeting", code="toy.greeting")
        key = PublicKey.from_bytes(heard[32:68])
        if self.fault != "believes a name" and not key.verify(heard[:32], heard[68:]):
            raise Violation("a signature that is none", code="toy.signature")
        if expected is not None and PeerId.of(key) != expected:
            raise Denied("somebody else", code="security.wrong-peer")
        shared = secret.exchange(X25519PublicKey.from_public_bytes(heard[:32]))
        both = shared + (said + heard if dialer else heard + said)
        keys = [ChaCha20Poly1305(hashlib.sha256(word + both).digest()) for word in (b"dialer", b"listener")]
        return Sealed(conn, frames, keys if dialer else keys[::-1], key, self.fault)


class Frames:
    def __init__(self, conn: ByteStream) -> None:
        self._conn, self.unread = conn, b""

    async def next(self) -> bytes:
        while len(self.unread) < 2 or len(self.unread) < 2 + int.from_bytes(self.unread[:2], "big"):
            self.unread += await self._conn.receive()
        end = 2 + int.from_bytes(self.unread[:2], "big")
        frame, self.unread = self.unread[2:end], self.unread[end:]
        return frame


class Sealed:
    muxer = None

    def __init__(self, conn: ByteStream, frames: Frames, keys: Any, key: PublicKey, fault: str) -> None:
        self._conn, self._frames, (self._ours, self._theirs) = conn, frames, keys
        self.key, self.peer, self._fault = key, PeerId.of(key), fault
        self._sent, self._got, self._plain = 0, 0, b""
        self.aclose = conn.aclose
        self.send_eof = conn.aclose if fault == "closes at an end" else conn.send_eof

    def _nonce(self, count: int) -> bytes:
        return bytes(12) if self._fault == "uses a nonce again" else count.to_bytes(12, "big")

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        while not self._plain:
            frame = await self._frames.next()
            if self._fault == "cancelled, loses bytes":
                await checkpoint()
            try:
                self._plain = self._theirs.decrypt(self._nonce(self._got), frame, None)
            except InvalidTag:
                await self._conn.aclose()
                raise Violation("a tag that is wrong", code="toy.tag") from None
            self._got += 1
        data, self._plain = self._plain[:max_bytes], self._plain[max_bytes:]
        return data

    async def send(self, data: bytes, /) -> None:
        for start in range(0, len(data), 60_000):
            frame = self._ours.encrypt(self._nonce(self._sent), data[start : start + 60_000], None)
            self._sent += 1
            await self._conn.send(len(frame).to_bytes(2, "big") + frame)

    async def send_many(self, pieces: Any, /) -> None:
        await self.send(b"".join(pieces))


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ("believes a name", "nobody_passes_for_another", "a stolen name was believed"),
        ("wants whole messages", "bytes_come_in_any_pieces", "Violation"),
        ("cancelled, loses bytes", "a_cancelled_receive_loses_nothing", "bytes got lost with a receive that"),
        ("closes at an end", "the_end_is_an_orderly_one", "send_eof has ended the other direction too"),
        ("uses a nonce again", "what_is_repeated_left_out_or_swapped_is_noticed", "repeated on the way was"),
        ("leaves a failure open", "a_peer_that_leaves_ends_the_handshake", "the stream is open after"),
        ("falls over garbage", "a_peer_that_leaves_ends_the_handshake", "IndexError"),
    ],
)
async def test_a_faulty_security_is_told_what_is_wrong(fault: str, check: str, says: str) -> None:
    await check_security(Toy(), pair, only=check, seconds=20)
    with pytest.raises(AssertionError, match=f"{check}, the .* side first: .*{says}"):
        await check_security(Toy(fault), pair, only=check, seconds=20)


async def test_a_security_that_forgets_what_came_early_hangs_in_the_check_for_that() -> None:
    with pytest.raises(TimeoutError, match="bytes_come_in_any_pieces"):
        await check_security(Toy("forgets what came early"), pair, only="bytes_come_in_any_pieces", seconds=1)


# Wires


class Plain:
    """One end of a link inside the process, on which messages go as they are."""

    peer, queued_bytes = "", 0

    def __init__(self) -> None:
        self.codec, self._send, self.messages = self, *anyio.create_memory_object_stream[Any](10_000)

    def encode(self, message: Any, targets: Any = ()) -> list[Any]:
        return [message]

    def queue(self, messages: list[Any]) -> None:
        for message in messages:
            self._send.send_nowait(message)

    def refuse(self, id: Any, error: Violation) -> None:
        self.queue([Ack(f"refusal of {id}", id, error.code)])

    def wake(self) -> None: ...
    def changed(self, cells: Any) -> None: ...
    def cut(self, error: Violation) -> None: ...


def wire(fault: str) -> Any:
    puts = 0

    def changed(message: Any) -> list[Any]:
        nonlocal puts
        if isinstance(message, Ack) and fault == "acknowledges nothing":
            return []
        if isinstance(message, Put):
            puts += 1
            if fault == "loses a write now and then" and puts % 3 == 0:
                return []
            if fault == "rounds states":
                message.cells = [Cell(*cell[:3], int(cell.state)) for cell in message.cells]
            if fault == "takes truth for a number":
                message.cells = [
                    cell._replace(value=int(cell.value)) if isinstance(cell.value, bool) else cell
                    for cell in message.cells
                ]
        return [message]

    async def carry(port: Plain, hub: Hub, link: int) -> None:
        async for message in port.messages:
            hub.receive(link, changed(message))

    @asynccontextmanager
    async def join(dialler: Hub, listener: Hub) -> AsyncIterator[None]:
        near, far = Plain(), Plain()
        here = dialler.open_link(Role.OUTBOUND, near, "there", name="there")
        there = listener.open_link(Role.INBOUND, far, "here")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry, near, listener, there)
            tasks.start_soon(carry, far, dialler, here)
            yield
            tasks.cancel_scope.cancel()
        dialler.close_link(here)
        listener.close_link(there)

    return join


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ("loses a write now and then", "a_watcher_misses_nothing", "of 2051 fields that were written"),
        ("rounds states", "a_watcher_misses_nothing", "a write of .* was heard of as one of"),
        ("acknowledges nothing", "the_writer_hears_who_has_it", "no ack came"),
        ("takes truth for a number", "values_keep_their_kind", "1 was heard of, True written"),
    ],
)
async def test_a_faulty_wire_is_told_what_is_wrong(
    fault: str, check: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_wire(wire(""), only=check)
    monkeypatch.setattr(sys.modules["air.testing.check_wire"], "_PATIENCE_SECONDS", 0.5)
    with pytest.raises(AssertionError, match=says):
        await check_wire(wire(fault), only=check)
