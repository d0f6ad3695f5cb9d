"""Signed envelopes: a message that proves who wrote it and for what. (core)

Source: libp2p RFC 0002 (envelopes), RFC 0003 (peer records), circuit relay v2 (vouchers).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError

from air.base.address import Multiaddr, read_addresses
from air.base.errors import LimitReached, Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.base.varint import encode_varint
from air.pb import records_pb2 as pb

if TYPE_CHECKING:
    from air.base.keys import Identity

__all__ = [
    "ADDRESSES_MAX",
    "ENVELOPE_BYTES_MAX",
    "Envelope",
    "PeerRecord",
    "Voucher",
    "open_envelope",
    "open_peer_record",
    "open_voucher",
    "seal_envelope",
    "seal_peer_record",
    "seal_voucher",
]

ENVELOPE_BYTES_MAX: Final = 64 * 1024
"""An envelope longer than this is refused unread."""
ADDRESSES_MAX: Final = 100
"""Addresses a peer record may hold; with more it is refused."""

_PEER_RECORD: Final = ("libp2p-peer-record", b"\x03\x01")
_VOUCHER: Final = ("libp2p-relay-rsvp", b"\x03\x02")


class Envelope(NamedTuple):
    """An envelope whose signature was right."""

    signer: PublicKey
    kind: bytes
    """What the payload is, a multicodec."""
    payload: bytes


class PeerRecord(NamedTuple):
    """Where a peer says it can be reached."""

    peer: PeerId
    seq: int
    """Unsigned 64 bits. A record replaces one with a smaller number, never one with the same."""
    addresses: tuple[Multiaddr, ...]


class Voucher(NamedTuple):
    """A relay's word that a peer may be called through it."""

    relay: PeerId
    peer: PeerId
    expires: int
    """Unix time in seconds."""


def seal_envelope(identity: Identity, domain: str, kind: bytes, payload: bytes) -> bytes:
    """Sign ``payload``. ``domain`` keeps a signature made for one purpose from serving another."""
    made = pb.Envelope(
        public_key=identity.public_key.to_bytes(),
        payload_type=kind,
        payload=payload,
        signature=identity.sign(_signed(domain, kind, payload)),
    )
    return made.SerializeToString()


def open_envelope(data: bytes, domain: str) -> Envelope:
    """Check an envelope and take it apart.

    Raises Violation ``envelope.malformed``, ``envelope.bad-signature`` or a code of :class:`PublicKey`, and
    LimitReached ``envelope.too-big``.
    """
    if len(data) > ENVELOPE_BYTES_MAX:
        raise LimitReached(f"an envelope of {len(data)} bytes", code="envelope.too-big")
    try:
        found = pb.Envelope.FromString(data)
    except DecodeError:
        raise Violation("not an envelope", code="envelope.malformed") from None
    signer = PublicKey.from_bytes(found.public_key)
    if not signer.verify(_signed(domain, found.payload_type, found.payload), found.signature):
        raise Violation("the signature of an envelope is wrong", code="envelope.bad-signature")
    return Envelope(signer, found.payload_type, found.payload)


def seal_peer_record(identity: Identity, seq: int, addresses: Iterable[Multiaddr]) -> bytes:
    """Sign where ``identity`` can be reached. ``seq`` has to grow from record to record."""
    infos = [pb.PeerRecord.AddressInfo(multiaddr=address.to_bytes()) for address in addresses]
    record = pb.PeerRecord(peer_id=identity.peer_id.multihash, seq=seq, addresses=infos)
    return seal_envelope(identity, *_PEER_RECORD, record.SerializeToString())


def open_peer_record(data: bytes) -> PeerRecord:
    """Check a signed peer record.

    Raises Violation as :func:`open_envelope` and :meth:`PeerId.from_bytes` do, ``envelope.wrong-kind``,
    ``envelope.wrong-signer`` when somebody signed for another peer, and LimitReached ``envelope.too-many``
    for more than ADDRESSES_MAX addresses. Addresses that cannot be read are left out.
    """
    envelope = _open(data, *_PEER_RECORD)
    try:
        record = pb.PeerRecord.FromString(envelope.payload)
    except DecodeError:
        raise Violation("not a peer record", code="envelope.malformed") from None
    if len(record.addresses) > ADDRESSES_MAX:
        raise LimitReached(f"{len(record.addresses)} addresses in a peer record", code="envelope.too-many")
    peer = PeerId.from_bytes(record.peer_id)
    if not peer.matches(envelope.signer):
        raise Violation("a peer record signed by another peer", code="envelope.wrong-signer")
    found = read_addresses((info.multiaddr for info in record.addresses), ADDRESSES_MAX)
    return PeerRecord(peer, record.seq, tuple(found))


def seal_voucher(identity: Identity, peer: PeerId, expires: int) -> bytes:
    """Sign that ``peer`` may be called through the relay ``identity`` until ``expires``, Unix seconds."""
    voucher = pb.Voucher(relay=identity.peer_id.multihash, peer=peer.multihash, expiration=expires)
    return seal_envelope(identity, *_VOUCHER, voucher.SerializeToString())


def open_voucher(data: bytes) -> Voucher:
    """Check a relay's voucher. Raises as :func:`open_peer_record` does."""
    envelope = _open(data, *_VOUCHER)
    try:
        found = pb.Voucher.FromString(envelope.payload)
    except DecodeError:
        raise Violation("not a voucher", code="envelope.malformed") from None
    relay, peer = PeerId.from_bytes(found.relay), PeerId.from_bytes(found.peer)
    if not relay.matches(envelope.signer):
        raise Violation("a voucher signed by another peer", code="envelope.wrong-signer")
    return Voucher(relay, peer, found.expiration)


def _open(data: bytes, domain: str, kind: bytes) -> Envelope:
    envelope = open_envelope(data, domain)
    if envelope.kind != kind:
        raise Violation("an envelope around something else", code="envelope.wrong-kind")
    return envelope


def _signed(domain: str, kind: bytes, payload: bytes) -> bytes:
    return b"".join(
        piece for field in (domain.encode(), kind, payload) for piece in (encode_varint(len(field)), field)
    )
