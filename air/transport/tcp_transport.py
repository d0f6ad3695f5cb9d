"""TCP as a Transport: from multiaddrs to sockets and back. (shell)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.abc

from air.base.address import Multiaddr
from air.base.errors import ConfigError, Unreachable
from air.base.metrics import Counters
from air.transport import tcp
from air.transport.raw import ConnHandler, RawListener
from air.transport.resolve import Resolver

__all__ = [
    "HOSTS",
    "Tcp",
    "TcpConn",
    "connect_tcp",
    "endpoint",
    "socket_address",
    "split_spelled",
]

HOSTS: Final = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
"""What the address of a socket may begin with."""


class TcpConn(tcp.TcpStream):
    """A TCP stream that knows both ends as multiaddrs."""

    __slots__ = ("_local", "_remote")

    def __init__(self, below: tcp.TcpStream, remote: Multiaddr, local: Multiaddr | None) -> None:
        super().__init__(below.inner, below.remote)
        self._remote, self._local = remote, local

    @property
    def remote_address(self) -> Multiaddr:
        return self._remote

    @property
    def local_address(self) -> Multiaddr | None:
        return self._local


class Tcp:
    """The transport of ``/ip4|ip6|dns…/…/tcp/PORT``."""

    def __init__(
        self,
        config: tcp.TcpConfig | None = None,
        *,
        dial_seconds: float = 10.0,
        resolver: Resolver | None = None,
        counters: Counters | None = None,
    ) -> None:
        """``dial_seconds`` is how long one address may take to answer."""
        self._config = (
            tcp.TcpConfig(connections_max=20_000, connections_per_host_max=20_000)
            if config is None
            else config
        )
        self._dial_seconds = dial_seconds
        self._resolver = Resolver() if resolver is None else resolver
        self._counters = counters

    def __repr__(self) -> str:
        return "Tcp()"

    def handles(self, address: Multiaddr, /) -> bool:
        names = address.names
        return len(names) >= 2 and names[0] in HOSTS and names[1] == "tcp" and names[2:] in ((), ("p2p",))

    async def dial(self, address: Multiaddr, /) -> TcpConn:
        stream, reached = await connect_tcp(address, self._resolver, self._dial_seconds)
        return TcpConn(stream, reached, socket_address(stream))

    @asynccontextmanager
    async def listen(self, address: Multiaddr, /) -> AsyncIterator[RawListener]:
        host, port = endpoint(address)
        async with tcp.TcpListener.bind(host, port, config=self._config, counters=self._counters) as below:
            yield _TcpRawListener(below)


class _TcpRawListener:
    def __init__(self, below: tcp.TcpListener) -> None:
        self._below = below

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        return tuple(_spell(host, port) for host, port in self._below.addresses)

    async def serve(self, handler: ConnHandler, /) -> None:
        async def one(stream: tcp.TcpStream) -> None:
            conn = TcpConn(stream, split_spelled(stream.remote), socket_address(stream))
            await handler(conn)

        await self._below.serve(one)

    def close(self) -> None:
        self._below.close()


def endpoint(address: Multiaddr) -> tuple[str, int]:
    """(host, port) of the first two parts. Raises ConfigError ``config.bad-address``."""
    if len(address.parts) < 2 or address.parts[0].name not in HOSTS or address.parts[1].name != "tcp":
        raise ConfigError(f"{address} names no TCP port", code="config.bad-address")
    return address.parts[0].value, int(address.parts[1].value)


async def connect_tcp(
    address: Multiaddr, resolver: Resolver, timeout: float
) -> tuple[tcp.TcpStream, Multiaddr]:
    """Connect to whichever host an address names; returns also the bare address that answered.

    Raises Unreachable with every attempt.
    """
    attempts: list[tuple[str, str]] = []
    for one in await resolver.resolve(address):
        host, port = endpoint(one)
        try:
            stream = await tcp.dial(host, port, timeout=timeout)
        except Unreachable as error:
            attempts += [(str(one), reason) for _, reason in error.attempts]
        else:
            return stream, one.bare or one
    raise Unreachable(f"{address} did not answer", attempts)


def socket_address(stream: tcp.TcpStream) -> Multiaddr | None:
    """This end of a stream; None when the connection is gone."""
    try:
        local = stream.inner.extra(anyio.abc.SocketAttribute.local_address, None)
    except tcp.SOCKET_GONE:
        return None
    return None if not isinstance(local, tuple) else _spell(str(local[0]), int(local[1]))


def split_spelled(remote: str) -> Multiaddr:
    """``host:port`` as a multiaddr."""
    host, _, port = remote.rpartition(":")
    return _spell(host.strip("[]"), int(port))


def _spell(host: str, port: int) -> Multiaddr:
    host = host.partition("%")[0]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}")
