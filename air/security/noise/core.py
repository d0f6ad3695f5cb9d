"""Noise XX: three messages, after which two strangers share two keys. (core)

The ``noiseprotocol`` library runs the pattern ``Noise_XX_25519_ChaChaPoly_SHA256``; this module makes it safe
to use: a handshake that failed once is dead, the peer's static key outlives it, and no private part of the
library is handed on. Payloads mean nothing here.

Source: Noise protocol framework, revision 34.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

from noise.backends.default import DefaultNoiseBackend  # type: ignore[import-untyped]
from noise.backends.default.hashes import SHA256Hash  # type: ignore[import-untyped]
from noise.backends.default.keypairs import KeyPair25519  # type: ignore[import-untyped]
from noise.connection import NoiseConnection  # type: ignore[import-untyped]

from air.base.errors import Misuse, Violation

__all__ = ["PROTOCOL_NAME", "Handshake", "StaticKey"]

PROTOCOL_NAME: Final = b"Noise_XX_25519_ChaChaPoly_SHA256"


class _Sha256(SHA256Hash):  # type: ignore[misc]
    def hash(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()


class _Backend(DefaultNoiseBackend):  # type: ignore[misc]
    """The library's own, with hashing by the standard library: a fifth less time per handshake."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes["SHA256"] = _Sha256
        self.hmac = _hmac


def _hmac(key: bytes, data: bytes, algorithm: object) -> bytes:
    return hmac.digest(key, data, "sha256")


_BACKEND: Final = _Backend()


class StaticKey:
    """An X25519 key pair. One serves any number of handshakes; nobody recognises a peer by it."""

    __slots__ = ("pair", "public")

    public: bytes

    def __init__(self, private: bytes) -> None:
        """``private`` has 32 bytes."""
        self.pair: Any = KeyPair25519.from_private_bytes(private)
        self.public = self.pair.public_bytes


class Handshake:
    """One side of one handshake. Messages alternate, beginning with the dialer's."""

    __slots__ = ("_dead", "_done", "_noise", "_state", "remote_static")

    def __init__(
        self, static: StaticKey, *, dialer: bool, prologue: bytes = b"", ephemeral: bytes | None = None
    ) -> None:
        """``ephemeral`` fixes the private key that is otherwise drawn from the system: for tests."""
        noise: Any = NoiseConnection.from_name(PROTOCOL_NAME, _BACKEND)
        if dialer:
            noise.set_as_initiator()
        else:
            noise.set_as_responder()
        noise.noise_protocol.keypairs["s"] = static.pair
        if prologue:
            noise.set_prologue(prologue)
        noise.start_handshake()
        self._noise = noise
        # The library forgets its state, and with it the peer's static key, in the moment it is done.
        self._state: Any = noise.noise_protocol.handshake_state
        if ephemeral is not None:
            self._state.e = KeyPair25519.from_private_bytes(ephemeral)
        self._dead = False
        self.remote_static: bytes | None = None
        """The peer's static public key, once a message has brought it."""

    @property
    def done(self) -> bool:
        return not self._dead and bool(self._noise.handshake_finished)

    def write(self, payload: bytes = b"") -> bytes:
        """Our next message. Raises Misuse out of turn, and after a failure."""
        if self._dead:
            raise Misuse("this handshake has failed", code="noise.dead")
        self._dead = True
        try:
            message = bytes(self._noise.write_message(payload))
        except Exception as error:
            # Broad on purpose: what the library raises for a low-order point is not in its contract.
            raise Violation(
                f"the handshake cannot go on: {error}", code="noise.handshake", fatal=True
            ) from None
        self._dead = False
        return message

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message.

        Raises Violation ``noise.handshake`` when it is forged, garbled or out of turn. Nothing can be read
        or written afterwards.
        """
        if self._dead:
            raise Misuse("this handshake has failed", code="noise.dead")
        self._dead = True
        try:
            payload = bytes(self._noise.read_message(message))
            remote = self._state.rs
        except Exception as error:
            # Broad on purpose: short messages, bad points and bad tags come as five kinds of exception.
            why = str(error) or type(error).__name__
            raise Violation(
                f"a handshake message is wrong: {why}", code="noise.handshake", fatal=True
            ) from None
        self.remote_static = getattr(remote, "public_bytes", None)
        self._dead = False
        return payload

    def split(self) -> tuple[bytes, bytes, bytes]:
        """(key to send with, key to receive with, handshake hash), 32 bytes each. Misuse before the end."""
        if not self.done:
            raise Misuse("the handshake is not done", code="noise.dead")
        protocol = self._noise.noise_protocol
        return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k, protocol.handshake_hash
