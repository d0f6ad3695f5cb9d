"""What the DHT of one running node consists of. (root)"""

from __future__ import annotations

import anyio

from air.base.address import Multiaddr
from air.base.errors import Closed
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.message import Contact, Kind, Message, Record
from air.dht.query import Querier
from air.dht.records import ProviderStore, RecordStore
from air.dht.responder import Responder
from air.dht.server import Server
from air.dht.table import RoutingTable
from air.dht.values import Namespaces
from air.swarm.api import Host

__all__ = ["Parts"]


class Parts:
    """Made when the node starts, because everything here depends on who it is."""

    def __init__(self, host: Host, config: KadConfig, namespaces: Namespaces) -> None:
        own, counters = host.peer, host.counters
        self.host, self.config = host, config
        self.table = RoutingTable(own, config)
        self.records = RecordStore(own, config, namespaces)
        self.providers = ProviderStore(own, config)

        def addresses(peer: PeerId) -> tuple[Multiaddr, ...]:
            if peer == own:
                return host.addresses
            return tuple(host.peerbook.addresses(peer, host.env.clock.now()))

        responder = Responder(own, self.table, self.records, self.providers, addresses, config)
        self.server = Server(responder, host.env, counters, config)
        self.querier = Querier(host, self.table, config, self._joined)
        self._changed, self._ended = anyio.Event(), False
        counters.gauge("kad_table_peers", "Servers in the table.", lambda: len(self.table))
        counters.gauge("kad_records", "Values kept for others.", lambda: len(self.records))
        counters.gauge("kad_provider_keys", "Keys with providers.", lambda: len(self.providers))

    def _joined(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def ready(self, peers: int) -> None:
        """Wait until the table holds so many servers. Raises Closed when the node ends."""
        while len(self.table) < peers:
            if self._ended:
                raise Closed("the node has ended", code="node.closed")
            await self._changed.wait()

    def end(self) -> None:
        """Nobody comes into the table any more."""
        self._ended = True
        self._joined()

    def held(self, key: bytes) -> bytes | None:
        """The value that this peer holds under a key, if it is still valid."""
        record = self.records.valid(key, self.host.env.clock.now())
        return None if record is None else record.value

    async def spread_value(self, key: bytes, value: bytes) -> int:
        """Have the closest servers, and this peer, keep a value, or the better one that came since.

        Returns how many others took it. Raises Violation when it is not valid any more.
        """
        record, now = Record(key, value), self.host.env.clock.now()
        if not self.records.put(record, now):
            record = self.records.get(key, now) or record
        lookup = await self.querier.search(key, settle=self.config.k)
        return await self.querier.spread(lookup.closest, Message(Kind.PUT_VALUE, key, record))

    async def spread_provider(self, key: bytes) -> int:
        """Tell the closest servers that this peer has what ``key`` names; returns how many were told."""
        host = self.host
        # Here without addresses: whoever asks is told those of the moment.
        self.providers.add(key, Contact(host.peer), host.env.clock.now())
        lookup = await self.querier.search(key, settle=self.config.k)
        message = Message(Kind.ADD_PROVIDER, key, providers=(Contact(host.peer, host.addresses),))
        return await self.querier.spread(lookup.closest, message, answered=False)
