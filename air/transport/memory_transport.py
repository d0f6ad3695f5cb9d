"""A network inside the process, as a Transport: ``/memory/NUMBER``. (shell)"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from air.base.address import Multiaddr
from air.base.errors import ConfigError, Unreachable
from air.transport.memory import MemoryStream, memory_pair
from air.transport.raw import ConnHandler, RawListener
from air.transport.tcp import is_farewell

__all__ = ["Memory", "MemoryConfig", "MemoryConn", "MemoryNetwork"]


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    buffer_bytes: int = 1024 * 1024
    """What one direction of a connection holds before its writer waits."""
    backlog: int = 1024
    """Connections that wait to be accepted; further diallers are refused."""


class MemoryNetwork:
    """The numbers that are listened on. Transports with the same network reach each other."""

    def __init__(self) -> None:
        self.listening: dict[int, MemoryObjectSendStream[MemoryConn]] = {}
        self._next = 1

    def free_number(self) -> int:
        """A number that nobody listens on."""
        while self._next in self.listening:
            self._next += 1
        number, self._next = self._next, self._next + 1
        return number


class MemoryConn(MemoryStream):
    """One end of a connection."""

    __slots__ = ("local_address", "remote_address")

    def __init__(self, below: MemoryStream, remote: Multiaddr, local: Multiaddr) -> None:
        super().__init__(below._in, below._out)
        self.remote_address: Multiaddr = remote
        self.local_address: Multiaddr | None = local


class Memory:
    """The transport of ``/memory/NUMBER``; 0 listens on a free number."""

    def __init__(self, network: MemoryNetwork, config: MemoryConfig | None = None) -> None:
        self._network = network
        self._config = MemoryConfig() if config is None else config

    def __repr__(self) -> str:
        return "Memory()"

    def handles(self, address: Multiaddr, /) -> bool:
        return address.names in (("memory",), ("memory", "p2p"))

    async def dial(self, address: Multiaddr, /) -> MemoryConn:
        where = str(address.bare)
        number = int(address.parts[0].value)
        inbox = self._network.listening.get(number)
        here = Multiaddr(f"/memory/{self._network.free_number()}")
        near, far = memory_pair(self._config.buffer_bytes)
        try:
            if inbox is None:
                raise anyio.ClosedResourceError
            inbox.send_nowait(MemoryConn(far, here, Multiaddr(where)))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise Unreachable(f"{where} did not answer", [(where, "nobody listens there")]) from None
        except anyio.WouldBlock:
            raise Unreachable(f"{where} did not answer", [(where, "too many wait there")]) from None
        return MemoryConn(near, Multiaddr(where), here)

    @asynccontextmanager
    async def listen(self, address: Multiaddr, /) -> AsyncIterator[RawListener]:
        number = int(address.parts[0].value) or self._network.free_number()
        listening = self._network.listening
        if number in listening:
            raise ConfigError(f"/memory/{number} is taken", code="memory.cannot-listen")
        size = self._config.backlog or math.inf
        sender, receiver = anyio.create_memory_object_stream[MemoryConn](size)
        listening[number] = sender
        listener = _MemoryListener(Multiaddr(f"/memory/{number}"), sender, receiver)
        try:
            yield listener
        finally:
            del listening[number]
            listener.close()
            # Whom nobody accepted would wait for ever.
            while receiver.statistics().current_buffer_used:
                await receiver.receive_nowait().aclose()
            receiver.close()


class _MemoryListener:
    def __init__(
        self,
        address: Multiaddr,
        sender: MemoryObjectSendStream[MemoryConn],
        receiver: MemoryObjectReceiveStream[MemoryConn],
    ) -> None:
        self._address, self._sender, self._receiver = address, sender, receiver

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        return (self._address,)

    def close(self) -> None:
        self._sender.close()

    async def serve(self, handler: ConnHandler, /) -> None:
        async with anyio.create_task_group() as tasks:
            try:
                async for conn in self._receiver:
                    tasks.start_soon(self._run, conn, handler)
            except anyio.ClosedResourceError:
                return

    async def _run(self, conn: MemoryConn, handler: ConnHandler) -> None:
        try:
            await handler(conn)
        except Exception as error:
            if not is_farewell(error):
                raise
        finally:
            await conn.aclose()
