"""One iterative search: ask the closest peers that are known for closer ones, until there are none. (core)

Nothing that is told is believed further than to ask: a peer counts once it has answered. What a search may
ask is its only budget. A candidate behind more unasked ones than it may still ask is never reached, so it is
forgotten, and the memory of a search has the same bound. Source: libp2p kad-dht.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from operator import itemgetter

from air.base.errors import Misuse
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.message import Contact

__all__ = ["Lookup"]


class Lookup:
    """Decides whom one search asks next, and when it has found what there is.

    Ask everybody that ``take`` returns, and report each once, by ``answered`` or ``failed``; take again after
    every report, until ``done``. While it is not done, somebody is under way or can be taken.
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
        """``settle`` is how many of the closest must have answered: ``config.beta`` to get an answer,
        ``config.k``, the default, to find who keeps a record. Raises Misuse ``kad.bad-settle`` below 1."""
        self._target, self._own, self._config = target, own, config
        self._settle = config.k if settle is None else settle
        if self._settle < 1:
            raise Misuse(f"a search that settles for {self._settle}", code="kad.bad-settle")
        self._contacts: dict[PeerId, Contact] = {}
        """Everybody who was asked or is still to be."""
        self._unasked: list[tuple[int, PeerId]] = []
        """By distance, as many as may still be asked at the most."""
        self._asking: dict[PeerId, int] = {}
        self._answered: list[tuple[int, PeerId]] = []
        self._asked = 0
        self._stopped = False
        self._hear(seeds)

    @property
    def asked(self) -> int:
        """How many peers were asked so far."""
        return self._asked

    @property
    def closest(self) -> list[Contact]:
        """Up to ``k`` of those that answered, the closest first."""
        return [self._contacts[peer] for _, peer in self._answered[: self._config.k]]

    @property
    def done(self) -> bool:
        """Nothing is under way that matters, and there is nobody to ask.

        An answer that comes all the same may bring somebody closer, and then it is not done.
        """
        if self._stopped:
            return True
        if len(self._answered) < self._settle:
            return not self._unasked and not self._asking
        last = self._answered[self._settle - 1][0]
        if self._unasked and self._unasked[0][0] < last:
            return False
        return all(distance > last for distance in self._asking.values())

    def take(self) -> list[Contact]:
        """Whom to ask now, the closest first: at most ``alpha`` are under way in total.

        Nobody is asked who could not be among the ``k`` closest, even if all places are not taken.
        """
        found: list[Contact] = []
        if self.done:
            return found
        while self._unasked and len(self._asking) < self._config.alpha:
            distance, peer = self._unasked[0]
            if not self._in_reach(distance):
                break
            del self._unasked[0]
            self._asking[peer] = distance
            self._asked += 1
            found.append(self._contacts[peer])
        return found

    def answered(self, peer: PeerId, closer: Sequence[Contact]) -> list[Contact]:
        """``peer`` named others. Returns those that this search had not heard of and may still ask.

        Only the first ``k`` are looked at: nobody has a reason to name more. After ``stop`` it still counts
        that the peer has answered, but not whom it names. Raises Misuse ``kad.not-asked`` for a peer that
        is not under way.
        """
        insort(self._answered, (self._back(peer), peer))
        return [] if self._stopped else self._hear(closer[: self._config.k])

    def failed(self, peer: PeerId) -> None:
        """``peer`` did not answer, and is not asked again. Raises Misuse as ``answered`` does."""
        self._back(peer)

    def stop(self) -> None:
        """Enough is known: nobody else is asked."""
        self._stopped = True

    def _in_reach(self, distance: int) -> bool:
        closer = bisect_left(self._answered, distance, key=itemgetter(0))
        closer += sum(other < distance for other in self._asking.values())
        return closer < max(self._config.k, self._settle)

    def _back(self, peer: PeerId) -> int:
        distance = self._asking.pop(peer, None)
        if distance is None:
            raise Misuse(f"{peer} is not under way", code="kad.not-asked")
        return distance

    def _hear(self, contacts: Iterable[Contact]) -> list[Contact]:
        limit, left = self._config.addresses_max, self._config.asked_max - self._asked
        new: list[PeerId] = []
        for contact in contacts:
            peer = contact.peer
            if peer == self._own:
                continue
            known = self._contacts.get(peer)
            self._contacts[peer] = (known or contact).joined(contact.addresses, limit)
            if known is None:
                insort(self._unasked, (place(peer.multihash) ^ self._target, peer))
                new.append(peer)
                if len(self._unasked) > left:
                    del self._contacts[self._unasked.pop()[1]]
        return [self._contacts[peer] for peer in new if peer in self._contacts]
