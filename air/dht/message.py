"""What peers of the DHT say to each other. (core)"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import zip_longest

from air.base.address import Multiaddr
from air.base.peer_id import PeerId

__all__ = ["Contact", "Kind", "Link", "Message", "Record"]


class Kind(IntEnum):
    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5
    """Nobody sends it any more; it is answered with itself."""


class Link(IntEnum):
    """How the sender stands with a peer that it names. Nothing depends on it."""

    NOT_CONNECTED = 0
    CONNECTED = 1
    CAN_CONNECT = 2
    CANNOT_CONNECT = 3


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer and where it may be: a hint by whoever says so."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...] = ()
    link: Link = Link.NOT_CONNECTED

    def joined(self, addresses: Iterable[Multiaddr], limit: int) -> Contact:
        """With further addresses between its own, ``limit`` in all: whoever speaks first, and much, leaves
        room for the next."""
        pairs = zip_longest(self.addresses, addresses)
        every = dict.fromkeys(one for pair in pairs for one in pair if one is not None)
        return replace(self, addresses=tuple(every)[:limit])


@dataclass(frozen=True, slots=True)
class Record:
    """A value under a key."""

    key: bytes
    value: bytes
    received: str = ""
    """RFC 3339; set by whoever stores it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A question or an answer."""

    kind: Kind
    key: bytes = b""
    """A peer id's multihash, a record's key or a provider key's multihash."""
    record: Record | None = None
    closer: tuple[Contact, ...] = ()
    """Peers closer to ``key``, the closest first."""
    providers: tuple[Contact, ...] = ()
