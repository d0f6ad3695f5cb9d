"""Peer ids: the hash of a public key, and its spellings. (core)

Source: libp2p peer-ids. A key message of at most 42 bytes is not hashed but is itself the id, so the key
can be taken out of it. On the wire an id is the raw multihash; texts are for people and addresses.
"""

from __future__ import annotations

import hashlib
from typing import Final

from air.base.base58 import base58, unbase, unbase58
from air.base.errors import Violation
from air.base.public_key import PublicKey

__all__ = ["INLINE_BYTES_MAX", "PeerId"]

INLINE_BYTES_MAX: Final = 42
"""A public key message up to this long is its own hash."""

_CID: Final = b"\x01\x72"
"""CID version 1 with the codec ``libp2p-key``."""


class PeerId(str):
    """The name of a peer, as text in base58: ``12D3Koo…``, ``16Uiu2HA…`` or ``Qm…``.

    It is a str, so it can be printed, compared, kept as a key and written as JSON; whoever holds a PeerId
    holds a well-formed one.
    """

    __slots__ = ("multihash",)

    multihash: bytes
    """The id as it goes over the wire, 34 to 44 bytes."""

    def __new__(cls, text: str) -> PeerId:
        """Read either text form: base58 of the multihash, or a CID in any base.

        Raises Violation ``peer-id.bad-text`` or ``peer-id.bad-bytes``.
        """
        if isinstance(text, PeerId):
            return text
        try:
            if text.startswith(("1", "Qm")):
                return cls.from_bytes(unbase58(text))
            data = unbase(text)
        except Violation as error:
            if error.code.startswith("peer-id."):
                raise
            raise Violation(f"not a peer id: {error.message}", code="peer-id.bad-text") from None
        if not data.startswith(_CID):
            raise Violation("a CID that does not name a key", code="peer-id.bad-text")
        return cls.from_bytes(data[2:])

    @classmethod
    def from_bytes(cls, multihash: bytes) -> PeerId:
        """Read the wire form. Raises Violation ``peer-id.bad-bytes``."""
        if multihash[:2] == b"\x12\x20":
            if len(multihash) != 34:
                raise Violation("a SHA-256 hash of the wrong length", code="peer-id.bad-bytes")
        elif multihash[:1] == b"\0" and 2 <= len(multihash) == 2 + multihash[1] <= 2 + INLINE_BYTES_MAX:
            try:
                PublicKey.from_bytes(multihash[2:])
            except Violation as error:
                raise Violation(f"an id around no key: {error.message}", code="peer-id.bad-bytes") from None
        else:
            raise Violation("neither a SHA-256 hash nor a short key", code="peer-id.bad-bytes")
        return cls._make(bytes(multihash))

    @classmethod
    def of(cls, key: PublicKey) -> PeerId:
        """The name of the owner of ``key``."""
        message = key.to_bytes()
        if len(message) <= INLINE_BYTES_MAX:
            return cls._make(bytes((0, len(message))) + message)
        return cls._make(b"\x12\x20" + hashlib.sha256(message).digest())

    @classmethod
    def _make(cls, multihash: bytes) -> PeerId:
        made = str.__new__(cls, base58(multihash))
        made.multihash = multihash
        return made

    @property
    def public_key(self) -> PublicKey | None:
        """The key inside the id; None for the hash of a long key."""
        return PublicKey.from_bytes(self.multihash[2:]) if self.multihash[0] == 0 else None

    def matches(self, key: PublicKey) -> bool:
        """Whether ``key`` is the one this id names."""
        return PeerId.of(key).multihash == self.multihash

    def __reduce__(self) -> tuple[type[PeerId], tuple[str]]:
        return PeerId, (str(self),)

    def __repr__(self) -> str:
        return f"PeerId({str.__str__(self)})"
