"""From a raw connection to a session's connection: security, then a muxer, in one time limit. (shell)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio

from air.base.env import Env
from air.base.errors import ConfigError, Denied, Reset, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.mux.api import MuxedConn, Muxer
from air.negotiate.multistream import MultistreamConfig
from air.negotiate.select import LazyStream, answer, propose
from air.security.api import SecureConn, Security
from air.transport.api import ByteStream

__all__ = ["Protector", "UpgradeConfig", "Upgraded", "Upgrader"]

_EARLY = "/yamux/1.0.0"
_CUT = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""How anyio's own streams say that they are over: a transport may hand them on as they are."""

Protector = Callable[[ByteStream], ByteStream]
"""What lies below everything else: the cipher of a private network."""


@dataclass(frozen=True, slots=True)
class UpgradeConfig:
    timeout_seconds: float = 10.0
    """From the open transport to a muxer that is ready; one timer for the whole chain."""
    guess: bool = True
    """Whether a dialler with one security, or one muxer, takes for granted that the peer has it: that saves
    a round trip each, and tells less precisely what is missing when it does not."""
    multistream: MultistreamConfig = field(default_factory=MultistreamConfig)


class _Guess(LazyStream[ByteStream]):
    """The only way there is, taken for granted; whoever reads first learns that it was wrong."""

    __slots__ = ("_what",)

    def __init__(
        self, conn: ByteStream, protocol: str, env: Env, config: MultistreamConfig, what: str
    ) -> None:
        super().__init__(conn, protocol, env, config)
        self._what = what

    async def confirm(self) -> None:
        try:
            await super().confirm()
        except Denied as error:
            raise Denied(f"no common {self._what}: {error}", code=f"upgrade.no-{self._what}") from error


class Upgraded(NamedTuple):
    """A connection that carries streams, once somebody runs its muxer."""

    peer: PeerId
    public_key: PublicKey
    muxed: MuxedConn
    security: str
    muxer: str


class Upgrader:
    """Knows the ways of securing and multiplexing, each list ordered by preference."""

    def __init__(
        self,
        identity: Identity,
        security: Sequence[Security],
        muxers: Sequence[Muxer],
        env: Env,
        config: UpgradeConfig,
        protector: Protector | None = None,
    ) -> None:
        """Raises ConfigError when a list is empty or names a protocol twice."""
        self._identity, self._env, self._config, self._protector = identity, env, config, protector
        self._security = {one.protocol: one for one in security}
        self._muxers = {one.protocol: one for one in muxers}
        if not security or len(self._security) != len(security):
            raise ConfigError("security needs at least one way, each once", code="config.security")
        if not muxers or len(self._muxers) != len(muxers):
            raise ConfigError("muxers needs at least one, each once", code="config.muxers")
        # Peers resolve early offers differently, and two longer lists may end on two muxers (libp2p-wire 6).
        # A list of one cannot. But js refuses a connection whose lists do not meet, although both may have
        # another muxer in common: so who has a second one lets multistream decide.
        self._early = [_EARLY] if list(self._muxers) == [_EARLY] else []
        for one in security:
            # What a first connection would otherwise wait for, on both sides: a key made and signed.
            prepare = getattr(one, "prepare", None)
            if prepare is not None:
                prepare(identity, self._early, env)

    @property
    def security(self) -> tuple[str, ...]:
        return tuple(self._security)

    @property
    def muxers(self) -> tuple[str, ...]:
        return tuple(self._muxers)

    async def upgrade(
        self,
        conn: ByteStream,
        *,
        dialer: bool,
        expected: PeerId | None = None,
        admit: Callable[[PeerId], None] | None = None,
    ) -> Upgraded:
        """Secure and multiplex ``conn``. ``admit`` hears who it is as soon as that is proven, and may refuse.

        Raises Violation, Denied or Closed with the code of the layer that failed, Violation
        ``upgrade.timeout`` when it took too long, and whatever ``admit`` raises. ``conn`` is then closed.
        """
        try:
            with anyio.fail_after(self._config.timeout_seconds):
                return await self._upgrade(conn, dialer, expected, admit)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await conn.aclose()
            if isinstance(error, TimeoutError):
                raise Violation("the handshakes took too long", code="upgrade.timeout") from None
            if isinstance(error, _CUT):
                raise Reset(f"the connection was cut: {error or type(error).__name__}") from error
            raise

    async def _upgrade(
        self,
        raw: ByteStream,
        dialer: bool,
        expected: PeerId | None,
        admit: Callable[[PeerId], None] | None,
    ) -> Upgraded:
        conn = raw if self._protector is None else self._protector(raw)
        name, conn = await self._agree(conn, tuple(self._security), dialer, "security")
        secure = await self._security[name].secure(
            conn,
            identity=self._identity,
            dialer=dialer,
            expected=expected,
            muxers=self._early,
            env=self._env,
        )
        if admit is not None:
            admit(secure.peer)
        muxer, inner = await self._mux(secure, dialer)
        muxed = self._muxers[muxer].wrap(inner, dialer=dialer, env=self._env)
        return Upgraded(secure.peer, secure.key, muxed, name, muxer)

    async def _mux(self, secure: SecureConn, dialer: bool) -> tuple[str, ByteStream]:
        early = secure.muxer
        if early is not None:
            if early not in self._muxers:
                raise Violation(f"the peer chose {early}, which was not offered", code="upgrade.muxer")
            return early, secure
        return await self._agree(secure, tuple(self._muxers), dialer, "muxer")

    async def _agree(
        self, conn: ByteStream, protocols: tuple[str, ...], dialer: bool, what: str
    ) -> tuple[str, ByteStream]:
        env, config = self._env, self._config.multistream
        try:
            if not dialer:
                agreed = await answer(conn, protocols, env=env, config=config)
            elif len(protocols) == 1 and self._config.guess:
                # Nothing to choose, so no answer to wait for: a round trip less (libp2p-wire 5, pipelining).
                return protocols[0], _Guess(conn, protocols[0], env, config, what)
            else:
                agreed = await propose(conn, protocols, env=env, config=config)
        except Denied as error:
            raise Denied(f"no common {what}: {error}", code=f"upgrade.no-{what}") from error
        return agreed.protocol, agreed.stream
