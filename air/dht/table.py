"""The routing table: which peers of the DHT this one knows, many near its own place and few far away. (core)

A bucket holds the peers whose places share so many leading bits with our own, at most ``k`` of them. Who has
long been there and still answers stays, whoever else would come: that is what keeps an attacker with many
names out (libp2p kad-dht; go-libp2p for the limit on peers of one network).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeAlias

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place, shared_bits
from air.swarm.rank import Reach, host_of, is_relayed, reach_of

__all__ = ["RoutingTable"]

_Group: TypeAlias = tuple[int, int]
"""IP version and network prefix."""


class _Entry:
    __slots__ = ("bits", "failures", "groups", "heard", "peer", "place")

    def __init__(self, peer: PeerId, where: int, bits: int) -> None:
        self.peer, self.place, self.bits = peer, where, bits
        self.groups: frozenset[_Group] = frozenset()
        self.failures = 0
        self.heard = 0.0
        """Monotonic time of the last sign of life."""


class RoutingTable:
    """Peers that serve the DHT, in buckets. Addresses are not kept here, only the networks they are in."""

    def __init__(self, own: PeerId, config: KadConfig) -> None:
        self._own, self._place, self._config = own, place(own.multihash), config
        self._entries: dict[PeerId, _Entry] = {}
        self._buckets: dict[int, list[_Entry]] = {}
        """Shared bits -> who shares them; no bucket is empty."""
        self._groups: Counter[_Group] = Counter()
        self._searched: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._entries

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """All of them, in the order in which they came."""
        return tuple(self._entries)

    def add(self, peer: PeerId, addresses: Sequence[Multiaddr], now: Now) -> bool:
        """Take in a peer that was just heard of. True when it is in the table now.

        A full bucket takes it only in place of a member that left a request unanswered. A peer is counted
        in the networks of its first ``addresses_max`` addresses, so those that are certain come first; it
        is refused when one of these networks has its number already. A known peer is held to the same:
        it goes when its new addresses would not have let it in. Without any address it stays as it was.
        Being heard of does not undo failures; only an answer does.
        """
        if peer == self._own:
            return False
        entry = self._entries.get(peer)
        groups = _networks(addresses[: self._config.addresses_max])
        if entry is not None:
            entry.heard = now.monotonic
            if addresses and groups != entry.groups:
                if not self._has_room(groups, entry.bits, entry):
                    self._drop(entry)
                    return False
                self._count(entry, groups)
            return True
        where = place(peer.multihash)
        entry = _Entry(peer, where, shared_bits(self._place, where))
        leaving = None
        if len(self._buckets.get(entry.bits, ())) >= self._config.k:
            leaving = self._replaceable(entry.bits)
            if leaving is None:
                return False
        if not self._has_room(groups, entry.bits, leaving):
            return False
        if leaving is not None:
            self._drop(leaving)
        entry.heard = now.monotonic
        self._entries[peer] = entry
        self._buckets.setdefault(entry.bits, []).append(entry)
        self._count(entry, groups)
        return True

    def remove(self, peer: PeerId) -> bool:
        """Take a peer out, for instance because it serves no longer. True when it was in the table."""
        entry = self._entries.get(peer)
        if entry is not None:
            self._drop(entry)
        return entry is not None

    def answered(self, peer: PeerId, now: Now) -> None:
        """The peer answered a request: it lives."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.failures, entry.heard = 0, now.monotonic

    def failed(self, peer: PeerId, now: Now) -> bool:
        """The peer left a request unanswered. True when it had done so ``failures_max`` times in a row
        before, and was removed for it."""
        entry = self._entries.get(peer)
        if entry is None:
            return False
        entry.failures += 1
        if entry.failures <= self._config.failures_max:
            return False
        self._drop(entry)
        return True

    def quiet(self, now: Now) -> list[PeerId]:
        """Those that were not heard of for ``quiet_seconds``: no search has come by them."""
        due = now.monotonic - self._config.quiet_seconds
        return [one.peer for one in self._entries.values() if one.heard <= due]

    def closest(self, target: int, count: int, *, without: Collection[PeerId] = ()) -> list[PeerId]:
        """The ``count`` peers whose places are closest to ``target``, the closest first."""
        found: list[PeerId] = []
        for ring in self._rings(target):
            if len(found) >= count:
                break
            here = [(one.place ^ target, one.peer) for one in ring if one.peer not in without]
            here.sort()
            found += [peer for _, peer in here[: count - len(found)]]
        return found

    def searched(self, target: int, now: Now) -> None:
        """A search for ``target`` was made, which also refreshes the bucket it lies in."""
        self._searched[shared_bits(self._place, target)] = now.monotonic

    def stale(self, now: Now) -> list[int]:
        """The buckets, as numbers of shared bits, in which nothing was searched for ``refresh_seconds``.

        An empty bucket above the deepest one in use is among them, for it may be empty by mistake.
        """
        config = self._config
        deepest = min(max(self._buckets, default=-1), config.refresh_bits_max)
        due = now.monotonic - config.refresh_seconds
        return [bits for bits in range(deepest + 1) if self._searched.get(bits, due) <= due]

    def _rings(self, target: int) -> Iterator[Iterable[_Entry]]:
        # What counts is the first bit in which a peer differs from the target. Our own place tells where it
        # is: who shares as many bits with us as the target does differs later, who shares more differs just
        # there, and who shares fewer differs where it leaves us. So each ring as a whole is closer than the
        # next, and only those that are needed are sorted.
        buckets, bits = self._buckets, shared_bits(self._place, target)
        yield buckets.get(bits, ())
        yield (one for inner, members in buckets.items() if inner > bits for one in members)
        for outer in range(bits - 1, -1, -1):
            if outer in buckets:
                yield buckets[outer]

    def _replaceable(self, bits: int) -> _Entry | None:
        failing = [one for one in self._buckets[bits] if one.failures]
        return max(failing, key=lambda one: (one.failures, -one.heard), default=None)

    def _has_room(self, groups: frozenset[_Group], bits: int, leaving: _Entry | None) -> bool:
        """Whether one more peer of each group may be in bucket ``bits`` once ``leaving``, of the same bucket,
        is gone."""
        config = self._config
        stay = [one for one in self._buckets.get(bits, ()) if one is not leaving]
        for group in groups:
            in_table = self._groups[group] - (leaving is not None and group in leaving.groups)
            in_bucket = sum(group in one.groups for one in stay)
            if in_table >= config.group_table_max or in_bucket >= config.group_bucket_max:
                return False
        return True

    def _count(self, entry: _Entry, groups: frozenset[_Group]) -> None:
        for group in entry.groups:
            if self._groups[group] > 1:
                self._groups[group] -= 1
            else:
                del self._groups[group]
        entry.groups = groups
        self._groups.update(groups)

    def _drop(self, entry: _Entry) -> None:
        self._count(entry, frozenset())
        del self._entries[entry.peer]
        bucket = self._buckets[entry.bits]
        bucket.remove(entry)
        if not bucket:
            del self._buckets[entry.bits]


def _networks(addresses: Iterable[Multiaddr]) -> frozenset[_Group]:
    """The networks that a peer is in. A relay's count only for a peer that has no address of its own: they
    say little about it, but otherwise one machine behind a relay would be free to be many peers."""
    own: set[_Group] = set()
    relayed: set[_Group] = set()
    for address in addresses:
        group = _group(address)
        if group is not None:
            (relayed if is_relayed(address) else own).add(group)
    return frozenset(own or relayed)


def _group(address: Multiaddr) -> _Group | None:
    """The /16 of a public IPv4 address, the /32 of an IPv6 one; None for a name or what is not public."""
    if reach_of(address) is not Reach.PUBLIC:
        return None
    try:
        ip = ipaddress.ip_address(host_of(address).partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    kept = 16 if ip.version == 4 else 32
    return ip.version, int(ip) >> (ip.max_prefixlen - kept)
