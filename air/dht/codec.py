"""Messages of the DHT in bytes and back. (core)

Source: libp2p kad-dht. What one peer says of others is hints: a contact or an address that cannot be read is
left out and spoils nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from air.base.address import Multiaddr, read_addresses
from air.base.errors import LimitReached, Violation
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.message import Contact, Kind, Link, Message, Record
from air.pb import kad_pb2 as pb

__all__ = ["CONTACTS_MAX", "decode", "encode"]

CONTACTS_MAX: Final = 100
"""Contacts of one list that are looked at (py-libp2p may send more than k)."""
_ADDRESSES_MAX: Final = 1024
"""Addresses of one list that are looked at, readable or not: each takes some 10 µs, and a message may be
stuffed with thousands."""
_TIME_BYTES_MAX: Final = 64
_KINDS: Final = {kind.value: kind for kind in Kind}
_LINKS: Final = {link.value: link for link in Link}


def encode(message: Message, config: KadConfig) -> bytes:
    """The message, without its length, at most ``send_bytes_max`` long: of what is too much, the furthest
    contacts are left out. Raises LimitReached ``kad.too-big`` when key and record alone are too long."""
    made = pb.KadMessage(type=message.kind, key=message.key)
    if message.record is not None:
        record = message.record
        made.record.key, made.record.value = record.key, record.value
        made.record.time_received = record.received.encode()
    left = config.send_bytes_max - made.ByteSize()
    if left < 0:
        raise LimitReached(f"a message of {made.ByteSize()} bytes", code="kad.too-big")
    # Providers are what was asked for; closer peers are where to ask on.
    for contacts, field in ((message.providers, made.provider_peers), (message.closer, made.closer_peers)):
        for contact in contacts:
            peer = _peer(contact, config.addresses_max)
            # A tag and a length come before each.
            left -= peer.ByteSize() + 4
            if left < 0:
                break
            field.append(peer)
    return made.SerializeToString()


def decode(data: bytes, config: KadConfig, *, question: bool = False) -> Message:
    """Read a message. Whom a ``question`` names is left out, except providers where they are what it tells.

    Raises Violation ``kad.malformed``, or ``kad.unknown-type``.
    """
    try:
        read = pb.KadMessage.FromString(data)
    except DecodeError:
        raise Violation("not a message of the DHT", code="kad.malformed") from None
    kind = _KINDS.get(read.type)
    if kind is None:
        raise Violation(f"a message of type {read.type}", code="kad.unknown-type")
    record = None
    if read.HasField("record"):
        received = read.record.time_received[:_TIME_BYTES_MAX].decode("utf-8", "replace")
        record = Record(read.record.key, read.record.value, received)
    closer = () if question else _contacts(read.closer_peers, config)
    told = not question or kind is Kind.ADD_PROVIDER
    return Message(kind, read.key, record, closer, _contacts(read.provider_peers, config) if told else ())


def _peer(contact: Contact, addresses_max: int) -> pb.KadPeer:
    addresses: Sequence[Multiaddr] = contact.addresses[:addresses_max]
    return pb.KadPeer(
        id=contact.peer.multihash,
        addrs=[address.to_bytes() for address in addresses],
        connection=contact.link,
    )


def _contacts(peers: Iterable[pb.KadPeer], config: KadConfig) -> tuple[Contact, ...]:
    found: dict[PeerId, Contact] = {}
    left = _ADDRESSES_MAX
    for _, peer in zip(range(CONTACTS_MAX), peers, strict=False):
        try:
            id = PeerId.from_bytes(peer.id)
        except Violation:
            continue
        if id in found:
            continue
        addrs = peer.addrs[:left]
        left -= len(addrs)
        # An address may end in the name of its peer, which says nothing new, or of another, which is wrong.
        addresses = tuple(
            bare
            for address in read_addresses(addrs, config.addresses_max)
            if address.peer in (None, id) and (bare := address.bare) is not None
        )
        found[id] = Contact(id, addresses, _LINKS.get(peer.connection, Link.NOT_CONNECTED))
    return tuple(found.values())
