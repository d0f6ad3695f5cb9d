"""Who is told and who is asked: the engine's dealings with the peers around it. (core)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from air.base.clock import Now
from air.base.errors import LimitReached
from air.graph.effects import Effect, Notify, Send, Settled
from air.graph.mesh import Fading, Interest, LinkId, LinkState, Role
from air.graph.upstream import Upstream, UpstreamConfig
from air.model.cell import Cell, Key, Soul
from air.model.mark import Mark
from air.model.message import Ack, Ephemeral, Get, Id, Put, refused_for_now

__all__ = ["NeighbourConfig", "Neighbours"]


@dataclass(frozen=True, slots=True)
class NeighbourConfig:
    subscriptions_max: int = 100_000
    """Nodes and fields one link may ask to be told about: ``limit.subscriptions``."""
    ask_others_max: int = 8
    """Connected clients that are asked for something we do not have."""
    arriving_seconds: float = 30.0
    """For so long a client that has come is asked for what others begin to want: it may have written before
    it came, and does not send that by itself (gun-wire F4)."""
    ask_arrived_max: int = 32
    """Clients that have come lately which are asked for one node."""
    ask_on_open_max: int = 64
    """Nodes wanted by others that a client is asked for when it comes."""
    asked_max: int = 1_000
    """Nodes that one client is asked for in these ways, altogether."""
    ephemeral_per_second: float = 50.0
    """Messages that nobody keeps which one link may have passed on to all: ``limit.ephemeral``."""
    asks_per_second: float = 2_000.0
    """Questions we ask of our own accord, all links together: nobody may turn a miss into a flood."""
    paths_seconds: float = 9.0
    """How long the way of an answer back to its asker is remembered, at least."""
    paths_max: int = 100_000
    """Such ways remembered per generation; there are two."""
    reach_seconds: float = 60.0
    """How long it is remembered, at least, which write of this program an ack of such a peer is for."""
    reach_max: int = 10_000
    """Such writes remembered per generation; there are two."""
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)


_ASKED: Final = frozenset({Role.INBOUND, Role.PEER})


class Neighbours:
    """The links of a peer, what they want, and what is owed to those that we dialled."""

    def __init__(self, config: NeighbourConfig, ids: Callable[[], Id]) -> None:
        self._config, self._ids = config, ids
        self.links: dict[LinkId, LinkState] = {}
        self.interest = Interest(config.subscriptions_max)
        self._upstreams: dict[str, Upstream] = {}
        self._outbound: dict[LinkId, tuple[LinkState, Upstream]] = {}
        self._paths: Fading[Id, LinkId] = Fading(config.paths_seconds, config.paths_max)
        self._arrived: dict[LinkId, float] = {}
        self._peers: dict[LinkId, LinkState] = {}
        self._reaching: Fading[Id, Sequence[Cell]] = Fading(config.reach_seconds, config.reach_max)
        """Writes of this program on their way to peers that hold everything."""
        self._budget = config.asks_per_second
        self._budget_at = 0.0
        self.refused = 0
        """Puts that a dialled peer refused."""

    def __contains__(self, link: LinkId) -> bool:
        return link in self.links

    # -- coming and going ------------------------------------------------------

    def expect(self, name: str) -> None:
        """A peer will be dialled under this name: what is written before it is reached is owed to it."""
        self._upstreams.setdefault(name, Upstream(self._config.upstream))

    def attach(self, link: LinkId, role: Role, now: Now, name: str, out: list[Effect]) -> None:
        """A link is open. On one that we dialled, debts are paid and wishes repeated at once."""
        state = self.links[link] = LinkState(link, role, name)
        if role is Role.INBOUND:
            oldest = now.monotonic - self._config.arriving_seconds
            for other in [other for other, opened in self._arrived.items() if opened < oldest]:
                del self._arrived[other]
            self._arrived[link] = now.monotonic
        if role is Role.PEER:
            self._peers[link] = state
            state.peer = name
        if role is not Role.OUTBOUND:
            return
        self.expect(name)
        upstream = self._upstreams[name]
        upstream.lost()
        self._outbound[link] = (state, upstream)
        for cells in upstream.debts():
            self._send_owed((link,), Put(self._ids(), cells), now, out)
        for soul in self.interest.souls():
            if upstream.ask(soul, None):
                out.append(Send((link,), Get(self._ids(), soul)))

    def detach(self, link: LinkId) -> None:
        """A link is gone, and its wishes with it. What is owed to the peer behind it stays."""
        state = self.links.pop(link, None)
        if state is None:
            return
        self.interest.drop(state)
        self._arrived.pop(link, None)
        self._peers.pop(link, None)
        entry = self._outbound.pop(link, None)
        if entry is not None:
            entry[1].lost()

    def greeted(self, link: LinkId, peer: str, now: Now, out: list[Effect]) -> None:
        """The other end has said something of itself: its ``peer`` id, or only that it is there ("")."""
        state = self.links.get(link)
        if state is None:
            return
        state.peer = peer or state.peer
        if state.greeted or state.role is not Role.INBOUND:
            return
        state.greeted = True
        for soul in self.interest.newest(self._config.ask_on_open_max):
            if soul not in state.wants:
                self._ask(state, soul, now, out)

    # -- telling ---------------------------------------------------------------

    def tell(self, source: LinkId, put: Put, cells: Sequence[Cell], now: Now, out: list[Effect]) -> None:
        """Relay cells of ``put`` that won: to whoever asked for them, and to every peer we dialled."""
        whole = len(cells) == len(put.cells)
        full: list[LinkId] = []
        watchers: dict[LinkId, list[Cell]] = {}
        wanted: dict[LinkId, list[Cell]] = {}
        for cell in cells:
            links = self.interest.of(cell.soul)
            if links is None:
                continue
            for link, state in links.items():
                keys = state.wants[cell.soul]
                if keys is not None and cell.key not in keys:
                    continue
                if state.role is Role.LOCAL:
                    watchers.setdefault(link, []).append(cell)
                elif (
                    state.role is Role.INBOUND
                    and link != source
                    and not (put.seen_by and state.peer in put.seen_by)
                ):
                    wanted.setdefault(link, []).append(cell)
        if self.interest.has_prefixes:
            self._add_by_prefix(source, cells, wanted, watchers)
        for link, some in wanted.items():
            if len(some) == len(cells):
                full.append(link)
            else:
                # Part of a message is another message: under the old id the rest would pass for a duplicate.
                out.append(Send((link,), Put(self._ids(), some)))
        id = put.id if whole else self._ids()
        extra = put.extra if whole else None
        if self._upstreams:
            full += self._tell_upstreams(source, Put(id, cells, put.seen_by, extra), now, out)
        if full:
            out.append(Send(full, Put(id, cells, put.seen_by, extra)))
        for link, some in watchers.items():
            out.append(Notify((link,), some))

    def _add_by_prefix(
        self,
        source: LinkId,
        cells: Sequence[Cell],
        wanted: dict[LinkId, list[Cell]],
        watchers: dict[LinkId, list[Cell]],
    ) -> None:
        """Add what links want by the beginning of a soul, and do not get by its whole name already."""
        for cell in cells:
            reached: set[LinkId] = set()
            for state in self.interest.of_prefixes(cell.soul):
                link, keys = state.id, state.wants.get(cell.soul, ())
                if link == source or link in reached or keys is None or cell.key in keys:
                    continue
                reached.add(link)
                (watchers if state.role is Role.LOCAL else wanted).setdefault(link, []).append(cell)

    @property
    def has_peers(self) -> bool:
        """True while a peer that holds everything is connected."""
        return bool(self._peers)

    def tell_peers(
        self,
        source: LinkId,
        cells: Sequence[Cell],
        marks: Sequence[Mark] | None,
        now: Now,
        out: list[Effect],
    ) -> None:
        """Tell peers that hold everything what is durable here now.

        Not the one that it came from, and not the one that wrote it: it has it on its disk. So in a mesh a
        write crosses each link at most once in each direction.
        """
        put = Put(self._ids(), cells, marks=marks)
        writers = {mark[0][0] if mark else "" for mark in marks or ((),)}
        writer = writers.pop() if len(writers) == 1 else ""
        links = [
            link
            for link, state in self._peers.items()
            if link != source and not (writer and state.peer == writer)
        ]
        if links:
            if source in self.links and self.links[source].role is Role.LOCAL:
                self._reaching.set(put.id, cells, now.monotonic)
            out.append(Send(links, put))

    def _tell_upstreams(self, source: LinkId, put: Put, now: Now, out: list[Effect]) -> Sequence[LinkId]:
        """Owe a write to every peer that we dial but the one it came from.

        Returns the links that take the message as it is; larger ones are sent from here in pieces, since a
        stock relay loses fields of large messages (gun-wire F1).
        """
        from_name = self._outbound[source][0].name if source in self._outbound else None
        for name, upstream in self._upstreams.items():
            if name != from_name:
                upstream.owe(put.cells)
        links = [
            link
            for link, (state, _) in self._outbound.items()
            if link != source and not (put.seen_by and state.peer in put.seen_by)
        ]
        limit = self._config.upstream.put_cells_max
        if len(put.cells) <= limit:
            for link in links:
                self._outbound[link][1].sent(put.id, put.cells, now.monotonic)
            return links
        for start in range(0, len(put.cells), limit):
            piece = Put(self._ids(), put.cells[start : start + limit], put.seen_by)
            self._send_owed(links, piece, now, out)
        return ()

    def _send_owed(self, links: Sequence[LinkId], put: Put, now: Now, out: list[Effect]) -> None:
        for link in links:
            self._outbound[link][1].sent(put.id, put.cells, now.monotonic)
        if links:
            out.append(Send(links, put))

    def acknowledged(self, link: LinkId, ack: Ack, out: list[Effect]) -> None:
        """A peer that we dialled has answered a write."""
        entry = self._outbound.get(link)
        if entry is None:
            peer, cells = self._peers.get(link), self._reaching.get(ack.re)
            if peer is not None and cells is not None:
                out.append(Settled(peer.name, cells, ack.error))
            return
        # What it refuses for good counts as taken: sending it again would change nothing.
        taken = not refused_for_now(ack.error)
        state, upstream = entry
        cells = upstream.acknowledged(ack.re, taken=taken)
        if cells is None:
            return
        if ack.error is not None:
            self.refused += 1
        if taken:
            out.append(Settled(state.name, cells, ack.error))

    def pass_around(self, source: LinkId, message: Ephemeral, now: Now, out: list[Effect]) -> None:
        """Say something to every other peer, as a stock relay does. Raises LimitReached."""
        state, rate = self.links[source], self._config.ephemeral_per_second
        state.ephemeral = min(rate, state.ephemeral + (now.monotonic - state.ephemeral_at) * rate)
        state.ephemeral_at = now.monotonic
        if state.ephemeral < 1:
            raise LimitReached(f"more than {rate:.0f} messages to all in a second", code="limit.ephemeral")
        state.ephemeral -= 1
        links = [
            link
            for link, state in self.links.items()
            if link != source and state.role is not Role.LOCAL and state.peer not in message.seen_by
        ]
        if links:
            out.append(Send(links, message))

    # -- asking ----------------------------------------------------------------

    @property
    def has_upstreams(self) -> bool:
        """True while a peer that we dialled is connected."""
        return bool(self._outbound)

    def asker(self, id: Id) -> LinkId | None:
        """Who asked what we passed on as ``id``, if that is still remembered."""
        return self._paths.get(id)

    def ask_upstream(
        self, link: LinkId, get: Get, soul: Soul, key: Key | None, now: Now, out: list[Effect]
    ) -> None:
        """Pass a question on to the peers we dialled, once per connection: it subscribes us there."""
        once = key is not None or get.lex.is_all
        targets = [
            other
            for other, (_, upstream) in self._outbound.items()
            if other != link and (upstream.ask(soul, key) or not once)
        ]
        self._pass_on(link, get, targets, now, out)

    def ask_others(self, link: LinkId, get: Get, soul: Soul, now: Now, out: list[Effect]) -> None:
        """We have nothing: perhaps a peer does, or a client, first of all one that wanted the same."""
        chosen: dict[LinkId, None] = {}
        wanting = self.interest.of(soul) or {}
        for states in (self._peers.values(), wanting.values(), reversed(self.links.values())):
            for state in states:
                if len(chosen) == self._config.ask_others_max:
                    break
                if state.role in _ASKED and state.id != link and soul not in state.asked:
                    chosen[state.id] = None
        if chosen and self._spend(len(chosen), now):
            self._pass_on(link, get, list(chosen), now, out)

    def wanted(self, link: LinkId, soul: Soul, now: Now, out: list[Effect]) -> None:
        """Somebody has begun to want a node: ask those who may have written to it before they came.

        That is the asker itself, and others that came lately. A gun.js client answers from its memory or
        its localStorage, and says nothing when it holds nothing.
        """
        self._ask(self.links[link], soul, now, out)
        for state in self._peers.values():
            if state.relays and state.id != link:
                self._wish(state, soul, out)
        oldest, room = now.monotonic - self._config.arriving_seconds, self._config.ask_arrived_max
        for other, opened in reversed(self._arrived.items()):
            if opened < oldest or room == 0:
                break
            if other != link and self._ask(self.links[other], soul, now, out):
                room -= 1

    def tell_wishes(self, link: LinkId, out: list[Effect]) -> None:
        """A peer asks relays for what it is asked for: tell it what is wanted here, and what will be."""
        state = self._peers.get(link)
        if state is None:
            return
        state.relays = True
        for soul in self.interest.souls():
            if any(other != link for other in self.interest.of(soul) or ()):
                self._wish(state, soul, out)

    def _wish(self, state: LinkState, soul: Soul, out: list[Effect]) -> None:
        if len(state.asked) < self._config.upstream.asked_max and soul not in state.asked:
            state.asked.add(soul)
            out.append(Send((state.id,), Get(self._ids(), soul)))

    @property
    def keeps_relays(self) -> bool:
        """True when a peer is dialled, connected or not, that is asked for what is wanted here."""
        return bool(self._upstreams)

    def _ask(self, state: LinkState, soul: Soul, now: Now, out: list[Effect]) -> bool:
        """Ask a client of our own accord, once for each node. False when that is not worth it."""
        if state.role is not Role.INBOUND or soul in state.asked:
            return False
        if len(state.asked) >= self._config.asked_max or not self._spend(1, now):
            return False
        state.asked.add(soul)
        out.append(Send((state.id,), Get(self._ids(), soul)))
        return True

    def _spend(self, count: int, now: Now) -> bool:
        rate = self._config.asks_per_second
        self._budget = min(rate, self._budget + (now.monotonic - self._budget_at) * rate)
        self._budget_at = now.monotonic
        if self._budget < count:
            return False
        self._budget -= count
        return True

    def _pass_on(
        self, link: LinkId, get: Get, targets: Sequence[LinkId], now: Now, out: list[Effect]
    ) -> None:
        if targets:
            self._paths.set(get.id, link, now.monotonic)
            out.append(Send(targets, Get(get.id, get.soul, get.lex, get.known)))

    # -- time ------------------------------------------------------------------

    def owed(self) -> int:
        """Fields that some dialled peer has not acknowledged yet."""
        return sum(upstream.owed for upstream in self._upstreams.values())

    def dropped(self) -> int:
        """Fields that were owed to a dialled peer and had to be given up."""
        return sum(upstream.dropped for upstream in self._upstreams.values())

    def tick(self, now: Now) -> None:
        self._paths.tick(now.monotonic)
        self._reaching.tick(now.monotonic)
        for _, upstream in self._outbound.values():
            upstream.tick(now.monotonic)

    @property
    def deadline(self) -> float | None:
        due = [upstream.deadline for _, upstream in self._outbound.values()]
        return min((moment for moment in due if moment is not None), default=None)
