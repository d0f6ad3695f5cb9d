"""What a peer proves inside the Noise handshake: that its identity stands behind the static key. (core)

Source: libp2p noise, handshake payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from air.base.errors import Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.pb import noise_pb2 as pb

__all__ = ["MUXERS_MAX", "Credential", "Proof", "encode_muxers", "verify_payload"]

MUXERS_MAX: Final = 100
"""A longer list of muxers is ignored, as go-libp2p does."""

_PREFIX: Final = b"noise-libp2p-static-key:"


class Credential:
    """Our half of the proof: an identity bound to a static key. One serves every connection of a process."""

    __slots__ = ("payload",)

    payload: bytes
    """The encoded message, without extensions."""

    def __init__(self, identity: Identity, static_public: bytes) -> None:
        made = pb.NoiseHandshakePayload(
            identity_key=identity.public_key.to_bytes(), identity_sig=identity.sign(_PREFIX + static_public)
        )
        self.payload = made.SerializeToString()


class Proof(NamedTuple):
    """The peer's half, verified."""

    key: PublicKey
    peer: PeerId
    muxers: tuple[str, ...] | None
    """The muxers it offers, best first; None when it has no opinion and multistream has to find one."""


def encode_muxers(muxers: Sequence[str]) -> bytes:
    """The extension that offers ``muxers``, to be put behind a credential's payload."""
    if not muxers:
        return b""
    extensions = pb.NoiseExtensions(stream_muxers=[name.encode() for name in muxers])
    return pb.NoiseHandshakePayload(extensions=extensions).SerializeToString()


def verify_payload(data: bytes, static_public: bytes) -> Proof:
    """Check what the owner of ``static_public`` says of itself.

    Raises Violation ``noise.payload`` when something is missing or unreadable, ``noise.bad-key`` for an
    identity key that is none or not in its canonical form, ``noise.bad-signature``.
    """
    try:
        found = pb.NoiseHandshakePayload.FromString(data)
    except DecodeError:
        raise Violation("a payload that cannot be read", code="noise.payload", fatal=True) from None
    if not found.identity_key or not found.identity_sig:
        raise Violation("a payload without key or signature", code="noise.payload", fatal=True)
    try:
        key = PublicKey.from_bytes(found.identity_key)
    except Violation as error:
        raise Violation(error.message, code="noise.bad-key", fatal=True) from None
    if not key.verify(_PREFIX + static_public, found.identity_sig):
        raise Violation(
            "the identity did not sign this connection's key", code="noise.bad-signature", fatal=True
        )
    return Proof(key, PeerId.of(key), _muxers(found))


def _muxers(found: pb.NoiseHandshakePayload) -> tuple[str, ...] | None:
    names = found.extensions.stream_muxers
    if not 0 < len(names) <= MUXERS_MAX:
        return None
    # A name that is no UTF-8 is the name of no muxer.
    return tuple(name.decode(errors="replace") for name in names)
