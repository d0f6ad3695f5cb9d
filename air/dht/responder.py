"""What a server of the DHT answers. (core)

Source: libp2p kad-dht. There are no error replies: whatever is refused raises, and the stream is reset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.errors import Violation
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.message import Contact, Kind, Message
from air.dht.records import ProviderStore, RecordStore
from air.dht.table import RoutingTable

__all__ = ["Responder"]

_ABOUT_RECORDS: Final = (Kind.PUT_VALUE, Kind.GET_VALUE)
_ABOUT_PROVIDERS: Final = (Kind.ADD_PROVIDER, Kind.GET_PROVIDERS)


class Responder:
    """Answers from the routing table and both stores. Nothing here depends on who asks, save that nobody is
    told of himself and that nobody can name another as a provider."""

    def __init__(
        self,
        own: PeerId,
        table: RoutingTable,
        records: RecordStore,
        providers: ProviderStore,
        addresses: Callable[[PeerId], Sequence[Multiaddr]],
        config: KadConfig,
    ) -> None:
        """``addresses`` is what is known now of where a peer is, this one included, the best first."""
        self._own, self._table, self._config = own, table, config
        self._records, self._providers = records, providers
        self._addresses = addresses

    def answer(self, message: Message, sender: PeerId, now: Now) -> Message | None:
        """The answer to ``message``, or None where none may follow.

        Raises Violation ``kad.no-key``, ``kad.key-too-long``, ``kad.no-record``, ``kad.wrong-key``, or a code
        of :meth:`RecordStore.put`.
        """
        kind, key = message.kind, message.key
        if kind is Kind.PING:
            return message
        self._check_key(kind, key)
        if kind is Kind.FIND_NODE:
            return Message(kind, closer=self._find(key, sender))
        if kind is Kind.PUT_VALUE:
            return self._put(message, now)
        if kind is Kind.ADD_PROVIDER:
            self._add_provider(message, sender, now)
            # Go keeps one stream per peer: it would take this for the answer to its next question.
            return None
        closer = self._closer(key, (sender, self._own), self._config.k)
        if kind is Kind.GET_VALUE:
            return Message(kind, key, self._records.valid(key, now), closer)
        return Message(kind, key, closer=closer, providers=self._providers_of(key, now))

    def _check_key(self, kind: Kind, key: bytes) -> None:
        if not key:
            raise Violation(f"{kind.name} without a key", code="kad.no-key")
        config = self._config
        if (kind in _ABOUT_RECORDS and len(key) > config.record_key_bytes_max) or (
            kind in _ABOUT_PROVIDERS and len(key) > config.provider_key_bytes_max
        ):
            raise Violation(f"{kind.name} with a key of {len(key)} bytes", code="kad.key-too-long")

    def _put(self, message: Message, now: Now) -> Message:
        record = message.record
        if record is None:
            raise Violation("PUT_VALUE without a record", code="kad.no-record")
        if record.key != message.key:
            raise Violation("PUT_VALUE with a record of another key", code="kad.wrong-key")
        self._records.put(record, now)
        # Also when a better value stays: go compares the echo with what it sent, and crashes without one.
        return Message(message.kind, message.key, record)

    def _add_provider(self, message: Message, sender: PeerId, now: Now) -> None:
        for contact in message.providers:
            if contact.peer == sender and contact.addresses:
                self._providers.add(message.key, contact, now)
                return

    def _providers_of(self, key: bytes, now: Now) -> tuple[Contact, ...]:
        # Without any address the name is still worth telling: it can be searched for.
        found = self._providers.of(key, now)
        return tuple(one if one.addresses else self._contact(one.peer) for one in found)

    def _find(self, key: bytes, sender: PeerId) -> tuple[Contact, ...]:
        without = (sender, self._own)
        try:
            wanted = PeerId.from_bytes(key)
        except Violation:
            return self._closer(key, without, self._config.k)
        # Whoever is wanted need not be a server, so the table may not have it.
        first = self._contact(wanted)
        if wanted == sender or not first.addresses:
            return self._closer(key, without, self._config.k)
        return (first, *self._closer(key, (*without, wanted), self._config.k - 1))

    def _closer(self, key: bytes, without: Sequence[PeerId], count: int) -> tuple[Contact, ...]:
        target, asked = place(key), count
        while True:
            peers = self._table.closest(target, asked, without=without)
            found = [one for one in map(self._contact, peers) if one.addresses]
            if len(found) >= count or len(peers) < asked:
                return tuple(found[:count])
            # Some of them are nowhere to be found; those behind them are as good.
            asked *= 2

    def _contact(self, peer: PeerId) -> Contact:
        return Contact(peer, tuple(self._addresses(peer)[: self._config.addresses_max]))
