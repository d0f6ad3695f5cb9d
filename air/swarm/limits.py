"""Nested ceilings for connections, streams and memory: taken from every scope, or from none. (core)

system ⊃ transient (who it is, or what it wants, is not known yet) | peer | protocol | protocol × peer ⊃
connection ⊃ stream. Source: libp2p-wire, section 25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from air.base.errors import LimitReached, Misuse

__all__ = ["Ceiling", "ConnectionHold", "Limits", "LimitsConfig", "Scope", "StreamHold"]

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one scope may hold at a time."""

    connections_in: int = 0
    connections_out: int = 0
    connections: int = 0
    """Both directions together."""
    streams_in: int = 0
    streams_out: int = 0
    streams: int = 0
    """Both directions together."""
    memory_bytes: int = 0
    """What was reserved by ``reserve``."""


def _flat(connections: int, streams: int, memory_bytes: int) -> Ceiling:
    return Ceiling(connections, connections, connections, streams, streams, streams, memory_bytes)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """The ceiling of every kind of scope."""

    system: Ceiling = field(default_factory=lambda: _flat(16_384, 65_536, 1024 * MIB))
    transient: Ceiling = field(default_factory=lambda: _flat(1024, 8192, 128 * MIB))
    """Connections without a name yet and streams without a protocol yet."""
    peer: Ceiling = field(default_factory=lambda: _flat(8, 2048, 128 * MIB))
    protocol: Ceiling = field(default_factory=lambda: _flat(0, 32_768, 512 * MIB))
    protocol_peer: Ceiling = field(default_factory=lambda: _flat(0, 1024, 64 * MIB))
    connection: Ceiling = field(default_factory=lambda: _flat(1, 1024, 64 * MIB))
    stream: Ceiling = field(default_factory=lambda: _flat(0, 1, 16 * MIB))
    protocols: dict[str, Ceiling] = field(default_factory=dict)
    """Protocol -> its own ceiling for one peer, instead of ``protocol_peer``."""


class Scope:
    """One holder of resources with its ceiling and what is taken."""

    __slots__ = ("ceiling", "conns_in", "conns_out", "memory_bytes", "name", "streams_in", "streams_out")

    def __init__(self, name: str, ceiling: Ceiling) -> None:
        self.name, self.ceiling = name, ceiling
        self.conns_in = self.conns_out = 0
        self.streams_in = self.streams_out = 0
        self.memory_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is taken."""
        return not (
            self.conns_in or self.conns_out or self.streams_in or self.streams_out or self.memory_bytes
        )

    def check_connection(self, inbound: bool) -> None:
        top = self.ceiling
        here, most = (self.conns_in, top.connections_in) if inbound else (self.conns_out, top.connections_out)
        if here >= most:
            raise self._full("connections-in" if inbound else "connections-out", most)
        if self.conns_in + self.conns_out >= top.connections:
            raise self._full("connections", top.connections)

    def check_stream(self, inbound: bool) -> None:
        top = self.ceiling
        here, most = (self.streams_in, top.streams_in) if inbound else (self.streams_out, top.streams_out)
        if here >= most:
            raise self._full("streams-in" if inbound else "streams-out", most)
        if self.streams_in + self.streams_out >= top.streams:
            raise self._full("streams", top.streams)

    def check_memory(self, count: int) -> None:
        if self.memory_bytes + count > self.ceiling.memory_bytes:
            raise self._full("memory", self.ceiling.memory_bytes)

    def add_connection(self, inbound: bool, count: int) -> None:
        if inbound:
            self.conns_in += count
        else:
            self.conns_out += count

    def add_stream(self, inbound: bool, count: int) -> None:
        if inbound:
            self.streams_in += count
        else:
            self.streams_out += count

    def _full(self, what: str, most: int) -> LimitReached:
        return LimitReached(
            f"the scope {self.name} has its {most} {what}", code=f"limit.{self.name.split(' ')[0]}.{what}"
        )


class Limits:
    """All scopes of one node. Codes are ``limit.<scope>.<what>``, such as ``limit.peer.connections-in``.

    Scopes of peers and protocols exist while something is taken from them, so their number is bounded by
    the ceilings of the system.
    """

    def __init__(self, config: LimitsConfig | None = None) -> None:
        self.config = LimitsConfig() if config is None else config
        self.system = Scope("system", self.config.system)
        self.transient = Scope("transient", self.config.transient)
        self._scopes: dict[tuple[str, str], Scope] = {}

    def connection(self, *, inbound: bool) -> ConnectionHold:
        """Take a connection that has no name yet. Raises LimitReached."""
        scopes = (self.system, self.transient)
        for scope in scopes:
            scope.check_connection(inbound)
        for scope in scopes:
            scope.add_connection(inbound, 1)
        return ConnectionHold(self, inbound)

    def peer(self, peer: str) -> Scope:
        """The scope of one peer."""
        return self._scope("peer", peer, self.config.peer)

    def protocol(self, protocol: str) -> Scope:
        """The scope of one protocol."""
        return self._scope("protocol", protocol, self.config.protocol)

    def pair(self, protocol: str, peer: str) -> Scope:
        """The scope of one protocol with one peer."""
        ceiling = self.config.protocols.get(protocol, self.config.protocol_peer)
        return self._scope("protocol-peer", f"{protocol} {peer}", ceiling)

    @property
    def scopes(self) -> int:
        """Scopes of peers and protocols that exist now."""
        return len(self._scopes)

    def drop_idle(self, scopes: Sequence[Scope]) -> None:
        """Forget those of ``scopes`` that hold nothing."""
        for scope in scopes:
            kind, _, rest = scope.name.partition(" ")
            if rest and scope.idle:
                self._scopes.pop((kind, rest), None)

    def _scope(self, kind: str, name: str, ceiling: Ceiling) -> Scope:
        found = self._scopes.get((kind, name))
        if found is None:
            found = self._scopes[kind, name] = Scope(f"{kind} {name}", ceiling)
        return found


class ConnectionHold:
    """What one connection has taken, without its streams. ``release`` gives it back and may be repeated."""

    __slots__ = ("_limits", "_memory", "_open", "_outer", "inbound", "own", "peer")

    def __init__(self, limits: Limits, inbound: bool) -> None:
        self._limits, self.inbound = limits, inbound
        self.peer = ""
        """Who it is, once that is known."""
        self.own = Scope("connection", limits.config.connection)
        self._memory = 0
        self._outer: tuple[Scope, ...] = (limits.system, limits.transient)
        self._open = True

    def authenticated(self, peer: str) -> None:
        """Move from the transient scope to that of ``peer``. Raises LimitReached, and nothing has moved."""
        if self.peer or not self._open:
            raise Misuse("the connection has a name already, or has ended")
        scope = self._limits.peer(peer)
        try:
            scope.check_connection(self.inbound)
            scope.check_memory(self._memory)
        except LimitReached:
            self._limits.drop_idle((scope,))
            raise
        transient = self._limits.transient
        scope.add_connection(self.inbound, 1)
        scope.memory_bytes += self._memory
        transient.add_connection(self.inbound, -1)
        transient.memory_bytes -= self._memory
        self.peer, self._outer = peer, (self._limits.system, scope)

    def stream(self, *, inbound: bool) -> StreamHold:
        """Take a stream whose protocol is not known yet. Raises LimitReached."""
        if not self._open:
            raise Misuse("the connection has ended")
        # A connection has a name before it has streams, so the last of the outer scopes is the peer's.
        scopes = (self.own, self._limits.system, self._limits.transient, self._outer[-1])
        for scope in scopes:
            scope.check_stream(inbound)
        for scope in scopes:
            scope.add_stream(inbound, 1)
        return StreamHold(self._limits, self, scopes, inbound)

    def reserve(self, count: int) -> None:
        """Take ``count`` bytes of memory. Raises LimitReached."""
        if not self._open:
            raise Misuse("the connection has ended")
        scopes = (self.own, *self._outer)
        for scope in scopes:
            scope.check_memory(count)
        for scope in scopes:
            scope.memory_bytes += count
        self._memory += count

    def release(self) -> None:
        """Give everything back."""
        if not self._open:
            return
        self._open = False
        for scope in self._outer:
            scope.add_connection(self.inbound, -1)
        # Not what ``own`` counts: that includes streams, and a stream gives back its own.
        for scope in (self.own, *self._outer):
            scope.memory_bytes -= self._memory
        self._limits.drop_idle(self._outer)


class StreamHold:
    """What one stream has taken. ``release`` gives it back and may be repeated."""

    __slots__ = ("_conn", "_inbound", "_limits", "_memory", "_named", "_open", "_scopes")

    def __init__(
        self, limits: Limits, conn: ConnectionHold, scopes: tuple[Scope, ...], inbound: bool
    ) -> None:
        self._limits, self._conn, self._scopes, self._inbound = limits, conn, scopes, inbound
        self._memory = 0
        self._named = False
        self._open = True

    def negotiated(self, protocol: str) -> None:
        """Move from the transient scope to those of ``protocol``, or raise LimitReached and move nothing."""
        if self._named or not self._open:
            raise Misuse("the stream has a protocol already, or has ended")
        limits = self._limits
        added = (limits.protocol(protocol), limits.pair(protocol, self._conn.peer))
        try:
            for scope in added:
                scope.check_stream(self._inbound)
                scope.check_memory(self._memory)
        except LimitReached:
            limits.drop_idle(added)
            raise
        for scope in added:
            scope.add_stream(self._inbound, 1)
            scope.memory_bytes += self._memory
        limits.transient.add_stream(self._inbound, -1)
        limits.transient.memory_bytes -= self._memory
        self._named = True
        self._scopes = (*(scope for scope in self._scopes if scope is not limits.transient), *added)

    def reserve(self, count: int) -> None:
        """Take ``count`` bytes of memory. Raises LimitReached; Misuse after ``release``."""
        if not self._open:
            raise Misuse("the stream has ended")
        if self._memory + count > self._limits.config.stream.memory_bytes:
            raise LimitReached("one stream asks for too much memory", code="limit.stream.memory")
        for scope in self._scopes:
            scope.check_memory(count)
        for scope in self._scopes:
            scope.memory_bytes += count
        self._memory += count

    def release(self) -> None:
        """Give everything back."""
        if not self._open:
            return
        self._open = False
        for scope in self._scopes:
            scope.add_stream(self._inbound, -1)
            scope.memory_bytes -= self._memory
        self._limits.drop_idle(self._scopes)
