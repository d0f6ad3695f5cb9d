"""The DHT as a service of a node: who is where, who holds what. (shell)

    dht = Kademlia(mode=Mode.SERVER)
    async with Node(identity, …, services=[Identify(), dht], …) as node:
        await dht.ready()
        contact = await dht.find_peer(peer)

A server answers others and is in their tables; a client only asks. It needs ``Identify`` beside it, from
which it learns who is a server. Source: libp2p kad-dht.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from air.base.address import Multiaddr
from air.base.errors import AirError, ConfigError, Misuse, Violation
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.message import Contact, Kind, Message, Record
from air.dht.parts import Parts
from air.dht.upkeep import Upkeep
from air.dht.values import Namespaces, PublicKeys, Validator
from air.swarm.api import Host, StreamHandler
from air.swarm.stream import Stream

__all__ = ["Kademlia", "Mode"]


class Mode(StrEnum):
    CLIENT = "client"
    SERVER = "server"


class Kademlia:
    """Searches the network, keeps what others put here, and puts this peer's own things again in time."""

    def __init__(
        self,
        config: KadConfig | None = None,
        *,
        mode: Mode = Mode.CLIENT,
        namespaces: Mapping[str, Validator] | None = None,
    ) -> None:
        """``namespaces``: who judges values, by the first part of their key; None: ``/pk/…`` alone.

        Raises ConfigError for a mode that there is not, and for a bootstrap address that names no peer.
        """
        self.config = KadConfig() if config is None else config
        try:
            self.mode = Mode(mode)
            self._bootstrap = [Multiaddr(text) for text in self.config.bootstrap]
        except (ValueError, Violation) as error:
            raise ConfigError(str(error)) from None
        self._namespaces = Namespaces({"pk": PublicKeys()} if namespaces is None else namespaces)
        if any(address.peer is None for address in self._bootstrap):
            raise ConfigError("a bootstrap address ends in /p2p/ and a peer id", code="config.bad-peer")
        self._upkeep: Upkeep | None = None

    # -- as a service ----------------------------------------------------------

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {self.config.protocol: self._serve} if self.mode is Mode.SERVER else {}

    async def run(self, host: Host, *, task_status: Any) -> None:
        if self._upkeep is not None:
            raise Misuse("the DHT belongs to another running node")
        upkeep = self._upkeep = Upkeep(Parts(host, self.config, self._namespaces), self._bootstrap)
        try:
            with host.peerbook.follow(upkeep.presented):
                task_status.started()
                await upkeep.run()
        finally:
            self._upkeep = None
            upkeep.parts.end()

    async def _serve(self, stream: Stream) -> None:
        await self._here().server.serve(stream)

    # -- peers -----------------------------------------------------------------

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """The servers in the table."""
        return () if self._upkeep is None else self._upkeep.parts.table.peers

    async def ready(self, peers: int = 1) -> None:
        """Wait until the table holds so many servers. Raises Closed when the node ends before that."""
        await self._here().ready(peers)

    async def closest(self, key: bytes) -> list[Contact]:
        """The ``k`` servers closest to ``key``, the closest first.

        Raises Misuse for a key that is empty (``kad.no-key``) or of more bytes than any operation takes
        (``kad.key-too-long``), and AirError ``kad.nobody``.
        """
        self._fits(key, max(self.config.record_key_bytes_max, self.config.provider_key_bytes_max))
        lookup = await self._here().querier.search(key, settle=self.config.k)
        if not lookup.closest:
            raise _nobody()
        return lookup.closest

    async def find_peer(self, peer: PeerId) -> Contact:
        """Where a peer is, as it says itself or several others do. Raises AirError ``kad.not-found``.

        Others may be wrong or lie: only a handshake shows who is there.
        """
        here, config, found, naming = self._here(), self.config, Contact(peer), set[PeerId]()

        def heard(contact: Contact, answer: Message) -> bool:
            nonlocal found
            if contact.peer == peer:
                # What others said of it led here; what it says itself, and where it was met, comes first.
                [known] = here.querier.contacts([peer])
                found = Contact(peer).joined(known.addresses or contact.addresses, config.addresses_max)
                return True
            for one in answer.closer:
                if one.peer == peer and one.addresses:
                    found = found.joined(one.addresses, config.addresses_max)
                    naming.add(contact.peer)
            return len(naming) >= config.beta

        await here.querier.search(peer.multihash, settle=config.k, heard=heard)
        if not found.addresses:
            raise AirError(f"nobody knows where {peer} is", code="kad.not-found")
        return found

    # -- values ----------------------------------------------------------------

    async def put_value(self, key: bytes, value: bytes) -> int:
        """Have the ``k`` closest servers keep a value, now and every ``republish_seconds``.

        Returns how many took it. Raises Misuse when it is too long (``kad.key-too-long``,
        ``kad.value-too-big``), not valid (the code of its namespace), or worse than one that is held here
        (``kad.superseded``). Raises AirError ``kad.nobody`` when no server took it; it is put again in time
        even so.
        """
        parts = self._here()
        self._valid(key, value)
        held = parts.held(key)
        if held is not None and held != value and not self._namespaces.best(key, (held, value)):
            raise Misuse("a better value is held under this key", code="kad.superseded")
        taken = await self._tasks().put_value(key, value)
        if not taken:
            raise _nobody()
        return taken

    async def get_value(self, key: bytes, *, quorum: int = 0) -> bytes:
        """The best of the values found under ``key``: of ``quorum`` answers, or of the whole search.

        Servers among the closest that hold another, or none, are given the best. Raises AirError
        ``kad.not-found``, and Misuse when the key is of no namespace.
        """
        parts, namespaces = self._here(), self._namespaces
        self._valid(key)
        values: dict[PeerId, bytes] = {}
        own = parts.held(key)
        if own is not None:
            values[parts.host.peer] = own

        def heard(contact: Contact, answer: Message) -> bool:
            record = answer.record
            if record is not None and record.key == key:
                try:
                    namespaces.validate(key, record.value)
                except Violation:
                    return False
                values[contact.peer] = record.value
            return 0 < quorum <= len(values)

        lookup = await parts.querier.search(key, Kind.GET_VALUE, settle=self.config.beta, heard=heard)
        if not values:
            raise AirError("nobody holds a value under this key", code="kad.not-found")
        held = list(values.values())
        best = held[namespaces.best(key, held)]
        behind = [contact for contact in lookup.closest if values.get(contact.peer) != best]
        await parts.querier.spread(behind, Message(Kind.PUT_VALUE, key, Record(key, best)))
        return best

    def stop_putting(self, key: bytes) -> None:
        """Not again; what servers keep runs out by itself."""
        self._tasks().stop(Kind.PUT_VALUE, key)

    def _valid(self, key: bytes, value: bytes | None = None) -> None:
        config = self.config
        self._fits(key, config.record_key_bytes_max)
        if value is not None and len(value) > config.value_bytes_max:
            raise Misuse(f"a value of {len(value)} bytes", code="kad.value-too-big")
        try:
            if value is None:
                self._namespaces.of(key)
            else:
                self._namespaces.validate(key, value)
        except Violation as error:
            raise Misuse(error.message, code=error.code) from None

    # -- providers -------------------------------------------------------------

    async def provide(self, key: bytes) -> int:
        """Tell the closest servers that this peer has what ``key``, a multihash, names, now and again.

        Returns how many were told. Raises Misuse ``kad.no-key`` or ``kad.key-too-long``, AirError
        ``kad.nobody``; it is told again in time even so.
        """
        self._fits(key, self.config.provider_key_bytes_max)
        told = await self._tasks().provide(key)
        if not told:
            raise _nobody()
        return told

    async def find_providers(self, key: bytes, *, count: int = 20) -> list[Contact]:
        """Up to ``count`` peers that say they have what ``key`` names, those that most servers name first.

        Raises Misuse as :meth:`provide`, and AirError ``kad.not-found``.
        """
        self._fits(key, self.config.provider_key_bytes_max)
        parts, config = self._here(), self.config
        found = {one.peer: one for one in parts.providers.of(key, parts.host.env.clock.now())}
        votes, naming = Counter(found.keys()), set[PeerId]()

        def heard(contact: Contact, answer: Message) -> bool:
            # One server that lies names as many as it likes: it neither ends the search nor fills its result.
            for one in answer.providers[:count]:
                found[one.peer] = found.get(one.peer, one).joined(one.addresses, config.addresses_max)
                votes[one.peer] += 1
                naming.add(contact.peer)
            return len(found) >= count and len(naming) >= config.beta

        await parts.querier.search(key, Kind.GET_PROVIDERS, settle=self.config.k, heard=heard)
        if not found:
            raise AirError("nobody says to have it", code="kad.not-found")
        return sorted(found.values(), key=lambda one: -votes[one.peer])[:count]

    def stop_providing(self, key: bytes) -> None:
        """Not again; what servers know runs out by itself."""
        self._tasks().stop(Kind.ADD_PROVIDER, key)

    # -- inside ----------------------------------------------------------------

    def _fits(self, key: bytes, bytes_max: int) -> None:
        # Servers reset a stream for what does not, and would seem to be gone.
        if not key:
            raise Misuse("an empty key", code="kad.no-key")
        if len(key) > bytes_max:
            raise Misuse(f"a key of {len(key)} bytes, at most {bytes_max}", code="kad.key-too-long")

    def _here(self) -> Parts:
        return self._tasks().parts

    def _tasks(self) -> Upkeep:
        if self._upkeep is None:
            raise Misuse("the DHT belongs to no running node")
        return self._upkeep


def _nobody() -> AirError:
    return AirError("no server of the DHT answers", code="kad.nobody")
