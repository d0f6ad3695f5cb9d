"""Nested limits: from every scope or from none, and everything comes back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.base.errors import LimitReached, Misuse
from air.swarm.hosts import HostLimits, HostLimitsConfig
from air.swarm.limits import Ceiling, ConnectionHold, Limits, LimitsConfig, Scope, StreamHold


def flat(connections: int, streams: int, memory: int = 1000) -> Ceiling:
    return Ceiling(connections, connections, connections, streams, streams, streams, memory)


SMALL = LimitsConfig(
    system=flat(6, 20, 500),
    transient=flat(3, 6, 300),
    peer=flat(2, 8, 200),
    protocol=flat(0, 10, 200),
    protocol_peer=flat(0, 4, 100),
    connection=flat(1, 5, 150),
    stream=flat(0, 1, 60),
)


def within(scope: Scope) -> bool:
    top = scope.ceiling
    return (
        0 <= scope.conns_in <= top.connections_in
        and 0 <= scope.conns_out <= top.connections_out
        and scope.conns_in + scope.conns_out <= top.connections
        and 0 <= scope.streams_in <= top.streams_in
        and 0 <= scope.streams_out <= top.streams_out
        and scope.streams_in + scope.streams_out <= top.streams
        and 0 <= scope.memory_bytes <= top.memory_bytes
    )


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9), st.booleans()), max_size=80))
def test_no_scope_is_ever_overdrawn_and_all_of_it_comes_back(steps: list[tuple[int, int, bool]]) -> None:
    limits = Limits(SMALL)
    conns: list[ConnectionHold] = []
    streams: list[StreamHold] = []
    for kind, pick, inbound in steps:
        with contextlib.suppress(LimitReached, Misuse):
            if kind == 0:
                conns.append(limits.connection(inbound=inbound))
            elif kind == 1 and conns:
                conns[pick % len(conns)].authenticated(f"peer{pick % 3}")
            elif kind == 2 and conns and conns[pick % len(conns)].peer:
                streams.append(conns[pick % len(conns)].stream(inbound=inbound))
            elif kind == 3 and streams:
                streams[pick % len(streams)].negotiated(f"/p/{pick % 2}")
            elif kind == 4 and streams:
                streams[pick % len(streams)].reserve(10 * pick)
            elif kind == 5 and conns:
                conns[pick % len(conns)].reserve(10 * pick)
            elif kind == 6 and streams:
                streams.pop(pick % len(streams)).release()
            elif kind == 7 and conns:
                # Before its streams: a handler may still be at work when its connection has ended.
                conns.pop(pick % len(conns)).release()
        for scope in (limits.system, limits.transient, *(conn.own for conn in conns)):
            assert within(scope)
        for peer in range(3):
            assert within(limits.peer(f"peer{peer}"))
    for stream in streams:
        stream.release()
        stream.release()
    for conn in conns:
        conn.release()
        conn.release()
    assert limits.system.idle
    assert limits.transient.idle
    limits.drop_idle([limits.peer(f"peer{peer}") for peer in range(3)])
    assert limits.scopes == 0


def test_a_connection_that_ends_before_its_streams_gives_back_only_its_own() -> None:
    limits = Limits(SMALL)
    conn = limits.connection(inbound=True)
    conn.authenticated("ann")
    stream = conn.stream(inbound=True)
    conn.reserve(30)
    stream.reserve(50)
    conn.release()
    assert limits.system.memory_bytes == limits.peer("ann").memory_bytes == 50
    stream.release()
    assert limits.system.idle
    assert limits.transient.idle
    assert limits.scopes == 0


def test_nothing_can_be_taken_after_the_end() -> None:
    limits = Limits(SMALL)
    conn = limits.connection(inbound=True)
    conn.authenticated("ann")
    stream = conn.stream(inbound=True)
    stream.negotiated("/echo")
    stream.release()
    conn.release()
    for hold in (stream, conn):
        with pytest.raises(Misuse):
            hold.reserve(10)
    assert limits.system.idle
    assert limits.scopes == 0


def test_a_refused_resource_leaves_no_trace_in_any_scope() -> None:
    limits = Limits(SMALL)
    first, second, third = (limits.connection(inbound=True) for _ in range(3))
    with pytest.raises(LimitReached) as caught:
        limits.connection(inbound=True)
    assert caught.value.code == "limit.transient.connections-in"
    assert limits.system.conns_in == 3
    first.authenticated("ann")
    second.authenticated("ann")
    with pytest.raises(LimitReached) as caught:
        third.authenticated("ann")
    assert caught.value.code == "limit.peer.connections-in"
    assert limits.transient.conns_in == 1
    third.authenticated("bob")
    assert limits.transient.conns_in == 0


def test_a_stream_counts_as_transient_until_it_has_a_protocol() -> None:
    limits = Limits(SMALL)
    conn = limits.connection(inbound=False)
    conn.authenticated("ann")
    streams = [conn.stream(inbound=True) for _ in range(4)]
    assert limits.transient.streams_in == 4
    for stream in streams:
        stream.negotiated("/echo")
    assert limits.transient.streams_in == 0
    assert limits.pair("/echo", "ann").streams_in == 4
    fifth = conn.stream(inbound=True)
    with pytest.raises(LimitReached) as caught:
        fifth.negotiated("/echo")
    assert caught.value.code == "limit.protocol-peer.streams-in"
    with pytest.raises(LimitReached) as caught:
        conn.stream(inbound=True)
    assert caught.value.code == "limit.connection.streams-in"


def test_one_protocol_may_have_a_ceiling_of_its_own() -> None:
    limits = Limits(LimitsConfig(protocols={"/ping": flat(0, 2)}))
    conn = limits.connection(inbound=True)
    conn.authenticated("ann")
    for _ in range(2):
        conn.stream(inbound=True).negotiated("/ping")
    with pytest.raises(LimitReached):
        conn.stream(inbound=True).negotiated("/ping")
    conn.stream(inbound=True).negotiated("/echo")


def test_a_machine_has_so_many_connections_and_opens_them_at_such_a_pace() -> None:
    clock = ManualClock()
    hosts = HostLimits(HostLimitsConfig(connections_max=3, opened_per_second=1.0, opened_burst=4))
    groups = [hosts.opened("192.0.2.7", clock.now()) for _ in range(3)]
    with pytest.raises(LimitReached) as caught:
        hosts.opened("192.0.2.7", clock.now())
    assert caught.value.code == "limit.host.connections"
    hosts.opened("192.0.2.8", clock.now())
    for group in groups:
        hosts.closed(group)
    hosts.opened("192.0.2.7", clock.now())
    with pytest.raises(LimitReached) as caught:
        hosts.opened("192.0.2.7", clock.now())
    assert caught.value.code == "limit.host.rate"
    clock.advance(1.0)
    hosts.opened("192.0.2.7", clock.now())


def test_ipv6_is_counted_by_network_and_loopback_is_free() -> None:
    clock = ManualClock()
    hosts = HostLimits(HostLimitsConfig(connections_max=1))
    hosts.opened("2001:db8:0:1::1", clock.now())
    with pytest.raises(LimitReached):
        hosts.opened("2001:db8:0:ff::2", clock.now())
    hosts.opened("2001:db8:0:100::1", clock.now())
    for _ in range(100):
        hosts.opened("127.0.0.1", clock.now())
        hosts.opened("::ffff:127.0.0.1", clock.now())
        hosts.opened("", clock.now())
    strict = HostLimits(HostLimitsConfig(connections_max=1, loopback_exempt=False))
    strict.opened("127.0.0.1", clock.now())
    with pytest.raises(LimitReached):
        strict.opened("::1", clock.now())


def test_a_machine_that_comes_when_the_memory_is_full_is_counted_all_the_same() -> None:
    clock = ManualClock()
    hosts = HostLimits(HostLimitsConfig(hosts_max=1, connections_max=1))
    hosts.opened("10.0.0.1", clock.now())
    hosts.opened("10.0.0.2", clock.now())
    with pytest.raises(LimitReached) as caught:
        hosts.opened("10.0.0.2", clock.now())
    assert caught.value.code == "limit.host.connections"


def test_the_memory_for_machines_is_bounded() -> None:
    clock = ManualClock()
    hosts = HostLimits(HostLimitsConfig(hosts_max=50))
    for number in range(500):
        hosts.closed(hosts.opened(f"10.0.{number // 250}.{number % 250}", clock.now()))
    assert len(hosts) <= 50
