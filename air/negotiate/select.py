"""multistream-select on a stream: propose, answer, or propose without waiting. (shell)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import anyio

from air.base.env import Env
from air.base.errors import AirError, Closed, Misuse, Reset, Violation
from air.negotiate.multistream import Agreed, Dialer, Listed, Listener, MultistreamConfig
from air.transport.api import ByteStream, Piece, can_send_now, sender

__all__ = ["LazyStream", "Negotiated", "RestStream", "answer", "ask_list", "propose", "propose_lazily"]

StreamT = TypeVar("StreamT", bound=ByteStream)


class Negotiated(NamedTuple):
    """What was agreed on, and the stream that belongs to it."""

    protocol: str
    stream: ByteStream


class RestStream(Generic[StreamT]):
    """A ByteStream of which some bytes have been read already: they come first."""

    __slots__ = ("_rest", "inner")

    def __init__(self, inner: StreamT, rest: bytes) -> None:
        self.inner = inner
        self._rest = rest

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        if not self._rest:
            return await self.inner.receive(max_bytes)
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def send(self, data: bytes, /) -> None:
        await self.inner.send(data)

    async def send_many(self, pieces: Sequence[Piece], /) -> None:
        """All pieces as one write, uncopied where the stream below can do that."""
        await sender(self.inner)(pieces)

    @property
    def can_send_now(self) -> bool:
        return can_send_now(self.inner)

    def send_now(self, pieces: Sequence[Piece], /) -> None:
        self.inner.send_now(pieces)  # type: ignore[attr-defined]

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


class LazyStream(Generic[StreamT]):
    """A ByteStream whose protocol was proposed and not yet agreed on.

    The proposal leaves together with the first bytes that are sent; the answer is read before the first byte
    that is received. Until then ``send`` is a guess: a peer that does not speak the protocol drops the bytes,
    and ``receive`` raises Denied ``multistream.unsupported``. Close or reset the stream then.
    """

    __slots__ = (
        "_asking",
        "_config",
        "_core",
        "_dead",
        "_env",
        "_lock",
        "_prefix",
        "_rest",
        "inner",
        "protocol",
    )

    def __init__(self, inner: StreamT, protocol: str, env: Env, config: MultistreamConfig) -> None:
        self.inner = inner
        self.protocol = protocol
        self._env, self._config = env, config
        self._core: Dialer | None = Dialer([protocol], config, env.clock.now())
        self._prefix = b"".join(self._core.take_output())
        self._rest = b""
        # Fast: whoever takes the proposal has begun to send it before anybody else runs.
        self._lock, self._asking = anyio.Lock(fast_acquire=True), anyio.Lock(fast_acquire=True)
        self._dead: AirError | None = None

    @property
    def confirmed(self) -> bool:
        """Whether the peer has agreed."""
        return self._core is None

    async def send(self, data: bytes, /) -> None:
        if self._core is None:
            await self.inner.send(data)
            return
        # Taken before anything is awaited: a reader that found it here would wait for the lock, behind a
        # writer whose peer takes nothing until somebody reads.
        prefix, self._prefix = self._prefix, b""
        try:
            # A reader that comes first has to send the proposal, while the writer may be at work as well.
            async with self._lock:
                if self._dead is not None:
                    raise self._dead
                await self.inner.send(prefix + data if prefix else data)
        except BaseException:
            if prefix:
                # Nobody knows whether the proposal is out, so nothing can follow it.
                self._dead = Reset("the proposal was not sent", code="multistream.not-sent")
            raise

    async def send_many(self, pieces: Sequence[Piece], /) -> None:
        """All pieces as one write, uncopied where the stream below can do that."""
        if self._core is None:
            await sender(self.inner)(pieces)
        else:
            await self.send(b"".join(pieces))

    @property
    def can_send_now(self) -> bool:
        return self._core is None and can_send_now(self.inner)

    def send_now(self, pieces: Sequence[Piece], /) -> None:
        self.inner.send_now(pieces)  # type: ignore[attr-defined]

    async def confirm(self) -> None:
        """Wait for the answer. Does nothing when it is known.

        Raises Denied ``multistream.unsupported``; Violation when the answer is none or does not come in time;
        Closed when the stream ended instead. Cancelling it while it waits loses nothing.
        """
        # Who closes waits for the answer too, and finds a reader in here that will have it.
        async with self._asking:
            if self._dead is not None:
                raise self._dead
            core = self._core
            if core is None:
                return
            if self._prefix:
                await self.send(b"")
            try:
                await _run(self.inner, core, self._env, self._config)
            except AirError as error:
                self._dead = error
                raise
            self._rest, self._core = core.take_rest(), None

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        if self._core is not None:
            await self.confirm()
        if not self._rest:
            return await self.inner.receive(max_bytes)
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def send_eof(self) -> None:
        if self._prefix:
            await self.send(b"")
        elif self._core is not None:
            # A reader may be sending the proposal, which the end must not overtake.
            async with self._lock:
                pass
        await self.inner.send_eof()

    async def aclose(self) -> None:
        """Close. If something was sent, the answer is waited for first: go-libp2p may drop a stream whose
        opener leaves before it."""
        if self._core is not None and not self._prefix and self._dead is None:
            with anyio.move_on_after(self._config.goodbye_seconds, shield=True):
                try:
                    await self.inner.send_eof()
                    await self.confirm()
                except AirError:
                    pass
        await self.inner.aclose()


async def propose(
    stream: ByteStream, protocols: Sequence[str], *, env: Env, config: MultistreamConfig | None = None
) -> Negotiated:
    """Agree on the first of ``protocols`` that the peer speaks.

    Raises Denied ``multistream.unsupported`` when it speaks none; Violation, or Closed, as the core does,
    ``multistream.timeout`` among them. The stream is left open in any case.
    """
    if not protocols:
        raise Misuse("nothing to propose", code="multistream.bad-id")
    config = config or MultistreamConfig()
    core = Dialer(protocols, config, env.clock.now())
    await _run(stream, core, env, config)
    return _negotiated(stream, core)


def propose_lazily(
    stream: StreamT, protocol: str, *, env: Env, config: MultistreamConfig | None = None
) -> LazyStream[StreamT]:
    """Take for granted that the peer speaks ``protocol``; nothing is sent before the first ``send``."""
    return LazyStream(stream, protocol, env, config or MultistreamConfig())


async def answer(
    stream: ByteStream,
    protocols: Sequence[str],
    *,
    env: Env,
    config: MultistreamConfig | None = None,
    speaks: Callable[[str], bool] | None = None,
) -> Negotiated:
    """Let the peer choose among ``protocols``, or whatever ``speaks`` accepts.

    Raises Violation or Closed as the core does. The stream is left open in any case.
    """
    config = config or MultistreamConfig()
    core = Listener(protocols, config, env.clock.now(), speaks=speaks)
    await _run(stream, core, env, config)
    return _negotiated(stream, core)


async def ask_list(
    stream: ByteStream, *, env: Env, config: MultistreamConfig | None = None
) -> tuple[str, ...]:
    """What the peer says it speaks. Few implementations tell: Denied ``multistream.no-list`` is usual."""
    config = config or MultistreamConfig()
    core = Dialer((), config, env.clock.now())
    event = await _run(stream, core, env, config)
    assert isinstance(event, Listed)
    return event.protocols


def _negotiated(stream: ByteStream, core: Dialer | Listener) -> Negotiated:
    rest = core.take_rest()
    assert core.agreed is not None
    return Negotiated(core.agreed, RestStream(stream, rest) if rest else stream)


async def _run(
    stream: ByteStream, core: Dialer | Listener, env: Env, config: MultistreamConfig
) -> Agreed | Listed:
    """Turn the core until it has an event."""
    try:
        with anyio.fail_after(config.timeout_seconds):
            await _flush(stream, core)
            while True:
                try:
                    data = await stream.receive()
                except Closed as error:
                    if type(error) is Closed:
                        core.receive_eof(env.clock.now())
                    raise
                events = core.receive(data, env.clock.now())
                await _flush(stream, core)
                if events:
                    return events[-1]
    except TimeoutError:
        raise Violation("no protocol was agreed on in time", code="multistream.timeout", fatal=True) from None


async def _flush(stream: ByteStream, core: Dialer | Listener) -> None:
    for data in core.take_output():
        try:
            await stream.send(data)
        except Closed:
            # Who proposed and left at once may still have sent a request that wants to be handled.
            if core.agreed is None:
                raise
