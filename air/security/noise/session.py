"""libp2p's Noise on one connection: frames, identities, muxer choice, then an encrypted stream. (core)

See the package's docstring for how the three messages prove who is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from air.base.clock import Now
from air.base.errors import Denied, Misuse, Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.security.noise.core import Handshake, StaticKey
from air.security.noise.frames import TAG_BYTES, Opener, Sealer
from air.security.noise.payload import Credential, Proof, encode_muxers, verify_payload
from air.transport.api import Piece

__all__ = ["Authenticated", "NoiseConfig", "NoiseCore", "Stage"]

_DH = 32


@dataclass(frozen=True, slots=True)
class NoiseConfig:
    handshake_bytes_max: int = 8 * 1024
    """Longest handshake message. An Ed25519 peer needs 200 bytes, an RSA peer with 8192 bits about 2500."""
    timeout_seconds: float = 10.0
    """From the first byte we send or wait for until both sides are known."""


class Stage(Enum):
    """How far the proof of identities has come, as seen from this side."""

    CHALLENGE = "challenge"
    """The dialer's fresh key is on its way; nothing is known yet."""
    RESPONSE = "response"
    """The listener has answered with its own challenge and its proof; the dialer's proof is awaited."""
    VERIFY = "verify"
    """The other side's proof is here and being checked."""
    SUCCESS = "success"
    """Both identities are known, both directions encrypted."""
    FAILED = "failed"
    """Dead. Nothing was or will be delivered."""


class Authenticated(NamedTuple):
    """The peer is who it says it is. Comes once, before any data."""

    peer: PeerId
    key: PublicKey
    muxer: str | None
    """The muxer both sides chose already; None: agree on one with multistream."""


Event = Authenticated | bytes
"""Bytes are data of the peer, decrypted; never empty."""


class NoiseCore:
    """One connection. Not reusable: an error ends it, and what comes afterwards is refused."""

    __slots__ = (
        "_buffer",
        "_config",
        "_credential",
        "_dialer",
        "_expected",
        "_handshake",
        "_muxers",
        "_opener",
        "_out",
        "_sealer",
        "deadline",
        "handshake_hash",
        "stage",
    )

    def __init__(
        self,
        static: StaticKey,
        credential: Credential,
        *,
        dialer: bool,
        config: NoiseConfig,
        now: Now,
        expected: PeerId | None = None,
        muxers: Sequence[str] = (),
        prologue: bytes = b"",
        ephemeral: bytes | None = None,
    ) -> None:
        """``muxers``, best first: the first is offered along with the proof. Empty: multistream decides.

        ``expected`` is the only peer that is accepted. ``ephemeral`` is for tests only.
        """
        self._handshake: Handshake | None = Handshake(
            static, dialer=dialer, prologue=prologue, ephemeral=ephemeral
        )
        self._credential, self._config, self._dialer = credential, config, dialer
        self._expected, self._muxers = expected, tuple(muxers)
        self._buffer = bytearray()
        self._out: list[bytes | bytearray] = []
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self.stage = Stage.CHALLENGE
        self.deadline: float | None = now.monotonic + config.timeout_seconds
        """When ``tick`` is due, on the monotonic clock; None once the handshake is over."""
        self.handshake_hash: bytes | None = None
        """The same 32 bytes on both sides and on no other connection, once the handshake is over."""
        if dialer:
            self._write(b"")

    @property
    def error(self) -> Violation | None:
        """What ended the receiving direction after the handshake."""
        return None if self._opener is None else self._opener.error

    def receive(self, data: bytes, now: Now, /) -> Sequence[Event]:
        """Take bytes of the peer.

        While the handshake runs, raises Violation ``noise.handshake`` and the codes of
        :func:`verify_payload`, and Denied ``security.wrong-peer`` for another peer than expected. Later a bad
        frame sets ``error``: the good ones before it are returned, and the next call raises it.
        """
        if self._opener is not None:
            return self._opener.receive(data)
        if self._handshake is None:
            raise Misuse("this connection has failed", code="noise.dead")
        self._buffer += data
        try:
            authenticated = None
            while authenticated is None:
                message = self._take()
                if message is None:
                    return ()
                authenticated = self._step(message)
        except Exception:
            self._fail()
            raise
        rest, self._buffer = bytes(self._buffer), bytearray()
        return [authenticated, *self.split()[1].receive(rest)]

    def receive_eof(self, now: Now, /) -> Sequence[Event]:
        """The stream has ended. Raises Violation ``noise.handshake`` or ``noise.truncated``."""
        if self._opener is not None:
            self._opener.receive_eof()
        elif self._handshake is not None:
            self._fail()
            raise Violation("the peer left during the handshake", code="noise.handshake", fatal=True)
        return ()

    def tick(self, now: Now, /) -> Sequence[Event]:
        """Raises Violation ``noise.timeout`` when the time for the handshake is over."""
        if self.deadline is not None and now.monotonic >= self.deadline:
            self._fail()
            raise Violation("the handshake took too long", code="noise.timeout", fatal=True)
        return ()

    def send(self, pieces: Iterable[Piece]) -> None:
        """Encrypt. Raises Misuse before ``Authenticated``."""
        if self._sealer is None:
            raise Misuse("the peer is not known yet", code="noise.early")
        self._out += self._sealer.seal_many(pieces)

    def take_output(self) -> list[bytes | bytearray]:
        """What has to be sent."""
        out, self._out = self._out, []
        return out

    def split(self) -> tuple[Sealer, Opener]:
        """The two directions, for a shell that turns them itself. The core takes no more data then."""
        if self._sealer is None or self._opener is None:
            raise Misuse("the peer is not known yet", code="noise.early")
        return self._sealer, self._opener

    def _take(self) -> bytes | None:
        """The next handshake message. Its size is judged by its first two bytes."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size = buffer[0] << 8 | buffer[1]
        if not self._dialer and self.stage is Stage.CHALLENGE:
            # A payload in the first message would be clear text that nothing vouches for.
            fits = size == _DH
        elif self._dialer:
            fits = 2 * _DH + 2 * TAG_BYTES <= size <= self._config.handshake_bytes_max
        else:
            fits = _DH + 2 * TAG_BYTES <= size <= self._config.handshake_bytes_max
        if not fits:
            raise Violation(f"a handshake message of {size} bytes", code="noise.handshake", fatal=True)
        if len(buffer) < 2 + size:
            return None
        message = bytes(buffer[2 : 2 + size])
        del buffer[: 2 + size]
        return message

    def _step(self, message: bytes) -> Authenticated | None:
        handshake = self._handshake
        assert handshake is not None
        payload = handshake.read(message)
        if not self._dialer and self.stage is Stage.CHALLENGE:
            self._write(self._credential.payload + encode_muxers(self._muxers[:1]))
            self.stage = Stage.RESPONSE
            return None
        self.stage = Stage.VERIFY
        assert handshake.remote_static is not None
        proof = verify_payload(payload, handshake.remote_static)
        if self._expected is not None and proof.peer != self._expected:
            raise Denied(f"{proof.peer} answers instead of {self._expected}", code="security.wrong-peer")
        muxer = self._choose(proof)
        if self._dialer:
            self._write(self._credential.payload + encode_muxers((muxer,) if muxer else ()))
        send_key, receive_key, self.handshake_hash = handshake.split()
        self._sealer, self._opener = Sealer(send_key), Opener(receive_key)
        self._handshake, self.deadline, self.stage = None, None, Stage.SUCCESS
        return Authenticated(proof.peer, proof.key, muxer)

    def _choose(self, proof: Proof) -> str | None:
        """The muxer to use without further talk.

        The dialer's order decides, but js-libp2p takes the first of whatever list it was shown. So a listener
        shows one, and a dialer, who has seen the other's list, names only the one that it takes from there:
        then no two readings of the rule can differ.
        """
        if proof.muxers is None:
            return None
        if self._dialer:
            return next((name for name in self._muxers if name in proof.muxers), None)
        return next((name for name in proof.muxers if name in self._muxers[:1]), None)

    def _write(self, payload: bytes) -> None:
        assert self._handshake is not None
        message = self._handshake.write(payload)
        self._out.append(len(message).to_bytes(2, "big") + message)

    def _fail(self) -> None:
        self._handshake, self._sealer, self._opener = None, None, None
        self.deadline, self.stage = None, Stage.FAILED
        self._buffer = bytearray()
        self._out.clear()
