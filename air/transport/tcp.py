"""TCP in and out, with an accept loop that outlives a shortage of descriptors. (shell)"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.abc import ByteStream as AnyioStream
from anyio.abc import TaskGroup

from air.base.errors import AirError, Closed, ConfigError, Reset, Unreachable
from air.base.metrics import Counters
from air.transport.api import ByteStream
from air.transport.loop_stream import adopt, connect

__all__ = [
    "SOCKET_GONE",
    "StreamHandler",
    "TcpConfig",
    "TcpListener",
    "TcpStream",
    "dial",
    "is_farewell",
    "spell_address",
]

_LOG = logging.getLogger("air.transport.tcp")

# accept(2): these concern the one connection that was about to be accepted; the next may be fine.
_LOST = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EOPNOTSUPP,
    }
)

_JOINED_BYTES = 64 * 1024

SOCKET_GONE: Final = (OSError, AttributeError, ValueError)
"""What looking at the socket of a connection that has ended may raise: under uvloop it is None by then, or
has the number -1."""

StreamHandler = Callable[["TcpStream"], Awaitable[None]]
"""Serves one accepted connection; when it returns or raises, the connection is closed."""


@dataclass(frozen=True, slots=True)
class TcpConfig:
    connections_max: int = 10_000
    """Connections open at a time. Further ones wait in the backlog of the operating system."""
    connections_per_host_max: int = 10_000
    """Connections open at a time from one address; further ones are closed at once."""
    backlog: int = 1024
    """Connections the operating system completes for us before we accept them."""
    accept_batch: int = 64
    """Connections accepted in a row before others get a turn."""
    pause_seconds: float = 0.1
    """Rest after an accept failed for want of descriptors or memory."""
    failures_logged_max: int = 10
    """Failed handlers written to the log per minute; the others are only counted."""


class TcpStream:
    """A ByteStream over one of anyio's streams, with the errors of this project."""

    __slots__ = ("inner", "remote")

    def __init__(self, inner: AnyioStream, remote: str) -> None:
        self.inner = inner
        self.remote = remote
        """Address of the other side, ``host:port``."""

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        try:
            return await self.inner.receive(max_bytes)
        except anyio.EndOfStream:
            raise Closed("the peer ended the stream") from None
        except anyio.ClosedResourceError:
            raise Reset("the stream was closed on this side") from None
        except (anyio.BrokenResourceError, OSError) as error:
            raise Reset(f"the stream was cut: {_reason(error)}") from error

    async def send(self, data: bytes, /) -> None:
        try:
            await self.inner.send(data)
        except anyio.ClosedResourceError:
            raise Reset("the stream was closed on this side") from None
        except (anyio.BrokenResourceError, OSError) as error:
            raise Reset(f"the stream was cut: {_reason(error)}") from error

    @property
    def can_send_now(self) -> bool:
        """Whether ``send_now`` may be called: the event loop takes bytes at once, and none of them waits."""
        transport = getattr(self.inner, "_transport", None)
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def send_now(self, pieces: Sequence[bytes], /) -> None:
        """Send all pieces without waiting; the next ``send`` waits for what the system has not taken."""
        try:
            self.inner._transport.writelines(pieces)  # type: ignore[attr-defined]
        except (OSError, RuntimeError):
            # RuntimeError is how uvloop says that the connection is gone. Whoever reads learns it.
            return

    async def send_many(self, pieces: Sequence[bytes], /) -> None:
        """Send all pieces, one behind the other, as one write where the event loop has one for that.

        As with ``send``, the operating system has taken all of them when it returns.
        """
        transport = getattr(self.inner, "_transport", None)
        if transport is None:
            # Small ones are cheaper copied together than sent one by one.
            if sum(map(len, pieces)) <= _JOINED_BYTES:
                pieces = [b"".join(pieces)]
            for piece in pieces:
                await self.send(piece)
            return
        if not transport.is_closing():
            try:
                transport.writelines(pieces)
            except (OSError, RuntimeError) as error:
                # RuntimeError is how uvloop says that the connection is gone.
                raise Reset(f"the stream was cut: {_reason(error)}") from error
        # Nothing more to write: this waits until the pieces are out, and tells what has become of the stream.
        await self.send(b"")

    async def send_eof(self) -> None:
        try:
            await self.inner.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, RuntimeError):
            # A half-close is a courtesy: the peer learns the rest from aclose. RuntimeError is how uvloop
            # says that the connection is gone.
            return

    async def aclose(self) -> None:
        try:
            await self.inner.aclose()
        except (anyio.BrokenResourceError, OSError):
            return


async def dial(host: str, port: int, *, timeout: float = 10.0) -> TcpStream:
    """Connect to whichever address of ``host`` answers first (RFC 8305).

    Raises Unreachable with one (address, reason) per attempt when none does within ``timeout`` seconds.
    """
    where = spell_address((host, port))
    try:
        with anyio.fail_after(timeout):
            inner = await connect(host, port)
    except TimeoutError:
        raise Unreachable(
            f"{where} did not answer", [(where, f"no answer within {timeout} seconds")]
        ) from None
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{where} did not answer", _attempts(where, error)) from error
    try:
        sock = inner.extra(anyio.abc.SocketAttribute.raw_socket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TcpStream(inner, spell_address(sock.getpeername()))
    except SOCKET_GONE as error:
        # The peer has reset it meanwhile.
        with anyio.CancelScope(shield=True):
            await TcpStream(inner, where).aclose()
        raise Unreachable(f"{where} did not stay", [(where, "reset at once")]) from error


class TcpListener:
    """Listening sockets and the tasks of the connections they accept.

    ``counters`` receives ``tcp_accepted``, ``tcp_crowded``, ``tcp_accept_failed`` by error name and
    ``tcp_handler_failed`` by code.
    """

    def __init__(
        self, sockets: list[socket.socket], config: TcpConfig, counters: Counters | None = None
    ) -> None:
        self._sockets, self._config = sockets, config
        self.counters = Counters() if counters is None else counters
        self.counters.describe("tcp_accepted", "Connections accepted.")
        self.counters.describe("tcp_crowded", "Connections closed because their address had too many.")
        self.counters.describe("tcp_accept_failed", "Accepts the operating system refused.", "error")
        self.counters.describe("tcp_handler_failed", "Connections ended by a fault of their handler.", "code")
        self.open = 0
        """Connections open now."""
        self._hosts: dict[str, int] = {}
        self._room = anyio.Event()
        self._closed = False
        self._logged, self._logged_since = 0, 0.0

    @classmethod
    @asynccontextmanager
    async def bind(
        cls, host: str, port: int, *, config: TcpConfig | None = None, counters: Counters | None = None
    ) -> AsyncIterator[TcpListener]:
        """Listen on every address of ``host``; ``""`` means all of this machine. Port 0 picks a free one.

        Raises ConfigError with code ``tcp.cannot-listen``.
        """
        config = TcpConfig() if config is None else config
        listener = cls(await _bind(host, port, config.backlog), config, counters)
        try:
            yield listener
        finally:
            listener.close()

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of every listening socket; empty when closed."""
        return tuple(sock.getsockname()[:2] for sock in self._sockets)

    def close(self) -> None:
        """Accept nothing more. Open connections go on, and ``serve`` returns when the last one has ended."""
        self._closed = True
        self._room.set()
        for sock in self._sockets:
            anyio.notify_closing(sock)
            sock.close()
        self._sockets = []

    async def serve(self, handler: StreamHandler) -> None:
        """Accept until ``close`` or cancellation; each connection runs ``handler`` in a task of its own."""
        async with anyio.create_task_group() as tasks:
            for sock in self._sockets:
                tasks.start_soon(self._accept, sock, handler, tasks)

    async def _accept(self, sock: socket.socket, handler: StreamHandler, tasks: TaskGroup) -> None:
        while not self._closed:
            # Admission comes before accept: who waits in the backlog costs us neither descriptor nor task.
            if self.open >= self._config.connections_max:
                if self._room.is_set():  # otherwise another socket waits for it already
                    self._room = anyio.Event()
                await self._room.wait()
                continue
            try:
                await anyio.wait_readable(sock)
            except (anyio.ClosedResourceError, OSError, ValueError):
                if sock.fileno() < 0:
                    return
                raise
            if not self._accept_some(sock, handler, tasks):
                await anyio.sleep(self._config.pause_seconds)

    def _accept_some(self, sock: socket.socket, handler: StreamHandler, tasks: TaskGroup) -> bool:
        """Accept what waits, up to a batch; False when the operating system is short of something."""
        for _ in range(self._config.accept_batch):
            if self._closed or self.open >= self._config.connections_max:
                break
            try:
                raw, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "unknown")
                self.counters.add("tcp_accept_failed", label=name)
                if error.errno in _LOST:
                    continue
                # EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever else a system may invent: the connection stays
                # in the backlog and the socket stays readable, so without a rest this would spin.
                return False
            host = address[0]
            here = self._hosts.get(host, 0)
            if here >= self._config.connections_per_host_max:
                self.counters.add("tcp_crowded")
                raw.close()
                continue
            self._hosts[host] = here + 1
            self.open += 1
            tasks.start_soon(self._run, raw, host, spell_address(address), handler)
        return True

    async def _run(self, raw: socket.socket, host: str, remote: str, handler: StreamHandler) -> None:
        stream: ByteStream | None = None
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = accepted = TcpStream(await adopt(raw), remote)
            self.counters.add("tcp_accepted")
            await handler(accepted)
        except Exception as error:
            # The one broad handler of this floor: a fault of one connection must not end the others.
            # That the peer left is no fault, it is how connections end.
            if stream is not None and not is_farewell(error):
                self._failed(remote, error)
        finally:
            self.open -= 1
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
            self._room.set()
            if stream is None:
                raw.close()
            else:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()

    def _failed(self, remote: str, error: Exception) -> None:
        code = error.code if isinstance(error, AirError) else "tcp.handler-failed"
        self.counters.add("tcp_handler_failed", label=code)
        now = anyio.current_time()
        if now - self._logged_since >= 60.0:
            self._logged, self._logged_since = 0, now
        self._logged += 1
        if self._logged <= self._config.failures_logged_max:
            _LOG.error("%s: the handler of %s failed", code, remote, exc_info=error)


def is_farewell(error: BaseException) -> bool:
    """Whether ``error`` says no more than that a connection ended; task groups wrap that in groups."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(Closed)[1] is None
    return isinstance(error, Closed)


def spell_address(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """``host:port``, with brackets around IPv6."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(family: int, address: Any, others: list[socket.socket], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise "::" takes the IPv4 port as well and the second bind fails.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # All addresses of a host share one port, also when the system was free to choose it.
        port = address[1] or (others[0].getsockname()[1] if others else 0)
        sock.bind((address[0], port, *address[2:]))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


async def _bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = await anyio.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            try:
                sock = _listen(family, address, sockets, backlog)
            except OSError as error:
                # A name may stand for ::1 where IPv6 is switched off; its other addresses serve.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
            else:
                sockets.append(sock)
        if not sockets and absent is not None:
            raise absent
    except (OSError, UnicodeError, OverflowError) as error:
        for sock in sockets:
            sock.close()
        where = spell_address((host, port))
        raise ConfigError(f"cannot listen on {where}: {_reason(error)}", code="tcp.cannot-listen") from error
    return sockets


def _attempts(where: str, error: BaseException) -> list[tuple[str, str]]:
    cause = error.__cause__ if error.__cause__ is not None else error
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    return [(where, _reason(one)) for one in causes]


def _reason(error: BaseException) -> str:
    text = str(error)
    if not text and error.__cause__ is not None:
        text = str(error.__cause__)
    return text or type(error).__name__
