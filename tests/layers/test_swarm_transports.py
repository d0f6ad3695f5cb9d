"""Every transport against the public suite, and what is particular about each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from air.base.address import Multiaddr
from air.base.errors import Closed, ConfigError, Reset, Unreachable
from air.security.api import Security
from air.security.noise import Noise
from air.security.plaintext import Plaintext
from air.security.tls import Tls
from air.testing.check_security import CHECKS as SECURITY_CHECKS
from air.testing.check_security import check_security
from air.testing.check_transport import CHECKS, check_transport
from air.transport.api import ByteStream
from air.transport.memory import memory_pair
from air.transport.memory_transport import Memory, MemoryConfig, MemoryNetwork
from air.transport.raw import RawConn, Transport
from air.transport.resolve import Resolver, ResolverConfig
from air.transport.tcp import TcpListener, TcpStream
from air.transport.tcp_transport import Tcp
from air.transport.tls import client_context, server_context
from air.transport.websocket.binary import BinaryConfig
from air.transport.ws_transport import WebSocket

pytestmark = pytest.mark.anyio

KINDS: dict[str, tuple[Callable[[], Transport], str]] = {
    "tcp": (Tcp, "/ip4/127.0.0.1/tcp/0"),
    "tcp6": (Tcp, "/ip6/::1/tcp/0"),
    "ws": (WebSocket, "/ip4/127.0.0.1/tcp/0/ws"),
    "memory": (lambda: Memory(MemoryNetwork()), "/memory/0"),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_transport_passes_the_suite(kind: str, check: str) -> None:
    make, where = KINDS[kind]
    await check_transport(make(), where, only=check, half_closes=kind != "ws")


@pytest.mark.parametrize("check", CHECKS)
async def test_wss_passes_the_suite(check: str, certificate: tuple[Path, Path]) -> None:
    transport = WebSocket(tls=server_context(*certificate), trust=client_context(ca=certificate[0]))
    await check_transport(transport, "/ip4/127.0.0.1/tcp/0/tls/ws", only=check, half_closes=False)


async def memory() -> tuple[ByteStream, ByteStream]:
    return memory_pair()


@pytest.mark.parametrize("check", SECURITY_CHECKS)
@pytest.mark.parametrize("security", [Noise(), Tls(), Plaintext()], ids=lambda one: one.protocol)
async def test_a_security_passes_the_suite(security: Security, check: str) -> None:
    await check_security(security, memory, only=check, encrypts="plaintext" not in security.protocol)


async def serve_echo(conn: RawConn) -> None:
    while True:
        await conn.send(await conn.receive())


async def test_wss_checks_the_certificate_against_the_name(certificate: tuple[Path, Path]) -> None:
    server = WebSocket(tls=server_context(*certificate))
    trusting = WebSocket(trust=client_context(ca=certificate[0]))
    async with (
        server.listen(Multiaddr("/ip4/127.0.0.1/tcp/0/wss")) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve_echo)
        (place,) = listener.addresses
        port = place.get("tcp")
        for good in (
            f"/dns4/localhost/tcp/{port}/wss",
            f"/dns4/localhost/tcp/{port}/tls/ws",
            f"/ip4/127.0.0.1/tcp/{port}/tls/sni/localhost/ws",
        ):
            conn = await trusting.dial(Multiaddr(good))
            await conn.send(b"x")
            assert await conn.receive() == b"x"
            assert conn.remote_address.get("ip4") == "127.0.0.1"
            await conn.aclose()
        with pytest.raises(Unreachable) as caught:
            await trusting.dial(Multiaddr(f"/ip4/127.0.0.1/tcp/{port}/tls/sni/elsewhere/ws"))
        assert "tls.handshake" in str(caught.value.attempts)
        with pytest.raises(Unreachable):
            await WebSocket().dial(Multiaddr(f"/dns4/localhost/tcp/{port}/wss"))
        tasks.cancel_scope.cancel()


async def test_wss_cannot_listen_without_a_certificate() -> None:
    with pytest.raises(ConfigError) as caught:
        async with WebSocket().listen(Multiaddr("/ip4/127.0.0.1/tcp/0/wss")):
            pass
    assert caught.value.code == "ws.no-certificate"


async def test_a_websocket_listener_refuses_what_is_no_websocket() -> None:
    transport = WebSocket()
    async with (
        transport.listen(Multiaddr("/ip4/127.0.0.1/tcp/0/ws")) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve_echo)
        port = int(listener.addresses[0].get("tcp") or 0)
        for request, status in {
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": b"426",
            b"POST / HTTP/1.1\r\nHost: x\r\n\r\n": b"405",
            b"nonsense\r\n\r\n": b"400",
            b"GET /elsewhere HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n": b"400",
        }.items():
            stream = await anyio.connect_tcp("127.0.0.1", port)
            await stream.send(request)
            assert (await stream.receive()).startswith(b"HTTP/1.1 " + status)
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            await stream.aclose()
        tasks.cancel_scope.cancel()


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x82\x05hello", "ws.protocol"),  # not masked
        (b"\xc2\x80\0\0\0\0", "ws.protocol"),  # a reserved bit
        (b"\x09\x80\0\0\0\0", "ws.protocol"),  # a ping in fragments
        (b"\x82\xff\0\0\0\0\0\x20\0\0\0\0\0\0", "ws.too-big"),  # 2 MiB announced
        (b"\x88\x82\0\0\0\0\x03\xf3", "link.reset"),  # closed with 1011
    ],
)
async def test_frames_against_the_rules_end_the_connection(frames: bytes, code: str) -> None:
    ended: list[Closed] = []

    async def serve(conn: RawConn) -> None:
        try:
            await conn.receive()
        except Closed as error:
            ended.append(error)

    async with (
        WebSocket().listen(Multiaddr("/ip4/127.0.0.1/tcp/0/ws")) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        stream = await anyio.connect_tcp("127.0.0.1", int(listener.addresses[0].get("tcp") or 0))
        await stream.send(UPGRADE + frames)
        with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            while True:
                await stream.receive()
        await stream.aclose()
        tasks.cancel_scope.cancel()
    assert [error.code for error in ended] == [code]
    assert isinstance(ended[0], Reset)


async def test_bytes_right_behind_the_upgrade_and_text_frames_and_pings_are_taken() -> None:
    async with (
        WebSocket().listen(Multiaddr("/ip4/127.0.0.1/tcp/0/ws")) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve_echo)
        stream = await anyio.connect_tcp("127.0.0.1", int(listener.addresses[0].get("tcp") or 0))
        ping, text = b"\x89\x81\0\0\0\0p", b"\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b"
        await stream.send(UPGRADE + b"\x82\x82\0\0\0\0hi" + ping + text)
        got = b""
        with anyio.fail_after(5):
            while not (b"hi" in got and b"\x8a\x01p" in got and b"b" in got.split(b"hi")[-1]):
                got += await stream.receive()
        await stream.aclose()
        tasks.cancel_scope.cancel()


async def test_a_reader_is_not_held_by_a_peer_that_pings_and_takes_no_answers() -> None:
    ended: list[Closed] = []
    done = anyio.Event()

    async def serve(conn: RawConn) -> None:
        try:
            await conn.receive()
        except Closed as error:
            ended.append(error)
        done.set()

    transport = WebSocket(BinaryConfig(answer_seconds=0.1))
    async with (
        transport.listen(Multiaddr("/ip4/127.0.0.1/tcp/0/ws")) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        stream = await anyio.connect_tcp("127.0.0.1", int(listener.addresses[0].get("tcp") or 0))
        await stream.send(UPGRADE)

        async def ping() -> None:
            ping = b"\x89\xfd\0\0\0\0" + bytes(125)
            with contextlib.suppress(anyio.BrokenResourceError):
                while True:
                    await stream.send(ping * 500)

        tasks.start_soon(ping)
        with anyio.fail_after(10):
            await done.wait()
        tasks.cancel_scope.cancel()
    await stream.aclose()
    assert [error.code for error in ended] == ["ws.slow-reader"]


@pytest.mark.parametrize("path", ["a", "a%20b", "a%2Fb", "%C3%A9"])
async def test_a_path_is_dialled_as_it_is_listened_on(path: str) -> None:
    transport = WebSocket()
    async with (
        transport.listen(Multiaddr(f"/ip4/127.0.0.1/tcp/0/ws/http-path/{path}")) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve_echo)
        conn = await transport.dial(listener.addresses[0])
        await conn.send(b"x")
        assert await conn.receive() == b"x"
        await conn.aclose()
        tasks.cancel_scope.cancel()


async def test_memory_goes_on_when_a_handler_with_tasks_of_its_own_meets_the_end() -> None:
    transport, left = Memory(MemoryNetwork()), anyio.Semaphore(0)

    async def serve(conn: RawConn) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(conn.receive)
        finally:
            left.release()

    async with transport.listen(Multiaddr("/memory/5")) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        with anyio.fail_after(5):
            for _ in range(2):
                await (await transport.dial(Multiaddr("/memory/5"))).aclose()
                await left.acquire()
        tasks.cancel_scope.cancel()


async def test_memory_ends_connections_that_nobody_accepted() -> None:
    transport = Memory(MemoryNetwork())
    async with transport.listen(Multiaddr("/memory/5")):
        conn = await transport.dial(Multiaddr("/memory/5"))
    with anyio.fail_after(5), pytest.raises(Closed):
        await conn.receive()


async def test_a_server_is_told_the_name_that_was_dialled() -> None:
    asked: list[bytes] = []

    async def serve(stream: TcpStream) -> None:
        asked.append(await stream.receive())

    async with TcpListener.bind("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.addresses[0][1]
        with pytest.raises(Unreachable):
            await WebSocket().dial(Multiaddr(f"/dns4/localhost/tcp/{port}/ws"))
        tasks.cancel_scope.cancel()
    assert f"\r\nHost: localhost:{port}\r\n".encode() in asked[0]


async def test_memory_refuses_beyond_its_backlog_and_a_taken_number() -> None:
    transport = Memory(MemoryNetwork(), MemoryConfig(backlog=2))
    async with transport.listen(Multiaddr("/memory/5")) as listener:
        assert listener.addresses == (Multiaddr("/memory/5"),)
        for _ in range(2):
            await transport.dial(Multiaddr("/memory/5"))
        with pytest.raises(Unreachable) as caught:
            await transport.dial(Multiaddr("/memory/5"))
        assert "too many" in str(caught.value.attempts)
        with pytest.raises(ConfigError):
            async with transport.listen(Multiaddr("/memory/5")):
                pass


# Names

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
OTHER = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"


def resolver(texts: dict[str, list[str]], hosts: dict[str, list[str]], **settings: float) -> Resolver:
    async def look_up_texts(name: str) -> list[str]:
        if name not in texts:
            raise OSError("no such name")
        return texts[name]

    async def look_up_hosts(name: str, family: int) -> list[str]:
        found = [ip for ip in hosts.get(name, []) if (":" in ip) == (family == 10)]
        if not found:
            raise OSError("no such name")
        return found

    return Resolver(ResolverConfig(**settings), hosts=look_up_hosts, texts=look_up_texts)  # type: ignore[arg-type]


async def resolved(found: Resolver, address: str) -> list[str]:
    return [str(one) for one in await found.resolve(Multiaddr(address))]


async def test_names_are_resolved_by_family_and_keep_the_name_for_tls() -> None:
    found = resolver({}, {"air.test": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]})
    assert await resolved(found, "/dns4/air.test/tcp/1") == ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"]
    assert await resolved(found, "/dns6/air.test/tcp/1/ws") == ["/ip6/2001:db8::1/tcp/1/ws"]
    assert len(await resolved(found, f"/dns/air.test/tcp/1/p2p/{PEER}")) == 3
    assert (await resolved(found, "/dns6/air.test/tcp/1/wss")) == [
        "/ip6/2001:db8::1/tcp/1/tls/sni/air.test/ws"
    ]
    assert await resolved(found, "/ip4/192.0.2.9/tcp/1") == ["/ip4/192.0.2.9/tcp/1"]
    with pytest.raises(Unreachable) as caught:
        await found.resolve(Multiaddr("/dns4/nowhere.test/tcp/1"))
    assert "dial.dns" in caught.value.attempts[0][1]


async def test_dnsaddr_records_lead_on_and_only_the_named_peer_counts() -> None:
    texts = {
        "_dnsaddr.air.test": [
            "something else",
            "dnsaddr=/dnsaddr/deep.test",
            f"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/{OTHER}",
            f"dnsaddr=/ip4/192.0.2.2/tcp/1/p2p/{PEER}",
            "dnsaddr=/nonsense",
        ],
        "_dnsaddr.deep.test": [f"dnsaddr=/dns4/host.test/tcp/2/p2p/{PEER}"],
    }
    found = resolver(texts, {"host.test": ["192.0.2.3"]})
    assert await resolved(found, f"/dnsaddr/air.test/p2p/{PEER}") == [f"/ip4/192.0.2.2/tcp/1/p2p/{PEER}"]
    assert len(await resolved(found, "/dnsaddr/air.test")) == 3


async def test_names_that_lead_to_each_other_and_floods_of_addresses_end() -> None:
    loop = resolver({"_dnsaddr.loop.test": ["dnsaddr=/dnsaddr/loop.test"] * 3}, {})
    with pytest.raises(Unreachable):
        await loop.resolve(Multiaddr("/dnsaddr/loop.test"))
    flood = resolver(
        {"_dnsaddr.f.test": [f"dnsaddr=/ip4/10.0.{n % 250}.1/tcp/{n}" for n in range(1, 500)]}, {}
    )
    assert len(await flood.resolve(Multiaddr("/dnsaddr/f.test"))) == 100


async def test_a_name_server_that_does_not_answer_costs_a_limited_time() -> None:
    async def never(name: str) -> list[str]:
        await anyio.sleep_forever()
        return []

    found = Resolver(ResolverConfig(timeout_seconds=0.05), texts=never)
    with pytest.raises(Unreachable) as caught:
        await found.resolve(Multiaddr("/dnsaddr/slow.test"))
    assert "in time" in str(caught.value.attempts)
