"""The graph peer: messages and time in, effects out. (core)

Everything a peer decides is decided here, once, whichever wire a message came by: what is merged, what
is written, who is told, who is asked, what waits for its time, and what is acknowledged when.

Three rules carry the guarantees:

* **An ack comes after the disk.** A put is answered when its batch is durable, and not before.
* **The disk is asked in order.** Writes and reads are effects that are done in the order they were asked
  for, and their results come back in that order. So a node may leave memory at any moment: whatever reads
  it from disk later also sees every write that was on its way.
* **Memory never guesses.** A field that is not in memory is merged by the disk, and told to others only
  when the disk says that it won. An older value written after a restart therefore wins nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import maxsize

from air.base.clock import Now
from air.base.metrics import Counters
from air.graph.defer import Deferred, DeferredConfig
from air.graph.effects import Effect, Persist, Send
from air.graph.mesh import Fading, LinkId, Role
from air.graph.neighbours import NeighbourConfig, Neighbours
from air.graph.reads import Read, Reads
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.ham import wins
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import Ack, Answer, Ephemeral, Get, Id, Message, Put, SoulRange
from air.store.api import Page
from air.store.memory import Memory, select, size_of

__all__ = ["Engine", "EngineConfig"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    seen_seconds: float = 9.0
    """How long an id is remembered, at least (gun-wire 1.6)."""
    seen_max: int = 200_000
    """Ids remembered per generation; there are two."""
    node_fields_max: int = 4096
    """A node with more fields than this is read page by page and never held whole in memory."""
    deferred: DeferredConfig = field(default_factory=DeferredConfig)
    neighbours: NeighbourConfig = field(default_factory=NeighbourConfig)


@dataclass(slots=True)
class _Promise:
    """A put in work: its ack is owed once ``parts`` batches are durable."""

    source: LinkId
    put: Put
    parts: int
    ack: bool
    marks: dict[tuple[Soul, Key, State], Mark] | None = None
    """Of the cells of ``put``, when it brought any."""

    @property
    def origin(self) -> LinkId:
        """The link that the cells came by, which need not hear of them."""
        return self.put.origin or self.source


@dataclass(slots=True)
class _Write:
    """A batch on its way to disk."""

    promise: _Promise
    cells: Sequence[Cell]
    told: bool
    """Others were told already: every field was in memory, so its fate was known."""


class Engine:
    """One graph, its peers, and what is on its way between them."""

    def __init__(
        self,
        memory: Memory,
        ids: Callable[[], str],
        config: EngineConfig | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.config = config or EngineConfig()
        self.memory = memory
        self.counters = counters or Counters()
        self.near = Neighbours(self.config.neighbours, ids)
        self.deferred: Deferred[tuple[_Promise, list[Cell]]] = Deferred(self.config.deferred)
        self._ids = ids
        self._seen: Fading[Id | tuple[Id, int], int] = Fading(self.config.seen_seconds, self.config.seen_max)
        self._writes: dict[int, _Write] = {}
        self.reads = Reads()
        self._ticket = 0
        self.accepted = self.ignored = self.duplicates = self.hits = self.misses = 0

    # -- links -----------------------------------------------------------------

    def attach(self, link: LinkId, role: Role, now: Now, name: str = "") -> list[Effect]:
        """A link is open; ``name`` tells which peer is behind one that we dialled."""
        out: list[Effect] = []
        self.near.attach(link, role, now, name, out)
        return out

    def detach(self, link: LinkId) -> None:
        """A link is gone."""
        self.near.detach(link)

    def greeted(self, link: LinkId, peer: str, now: Now) -> list[Effect]:
        """The other end has said something of itself: its ``peer`` id, or only that it is there ("")."""
        out: list[Effect] = []
        self.near.greeted(link, peer, now, out)
        return out

    def tell_wishes(self, link: LinkId) -> list[Effect]:
        """A peer asks relays for what it is asked for, so it is told what is wanted here."""
        out: list[Effect] = []
        self.near.tell_wishes(link, out)
        return out

    def subscribe(self, link: LinkId, prefix: str) -> None:
        """Tell a link from now on of every node whose soul starts with ``prefix``. Raises LimitReached."""
        self.near.interest.add_prefix(self.near.links[link], prefix)

    def unsubscribe(
        self, link: LinkId, soul: Soul | None = None, key: Key | None = None, *, prefix: str | None = None
    ) -> None:
        """A link wants no more to be told of a node, of one field of it, or of a prefix."""
        state, interest = self.near.links[link], self.near.interest
        if prefix is not None:
            interest.drop_prefix(state, prefix)
        elif soul is not None and key is not None:
            interest.drop_key(state, soul, key)
        elif soul is not None:
            interest.drop(state, soul)

    # -- messages --------------------------------------------------------------

    def receive(self, link: LinkId, message: Message, now: Now) -> list[Effect]:
        """Take one message. Raises Violation when it must be refused; nothing has changed then."""
        out: list[Effect] = []
        if type(message) is Put:
            self._put(link, message, now, out)
        elif type(message) is Get:
            self._get(link, message, now, out)
        elif type(message) is Answer:
            self._answer(link, message, now, out)
        elif type(message) is Ack:
            self.near.acknowledged(link, message, out)
        elif type(message) is Ephemeral:
            content = hash(repr(message.fields))
            if self._seen.get(message.id) == content:
                self.duplicates += 1
            else:
                self.near.pass_around(link, message, now, out)
                self._seen.set(message.id, content, now.monotonic)
        return out

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due; to be called at or after :meth:`deadline`."""
        out: list[Effect] = []
        for promise, cells in self.deferred.pop_due(now.wall):
            self._merge(promise, cells, now, out)
        self._seen.tick(now.monotonic)
        self.near.tick(now)
        return out

    def deadline(self, now: Now) -> float | None:
        """When :meth:`tick` has something to do, on the monotonic clock."""
        due = (self.deferred.deadline(now), self.near.deadline)
        return min((moment for moment in due if moment is not None), default=None)

    # -- writing ---------------------------------------------------------------

    def _put(self, link: LinkId, put: Put, now: Now, out: list[Effect], *, ack: bool = True) -> None:
        cells, wall = put.cells, now.wall
        content = hash(tuple(cells))
        duplicate = self._seen.get(put.id) == content
        if duplicate:
            self.duplicates += 1
        later: dict[float, list[Cell]] = {}
        for cell in cells:
            if cell.state > wall:
                later.setdefault(cell.state, []).append(cell)
        if later:
            # A repeated message is merged again, which changes nothing, and acknowledged again: who repeats
            # it has not heard the first ack. Only what waits for its time must not be held twice.
            if duplicate:
                return
            size = sum(len(c.soul) + len(c.key) + size_of(c.value) for some in later.values() for c in some)
            self.deferred.check(max(later), size, wall, link)
            cells = [cell for cell in cells if cell.state <= wall]
        self._seen.set(put.id, content, now.monotonic)
        promise = _Promise(link, put, len(later), ack)
        if put.marks is not None:
            promise.marks = {
                (cell.soul, cell.key, cell.state): mark
                for cell, mark in zip(put.cells, put.marks, strict=True)
            }
        for state, some in later.items():
            size = sum(len(c.soul) + len(c.key) + size_of(c.value) for c in some)
            self.deferred.push(state, (promise, some), size, link)
        if cells or not later:
            promise.parts += 1
            self._merge(promise, cells, now, out)

    def _merge(self, promise: _Promise, cells: Sequence[Cell], now: Now, out: list[Effect]) -> None:
        """Merge what memory can judge, leave the rest to the disk, and write both as one batch."""
        memory = self.memory
        fresh: list[Cell] = []
        unknown = 0
        for cell in cells:
            soul, key, value, state = cell
            node = memory.node(soul)
            if node is None:
                if not memory.authoritative:
                    unknown += 1
                    fresh.append(cell)
                    continue
                node = memory.ensure(soul)
            known = node.fields.get(key)
            if known is None:
                if not node.complete:
                    unknown += 1
                    fresh.append(cell)
                    continue
            elif not wins(value, state, known[0], known[1]):
                if promise.marks is not None and wins(known[0], known[1], value, state):
                    # It has lost, but perhaps to somebody who did not know of it: the journal is the store's.
                    unknown += 1
                    fresh.append(cell)
                continue
            memory.set(node, key, value, state)
            fresh.append(cell)
        self.ignored += len(cells) - len(fresh)
        if fresh and not unknown:
            self.accepted += len(fresh)
            self.near.tell(promise.origin, promise.put, fresh, now, out)
        self._ticket += 1
        self._writes[self._ticket] = _Write(promise, fresh, not unknown)
        marks = promise.marks
        if marks is None:
            out.append(Persist(self._ticket, fresh))
        else:
            out.append(
                Persist(self._ticket, fresh, [marks[cell.soul, cell.key, cell.state] for cell in fresh])
            )
        memory.evict()

    def persisted(
        self,
        ticket: int,
        kept: Mapping[int, Cell],
        now: Now,
        marks: Callable[[], Sequence[Mark]] | None = None,
    ) -> list[Effect]:
        """A batch is durable. ``kept``: what the store holds instead, for each cell that changed nothing.

        ``marks`` tells the marks that the cells have now, one for each; it is called when a peer wants them.
        """
        out: list[Effect] = []
        write = self._writes.pop(ticket)
        memory, cells = self.memory, write.cells
        late: set[int] = set()
        # A memory with nothing behind it has judged them all, unless it left one to the journal.
        judged = memory.authoritative and write.told
        for index, cell in enumerate(() if judged else cells):
            node = memory.node(cell.soul)
            if node is None:
                # Memory is for what is read. A node that is only written costs none of it.
                continue
            _, key, value, state = kept.get(index, cell)
            known = node.fields.get(key)
            if known is None or wins(value, state, *known):
                memory.set(node, key, value, state)
            elif wins(*known, value, state):
                # Memory has learnt the node meanwhile, and something newer after it; that was told at once.
                late.add(index)
        if not write.told:
            won = [cell for index, cell in enumerate(cells) if index not in kept and index not in late]
            self.accepted += len(won)
            self.ignored += len(kept)
            if won:
                self.near.tell(write.promise.origin, write.promise.put, won, now, out)
            memory.evict()
        if cells and self.near.has_peers:
            all_marks = marks() if marks is not None else None
            places = [index for index in range(len(cells)) if index not in kept]
            if places:
                some = None if all_marks is None else [all_marks[index] for index in places]
                self.near.tell_peers(write.promise.origin, [cells[index] for index in places], some, now, out)
        self._part_done(write.promise, None, out)
        return out

    @property
    def writing(self) -> int:
        """Batches on their way to disk."""
        return len(self._writes)

    def reading(self, link: LinkId) -> int:
        """Reads of one link that wait for the disk, or for room to be sent in."""
        return self.reads.of(link)

    def give_up(self, ticket: int) -> None:
        """A read will not be done, because whoever asked has gone."""
        self.reads.take(ticket)

    def _ask_disk(self, read: Read, out: list[Effect]) -> None:
        self._ticket += 1
        out.append(self.reads.ask(self._ticket, read))

    def is_writing(self, ticket: int) -> bool:
        """True when ``ticket`` belongs to a batch on its way to disk, and not to a read."""
        return ticket in self._writes

    def aborted(self, ticket: int, error: str, now: Now) -> list[Effect]:
        """The store could not do it. A writer is told so, and a reader is not told that there is nothing."""
        out: list[Effect] = []
        write = self._writes.pop(ticket, None)
        if write is None:
            read = self.reads.take(ticket)
            if read.link in self.near:
                out.append(Send((read.link,), Ack(self._ids(), read.get.id, error)))
            return out
        for cell in write.cells:
            # Memory may hold what the disk refused; the next reader shall see what the disk has.
            self.memory.drop(cell.soul)
        self._seen.pop(write.promise.put.id)
        write.promise.parts = 1
        self._part_done(write.promise, error, out)
        return out

    def _part_done(self, promise: _Promise, error: str | None, out: list[Effect]) -> None:
        promise.parts -= 1
        if promise.parts == 0 and promise.ack and promise.source in self.near:
            out.append(Send((promise.source,), Ack(self._ids(), promise.put.id, error)))

    # -- reading ---------------------------------------------------------------

    def _get(self, link: LinkId, get: Get, now: Now, out: list[Effect]) -> None:
        soul, lex, state = get.soul, get.lex, self.near.links[link]
        content = hash(soul) if lex is ALL else hash((soul, lex))
        # A question that comes again, perhaps around a loop, is answered again and not passed on again.
        first = self._seen.get(get.id) != content
        if not first:
            self.duplicates += 1
        if isinstance(soul, SoulRange):
            self._seen.set(get.id, content, now.monotonic)
            self._ask_disk(Read(link, get), out)
            return
        # A LEX over keys subscribes to the whole node, as gun's relays do it. A peer is told all the same:
        # its wishes matter only to the relays that are dialled from here.
        key = lex.exact
        new = (state.role is not Role.PEER or self.near.keeps_relays) and self.near.interest.add(
            state, soul, key
        )
        self._seen.set(get.id, content, now.monotonic)
        memory = self.memory
        node = memory.node(soul)
        if node is None and memory.authoritative:
            found: Fields | None = {}
        elif node is None:
            found = None
        elif key is not None:
            pair = node.fields.get(key)
            found = {key: pair} if pair is not None else {} if node.complete else None
        elif not node.complete:
            found = None
        elif lex.is_all and not lex.reverse:
            found = node.fields
        else:
            found = select(node.fields, lex, None, len(node.fields), maxsize).fields
        if found is None:
            self.misses += 1
            self._ask_disk(Read(link, get, first), out)
        else:
            self.hits += 1
            memo = node if found and node is not None and found is node.fields else None
            nodes = [(soul, found)] if found else ()
            out.append(Send((link,), Answer(self._ids(), get.id, nodes, known=get.known, memo=memo)))
            if not found and first:
                self.near.ask_others(link, get, soul, now, out)
        if first and self.near.has_upstreams:
            self.near.ask_upstream(link, get, soul, key, now, out)
        if new:
            self.near.wanted(link, soul, now, out)

    def fetched(self, ticket: int, page: Page, now: Now) -> list[Effect]:
        """A page has come from disk: answer with it, and ask for the next one."""
        out: list[Effect] = []
        read = self.reads.take(ticket)
        get, link = read.get, read.link
        soul = get.soul
        assert not isinstance(soul, SoulRange)
        most = self.config.node_fields_max
        fields = self.memory.learn(soul, get.lex, page, first=read.after is None, fields_max=most)
        if link not in self.near:
            return out
        nodes = [(soul, fields)] if fields else ()
        more = page.next is not None
        known = get.known if read.after is None and not more else None
        out.append(Send((link,), Answer(self._ids(), get.id, nodes, more, known)))
        if more:
            self._ask_disk(Read(link, get, read.first, page.next), out)
        elif not fields and read.first and read.after is None:
            self.near.ask_others(link, get, soul, now, out)
        return out

    def fetched_souls(self, ticket: int, cells: Sequence[Cell], now: Now) -> list[Effect]:
        """Whole nodes have come from disk for a question about souls."""
        read = self.reads.take(ticket)
        if read.link not in self.near:
            return []
        nodes: dict[Soul, dict[Key, tuple[object, float]]] = {}
        for soul, key, value, state in cells:
            nodes.setdefault(soul, {})[key] = (value, state)
        return [Send((read.link,), Answer(self._ids(), read.get.id, list(nodes.items())))]  # type: ignore[arg-type]

    def _answer(self, link: LinkId, answer: Answer, now: Now, out: list[Effect]) -> None:
        """What a peer answered to a question of ours, or of somebody who asked through us."""
        cells = answer.cells()
        if not cells:
            return
        asker = self.near.asker(answer.re)
        # Peers that hold the same answer alike; one of them is enough (gun-wire 1.6).
        content = hash(tuple(cells))
        if self._seen.get((answer.re, content)) == content:
            self.duplicates += 1
            return
        self._seen.set((answer.re, content), content, now.monotonic)
        self._put(link, Put(self._ids(), cells), now, out, ack=False)
        if asker is None or asker not in self.near or asker == link:
            return
        state = self.near.links[asker]
        if state.role is not Role.LOCAL:
            # gun.js takes an answer whose state is as new as its own without comparing texts (its `miss`).
            nodes = [(soul, self.memory.newest(soul, fields)) for soul, fields in answer.nodes]
            out.append(Send((asker,), Answer(self._ids(), answer.re, nodes, answer.more)))
            return
        # Other peers merge what they are answered. A reader in this program does not, so it gets what the
        # graph has made of the answer, and nothing that is old or not due yet.
        for soul, _ in answer.nodes if not answer.more else ():
            keys = state.wants.get(soul)
            lex = ALL if keys is None else Lex(exact=next(iter(keys)))
            self._ask_disk(Read(asker, Get(answer.re, soul, lex), first=False), out)
