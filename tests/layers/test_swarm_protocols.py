"""Ping, identify, echo and perf between two nodes in one process, and against peers that break the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from air.base.address import Multiaddr
from air.base.errors import Closed, LimitReached, Reset, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.codec.envelope import open_peer_record, seal_peer_record
from air.codec.frame import FrameReader, encode_frame
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.protocols import Echo, Identify, IdentifyConfig, Perf, Ping, PingConfig
from air.protocols.identify import PROTOCOL, PUSH
from air.protocols.perf import measure
from air.protocols.ping import PROTOCOL as PING
from air.protocols.presentation import SEND_BYTES_MAX, Presentation, decode, encode
from air.security.noise import Noise
from air.swarm.api import Service
from air.swarm.session import Session
from air.swarm.stream import Stream
from air.transport.memory_transport import Memory, MemoryNetwork
from tests import vector_files

pytestmark = pytest.mark.anyio


def node(network: MemoryNetwork, *services: Service, listen: str = "/memory/0") -> Node:
    return Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()], services, [listen])


@asynccontextmanager
async def met(mine: list[Service], theirs: list[Service]) -> AsyncIterator[tuple[Node, Node, Session]]:
    network = MemoryNetwork()
    async with node(network, *theirs) as other, node(network, *mine) as one:
        yield one, other, await one.dial(other.addresses[0])


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.005)


async def drain(stream: Stream) -> bytes:
    parts = []
    while True:
        try:
            parts.append(await stream.receive())
        except Reset:
            raise
        except Closed:
            return b"".join(parts)


# Ping


async def test_a_ping_measures_and_many_use_one_stream() -> None:
    ping = Ping()
    async with met([ping], [Ping()]) as (_, other, session):
        assert len(await ping.ping(session, 20)) == 20
        assert other.swarm.counters.get("streams_in", PING) == 1


async def test_a_ping_in_pieces_is_put_together_and_several_at_once_are_answered() -> None:
    async with met([], [Ping()]) as (_, _, session):
        stream = await session.open_stream(PING)
        first, second = bytes(range(32)), bytes(32)
        for at in range(0, 32, 5):
            await stream.send(first[at : at + 5])
        await stream.send(second + first)
        got = b""
        while len(got) < 96:
            got += await stream.receive()
        assert got == first + second + first
        await stream.send_eof()
        assert await drain(stream) == b""
        cut = await session.open_stream(PING)
        await cut.send(b"half")
        await cut.send_eof()
        with pytest.raises(Reset):
            await drain(cut)


async def test_the_third_ping_stream_of_a_peer_is_reset_and_a_place_comes_back() -> None:
    async with met([], [Ping()]) as (_, _, session):
        held = [await session.open_stream(PING) for _ in range(2)]
        for stream in held:
            await stream.send(bytes(32))
            await stream.receive()
        with pytest.raises(Reset) as caught:
            await (await session.open_stream(PING)).receive()
        assert caught.value.code == "stream.resource-limit"
        await held[0].aclose()
        with anyio.fail_after(5):
            while True:
                try:
                    stream = await session.open_stream(PING)
                    await stream.send(bytes(32))
                    await stream.receive()
                    break
                except Reset:
                    await anyio.sleep(0.01)


async def test_a_changed_echo_and_a_silent_peer_are_told_apart() -> None:
    async def liar(stream: Stream) -> None:
        await stream.receive()
        await stream.send(bytes(32))

    async def silent(stream: Stream) -> None:
        await anyio.sleep_forever()

    ping = Ping(PingConfig(timeout_seconds=0.1))
    async with met([ping], []) as (_, other, session):
        for handler, code in ((liar, "ping.wrong-echo"), (silent, "ping.timeout")):
            with other.swarm.handle(PING, handler), pytest.raises(Violation) as caught:
                await ping.ping(session)
            assert caught.value.code == code
        assert not session.closed


async def test_many_who_ping_one_peer_take_turns() -> None:
    ping = Ping()
    async with met([ping], [Ping()]) as (_, other, session):
        found: list[float] = []

        async def ask() -> None:
            found.extend(await ping.ping(session, 2))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask)
        assert len(found) == 16
        assert other.swarm.counters.get("streams_failed", "ping.streams") == 0


async def test_who_pings_and_reads_no_answer_is_cut() -> None:
    async with met([], [Ping(PingConfig(timeout_seconds=0.1))]) as (_, other, session):
        stream = await session.open_stream(PING)
        with anyio.fail_after(5), pytest.raises(Reset) as caught:
            while True:
                await stream.send(bytes(64 * 32))
        assert caught.value.code == "stream.resource-limit"
        assert other.swarm.counters.get("streams_failed", "ping.unread") == 1


async def test_keep_alive_pings_by_itself() -> None:
    async with met([Ping(PingConfig(interval_seconds=0.01))], [Ping()]) as (_, other, _session):
        await until(lambda: other.swarm.counters.get("streams_in", PING) >= 3)


# Identify


async def test_peers_present_themselves_when_they_meet() -> None:
    async with met([Identify(), Ping()], [Identify(IdentifyConfig(agent="test/1")), Echo()]) as (
        one,
        other,
        session,
    ):
        await until(lambda: bool(one.swarm.peerbook.info(other.peer) and other.swarm.peerbook.info(one.peer)))
        await until(lambda: one.swarm.peerbook.info(other.peer).identified)  # type: ignore[union-attr]
        info = one.swarm.peerbook.info(other.peer)
        assert info is not None
        assert info.agent == "test/1"
        assert info.protocols == {"/echo/1.0.0", PROTOCOL, PUSH}
        assert info.record is not None
        assert open_peer_record(info.record).addresses == other.swarm.addresses
        assert one.swarm.peerbook.addresses(other.peer, one.swarm.env.clock.now()) == list(
            other.swarm.addresses
        )
        assert session.peer == other.peer


async def test_two_who_ask_at_once_share_one_stream() -> None:
    identify = Identify()
    async with met([identify], [Identify()]) as (_, other, session):
        found: list[Presentation] = []

        async def ask() -> None:
            found.append(await identify.ask(session))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
        assert len(found) == 20
        assert other.swarm.counters.get("streams_in", PROTOCOL) <= 2


async def test_those_who_wait_for_one_answer_share_its_failure_too() -> None:
    async def silent(stream: Stream) -> None:
        await anyio.sleep_forever()

    identify = Identify(IdentifyConfig(timeout_seconds=0.05))
    async with met([identify], []) as (_, other, session):
        # The greeting at the beginning of the session is over, in vain.
        await anyio.wait_all_tasks_blocked()
        codes: list[str] = []

        async def ask() -> None:
            with pytest.raises(Violation) as caught:
                await identify.ask(session)
            codes.append(caught.value.code)

        with other.swarm.handle(PROTOCOL, silent):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask)
            assert codes == ["identify.timeout"] * 20
            assert other.swarm.counters.get("streams_in", PROTOCOL) == 1


async def test_when_who_asked_gives_up_one_of_those_who_wait_asks_again() -> None:
    asked = 0

    async def slow(stream: Stream) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await anyio.sleep_forever()
        await stream.send(encode_frame(encode(Presentation(None, (), ("/x",)))))

    identify = Identify()
    async with met([identify], []) as (_, other, session):
        # The greeting at the beginning of the session is over, in vain.
        await anyio.wait_all_tasks_blocked()
        found: list[Presentation] = []

        async def ask() -> None:
            found.append(await identify.ask(session))

        with other.swarm.handle(PROTOCOL, slow):
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as first:
                        first.start_soon(identify.ask, session)
                        await until(lambda: asked == 1)
                        for _ in range(20):
                            tasks.start_soon(ask)
                        await anyio.wait_all_tasks_blocked()
                        scope.cancel()
            assert [said.protocols for said in found] == [("/x",)] * 20
            assert asked == 2


async def test_what_is_new_is_pushed() -> None:
    quick = IdentifyConfig(watch_seconds=0.02)
    async with met([Identify()], [Identify(quick)]) as (one, other, _):

        def known() -> frozenset[str]:
            info = one.swarm.peerbook.info(other.peer)
            return frozenset() if info is None else info.protocols

        def ready() -> bool:
            info = other.swarm.peerbook.info(one.peer)
            return PROTOCOL in known() and info is not None and PUSH in info.protocols

        async def handler(stream: Stream) -> None: ...

        await until(ready)
        with other.swarm.handle("/new/1", handler):
            await until(lambda: "/new/1" in known())
        await until(lambda: "/new/1" not in known())
        (place,) = await other.swarm.listen("/memory/0")
        await until(lambda: place in one.swarm.peerbook.addresses(other.peer, one.swarm.env.clock.now()))


async def test_what_was_true_for_a_moment_and_told_is_put_right() -> None:
    mine = Identify()
    async with met([mine], [Identify(IdentifyConfig(watch_seconds=0.2))]) as (one, other, session):

        async def handler(stream: Stream) -> None: ...

        # That it listens is new to it when it looks for the first time.
        await until(lambda: one.swarm.counters.get("streams_in", PUSH) == 1)
        with other.swarm.handle("/fleeting/1", handler):
            assert "/fleeting/1" in (await mine.ask(session)).protocols
        info = one.swarm.peerbook.info(other.peer)
        assert info is not None
        await until(lambda: "/fleeting/1" not in info.protocols)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([b"\xff\xff"], "identify.malformed"),
        ([], "identify.empty"),
        ([b""] * 11, "identify.too-many"),
        ([bytes(9000)], "frame.too-big"),
    ],
)
async def test_a_bad_presentation_is_refused_with_a_code(messages: list[bytes], code: str) -> None:
    async def bad(stream: Stream) -> None:
        await stream.send(b"".join(map(encode_frame, messages)))

    identify = Identify()
    async with met([identify], []) as (_, other, session):
        with other.swarm.handle(PROTOCOL, bad), pytest.raises((Violation, LimitReached)) as caught:
            await identify.ask(session)
        assert caught.value.code == code
        assert not session.closed


async def test_a_peer_with_another_key_changes_nothing() -> None:
    mallory = Identity.generate()

    async def lie(stream: Stream) -> None:
        await stream.send(encode_frame(encode(Presentation(mallory.public_key, protocols=("/x",)))))

    identify = Identify()
    async with met([identify], []) as (one, other, session):
        with other.swarm.handle(PROTOCOL, lie), pytest.raises(Violation) as caught:
            await identify.ask(session)
        assert caught.value.code == "identify.wrong-key"
        info = one.swarm.peerbook.info(other.peer)
        assert info is not None
        assert not info.protocols


async def test_a_record_of_somebody_else_is_dropped_and_the_rest_is_kept() -> None:
    mallory, place = Identity.generate(), Multiaddr("/memory/4")

    async def mix(stream: Stream) -> None:
        record = seal_peer_record(mallory, 1, [Multiaddr("/memory/666")])
        await stream.send(encode_frame(encode(Presentation(None, (place,), ("/x",), record=record))))

    identify = Identify()
    async with met([identify], []) as (one, other, session):
        with other.swarm.handle(PROTOCOL, mix):
            await identify.ask(session)
        now = one.swarm.env.clock.now()
        assert place in one.swarm.peerbook.addresses(other.peer, now)
        assert one.swarm.peerbook.addresses(mallory.peer_id, now) == []
        assert one.swarm.counters.get("identify_records_refused", "identify.wrong-record") == 1


async def test_a_silent_peer_costs_the_asker_a_limited_time() -> None:
    async def silent(stream: Stream) -> None:
        await anyio.sleep_forever()

    identify = Identify(IdentifyConfig(timeout_seconds=0.05))
    async with met([identify], []) as (_, other, session):
        with other.swarm.handle(PROTOCOL, silent), pytest.raises(Violation) as caught:
            await identify.ask(session)
        assert caught.value.code == "identify.timeout"


async def test_a_message_of_ours_always_fits_what_rust_reads() -> None:
    key = Identity.generate().public_key
    places = tuple(Multiaddr(f"/ip6/2001:db8::{n:x}/tcp/4001/ws") for n in range(1, 400))
    record = seal_peer_record(Identity(b"\x01" * 32), 1, places[:100])
    said = Presentation(key, places, tuple(f"/protocol/{n}" for n in range(50)), record=record)
    assert len(encode(said)) <= SEND_BYTES_MAX
    assert decode([encode(said)]).protocols == said.protocols
    many = Presentation(key, places, tuple(f"/protocol/{n}" for n in range(1000)))
    assert len(encode(many)) <= SEND_BYTES_MAX


CASES = vector_files.load("libp2p/identify.json")["cases"]


@pytest.mark.vectors
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
async def test_the_recorded_presentations_are_read(case: dict[str, Any]) -> None:
    if case["kind"] == "reject":
        with pytest.raises(Violation):
            decode([bytes.fromhex(case["hex"])])
        return
    reader = FrameReader(8192)
    messages = reader.receive(bytes.fromhex(case["framed"]))
    reader.receive_eof()
    said = decode(messages)
    fields = case["merged"] if case["kind"] == "stream" else case["fields"]
    for name, found in {
        "protocols": list(said.protocols),
        "listenAddrs": [str(address) for address in said.addresses],
        "observedAddr": None if said.observed is None else str(said.observed),
        "protocolVersion": said.protocol_version,
        "agentVersion": said.agent,
        "publicKey": None if said.public_key is None else said.public_key.to_bytes().hex(),
        "signedPeerRecord": None if said.record is None else said.record.hex(),
    }.items():
        if name in fields:
            assert found == fields[name], name
    if case.get("peer_id") and said.public_key is not None:
        assert PeerId.of(said.public_key) == case["peer_id"]


# Echo and perf


async def test_echo_returns_any_number_of_bytes_and_the_half_close() -> None:
    async with met([], [Echo()]) as (_, _, session):
        for size in (0, 1, 70_000, 1_000_000):
            stream = await session.open_stream("/echo/1.0.0")
            got: list[bytes] = []

            async def read(stream: Stream = stream, got: list[bytes] = got) -> None:
                got.append(await drain(stream))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await stream.send(bytes(size))
                await stream.send_eof()
            assert got == [bytes(size)]
            await stream.aclose()


async def test_perf_sends_as_many_bytes_as_were_asked_for() -> None:
    async with met([], [Perf()]) as (_, _, session):
        for up, down in ((0, 0), (1, 1), (1_000_000, 0), (0, 1_000_000), (300_000, 700_001)):
            found = await measure(session, up, down)
            assert found.up_seconds >= 0
            assert found.down_seconds >= 0
        stream = await session.open_stream("/perf/1.0.0")
        await stream.send(b"\0\0\0")
        await stream.send_eof()
        with pytest.raises(Reset):
            await drain(stream)
