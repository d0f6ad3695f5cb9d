"""One search on several paths that share no peer, so that a liar misleads one of them only. (core)

A path that has met a liar may never leave the company of those whom it names; another that has not goes on to
who is really there. Source: Baumgart and Mies, "S/Kademlia", 2007.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from air.base.address import Multiaddr
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.lookup import Lookup
from air.dht.message import Contact

__all__ = ["Paths"]


class Paths:
    """Used as a :class:`Lookup` is. ``alpha``, ``asked_max`` and the seeds are shared out among the paths.

    After ``take`` it may be done although nobody was under way: what one path took, another had asked.
    """

    def __init__(
        self,
        target: int,
        own: PeerId,
        seeds: Iterable[Contact],
        config: KadConfig,
        *,
        settle: int | None = None,
    ) -> None:
        self._target, self._k, contacts = target, config.k, list(seeds)
        count = max(1, min(config.paths, config.alpha, config.asked_max, len(contacts)))
        part = replace(config, alpha=config.alpha // count, asked_max=config.asked_max // count)
        self._paths = [Lookup(target, own, contacts[one::count], part, settle=settle) for one in range(count)]
        self._under_way: dict[PeerId, list[Lookup]] = {}
        """Who is asked now -> the path that asks, and those that came to the same peer since."""
        self._answered: set[PeerId] = set()
        self._tried: dict[PeerId, set[Multiaddr]] = {}

    @property
    def closest(self) -> list[Contact]:
        """Up to ``k`` of those that answered on any path, the closest first."""
        found = {one.peer: one for path in self._paths for one in path.closest}
        return sorted(found.values(), key=lambda one: place(one.peer.multihash) ^ self._target)[: self._k]

    @property
    def done(self) -> bool:
        return all(path.done for path in self._paths)

    def take(self) -> list[Contact]:
        found: list[Contact] = []
        for path in self._paths:
            while taken := path.take():
                found += [contact for contact in taken if self._is_new(contact, path)]
        return found

    def answered(self, peer: PeerId, closer: Sequence[Contact]) -> None:
        self._answered.add(peer)
        owner, *others = self._under_way.pop(peer)
        owner.answered(peer, closer)
        for path in others:
            path.answered(peer, ())

    def failed(self, peer: PeerId) -> None:
        for path in self._under_way.pop(peer):
            path.failed(peer)

    def stop(self) -> None:
        for path in self._paths:
            path.stop()

    def _is_new(self, contact: Contact, path: Lookup) -> bool:
        """Whether ``path`` has to ask it. That it answers is shared, but not whom it names: where liars come
        in, they would come in on all paths."""
        peer = contact.peer
        if peer in self._under_way:
            self._under_way[peer].append(path)
        elif peer in self._answered:
            path.answered(peer, ())
        elif peer in self._tried and self._tried[peer].issuperset(contact.addresses):
            path.failed(peer)
        else:
            # The addresses that another path had for it may have been lies.
            self._under_way[peer] = [path]
            self._tried.setdefault(peer, set()).update(contact.addresses)
            return True
        return False
