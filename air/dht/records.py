"""What a peer keeps for others: values, and who provides what. (core)

Both stores are bounded. Whoever is nearest to a key is asked for it first, so what goes for want of room is
what lies furthest from this peer: others keep that. Lives are measured by the monotonic clock, so a clock
that is set neither loses a record nor keeps one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.errors import Violation
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.message import Contact, Record
from air.dht.values import Namespaces

__all__ = ["ProviderStore", "RecordStore"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Held:
    record: Record
    until: float


class RecordStore:
    """The best valid value of each key, for as long as somebody puts it again."""

    def __init__(self, own: PeerId, config: KadConfig, namespaces: Namespaces) -> None:
        self._config, self._namespaces = config, namespaces
        # All live equally long, so the order of the last puts is that of the ends.
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._nearest = _Nearest(own)

    def __len__(self) -> int:
        return len(self._held)

    def put(self, record: Record, now: Now) -> bool:
        """Keep ``record`` unless a better value is held, or its key is the furthest and there is no room.

        Returns whether its value is held now. A value that was held already lives on from ``now``.

        Raises Violation ``kad.key-too-long``, ``kad.value-too-big``, ``kad.bad-key``, ``kad.no-validator`` or
        ``kad.bad-value``.
        """
        key, config = record.key, self._config
        if len(key) > config.record_key_bytes_max:
            raise Violation(f"a record key of {len(key)} bytes", code="kad.key-too-long")
        if len(record.value) > config.value_bytes_max:
            raise Violation(f"a value of {len(record.value)} bytes", code="kad.value-too-big")
        self._namespaces.validate(key, record.value)
        self.sweep(now)
        held = self._held.get(key)
        if held is not None:
            if self._keeps(held.record, record):
                return False
        else:
            self._nearest.add(key)
            if len(self._nearest) > config.records_max:
                gone = self._nearest.take_furthest()
                if gone == key:
                    return False
                del self._held[gone]
        kept = replace(record, received=_rfc3339(now.wall))
        self._held[key] = _Held(kept, now.monotonic + config.record_seconds)
        self._held.move_to_end(key)
        return True

    def get(self, key: bytes, now: Now) -> Record | None:
        """What is held under ``key``. It was valid when it was put; its namespace may think otherwise now."""
        held = self._held.get(key)
        return None if held is None or held.until <= now.monotonic else held.record

    def valid(self, key: bytes, now: Now) -> Record | None:
        """As ``get``, but what its namespace does not find valid any more is dropped."""
        record = self.get(key, now)
        if record is not None:
            try:
                self._namespaces.validate(key, record.value)
            except Violation:
                self.drop(key)
                return None
        return record

    def drop(self, key: bytes) -> None:
        """Forget what is held under ``key``."""
        if self._held.pop(key, None) is not None:
            self._nearest.discard(key)

    def sweep(self, now: Now) -> int:
        """Forget what has expired. Returns how many values that were."""
        count = 0
        while self._held:
            key, held = next(iter(self._held.items()))
            if held.until > now.monotonic:
                break
            self.drop(key)
            count += 1
        return count

    def _keeps(self, held: Record, given: Record) -> bool:
        if held.value == given.value:
            return False
        try:
            # A value may have an end of its own, as those of IPNS do, and only valid ones are compared.
            self._namespaces.validate(held.key, held.value)
        except Violation:
            return False
        return self._namespaces.best(held.key, (held.value, given.value)) == 0


@dataclass(frozen=True, slots=True)
class _Provider:
    addresses: tuple[bytes, ...]
    """In binary: read, an address takes some 800 bytes, and there may be many thousands of them."""
    addresses_until: float
    until: float


class ProviderStore:
    """Who said of itself that it provides what is under a key."""

    def __init__(self, own: PeerId, config: KadConfig) -> None:
        self._config = config
        # In both dicts the oldest comes first, which is the first to expire.
        self._keys: OrderedDict[bytes, OrderedDict[PeerId, _Provider]] = OrderedDict()
        self._nearest = _Nearest(own)

    def __len__(self) -> int:
        """How many keys have providers; some may have expired."""
        return len(self._keys)

    def add(self, key: bytes, contact: Contact, now: Now) -> bool:
        """Keep that ``contact`` provides ``key``; what it said before is replaced.

        This peer itself needs no addresses here: :class:`~air.dht.responder.Responder` knows them.

        Returns False when there is no room: the key is the furthest of all.
        Raises Violation ``kad.key-too-long``.
        """
        config = self._config
        if len(key) > config.provider_key_bytes_max:
            raise Violation(f"a provider key of {len(key)} bytes", code="kad.key-too-long")
        self._drop_expired_keys(now)
        providers = self._keys.get(key)
        if providers is None:
            self._nearest.add(key)
            if len(self._nearest) > config.provider_keys_max:
                gone = self._nearest.take_furthest()
                if gone == key:
                    return False
                del self._keys[gone]
            providers = self._keys[key] = OrderedDict()
        providers[contact.peer] = _Provider(
            _packed(contact.addresses[: config.addresses_max], config.provider_addresses_bytes_max),
            now.monotonic + config.provider_address_seconds,
            now.monotonic + config.provider_seconds,
        )
        providers.move_to_end(contact.peer)
        if len(providers) > config.providers_max:
            providers.popitem(last=False)
        self._keys.move_to_end(key)
        return True

    def of(self, key: bytes, now: Now) -> tuple[Contact, ...]:
        """Who provides ``key``, the newest first. Addresses end earlier than what they belong to."""
        return tuple(
            Contact(peer, _unpacked(one.addresses) if one.addresses_until > now.monotonic else ())
            for peer, one in reversed(self._keys.get(key, _NONE).items())
            if one.until > now.monotonic
        )

    def sweep(self, now: Now) -> int:
        """Forget what has expired. Returns how many providers that were."""
        count = self._drop_expired_keys(now)
        for providers in self._keys.values():
            # The last one lives, or the key had gone.
            while next(iter(providers.values())).until <= now.monotonic:
                providers.popitem(last=False)
                count += 1
        return count

    def _drop_expired_keys(self, now: Now) -> int:
        count = 0
        while self._keys:
            key, providers = next(iter(self._keys.items()))
            if next(reversed(providers.values())).until > now.monotonic:
                break
            del self._keys[key]
            self._nearest.discard(key)
            count += len(providers)
        return count


def _packed(addresses: Iterable[Multiaddr], bytes_max: int) -> tuple[bytes, ...]:
    found = []
    for address in addresses:
        data = address.to_bytes()
        bytes_max -= len(data)
        if bytes_max < 0:
            break
        found.append(data)
    return tuple(found)


def _unpacked(addresses: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    return tuple(map(Multiaddr.from_bytes, addresses))


_NONE: Final[OrderedDict[PeerId, _Provider]] = OrderedDict()


class _Nearest:
    """Keys in the order of their distance from a peer. Moving an array costs less than a heap in Python."""

    __slots__ = ("_order", "_own")

    def __init__(self, own: PeerId) -> None:
        self._own = place(own.multihash)
        self._order: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: bytes) -> None:
        """Take in a key that is not there."""
        insort(self._order, self._entry(key))

    def discard(self, key: bytes) -> None:
        """Remove a key that is there."""
        del self._order[bisect_left(self._order, self._entry(key))]

    def take_furthest(self) -> bytes:
        return self._order.pop()[1]

    def _entry(self, key: bytes) -> tuple[int, bytes]:
        return place(key) ^ self._own, key


def _rfc3339(wall: float) -> str:
    moment = _EPOCH + timedelta(milliseconds=int(wall))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
