"""The native wire as a service of a node: serving, and dialling for ever. (shell)"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from air.base.backoff import Backoff, BackoffConfig
from air.base.errors import AirError, Closed, LimitReached, Misuse, Reset, Violation
from air.base.peer_id import PeerId
from air.graph.mesh import LinkId, Role
from air.swarm.api import Host, StreamHandler
from air.swarm.session import Session
from air.swarm.stream import Stream
from air.sync.hub import Hub
from air.sync.native.carrier import Carrier
from air.sync.native.frames import Hello, Wish
from air.sync.native.limits import PROTOCOL, NativeConfig
from air.sync.native.link import NativeLink
from air.sync.native.rates import Rates

__all__ = ["GraphSync", "PeerLink"]

log = logging.getLogger("air.native")

_CLOSE_SECONDS = 1.0
_STEADY_SECONDS = 5.0
"""A link that lasted this long was a success."""


@dataclass(eq=False, slots=True)
class PeerLink:
    """A link with a peer that holds everything, as this side does."""

    peer: PeerId
    session: Session
    """The connection it runs over; other protocols may open streams on it."""
    link: LinkId
    address: str
    outbound: bool
    """This side opened it."""
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Set when the link is no more."""
    overflows: int = 0
    """Times that it lacked something that it was to have: the two must be compared."""


class GraphSync:
    """Speaks the native wire for a hub, on a node that has this among its services."""

    def __init__(
        self,
        hub: Hub,
        config: NativeConfig | None = None,
        *,
        on_peer: Callable[[PeerLink], None] | None = None,
    ) -> None:
        """``on_peer`` is called when a link with a peer that holds everything opens, and when more waited for
        it than may wait: what the two hold is to be compared then. It must return at once."""
        self.config = config or NativeConfig()
        self.on_peer = on_peer
        self._hub = hub
        self._host: Host | None = None
        self._hosted = anyio.Event()
        self._carriers: set[Carrier] = set()
        self._peers: dict[str, PeerLink] = {}
        self._rates: dict[str, tuple[Rates, int]] = {}
        """By peer: its account, and the number of its links."""
        self._wishes: dict[Wish, None] = {}
        counters = hub.counters
        for name, help in {
            "air_native_bytes_in_total": "Bytes received on native links.",
            "air_native_bytes_out_total": "Bytes sent on native links.",
            "air_native_cells_in_total": "Cells received on native links.",
            "air_native_cells_out_total": "Cells sent on native links.",
            "air_native_coalesced_total": "Cells never sent, because a newer one of their field was.",
            "air_native_overflows_total": "Times that a peer lacked something and had to be compared with.",
            "air_native_too_large_total": "Cells that the other side had no room for.",
        }.items():
            counters.describe(name, help)
        counters.gauge(
            "air_native_peers", "Peers that hold everything, linked now.", lambda: len(self._peers)
        )
        counters.gauge(
            "air_native_queued_cells",
            "Cells that wait to be sent on native links.",
            lambda: sum(carrier.link.queued_cells for carrier in self._carriers),
        )

    # -- as a service ----------------------------------------------------------

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: self._serve}

    async def run(self, host: Host, *, task_status: Any) -> None:
        self._host = host
        self._hosted.set()
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            for carrier in self._carriers:
                carrier.cut(Closed("this peer stops"))

    @property
    def peers(self) -> Mapping[str, PeerLink]:
        """Peers that hold everything and are linked now, by peer id."""
        return self._peers

    def subscribe(self, wish: Wish) -> None:
        """Ask every peer that this side dials to be told of something, now and whenever it is back.

        Raises Misuse ``native.wishes`` beyond ``wishes_max``.
        """
        if wish not in self._wishes and len(self._wishes) >= self.config.wishes_max:
            raise Misuse("too many wishes", code="native.wishes")
        self._wishes[wish] = None
        self._tell(wish)

    def unsubscribe(self, wish: Wish) -> None:
        """No longer."""
        if self._wishes.pop(wish, wish) is None:
            self._tell(wish.ended)

    def _tell(self, wish: Wish) -> None:
        for carrier in self._carriers:
            if carrier.id is not None and carrier.link.role is Role.OUTBOUND:
                carrier.link.wish([wish])
                carrier.wake()

    async def _serve(self, stream: Stream) -> None:
        await self._run(stream, str(stream.session.remote_address))

    async def dial(self, address: str, *, backoff: BackoffConfig | None = None) -> None:
        """Keep a link to the peer at a multiaddr for ever, coming back after jittered, growing waits."""
        clock = self._hub.env.clock
        waits = Backoff(backoff or self.config.redial, self._hub.env.entropy)
        if not self.config.everything:
            self._hub.engine.near.expect(address)
        await self._hosted.wait()
        assert self._host is not None
        while True:
            began = clock.now().monotonic
            try:
                session = await self._host.dial(address)
                while (other := self._peers.get(session.peer)) is not None:
                    # It has dialled us, and one link is enough.
                    await other.ended.wait()
                    session = await self._host.dial(address)
                began = clock.now().monotonic
                stream = await session.open_stream(PROTOCOL)
                try:
                    await self._run(stream, address)
                finally:
                    # Not reset, even when this is cancelled: the last words shall arrive.
                    with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                        await stream.aclose()
            except AirError as error:
                said = {"peer": address, "code": error.code, "reason": str(error)}
                log.info("peer unreachable", extra=said)
            if clock.now().monotonic - began > _STEADY_SECONDS:
                waits.succeeded()
            await anyio.sleep(waits.failed())

    # -- links -----------------------------------------------------------------

    async def _run(self, stream: Stream, address: str) -> None:
        """Carry a link until it ends. Raises LimitReached ``limit.links``; what else a peer does only ends
        the link."""
        hub, host, peer = self._hub, self._host, stream.peer
        assert host is not None
        rates, count = self._rates.get(peer) or (Rates(self.config.rates), 0)
        if count >= self.config.links_per_peer_max:
            raise LimitReached(f"{peer} has its links", code="limit.links")
        self._rates[peer] = (rates, count + 1)
        link = NativeLink(
            own=str(host.peer),
            expected=str(peer),
            outbound=stream.outbound,
            ids=hub.ids,
            config=self.config,
            rates=rates,
            now=hub.env.clock.now(),
            relays=hub.engine.near.keeps_relays,
        )
        carrier = Carrier(
            link,
            stream,
            hub,
            self.config,
            lambda carrier, hello: self._opened(carrier, hello, address),
            self._overflowed,
        )
        self._carriers.add(carrier)
        try:
            await carrier.run()
        finally:
            self._closed(carrier)
        if carrier.end is not None and carrier.end.code == "link.silent":
            # The connection is as dead as the link, and the next dial must not get it again.
            await stream.session.abort("link.silent")

    def _closed(self, carrier: Carrier) -> None:
        hub, link, peer = self._hub, carrier.link, carrier.stream.peer
        self._carriers.discard(carrier)
        rates, count = self._rates.pop(peer)
        if count > 1:
            self._rates[peer] = (rates, count - 1)
        end: AirError = carrier.end or carrier.left or Closed("this side has stopped")
        if carrier.id is not None:
            left = carrier.left
            goodbye = left is not None and left.code == "link.closed" and not isinstance(left, Reset)
            hub.close_link(carrier.id, goodbye=goodbye)
        self._forget(carrier)
        link.forget()
        hub.counters.add("air_native_coalesced_total", link.coalesced)
        hub.counters.add("air_native_too_large_total", link.too_large)
        if isinstance(end, Violation):
            hub.counters.add("air_cut_total", 1, end.code)
            if not isinstance(end, LimitReached):
                carrier.stream.session.offended(1.0)
        log.info("link closed", extra={"link": carrier.id, "code": end.code, "peer": str(peer)})

    def _opened(self, carrier: Carrier, hello: Hello, address: str) -> None:
        """The other side has said hello: connect it to the graph."""
        hub, link, peer = self._hub, carrier.link, carrier.stream.peer
        role, outbound = link.role, link.outbound
        if role is Role.PEER:
            known = self._peers.get(peer)
            if known is not None and not self._replaces(outbound, known):
                carrier.cut(Closed("there is a link already", code="link.supplanted"))
                return
            carrier.id = hub.open_link(role, carrier, address, name=str(peer), dialled=outbound)
            hub.greeted(carrier.id, hello.peer)
            if known is not None:
                self._supplant(known)
            if hello.relays:
                hub.tell_wishes(carrier.id)
            entry = self._peers[peer] = PeerLink(peer, carrier.stream.session, carrier.id, address, outbound)
            if self.on_peer is not None:
                self.on_peer(entry)
        else:
            carrier.id = hub.open_link(role, carrier, address, name=address if outbound else "")
            hub.greeted(carrier.id, hello.peer)
            if outbound and self._wishes:
                link.wish(list(self._wishes))
        log.info("link open", extra={"link": carrier.id, "role": role.value, "address": address})
        carrier.wake()

    def _replaces(self, outbound: bool, known: PeerLink) -> bool:
        """Both have dialled: the stream that the lower peer id opened is kept, on both sides. Of two by the
        same side the newer one: the older is dead, or its owner would not have come again."""
        assert self._host is not None
        return outbound == known.outbound or outbound == (str(self._host.peer) < str(known.peer))

    def _supplant(self, known: PeerLink) -> None:
        # The hub is told at once, so that nothing is sent twice.
        self._hub.close_link(known.link)
        for carrier in self._carriers:
            if carrier.id == known.link:
                carrier.cut(Closed("another link is kept", code="link.supplanted"))
                self._forget(carrier)

    def _entry(self, carrier: Carrier) -> PeerLink | None:
        entry = self._peers.get(carrier.stream.peer)
        return entry if entry is not None and entry.link == carrier.id else None

    def _forget(self, carrier: Carrier) -> None:
        entry = self._entry(carrier)
        if entry is not None:
            del self._peers[entry.peer]
            entry.ended.set()

    def _overflowed(self, carrier: Carrier) -> None:
        self._hub.counters.add("air_native_overflows_total")
        log.warning("a peer lacks what it was to have", extra={"link": carrier.id, "peer": carrier.peer})
        entry = self._entry(carrier)
        if entry is not None:
            entry.overflows += 1
            if self.on_peer is not None:
                self.on_peer(entry)
