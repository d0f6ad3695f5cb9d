"""Noise as a Security. (shell)"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

import anyio

from air.base.env import Env
from air.base.errors import Closed, Reset
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.security.api import SecureConn
from air.security.handshake import handshaking
from air.security.noise.core import StaticKey
from air.security.noise.frames import APART_BYTES
from air.security.noise.payload import Credential
from air.security.noise.session import Authenticated, NoiseConfig, NoiseCore
from air.transport.api import ByteStream, Piece, can_send_now, sender

__all__ = ["READ_BYTES", "Noise", "NoiseConn"]

READ_BYTES = 256 * 1024
"""Asked of the transport at once: four full frames, and as much as asyncio reads in one go."""


class Noise:
    """The Security ``/noise``. One object serves all connections of a node."""

    protocol = "/noise"

    def __init__(self, config: NoiseConfig | None = None, *, prologue: bytes = b"") -> None:
        """``prologue`` must be the same on both sides; libp2p over streams uses none."""
        self.config = config or NoiseConfig()
        self._prologue = prologue
        self._bound: tuple[Identity, StaticKey, Credential] | None = None

    def prepare(self, identity: Identity, muxers: Sequence[str], env: Env) -> None:
        """Make and sign the static key now rather than during the first handshake."""
        self._bind(identity, env)

    async def secure(
        self,
        conn: ByteStream,
        /,
        *,
        identity: Identity,
        dialer: bool,
        expected: PeerId | None = None,
        muxers: Sequence[str] = (),
        env: Env,
    ) -> SecureConn:
        """See :class:`air.security.api.Security`."""
        static, credential = self._bind(identity, env)
        core = NoiseCore(
            static,
            credential,
            dialer=dialer,
            config=self.config,
            now=env.clock.now(),
            expected=expected,
            muxers=muxers,
            prologue=self._prologue,
        )
        async with handshaking(conn, self.config.timeout_seconds, "noise.timeout"):
            return await _handshake(conn, core, env)

    def _bind(self, identity: Identity, env: Env) -> tuple[StaticKey, Credential]:
        """The static key and its signature, made once: a signature costs as much as a key agreement."""
        bound = self._bound
        if bound is None or bound[0] is not identity:
            static = StaticKey(env.entropy.bits(256).to_bytes(32, "big"))
            self._bound = bound = (identity, static, Credential(identity, static.public))
        return bound[1:]


class NoiseConn:
    """A SecureConn. One task may receive while another sends."""

    __slots__ = (
        "_conn",
        "_dead",
        "_frames",
        "_lock",
        "_opener",
        "_pending",
        "_sealer",
        "_start",
        "key",
        "muxer",
        "peer",
    )

    peer: PeerId
    key: PublicKey
    muxer: str | None

    def __init__(
        self, conn: ByteStream, core: NoiseCore, who: Authenticated, frames: Iterable[bytes]
    ) -> None:
        self._conn = conn
        self.peer, self.key, self.muxer = who
        self._sealer, self._opener = core.split()
        self._frames: deque[bytes] | None = deque(frames) or None
        """Decrypted and not yet delivered: what one read of the transport brought. None instead of an empty
        one: a deque takes 760 bytes before it holds anything, and an idle connection has nothing to hold."""
        self._start = 0
        """How much of the first frame has been delivered."""
        self._pending = b"".join(core.take_output())
        """A dialer's last message, until something leaves together with it."""
        self._lock = anyio.Lock() if self._pending else None
        self._dead = False
        """Whether that message is lost: nothing can follow it, and nothing will come."""

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        while not (frames := self._frames):
            if self._pending or self._dead:
                await self._send(())
            opener = self._opener
            if opener.error is not None:
                raise opener.error
            try:
                data = await self._conn.receive(READ_BYTES)
            except Closed as error:
                if type(error) is Closed:
                    opener.receive_eof()
                raise
            # Frames before a bad one are good; the error is raised when they have been read.
            self._frames = deque(opener.receive(data)) or None
        first, start = frames[0], self._start
        if len(first) - start > max_bytes:
            self._start = start + max_bytes
            return first[start : self._start]
        frames.popleft()
        if not frames:
            self._frames = None
        if start:
            self._start = 0
            return first[start:]
        if not frames or len(first) >= APART_BYTES or len(first) + len(frames[0]) > max_bytes:
            return first
        # A peer that sends many small frames should not cost us a call each.
        parts, size = [first], len(first)
        while frames and len(frames[0]) < APART_BYTES and size + len(frames[0]) <= max_bytes:
            parts.append(frames.popleft())
            size += len(parts[-1])
        if not frames:
            self._frames = None
        return b"".join(parts)

    async def send(self, data: bytes, /) -> None:
        if data:
            await self._send(self._sealer.seal(data))

    async def send_many(self, pieces: Iterable[Piece], /) -> None:
        await self._send(self._sealer.seal_many(pieces))

    @property
    def can_send_now(self) -> bool:
        return self._lock is None and can_send_now(self._conn)

    def send_now(self, pieces: Iterable[Piece], /) -> None:
        self._conn.send_now(list(self._sealer.seal_many(pieces)))  # type: ignore[attr-defined]

    async def _send(self, sealed: Iterable[bytes | bytearray]) -> None:
        if self._lock is None:
            await sender(self._conn)(list(sealed))
            return
        async with self._lock:
            if self._dead:
                raise Reset("the last message of the handshake was not sent", code="noise.not-sent")
            pending, self._pending = self._pending, b""
            data = b"".join((pending, *sealed))
            if data:
                try:
                    await self._conn.send(data)
                except BaseException:
                    # Whoever reads may give up; what is then sent would stand in the place of the message.
                    self._dead = bool(pending)
                    raise
            # From now on nobody but the writer sends, and one waiting here has found nothing pending.
            if not self._lock.statistics().tasks_waiting:
                self._lock = None

    async def send_eof(self) -> None:
        if self._lock is not None:
            await self._send(())
        await self._conn.send_eof()

    async def aclose(self) -> None:
        await self._conn.aclose()


async def _handshake(conn: ByteStream, core: NoiseCore, env: Env) -> NoiseConn:
    while True:
        output = core.take_output()
        if output:
            await conn.send(b"".join(output))
        try:
            data = await conn.receive()
        except Reset:
            raise
        except Closed:
            core.receive_eof(env.clock.now())
            raise
        events = core.receive(data, env.clock.now())
        if events:
            who, *frames = events
            assert isinstance(who, Authenticated)
            return NoiseConn(conn, core, who, cast("list[bytes]", frames))
