"""Security over streams: noise, plaintext and private networks, on both event loops."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from air.base.env import Env
from air.base.errors import AirError, Closed, ConfigError, Denied, Reset, Violation
from air.base.keys import Identity, create_secret
from air.base.public_key import KeyType
from air.security.api import SecureConn, Security
from air.security.noise import Noise, NoiseConfig
from air.security.noise.core import StaticKey
from air.security.noise.payload import Credential
from air.security.noise.session import NoiseCore
from air.security.plaintext import Plaintext
from air.security.pnet import load_key, protect
from air.security.psk import PreSharedKey
from air.security.tls import Tls
from air.transport import tcp
from air.transport.api import ByteStream
from air.transport.memory import MemoryStream, memory_pair

ENV = Env()
ANN, BEN = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
YAMUX = "/yamux/1.0.0"
KINDS: list[Callable[[], Security]] = [Noise, Tls, Plaintext]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def security(request: pytest.FixtureRequest) -> Security:
    made: Security = request.param()
    return made


async def gather(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run all, return all results or exceptions."""
    results: list[Any] = [None] * len(calls)

    async def run(at: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[at] = await call()
        except AirError as error:
            results[at] = error

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for at, call in enumerate(calls):
                tasks.start_soon(run, at, call)
    return results


async def secured(
    one: ByteStream, other: ByteStream, security: Security, **more: Any
) -> tuple[SecureConn, SecureConn]:
    async def dial() -> SecureConn:
        return await security.secure(one, identity=ANN, dialer=True, expected=BEN.peer_id, env=ENV, **more)

    async def listen() -> SecureConn:
        conn = await security.secure(other, identity=BEN, dialer=False, env=ENV, **more)
        # The dialer's last message came with this.
        assert await conn.receive() == b"hello"
        return conn

    async def dial_and_speak() -> SecureConn:
        conn = await dial()
        await conn.send(b"hello")
        return conn

    a, b = await gather(dial_and_speak, listen)
    for end in (a, b):
        if isinstance(end, AirError):
            raise end
    return a, b


async def read(conn: ByteStream, size: int) -> bytes:
    parts = []
    while size:
        parts.append(await conn.receive(min(size, 100_000)))
        size -= len(parts[-1])
    return b"".join(parts)


@pytest.mark.anyio
async def test_both_sides_know_the_other_and_talk(security: Security) -> None:
    a, b = await secured(*memory_pair(), security)
    assert (a.peer, b.peer) == (BEN.peer_id, ANN.peer_id)
    assert (a.key, b.key) == (BEN.public_key, ANN.public_key)
    assert a.muxer is b.muxer is None
    await b.send(b"good day")
    await b.send_many([b"", b" to", b" you"])
    assert await read(a, 15) == b"good day to you"
    await b.send(b"")
    await a.send(b"x" * 10)
    assert await b.receive(3) == b"xxx"
    assert await read(b, 7) == b"x" * 7
    await a.send_eof()
    with pytest.raises(Closed):
        await b.receive()
    await b.send(b"the other direction is open")
    assert await a.receive() == b"the other direction is open"
    await a.aclose()
    await a.aclose()
    with pytest.raises(Reset):
        await b.send(b"gone")


@pytest.mark.anyio
async def test_a_lot_of_data_goes_both_ways_at_once(security: Security) -> None:
    a, b = await secured(*memory_pair(200_000), security)
    source = random.Random(5)
    block = source.randbytes(1_000_000)

    async def write(conn: SecureConn) -> None:
        for at in range(0, 8 * 300_000, 300_000):
            part = block[at % 700_000 : at % 700_000 + 300_000]
            await conn.send_many([part[:9], part[9:20_000], memoryview(part)[20_000:]])

    async def check(conn: SecureConn) -> None:
        for at in range(0, 8 * 300_000, 300_000):
            assert await read(conn, 300_000) == block[at % 700_000 : at % 700_000 + 300_000]

    results = await gather(lambda: write(a), lambda: write(b), lambda: check(a), lambda: check(b))
    assert results == [None] * 4


class Greedy:
    """A stream that gives in one read whatever has come, as a socket does."""

    def __init__(self, inner: MemoryStream) -> None:
        self.inner = inner
        self.send, self.send_eof, self.aclose = inner.send, inner.send_eof, inner.aclose

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        data = await self.inner.receive(max_bytes)
        while self.inner.unread_bytes and len(data) < max_bytes:
            data += await self.inner.receive(max_bytes - len(data))
        return data


@pytest.mark.anyio
async def test_small_messages_are_read_together() -> None:
    one, other = memory_pair()
    a, b = await secured(one, Greedy(other), Noise())
    for number in range(100):
        await a.send(bytes([number]))
    await a.send(b"y" * 60_000)
    got = await b.receive()
    assert len(got) > 1
    assert got + await read(b, 60_100 - len(got)) == bytes(range(100)) + b"y" * 60_000


@pytest.mark.anyio
async def test_over_tcp(security: Security) -> None:
    ends: list[SecureConn] = []
    got: list[bytes] = []
    done = anyio.Event()

    async def serve(stream: tcp.TcpStream) -> None:
        conn = await security.secure(stream, identity=BEN, dialer=False, env=ENV)
        ends.append(conn)
        got.append(await read(conn, 500_000))
        await conn.send(b"thanks")
        done.set()

    with anyio.fail_after(20):
        async with tcp.TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            stream = await tcp.dial(*listener.addresses[0])
            conn = await security.secure(stream, identity=ANN, dialer=True, env=ENV)
            await conn.send(b"z" * 500_000)
            assert await read(conn, 6) == b"thanks"
            await done.wait()
            await conn.aclose()
            listener.close()
    assert got == [b"z" * 500_000]
    assert ends[0].peer == ANN.peer_id


@pytest.mark.anyio
async def test_another_peer_than_expected_is_left(security: Security) -> None:
    one, other = memory_pair()
    wanted = Identity.generate().peer_id
    dialled, listened = await gather(
        lambda: security.secure(one, identity=ANN, dialer=True, expected=wanted, env=ENV),
        lambda: security.secure(other, identity=BEN, dialer=False, env=ENV),
    )
    assert isinstance(dialled, Denied)
    assert dialled.code == "security.wrong-peer"
    if security.protocol == "/noise":
        # The dialer's identity was not shown to the stranger.
        assert isinstance(listened, AirError)
    with pytest.raises(Reset):
        await one.send(b"x")


@pytest.mark.anyio
async def test_silence_garbage_and_a_hangup_end_the_handshake() -> None:
    quick = Noise(NoiseConfig(timeout_seconds=0.2))
    for dialer in (True, False):
        one, other = memory_pair()
        with pytest.raises(Violation) as late:
            await quick.secure(one, identity=ANN, dialer=dialer, env=ENV)
        assert late.value.code == "noise.timeout"
        one, other = memory_pair()
        await other.send(bytes(range(256)) * 40)
        with pytest.raises(Violation) as garbled:
            await Noise().secure(one, identity=ANN, dialer=dialer, env=ENV)
        assert garbled.value.code == "noise.handshake"
        with pytest.raises(Reset):
            await one.send(b"x")
        one, other = memory_pair()
        await other.send_eof()
        with pytest.raises(Violation) as gone:
            await Noise().secure(one, identity=ANN, dialer=dialer, env=ENV)
        assert gone.value.code == "noise.handshake"


@pytest.mark.anyio
async def test_a_forged_frame_is_reported_after_the_good_ones_before_it() -> None:
    one, other = memory_pair()
    a, b = await secured(one, other, Noise())
    await a.send(b"good")
    await one.send(b"\0\x14" + bytes(20))
    assert await b.receive() == b"good"
    for _ in range(2):
        with pytest.raises(Violation) as forged:
            await b.receive()
        assert forged.value.code == "noise.frame"


@pytest.mark.anyio
async def test_a_cut_inside_a_frame_is_not_an_end() -> None:
    one, other = memory_pair()
    _, b = await secured(one, other, Noise())
    await one.send(b"\0\x14" + bytes(3))
    await one.send_eof()
    with pytest.raises(Violation) as cut:
        await b.receive()
    assert cut.value.code == "noise.truncated"


@pytest.mark.anyio
async def test_the_muxer_is_chosen_along_with_the_handshake() -> None:
    a, b = await secured(*memory_pair(), Noise(), muxers=[YAMUX, "/mplex/6.7.0"])
    assert a.muxer == b.muxer == YAMUX


@pytest.mark.anyio
async def test_the_dialers_last_message_shares_a_write_with_what_follows() -> None:
    one, other = memory_pair()
    noise = Noise()
    conns: list[SecureConn] = []

    async def listen() -> SecureConn:
        return await noise.secure(other, identity=BEN, dialer=False, env=ENV)

    async def dial() -> None:
        conn = await noise.secure(one, identity=ANN, dialer=True, env=ENV)
        assert other.unread_bytes == 0
        await conn.send(b"first request")
        conns.append(conn)

    _, known = await gather(dial, listen)
    assert await known.receive() == b"first request"
    # Reading alone sends it too.
    one, other = memory_pair()

    async def dial_and_wait() -> bytes:
        conn = await noise.secure(one, identity=ANN, dialer=True, env=ENV)
        return await conn.receive()

    async def listen_and_speak() -> None:
        await (await listen()).send(b"welcome")

    assert (await gather(dial_and_wait, listen_and_speak))[0] == b"welcome"


@pytest.mark.anyio
async def test_reading_and_writing_may_start_together() -> None:
    one, other = memory_pair()
    noise = Noise()

    async def dial() -> bytes:
        conn = await noise.secure(one, identity=ANN, dialer=True, env=ENV)
        async with anyio.create_task_group() as tasks:
            for word in (b"a", b"b"):
                tasks.start_soon(conn.send, word)
                await anyio.lowlevel.checkpoint()
            return await conn.receive()

    async def listen() -> bytes:
        conn = await noise.secure(other, identity=BEN, dialer=False, env=ENV)
        got = await read(conn, 2)
        await conn.send(b"both")
        return got

    assert await gather(dial, listen) == [b"both", b"ab"]


@pytest.mark.anyio
async def test_nothing_follows_a_last_message_that_was_cut_short() -> None:
    """A reader sends it, and may give up while it does: what came next would be read in its place."""
    one, other = memory_pair(64)
    static = StaticKey(b"\x12" * 32)
    core = NoiseCore(
        static, Credential(BEN, static.public), dialer=False, config=NoiseConfig(), now=ENV.clock.now()
    )

    async def answer_once() -> None:
        while not (output := core.take_output()):
            core.receive(await other.receive(), ENV.clock.now())
        await other.send(b"".join(output))

    dialled, _ = await gather(
        lambda: Noise().secure(one, identity=ANN, dialer=True, env=ENV),
        answer_once,
    )
    with anyio.move_on_after(0.01) as given_up:
        await dialled.receive()
    assert given_up.cancelled_caught
    assert 0 < len(await other.receive()) < 170
    for call in (lambda: dialled.send(b"more"), dialled.receive, dialled.send_eof):
        with pytest.raises(Reset) as refused, anyio.fail_after(5):
            await call()
        assert refused.value.code == "noise.not-sent"


@pytest.mark.anyio
async def test_a_reader_does_not_wait_for_a_long_first_write() -> None:
    one, other = memory_pair(10_000)
    noise = Noise()

    async def dial() -> bytes:
        conn = await noise.secure(one, identity=ANN, dialer=True, env=ENV)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.send, bytes(1_000_000))
            await anyio.wait_all_tasks_blocked()
            return await conn.receive()

    async def listen() -> int:
        conn = await noise.secure(other, identity=BEN, dialer=False, env=ENV)
        await conn.send(b"I speak before I listen")
        await anyio.wait_all_tasks_blocked()
        return len(await read(conn, 1_000_000))

    assert await gather(dial, listen) == [b"I speak before I listen", 1_000_000]


@pytest.mark.parametrize("type", list(KeyType))
@pytest.mark.anyio
async def test_peers_with_every_kind_of_key(security: Security, type: KeyType) -> None:
    identity = Identity.generate(type)
    one, other = memory_pair()
    _, known = await gather(
        lambda: say(security, one, identity),
        lambda: security.secure(other, identity=BEN, dialer=False, env=ENV),
    )
    assert known.peer == identity.peer_id


async def say(security: Security, stream: ByteStream, identity: Identity) -> None:
    conn = await security.secure(stream, identity=identity, dialer=True, env=ENV)
    await conn.send(b"x")


@pytest.mark.anyio
async def test_plaintext_checks_what_little_there_is_to_check() -> None:
    from air.codec.frame import encode_frame
    from air.pb import plaintext_pb2 as pb

    def exchange(id: bytes, key: bytes) -> bytes:
        return encode_frame(pb.Exchange(id=id, pubkey=key).SerializeToString())

    mine, key = BEN.peer_id.multihash, BEN.public_key.to_bytes()
    for sent in (
        exchange(ANN.peer_id.multihash, key),
        exchange(mine, b""),
        exchange(b"", key),
        b"\xff\xff\x7f",
        b"\x02x",
    ):
        one, other = memory_pair()
        await other.send(sent)
        await other.send_eof()
        with pytest.raises(Violation) as refused:
            await Plaintext().secure(one, identity=ANN, dialer=True, env=ENV)
        assert refused.value.code == "plaintext.malformed"
    one, other = memory_pair()
    await other.send(exchange(mine, key) + b"more")
    conn = await Plaintext().secure(one, identity=ANN, dialer=True, env=ENV)
    assert await conn.receive(2) + await conn.receive() == b"more"
    with pytest.raises(Violation) as late:
        await Plaintext(0.05).secure(memory_pair()[0], identity=ANN, dialer=True, env=ENV)
    assert late.value.code == "plaintext.timeout"


@pytest.mark.anyio
async def test_members_of_a_private_network_understand_each_other_and_nobody_else() -> None:
    key, wrong = PreSharedKey(b"\x03" * 32), PreSharedKey(b"\x04" * 32)
    one, other = memory_pair()
    a, b = await secured(protect(one, key, ENV), protect(other, key, ENV), Noise())
    await b.send(b"q" * 200_000)
    assert await read(a, 200_000) == b"q" * 200_000
    one, other = memory_pair()
    inside, outside = protect(one, key, ENV), protect(other, wrong, ENV)
    await inside.send(b"\x13/multistream/1.0.0\n")
    assert other.unread_bytes == 24 + 20
    assert await outside.receive() != b"\x13/multistream/1.0.0\n"
    await inside.send_eof()
    with pytest.raises(Closed):
        await outside.receive()
    await inside.aclose()


def test_a_network_key_is_kept_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    key = PreSharedKey(b"\x03" * 32)
    create_secret(tmp_path / "swarm.key", key.to_text())
    assert load_key(tmp_path / "swarm.key").secret == key.secret
    assert "03" not in repr(key)
    (tmp_path / "swarm.key").chmod(0o644)
    with pytest.raises(ConfigError) as refused:
        load_key(tmp_path / "swarm.key")
    assert refused.value.code == "secret.mode"
    head = b"/key/swarm/psk/1.0.0/\n"
    for text in (head + b"/base64/\n" + b64encode(key.secret), head + b"/bin/\n" + key.secret):
        assert PreSharedKey.parse(text).secret == key.secret
    for text in (
        b"",
        head,
        head + b"/base64/\n!!",
        head + b"/base16/\nzz",
        b"/key/swarm/psk/2.0.0/\n/bin/\n" + key.secret,
    ):
        with pytest.raises(ConfigError):
            PreSharedKey.parse(text)


def test_what_a_node_prepares_is_what_its_connections_use() -> None:
    noise = Noise()
    noise.prepare(ANN, [], ENV)
    assert noise._bound is not None
    static, credential = noise._bound[1:]
    assert noise._bind(ANN, ENV) == (static, credential)
