"""The swarm over an in-process network and over TCP, on both event loops."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from air.base.address import Multiaddr
from air.base.errors import Closed, ConfigError, Denied, LimitReached, Reset, Unreachable, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.mux.yamux.conn import Yamux
from air.security.noise import Noise
from air.swarm.dial import DialConfig
from air.swarm.gate import GateConfig
from air.swarm.lifecycle import Stage
from air.swarm.limits import Ceiling, LimitsConfig
from air.swarm.peerbook import Source
from air.swarm.pool import PoolConfig
from air.swarm.score import ScoreConfig
from air.swarm.session import SessionConfig
from air.swarm.stream import Stream
from air.swarm.swarm import Swarm, SwarmConfig
from air.swarm.upgrade import UpgradeConfig
from air.transport.memory_transport import Memory, MemoryNetwork
from air.transport.raw import RawConn, Transport
from air.transport.resolve import Resolver, ResolverConfig
from air.transport.tcp_transport import Tcp

pytestmark = pytest.mark.anyio

ECHO = "/echo/1.0.0"


def swarm(*transports: Transport, **settings: Any) -> Swarm:
    return Swarm(Identity.generate(), transports, [Noise()], [Yamux()], config=SwarmConfig(**settings))


async def echo(stream: Stream) -> None:
    with suppress_end():
        while True:
            await stream.send(await stream.receive())


class suppress_end(suppress):
    def __init__(self) -> None:
        super().__init__(Closed)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return kind is Closed


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


@asynccontextmanager
async def two(
    dialer: dict[str, Any] | None = None, listener: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Swarm, Swarm, Multiaddr]]:
    """A dialler, a listener that echoes, and the listener's address."""
    network = MemoryNetwork()
    one, other = swarm(Memory(network), **(dialer or {})), swarm(Memory(network), **(listener or {}))
    async with one.running(), other.running():
        with other.handle(ECHO, echo):
            (place,) = await other.listen("/memory/0")
            yield one, other, place.at(other.peer)


async def ask(stream: Stream, data: bytes) -> bytes:
    await stream.send(data)
    await stream.send_eof()
    parts = []
    with suppress_end():
        while True:
            parts.append(await stream.receive())
    return b"".join(parts)


async def test_a_stream_reaches_the_handler_of_its_protocol() -> None:
    async with two() as (one, other, place):
        session = await one.dial(place)
        assert session.peer == other.peer
        assert (session.security, session.muxer) == ("/noise", "/yamux/1.0.0")
        async with await session.open_stream(ECHO) as stream:
            assert stream.protocol == ECHO
            assert await ask(stream, b"hello") == b"hello"
        (seen,) = other.sessions
        assert seen.peer == one.peer
        assert seen.inbound
        assert not session.inbound


async def test_two_hundred_concurrent_dials_to_one_peer_make_one_session() -> None:
    async with two() as (one, other, place):
        found = []

        async def dial() -> None:
            found.append(await one.dial(place))

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(dial)
        assert len(found) == 200
        assert len({session.number for session in found}) == 1
        await until(lambda: bool(other.sessions))
        assert len(other.sessions) == len(one.sessions) == 1
        assert other.counters.get("sessions_opened", "in") == 1
        assert await one.dial(other.peer) is found[0]


async def test_two_hundred_dials_that_fail_hear_every_attempt() -> None:
    async with two() as (one, other, _):
        place = Multiaddr("/memory/9999").at(other.peer)
        heard = []

        async def dial() -> None:
            with pytest.raises(Unreachable) as caught:
                await one.dial(place)
            heard.append(caught.value.attempts)

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(dial)
        assert len(heard) == 200
        assert all(attempts == (("/memory/9999", "nobody listens there"),) for attempts in heard)


async def test_both_may_dial_at_once_and_the_spare_session_goes() -> None:
    quick = {"pool": PoolConfig(spare_seconds=0.05), "sweep_seconds": 0.02}
    async with two(quick, quick) as (one, other, place):
        with one.handle(ECHO, echo):
            (back,) = await one.listen("/memory/0")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.dial, place)
                tasks.start_soon(other.dial, back.at(one.peer))
            await until(lambda: len(one.sessions) == len(other.sessions) == 1)
            session = await one.dial(other.peer)
            async with await session.open_stream(ECHO) as stream:
                assert await ask(stream, b"still here") == b"still here"


async def test_a_caller_that_gives_up_does_not_take_the_dial_from_others() -> None:
    async with two() as (one, _, place):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await one.dial(place)
        got = []

        async def dial() -> None:
            got.append(await one.dial(place))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dial)
            with anyio.move_on_after(0):
                await one.dial(place)
        assert len(got) == 1


class Stuck:
    """A transport whose dials never end."""

    def __init__(self) -> None:
        self.dialling = 0

    def handles(self, address: Multiaddr, /) -> bool:
        return address.names[0] == "ip4"

    async def dial(self, address: Multiaddr, /) -> RawConn:
        self.dialling += 1
        try:
            await anyio.sleep_forever()
        finally:
            self.dialling -= 1
        raise AssertionError

    def listen(self, address: Multiaddr, /) -> Any:
        raise AssertionError


async def test_when_nobody_waits_any_more_a_dial_ends_and_leaves_nothing() -> None:
    stuck = Stuck()
    async with swarm(stuck).running() as one:
        with anyio.move_on_after(0.05):
            await one.dial(Multiaddr("/ip4/192.0.2.1/tcp/1"))
        await until(lambda: stuck.dialling == 0)
        assert one.limits.system.idle
        assert one.limits.transient.idle


async def test_an_address_that_hangs_does_not_hold_up_the_next() -> None:
    network = MemoryNetwork()
    other = swarm(Memory(network))
    stuck = Stuck()
    one = swarm(stuck, Memory(network), dial=DialConfig(stagger_seconds=0.02))
    async with one.running(), other.running():
        (place,) = await other.listen("/memory/0")
        hang = Multiaddr("/ip4/127.0.0.1/tcp/1")
        watch = one.events()
        session = await one.dial(other.peer, [hang, place])
        assert session.remote_address == place
        await until(lambda: stuck.dialling == 0)
        watch.close()
        ends = [event.reason async for event in watch if event.stage is Stage.CLOSED]
        assert ends in ([], ["dial.superseded"])


async def test_a_dial_that_takes_too_long_says_so() -> None:
    one = swarm(Stuck(), dial=DialConfig(total_seconds=0.1))
    async with one.running():
        with pytest.raises(Unreachable) as caught:
            await one.dial(Multiaddr("/ip4/192.0.2.1/tcp/1"))
        assert "dial.timeout" in str(caught.value.attempts) or "dial.no-time" in str(caught.value.attempts)


async def test_somebody_else_at_the_address_is_refused_and_the_address_forgotten() -> None:
    async with two() as (one, other, place):
        bare = place.bare
        assert bare is not None
        wanted = Identity.generate().peer_id
        with pytest.raises(Unreachable) as caught:
            await one.dial(bare.at(wanted))
        assert isinstance(caught.value.__cause__, Denied)
        assert caught.value.__cause__.code == "security.wrong-peer"
        assert one.peerbook.addresses(wanted, one.env.clock.now()) == []
        assert other.sessions == ()


async def test_an_address_without_a_name_tells_who_lives_there() -> None:
    async with two() as (one, other, place):
        bare = place.bare
        assert bare is not None
        assert (await one.dial(bare)).peer == other.peer
        assert one.peerbook.addresses(other.peer, one.env.clock.now()) == [bare]


async def test_nobody_dials_himself() -> None:
    async with two() as (_, other, place):
        with pytest.raises(Denied) as caught:
            await other.dial(place)
        assert caught.value.code == "gate.self"
        bare = place.bare
        assert bare is not None
        with pytest.raises(Unreachable) as failed:
            await other.dial(bare)
        assert "gate.self" in str(failed.value)


async def test_a_protocol_that_nobody_serves_is_denied() -> None:
    async with two() as (one, _, place):
        session = await one.dial(place)
        with pytest.raises(Denied) as caught:
            await session.open_stream("/nothing/1")
        assert caught.value.code == "multistream.unsupported"
        stream = await session.open_stream(["/nothing/1", ECHO])
        assert stream.protocol == ECHO
        await stream.aclose()


async def test_a_lazy_stream_learns_at_the_first_answer_that_nobody_serves_it() -> None:
    async with two() as (one, _, place):
        session = await one.dial(place)
        stream = await session.open_stream("/nothing/1", lazy=True)
        await stream.send(b"in vain")
        with pytest.raises(Denied):
            await stream.receive()
        await stream.reset()
        lazy = await session.open_stream(ECHO, lazy=True)
        assert await ask(lazy, b"at once") == b"at once"


async def test_a_handler_that_fails_resets_its_stream_and_nothing_else() -> None:
    async def broken(stream: Stream) -> None:
        raise RuntimeError("a bug")

    async def rude(stream: Stream) -> None:
        raise Violation("nonsense", code="test.nonsense")

    async with two() as (one, other, place):
        with other.handle("/broken", broken), other.handle("/rude", rude):
            session = await one.dial(place)
            for protocol, code in (("/broken", "stream.reset"), ("/rude", "stream.violation")):
                # A reset drops what was not sent yet, so the end may show before the agreement does.
                with pytest.raises(Reset) as caught:
                    await (await session.open_stream(protocol)).receive()
                assert caught.value.code == code
            assert other.counters.get("streams_failed", "test.nonsense") == 1
            assert other.counters.get("streams_failed", "stream.handler-failed") == 1
            async with await session.open_stream(ECHO) as stream:
                assert await ask(stream, b"well") == b"well"


async def test_who_breaks_rules_again_and_again_is_cut_and_shut_out() -> None:
    async def rude(stream: Stream) -> None:
        raise Violation("nonsense", code="test.nonsense")

    async with two(listener={"score": ScoreConfig(offences_max=2.5)}) as (one, other, place):
        with other.handle("/rude", rude):
            session = await one.dial(place)
            for _ in range(3):
                with pytest.raises(Reset):
                    await (await session.open_stream("/rude")).receive()
            await until(lambda: session.closed and not other.sessions and not one.sessions)
            again = await one.dial(place)
            # The listener refuses after the dialler is done: its refusal is seen at the first use.
            with pytest.raises((Closed, Violation)):
                async with await again.open_stream(ECHO) as stream:
                    await ask(stream, b"x")
            assert other.counters.get("conns_refused", "gate.banned") == 1


async def test_streams_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    one_each = Ceiling(0, 0, 0, 3, 3, 3, 2**30)
    async with two(listener={"limits": LimitsConfig(protocol_peer=one_each)}) as (one, other, place):
        session = await one.dial(place)
        streams = [await session.open_stream(ECHO) for _ in range(3)]
        for stream in streams:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        with pytest.raises(Reset) as caught:
            await (await session.open_stream(ECHO)).receive()
        assert caught.value.code == "stream.resource-limit"
        await streams[0].aclose()
        await until(lambda: other.limits.pair(ECHO, one.peer).streams_in == 2)
        assert await ask(await session.open_stream(ECHO), b"again") == b"again"
        assert await ask(streams[1], b"") == b""


async def test_own_streams_are_limited_before_anything_is_sent() -> None:
    few = Ceiling(1, 1, 1, 2, 2, 2, 2**30)
    async with two({"limits": LimitsConfig(connection=few)}) as (one, _, place):
        session = await one.dial(place)
        held = [await session.open_stream(ECHO) for _ in range(2)]
        with pytest.raises(LimitReached) as caught:
            await session.open_stream(ECHO)
        assert caught.value.code == "limit.connection.streams-out"
        await held[0].reset()
        async with await session.open_stream(ECHO) as stream:
            assert await ask(stream, b"room") == b"room"


async def test_everything_taken_comes_back_when_a_session_ends() -> None:
    async with two() as (one, other, place):
        session = await one.dial(place)
        for _ in range(5):
            await session.open_stream(ECHO)
        await session.aclose()
        await until(lambda: one.limits.system.idle and other.limits.system.idle)
        assert one.limits.transient.idle
        assert other.limits.transient.idle
        assert one.limits.scopes == other.limits.scopes == 0
        with pytest.raises(Closed):
            await session.open_stream(ECHO)


async def test_connections_beyond_the_limit_are_closed_before_any_cryptography() -> None:
    none = Ceiling(0, 0, 0, 0, 0, 0, 0)
    async with two(listener={"limits": LimitsConfig(transient=none)}) as (one, other, place):
        with pytest.raises(Unreachable):
            await one.dial(place)
        assert other.counters.get("conns_refused", "limit.transient.connections-in") == 1


async def test_the_gate_is_asked_on_both_sides() -> None:
    async with two(listener={"gate": GateConfig(ask=lambda peer, place, inbound: not inbound)}) as (
        one,
        other,
        place,
    ):
        with suppress(Unreachable):
            session = await one.dial(place)
            await until(lambda: session.closed)
        await until(lambda: other.counters.get("conns_refused", "gate.asked") == 1)
        assert other.sessions == ()


async def test_a_peer_that_says_nothing_is_dropped_in_time() -> None:
    quick = {"upgrade": UpgradeConfig(timeout_seconds=0.1)}
    network = MemoryNetwork()
    memory = Memory(network)
    async with swarm(memory, **quick).running() as other:
        (place,) = await other.listen("/memory/0")
        silent = await memory.dial(place)
        with pytest.raises(Closed):
            await silent.receive()
        assert other.counters.get("conns_refused", "upgrade.timeout") == 1
        assert other.limits.system.idle


async def test_garbage_instead_of_a_handshake_is_refused_with_a_code() -> None:
    network = MemoryNetwork()
    memory = Memory(network)
    async with swarm(memory).running() as other:
        (place,) = await other.listen("/memory/0")
        for junk, code in {
            b"GET / HTTP/1.1\r\n\r\n": "multistream.no-header",
            b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x01\xff": "noise.handshake",
        }.items():
            peer = await memory.dial(place)
            await peer.send(junk)
            with pytest.raises(Closed):
                while True:
                    await peer.receive()
            await until(lambda code=code: other.counters.get("conns_refused", code) == 1)  # type: ignore[misc]


async def test_events_tell_the_life_of_a_connection() -> None:
    quick = {"sweep_seconds": 0.01, "pool": PoolConfig(idle_seconds=0.03)}
    async with two(quick) as (one, _, place):
        watch = one.events()
        session = await one.dial(place)
        stream = await session.open_stream(ECHO)
        seen = []
        with anyio.fail_after(5):
            async for event in watch:
                seen.append(event.stage)
                if event.stage is Stage.ACTIVE:
                    await stream.aclose()
                elif event.stage is Stage.IDLE:
                    await session.aclose()
                elif event.stage is Stage.CLOSED:
                    assert event.reason == "link.closed"
                    break
        assert seen == [
            Stage.DISCOVERED,
            Stage.CONNECTING,
            Stage.HANDSHAKING,
            Stage.AUTHENTICATED,
            Stage.ACTIVE,
            Stage.IDLE,
            Stage.CLOSED,
        ]


async def test_a_slow_watcher_loses_the_oldest_events_and_knows_it() -> None:
    async with two({"events_max": 3}) as (one, _, place):
        watch = one.events()
        await one.dial(place)
        watch.close()
        assert [event.stage async for event in watch] == [
            Stage.CONNECTING,
            Stage.HANDSHAKING,
            Stage.AUTHENTICATED,
        ]
        assert watch.missed == 1


async def test_the_end_of_a_swarm_is_a_goodbye_and_leaves_no_task() -> None:
    network = MemoryNetwork()
    other = swarm(Memory(network))
    gone: list[str] = []
    async with other.running():
        with other.handle(ECHO, echo):
            (place,) = await other.listen("/memory/0")
            one = swarm(Memory(network))
            async with one.running():
                session = await one.dial(place.at(other.peer))
                stream = await session.open_stream(ECHO)
                await stream.send(b"x" * 100_000)
            gone.append(session.reason)
            await until(lambda: not other.sessions)
            assert other.counters.get("sessions_closed", "link.closed") == 1
            with pytest.raises(Closed) as caught:
                await one.dial(place)
            assert caught.value.code == "node.closed"
    assert gone == ["link.closed"]


async def test_a_cancelled_swarm_leaves_nothing_behind() -> None:
    network = MemoryNetwork()
    other = swarm(Memory(network))
    async with other.running():
        with other.handle(ECHO, echo):
            (place,) = await other.listen("/memory/0")
            with anyio.CancelScope() as scope:
                async with swarm(Memory(network)).running() as one:
                    session = await one.dial(place)
                    dead = weakref.ref(session)
                    await session.open_stream(ECHO)
                    scope.cancel()
                    await anyio.sleep_forever()
            await until(lambda: not other.sessions)
            del session, one
    gc.collect()
    assert dead() is None


async def test_a_handler_may_finish_with_what_has_arrived_after_the_peer_has_left() -> None:
    got = []

    async def collect(stream: Stream) -> None:
        parts = []
        with suppress_end():
            while True:
                parts.append(await stream.receive(1000))
                await anyio.lowlevel.checkpoint()
        got.append(b"".join(parts))

    async with two(listener={"session": SessionConfig(drain_seconds=5)}) as (one, other, place):
        with other.handle("/collect", collect):
            session = await one.dial(place)
            stream = await session.open_stream("/collect")
            await stream.send(b"x" * 50_000)
            await stream.aclose()
            await session.aclose()
            await until(lambda: bool(got))
            assert len(got[0]) == 50_000


async def test_hooks_run_for_each_session_and_end_with_it() -> None:
    seen: list[str] = []

    async def hook(session: Any) -> None:
        seen.append("begin")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("end")

    async with two() as (one, _, place):
        with one.attend(hook):
            session = await one.dial(place)
            await until(lambda: seen == ["begin"])
            await session.aclose()
            await until(lambda: seen == ["begin", "end"])
        await one.dial(place)
        assert seen == ["begin", "end"]


async def test_a_hundred_streams_at_once_over_tcp() -> None:
    one, other = swarm(Tcp()), swarm(Tcp())
    async with one.running(), other.running():
        with other.handle(ECHO, echo):
            (place,) = await other.listen("/ip4/127.0.0.1/tcp/0")
            session = await one.dial(place.at(other.peer))

            async def talk(number: int) -> None:
                data = bytes([number]) * 20_000
                async with await session.open_stream(ECHO) as stream:
                    assert await ask(stream, data) == data

            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(talk, number)


async def test_a_name_is_resolved_and_every_address_behind_it_tried() -> None:
    one, other = swarm(Tcp()), swarm(Tcp())
    async with one.running(), other.running():
        (place,) = await other.listen("/ip4/127.0.0.1/tcp/0")
        port = place.get("tcp")
        session = await one.dial(Multiaddr(f"/dns4/localhost/tcp/{port}").at(other.peer))
        assert session.remote_address == place


async def test_a_resting_address_is_not_dialled_unless_it_is_named() -> None:
    async with two() as (one, other, place):
        dead = Multiaddr("/memory/77777")
        with pytest.raises(Unreachable):
            await one.dial(other.peer, [dead])
        with pytest.raises(Unreachable) as caught:
            await one.dial(other.peer)
        assert "dial.resting" in str(caught.value.attempts)
        assert (await one.dial(other.peer, [place])).peer == other.peer


class Broken:
    """A transport, a security, a peer's fault: whatever raises what nobody expects."""

    protocol = "/noise"

    def handles(self, address: Multiaddr, /) -> bool:
        return address.names[0] == "ip4"

    async def dial(self, address: Multiaddr, /) -> RawConn:
        raise ZeroDivisionError("a bug")

    def listen(self, address: Multiaddr, /) -> Any:
        raise AssertionError

    async def secure(self, *_: object, **__: object) -> Any:
        raise ZeroDivisionError("a bug")


async def test_a_bug_in_a_part_of_somebody_else_ends_one_connection_only() -> None:
    network = MemoryNetwork()
    one = swarm(Broken(), Memory(network))
    other = Swarm(Identity.generate(), [Memory(network)], [Broken()], [Yamux()])
    good = swarm(Memory(network))
    async with one.running(), other.running(), good.running():
        with pytest.raises(Unreachable) as caught:
            await one.dial(Multiaddr("/ip4/192.0.2.1/tcp/1"))
        assert "dial.failed" in str(caught.value.attempts)
        (place,) = await other.listen("/memory/0")
        for _ in range(2):
            with pytest.raises(Unreachable):
                await one.dial(place)
        assert other.counters.get("conns_refused", "swarm.failed") == 2
        (place,) = await good.listen("/memory/0")
        assert (await one.dial(place)).peer == good.peer


@pytest.mark.parametrize("steps", range(16))
async def test_a_dial_given_up_at_any_moment_leaves_nothing(steps: int) -> None:
    async with two() as (one, other, place):
        watch = one.events()

        async def give_up(scope: anyio.CancelScope) -> None:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(give_up, scope)
                await one.dial(place)
        await until(lambda: one.limits.system.conns_out == len(one.sessions) == len(other.sessions))
        assert one.limits.transient.idle
        watch.close()
        stages = [event.stage async for event in watch]
        assert bool(one.sessions) != (Stage.CLOSED in stages or Stage.CONNECTING not in stages)


class Gated(Memory):
    """A transport whose dials wait for a word."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network)
        self.open = anyio.Event()

    async def dial(self, address: Multiaddr, /) -> Any:
        await self.open.wait()
        return await super().dial(address)


class Guest(NamedTuple):
    """A session with a long goodbye."""

    peer: PeerId
    leaving: anyio.Event
    number: int = 99
    inbound: bool = False
    relayed: bool = False
    closed: bool = False
    streams: int = 0

    async def aclose(self, *_: object) -> None:
        self.leaving.set()
        await anyio.sleep(0.1)


async def test_a_dial_that_comes_through_during_the_goodbye_is_given_back() -> None:
    network = MemoryNetwork()
    other, gated = swarm(Memory(network)), Gated(network)
    one = swarm(gated)
    told: list[str] = []

    async def dial(place: Multiaddr) -> None:
        with pytest.raises(Closed) as caught:
            await one.dial(place)
        told.append(caught.value.code)

    async with other.running(), anyio.create_task_group() as tasks:
        (place,) = await other.listen("/memory/0")
        async with one.running():
            tasks.start_soon(dial, place.at(other.peer))
            await anyio.wait_all_tasks_blocked()
            guest = Guest(Identity.generate().peer_id, gated.open)
            one._pool.add(guest)  # type: ignore[arg-type]
        assert list(one._pool) == [guest]
        assert one.limits.system.idle
        await until(lambda: told == ["node.closed"])


async def test_a_node_that_ends_in_good_order_loses_no_session() -> None:
    async def stay(_: Any) -> None:
        await anyio.sleep_forever()

    for _ in range(5):
        network = MemoryNetwork()
        one, other = swarm(Memory(network)), swarm(Memory(network))
        async with other.running():
            (place,) = await other.listen("/memory/0")
            with one.attend(stay):
                async with one.running():
                    watch = one.events()
                    await one.dial(place.at(other.peer))
                    await anyio.wait_all_tasks_blocked()
        told = [(event.stage, event.reason) async for event in watch]
        assert told[-2:] == [(Stage.AUTHENTICATED, ""), (Stage.CLOSED, "link.closed")]


async def test_watching_after_the_end_ends_at_once_and_two_may_share_a_watch() -> None:
    one = swarm(Stuck())
    async with one.running():
        watch = one.events()

        async def follow() -> None:
            async for _ in watch:
                raise AssertionError

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                watch.close()
    with anyio.fail_after(5):
        assert [event async for event in one.events()] == []


async def test_who_is_shut_out_loses_all_sessions() -> None:
    async def rude(stream: Stream) -> None:
        raise Violation("nonsense", code="test.nonsense")

    async with two(listener={"score": ScoreConfig(offences_max=1.0)}) as (one, other, place):
        with other.handle("/rude", rude):
            sessions = [await one.dial(place, new=True) for _ in range(3)]
            await until(lambda: len(other.sessions) == 3)
            with pytest.raises(Reset):
                await (await sessions[0].open_stream("/rude")).receive()
            await until(lambda: not other.sessions and not one.sessions)


def naming(look_up: Any, **settings: Any) -> tuple[Swarm, Swarm]:
    network = MemoryNetwork()
    one = Swarm(
        Identity.generate(),
        [Memory(network), Tcp()],
        [Noise()],
        [Yamux()],
        config=SwarmConfig(**settings),
        resolver=Resolver(ResolverConfig(timeout_seconds=60), hosts=look_up),
    )
    return one, swarm(Memory(network))


async def test_names_that_nobody_answers_for_cost_one_dial_and_no_more_than_its_time() -> None:
    async def never(name: str, family: int) -> list[str]:
        await anyio.sleep_forever()
        return []

    one, other = naming(never, dial=DialConfig(total_seconds=0.1))
    async with one.running(), other.running():
        with anyio.fail_after(5), pytest.raises(Unreachable) as caught:
            names = [Multiaddr(f"/dns4/slow{n}.test/tcp/1") for n in range(8)]
            await one.dial(other.peer, names)
        assert {reason for _, reason in caught.value.attempts} == {
            "dial.no-time: the name was not found in time"
        }


async def test_names_are_looked_up_side_by_side() -> None:
    asked: list[str] = []

    async def together(name: str, family: int) -> list[str]:
        asked.append(name)
        await until(lambda: len(set(asked)) == 4)
        raise OSError("no such name")

    one, other = naming(together)
    async with one.running(), other.running():
        (place,) = await other.listen("/memory/0")
        names = [Multiaddr(f"/dns4/n{n}.test/tcp/1") for n in range(4)]
        with anyio.fail_after(5):
            assert (await one.dial(other.peer, [*names, place])).remote_address == place


async def test_a_bug_in_a_resolver_ends_one_dial_only() -> None:
    async def broken(name: str, family: int) -> list[str]:
        raise ZeroDivisionError("a bug")

    one, other = naming(broken)
    async with one.running(), other.running():
        (place,) = await other.listen("/memory/0")
        with pytest.raises(Unreachable) as caught:
            await one.dial(Multiaddr("/dns4/x.test/tcp/1"))
        assert "dial.failed" in str(caught.value.attempts)
        assert (await one.dial(place)).peer == other.peer


async def test_an_address_that_is_not_welcome_does_not_hide_the_others_of_its_name() -> None:
    async def both(name: str, family: int) -> list[str]:
        return ["10.0.0.1", "127.0.0.1"]

    one, _ = naming(both, gate=GateConfig(networks_denied=("10.0.0.0/8",)))
    listener = swarm(Tcp())
    async with one.running(), listener.running():
        (place,) = await listener.listen("/ip4/127.0.0.1/tcp/0")
        session = await one.dial(Multiaddr(f"/dns4/two.test/tcp/{place.get('tcp')}"))
        assert session.peer == listener.peer


async def test_who_insists_on_a_resting_address_does_not_share_the_failure_of_who_does_not() -> None:
    network = MemoryNetwork()
    stuck, other = Stuck(), swarm(Memory(network))
    one = swarm(stuck, Memory(network), dial=DialConfig(total_seconds=0.3))
    async with one.running(), other.running():
        now = one.env.clock.now
        place = Multiaddr("/memory/1")
        one.discovered(other.peer, [Multiaddr("/ip4/192.0.2.1/tcp/1"), place], Source.HINT)
        one._dialer.history.failed(place, now())

        async def lazily() -> None:
            with pytest.raises(Unreachable):
                await one.dial(other.peer)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lazily)
            await until(lambda: stuck.dialling == 1)
            await other.listen(place)
            assert (await one.dial(other.peer, [place])).remote_address == place


async def test_an_address_that_cannot_be_read_is_a_fault_of_the_configuration() -> None:
    async with swarm(Tcp()).running() as one:
        with pytest.raises(ConfigError) as caught:
            await one.listen("nonsense")
        assert caught.value.code == "address.bad-text"
