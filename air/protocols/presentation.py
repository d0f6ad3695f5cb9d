"""What a peer says of itself, in bytes and back. (core)

Source: libp2p identify. One message of ours stays within 4096 bytes, because rust-libp2p reads no longer
one; of others up to ten of 8 KiB are taken and merged, because go-libp2p sends several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from air.base.address import Multiaddr, read_addresses
from air.base.errors import Violation
from air.base.public_key import PublicKey
from air.pb.identify_pb2 import Identify as Message

__all__ = ["MESSAGES_MAX", "READ_BYTES_MAX", "SEND_BYTES_MAX", "Presentation", "decode", "encode"]

SEND_BYTES_MAX: Final = 4096
READ_BYTES_MAX: Final = 8 * 1024
MESSAGES_MAX: Final = 10
ADDRESSES_MAX: Final = 100
PROTOCOLS_MAX: Final = 1024
TEXT_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Presentation:
    """One peer in its own words. None, or an empty tuple in what was read, is what it did not mention."""

    public_key: PublicKey | None = None
    addresses: tuple[Multiaddr, ...] = ()
    protocols: tuple[str, ...] = ()
    observed: Multiaddr | None = None
    """Where the sender sees the other side. Anyone can say anything here."""
    protocol_version: str | None = None
    agent: str | None = None
    record: bytes | None = None
    """A signed peer record, unopened."""


def encode(said: Presentation) -> bytes:
    """The message, without its length, at most SEND_BYTES_MAX long: addresses are left out first, then the
    signed record, which holds them too, then protocols."""
    addresses, protocols, record = list(said.addresses), list(said.protocols), said.record
    while True:
        data = _message(said, addresses, protocols, record).SerializeToString()
        if len(data) <= SEND_BYTES_MAX:
            return data
        if addresses:
            addresses.pop()
        elif record is not None:
            record, addresses = None, list(said.addresses)
        elif protocols:
            protocols.pop()
        else:
            raise Violation("an identify message that cannot be made short enough", code="identify.too-big")


def decode(messages: Iterable[bytes]) -> Presentation:
    """Merge the messages of one stream.

    Raises Violation ``identify.malformed`` or a code of :class:`PublicKey`. Addresses and names that cannot
    be read are left out.
    """
    merged = Message()
    for data in messages:
        try:
            merged.MergeFromString(data)
        except DecodeError:
            raise Violation("not an identify message", code="identify.malformed") from None
    key = PublicKey.from_bytes(merged.public_key) if merged.public_key else None
    observed = read_addresses([merged.observed_addr], 1)
    return Presentation(
        public_key=key,
        addresses=tuple(read_addresses(merged.listen_addrs, ADDRESSES_MAX)),
        protocols=tuple(_texts(merged.protocols)),
        observed=observed[0] if observed else None,
        protocol_version=_text(merged, "protocol_version"),
        agent=_text(merged, "agent_version"),
        record=merged.signed_peer_record or None,
    )


def _message(
    said: Presentation, addresses: Sequence[Multiaddr], protocols: Sequence[str], record: bytes | None
) -> Message:
    made = Message(
        listen_addrs=[address.to_bytes() for address in addresses],
        protocols=[name.encode() for name in protocols],
    )
    if said.public_key is not None:
        made.public_key = said.public_key.to_bytes()
    if said.observed is not None:
        made.observed_addr = said.observed.to_bytes()
    if said.protocol_version is not None:
        made.protocol_version = said.protocol_version.encode()
    if said.agent is not None:
        made.agent_version = said.agent.encode()
    if record is not None:
        made.signed_peer_record = record
    return made


def _texts(items: Sequence[bytes]) -> list[str]:
    found: dict[str, None] = {}
    for item in items:
        if len(found) == PROTOCOLS_MAX:
            break
        try:
            found.setdefault(item.decode())
        except UnicodeDecodeError:
            continue
    return list(found)


def _text(message: Message, field: str) -> str | None:
    if not message.HasField(field):
        return None
    data: bytes = getattr(message, field)
    # It is shown to people: whatever is no printable text is not worth keeping.
    return "".join(filter(str.isprintable, data.decode("utf-8", "replace")))[:TEXT_MAX]
