"""What is known of peers: addresses with their source and age, protocols, the last signed record. (core)

Nobody's word about an address is more than a hint, except that of the connection that uses it. What one
peer says never changes what is kept of another, unless that other has signed it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.errors import Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.codec.envelope import open_peer_record

__all__ = ["PeerBook", "PeerBookConfig", "PeerInfo", "Source"]


class Source(IntEnum):
    """Where an address comes from; a better source replaces a worse one, not the other way round."""

    HINT = 0
    """Another peer, a lookup, a broadcast."""
    IDENTIFY = 1
    """The peer itself, unsigned, over a connection that proves its name."""
    RECORD = 2
    """The peer itself, signed."""
    CONNECTED = 3
    """A connection was made to it."""
    GIVEN = 4
    """The user or the configuration. It does not expire."""


@dataclass(frozen=True, slots=True)
class PeerBookConfig:
    peers_max: int = 4096
    """Peers remembered. Those in use stay; the one that was quiet longest goes first."""
    addresses_max: int = 32
    """Addresses of one peer; of the worst source the oldest go first."""
    protocols_max: int = 256
    """Protocols of one peer; those beyond are not remembered (go-libp2p keeps 1024)."""
    hint_seconds: float = 600.0
    """How long a hint lasts."""
    identify_seconds: float = 3600.0
    """How long the peer's own word lasts after the connection has ended."""


@dataclass(slots=True)
class PeerInfo:
    """One peer, as it presents itself."""

    peer: PeerId
    public_key: PublicKey | None = None
    protocols: frozenset[str] = frozenset()
    agent: str = ""
    protocol_version: str = ""
    record: bytes | None = None
    """The newest signed peer record, as it came."""
    record_seq: int = -1
    identified: bool = False
    """Whether the peer has presented itself at all."""


class _Known:
    __slots__ = ("addresses", "info", "uses")

    def __init__(self, peer: PeerId) -> None:
        self.info = PeerInfo(peer, peer.public_key)
        self.addresses: dict[Multiaddr, tuple[Source, float]] = {}
        """Address without the peer's name -> (source, monotonic time of its end)."""
        self.uses = 0


class PeerBook:
    """Everything a node knows of other peers, bounded."""

    def __init__(self, config: PeerBookConfig | None = None) -> None:
        self._config = PeerBookConfig() if config is None else config
        self._peers: OrderedDict[PeerId, _Known] = OrderedDict()
        self._followers: list[Callable[[PeerInfo], None]] = []

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._peers

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """All peers, the most recently heard of last."""
        return tuple(self._peers)

    def add(self, peer: PeerId, addresses: Iterable[Multiaddr], source: Source, now: Now) -> bool:
        """Remember addresses of ``peer``. True when the peer was not known with any address before.

        Addresses that end in another peer's name are left out.
        """
        known = self._at(peer)
        new = not known.addresses
        until = self._until(source, now)
        for address in addresses:
            bare = address.bare if address.peer in (None, peer) else None
            if bare is None:
                continue
            old = known.addresses.get(bare)
            if old is None or source >= old[0] or old[1] <= now.monotonic:
                known.addresses[bare] = (source, until)
        if len(known.addresses) > self._config.addresses_max:
            keep = sorted(known.addresses.items(), key=lambda item: item[1], reverse=True)
            known.addresses = dict(keep[: self._config.addresses_max])
        return new and bool(known.addresses)

    def replace(self, peer: PeerId, addresses: Iterable[Multiaddr], source: Source, now: Now) -> None:
        """Forget what ``source`` or a worse one said before, then remember ``addresses``."""
        known = self._at(peer)
        known.addresses = {one: mark for one, mark in known.addresses.items() if mark[0] > source}
        self.add(peer, addresses, source, now)

    def addresses(self, peer: PeerId, now: Now) -> list[Multiaddr]:
        """Where the peer may be, best source first, without its name at the end."""
        known = self._peers.get(peer)
        if known is None:
            return []
        if not known.uses:
            gone = [one for one, (_, until) in known.addresses.items() if until <= now.monotonic]
            for address in gone:
                del known.addresses[address]
        marks = known.addresses
        return sorted(marks, key=lambda one: marks[one], reverse=True)

    def forget_address(self, peer: PeerId, address: Multiaddr) -> None:
        """An address turned out to be wrong, for instance because somebody else answers there."""
        known = self._peers.get(peer)
        bare = address.bare
        if known is not None and bare is not None:
            known.addresses.pop(bare, None)

    def record(self, data: bytes, now: Now, *, expected: PeerId | None = None) -> PeerId | None:
        """Take in a signed peer record. Returns whose it is, or None when a newer one is known.

        Raises Violation ``identify.wrong-record`` when it is not by ``expected``, or a code of
        :func:`~air.codec.envelope.open_peer_record`.
        """
        found = open_peer_record(data)
        if expected is not None and found.peer != expected:
            raise Violation("a signed record of another peer", code="identify.wrong-record")
        known = self._at(found.peer)
        if found.seq <= known.info.record_seq:
            return None
        known.info.record, known.info.record_seq = data, found.seq
        self.replace(found.peer, found.addresses, Source.RECORD, now)
        return found.peer

    def present(
        self,
        peer: PeerId,
        *,
        protocols: Iterable[str] | None = None,
        agent: str | None = None,
        protocol_version: str | None = None,
        public_key: PublicKey | None = None,
    ) -> PeerInfo:
        """Remember what a peer says of itself; None leaves a field as it is."""
        info = self._at(peer).info
        if protocols is not None:
            info.protocols = frozenset(list(dict.fromkeys(protocols))[: self._config.protocols_max])
        if agent is not None:
            info.agent = agent
        if protocol_version is not None:
            info.protocol_version = protocol_version
        if public_key is not None:
            info.public_key = public_key
        if protocols is not None:
            for follower in self._followers:
                follower(info)
        return info

    @contextmanager
    def follow(self, follower: Callable[[PeerInfo], None]) -> Iterator[None]:
        """Inside a block, call ``follower`` whenever a peer says what it speaks. It must return at once; the
        addresses that the peer told with it are known a moment later."""
        self._followers.append(follower)
        try:
            yield
        finally:
            self._followers.remove(follower)

    def info(self, peer: PeerId) -> PeerInfo | None:
        """What is known of a peer. The object follows later changes."""
        known = self._peers.get(peer)
        return None if known is None else known.info

    def use(self, peer: PeerId) -> None:
        """A session with the peer has begun: it is not forgotten, and its addresses do not expire."""
        self._at(peer).uses += 1

    def unuse(self, peer: PeerId, now: Now) -> None:
        """A session with the peer has ended."""
        known = self._peers.get(peer)
        if known is None or not known.uses:
            return
        known.uses -= 1
        if not known.uses:
            for address, (source, _) in known.addresses.items():
                known.addresses[address] = (source, self._until(source, now))

    def _until(self, source: Source, now: Now) -> float:
        if source is Source.GIVEN:
            return float("inf")
        config = self._config
        return now.monotonic + (config.hint_seconds if source is Source.HINT else config.identify_seconds)

    def _at(self, peer: PeerId) -> _Known:
        known = self._peers.get(peer)
        if known is not None:
            self._peers.move_to_end(peer)
            return known
        known = self._peers[peer] = _Known(peer)
        if len(self._peers) > self._config.peers_max:
            for other, entry in self._peers.items():
                if not entry.uses and other != peer:
                    del self._peers[other]
                    break
        return known
