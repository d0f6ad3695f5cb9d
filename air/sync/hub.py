"""The hub: one engine, its store, its links, and the API of a running graph. (shell)

It decides nothing. Messages go into the engine, and the effects that come out are carried out: bytes to
ports, batches and reads to the store's worker in their order, changes to watchers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import anyio
from anyio.abc import TaskStatus

from air.base.clock import Now
from air.base.entropy import IdSource
from air.base.env import Env
from air.base.errors import AirError, LimitReached, Misuse, StoreError, Violation
from air.base.metrics import Counters
from air.graph.effects import Effect, Fetch, FetchSouls, Notify, Persist, Send
from air.graph.engine import Engine, EngineConfig
from air.graph.mesh import LinkId, Role
from air.graph.state import Stamps
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import ALL, Lex
from air.model.message import Get, Id, Message, Put
from air.model.value import Value, canonical
from air.store.batch import Failed, ReadDone, Result, ScanDone, Written
from air.store.memory import Memory
from air.store.worker import StoreWorker
from air.sync.api import Port
from air.sync.local import Acks, Reader, Watcher

__all__ = ["STAMP_META", "Hub", "HubConfig", "LinkInfo", "Receipt"]

log = logging.getLogger("air.hub")


@dataclass(frozen=True, slots=True)
class HubConfig:
    engine: EngineConfig = field(default_factory=EngineConfig)
    high_bytes: int = 1024 * 1024
    """A link with more than this waiting gets no further pages, and is not read from."""
    queued_bytes_max: int = 64 * 1024 * 1024
    """A link that lets more than this pile up is cut: ``limit.outbox``."""
    put_seconds: float = 60.0
    """How long a local put waits for the disk before it gives up."""
    upstream_seconds: float = 0.3
    """How long a local get that finds nothing waits for the peers that were asked."""
    watch_fields_max: int = 100_000
    """Changed fields a watcher may leave unread: ``limit.watch``."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A local put that is durable and readable."""

    state: State
    cells: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link as an operator sees it."""

    id: LinkId
    role: str
    address: str
    peer: str
    opened_seconds: float
    messages_in: int
    messages_out: int
    subscriptions: int
    queued_bytes: int


@dataclass(slots=True)
class _Link:
    role: Role
    port: Port
    address: str
    opened: float
    messages_in: int = 0
    messages_out: int = 0
    parked: list[Fetch] = field(default_factory=list)
    """Pages that are read once the port has drained."""


STAMP_META = "stamp"
"""Where the store remembers the highest stamp of our own writes, so that stamps rise across restarts."""


@dataclass(slots=True)
class _Waiting:
    """A local put that waits for its ack."""

    done: anyio.Event = field(default_factory=anyio.Event)
    error: AirError | None = None


class Hub:
    """A running graph. ``worker`` None: ``memory`` is all there is, and nothing outlives the process."""

    def __init__(
        self,
        memory: Memory,
        worker: StoreWorker | None,
        peer_id: str,
        stamps: Stamps,
        env: Env | None = None,
        config: HubConfig | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.config = config or HubConfig()
        self.env = env or Env()
        self.peer_id = peer_id
        self.counters = counters or Counters()
        self.ids = IdSource(self.env.entropy)
        self.memory = memory
        self.engine = Engine(memory, self.ids, self.config.engine, self.counters)
        self._worker = worker
        self._stamps = stamps
        self._links: dict[LinkId, _Link] = {}
        self._next_link = 0
        self._waiting: dict[Id, _Waiting] = {}
        self._alarm = anyio.Event()
        self._acks: LinkId = 0
        self._meta: dict[str, bytes] | None = None
        self._stopping: anyio.Event | None = None
        self.messages = 0
        """Messages taken from links so far."""
        self.broken: str | None = None
        """Why writes are refused at the moment, or None."""
        self._describe()

    # -- running ---------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hub]:
        """Run the store's worker and the clock while the block is open; drain the store at the end."""
        async with anyio.create_task_group() as tasks:
            if self._worker is not None:
                await tasks.start(self._worker.run, self._results)
            await tasks.start(self._clock)
            self._acks = self.open_link(Role.LOCAL, Acks(self._heard), "local")
            try:
                yield self
            finally:
                if self._worker is not None:
                    with anyio.CancelScope(shield=True):
                        await self._worker.aclose()
                tasks.cancel_scope.cancel()

    async def _clock(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Wake the engine when something is due."""
        task_status.started()
        while True:
            now = self.env.clock.now()
            deadline = self.engine.deadline(now)
            self._alarm = anyio.Event()
            with anyio.move_on_after(None if deadline is None else max(deadline - now.monotonic, 0)):
                await self._alarm.wait()
            now = self.env.clock.now()
            self.carry_out(self.engine.tick(now))

    # -- links -----------------------------------------------------------------

    def open_link(self, role: Role, port: Port, address: str, name: str = "") -> LinkId:
        """Connect a port. Whatever the engine owes this peer is queued at once."""
        self._next_link += 1
        link, now = self._next_link, self.env.clock.now()
        self._links[link] = _Link(role, port, address, now.monotonic)
        self.carry_out(self.engine.attach(link, role, now, name))
        if role is Role.OUTBOUND:
            self._alarm.set()
        return link

    def close_link(self, link: LinkId) -> None:
        self.engine.detach(link)
        self._links.pop(link, None)

    def greeted(self, link: LinkId, peer: str) -> None:
        """The other end of a link has said something of itself."""
        self.carry_out(self.engine.greeted(link, peer, self.env.clock.now()))

    def receive(self, link: LinkId, messages: Iterable[Message]) -> None:
        """Take a batch of messages from a link; what is refused is answered on its port."""
        entry, engine, now = self._links[link], self.engine, self.env.clock.now()
        held = len(engine.deferred)
        for message in messages:
            entry.messages_in += 1
            self.messages += 1
            try:
                effects = engine.receive(link, message, now)
            except Violation as error:
                log.info("refused", extra={"code": error.code, "link": link, "peer": entry.port.peer})
                entry.port.refuse(message.id, error)
                entry.port.wake()
                continue
            if effects:
                self.carry_out(effects)
        if len(engine.deferred) > held:
            self._alarm.set()

    async def room(self) -> None:
        """Wait until the store takes more: a reader awaits this between batches. For ever once we stop."""
        if self._stopping is not None:
            await anyio.sleep_forever()
        if self._worker is not None:
            await self._worker.room()

    async def quiesce(self, seconds: float) -> None:
        """Take nothing more from links, and let what they wrote be written and acknowledged."""
        self._stopping = anyio.Event()
        with anyio.move_on_after(seconds, shield=True):
            while self.engine.writing or any(entry.port.queued_bytes for entry in self._links.values()):
                self._stopping = anyio.Event()
                await self._stopping.wait()

    def drained(self, link: LinkId) -> None:
        """A port has sent what it had: read the pages that waited for it."""
        if self._stopping is not None:
            self._stopping.set()
        entry = self._links.get(link)
        if entry is not None and entry.parked:
            parked, entry.parked = entry.parked, []
            self.carry_out(parked)

    # -- effects ---------------------------------------------------------------

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                self._send(effect)  # type: ignore[arg-type]
            elif kind is Persist:
                self._persist(effect)  # type: ignore[arg-type]
            elif kind is Fetch:
                self._fetch(effect)  # type: ignore[arg-type]
            elif kind is Notify:
                for watcher in effect.watchers:  # type: ignore[union-attr]
                    self._links[watcher].port.changed(effect.cells)  # type: ignore[union-attr]
            elif kind is FetchSouls:
                self._fetch_souls(effect)  # type: ignore[arg-type]

    def _send(self, send: Send) -> None:
        links, message = self._links, send.message
        if len(send.links) == 1:
            entry = links.get(send.links[0])
            if entry is not None:
                self._queue(entry, entry.port.codec.encode(message, (entry.port.peer,)))
            return
        entries = [links[link] for link in send.links if link in links]
        peers = [entry.port.peer for entry in entries]
        encoded: dict[int, list[bytes]] = {}
        for entry in entries:
            codec = entry.port.codec
            bytes_ = encoded.get(id(codec))
            if bytes_ is None:
                bytes_ = encoded[id(codec)] = codec.encode(message, peers)
            self._queue(entry, bytes_)

    def _queue(self, entry: _Link, messages: list[bytes]) -> None:
        port = entry.port
        port.queue(messages)
        entry.messages_out += len(messages)
        port.wake()
        if port.queued_bytes > self.config.queued_bytes_max:
            port.cut(
                LimitReached("this peer does not read what it asked for", code="limit.outbox", fatal=True)
            )

    def _persist(self, persist: Persist) -> None:
        if self._worker is None:
            self.carry_out(self.engine.persisted(persist.ticket, {}, self.env.clock.now()))
        else:
            self._worker.write(persist.ticket, persist.cells, meta=self._meta)

    def _fetch(self, fetch: Fetch) -> None:
        entry = self._links.get(fetch.link)
        if entry is not None and entry.port.queued_bytes > self.config.high_bytes:
            entry.parked.append(fetch)
        elif self._worker is None:
            page = self.memory.read(fetch.soul, fetch.lex, after=fetch.after)
            self.carry_out(self.engine.fetched(fetch.ticket, page, self.env.clock.now()))
        else:
            self._worker.read(fetch.ticket, fetch.soul, fetch.lex, after=fetch.after)

    def _fetch_souls(self, fetch: FetchSouls) -> None:
        if self._worker is None:
            cells = self.memory.scan(fetch.range)
            self.carry_out(self.engine.fetched_souls(fetch.ticket, cells, self.env.clock.now()))
        else:
            self._worker.scan(fetch.ticket, fetch.range)

    def _results(self, results: Sequence[Result]) -> None:
        """What the store's worker has done, in the order it was asked for."""
        engine, now = self.engine, self.env.clock.now()
        for result in results:
            kind, ticket = type(result), cast(int, result.token)
            if kind is Written:
                self.broken = None
                effects = engine.persisted(ticket, cast(Written, result).kept, now)
            elif kind is ReadDone:
                effects = engine.fetched(ticket, cast(ReadDone, result).page, now)
            elif kind is ScanDone:
                effects = engine.fetched_souls(ticket, cast(ScanDone, result).page.cells, now)
            else:
                error = cast(Failed, result).error
                self.counters.add("air_store_errors_total", 1, error.code)
                log.error("the store failed", extra={"code": error.code, "reason": str(error)})
                if engine.is_writing(ticket):
                    self.broken = error.code
                effects = engine.aborted(ticket, f"{error.code}: {error}", now)
            self.carry_out(effects)
        if self._stopping is not None:
            self._stopping.set()

    # -- the graph, for this program -------------------------------------------

    async def put(self, nodes: Mapping[Soul, Mapping[Key, Value]]) -> Receipt:
        """Write some fields of some nodes as one batch; they are durable and readable when this returns.

        All of them get the same state. Raises Misuse for values that no node may hold, AirError with the
        store's code when it refuses, Closed when the hub ends first.
        """
        clock = self.env.clock.now()
        state = self._stamps.next(clock.wall)
        cells = _cells(nodes, state)
        if not cells:
            return Receipt(state, 0)
        # Our own stamps may run ahead of a clock that stands still; they are never the future to us.
        now = Now(clock.monotonic, max(clock.wall, state))
        id = self.ids()
        waiting = self._waiting[id] = _Waiting()
        try:
            # The stamp rides in the transaction of the write that it is on.
            self._meta = {STAMP_META: repr(state).encode()}
            try:
                self.carry_out(self.engine.receive(self._acks, Put(id, cells), now))
            finally:
                self._meta = None
            with anyio.move_on_after(self.config.put_seconds):
                await waiting.done.wait()
        finally:
            del self._waiting[id]
        if not waiting.done.is_set():
            raise StoreError(
                "the store did not answer in time; the write may still happen", code="store.slow"
            )
        if waiting.error is not None:
            raise waiting.error
        return Receipt(state, len(cells))

    async def pages(self, soul: Soul, lex: Lex = ALL) -> AsyncIterator[Fields]:
        """The fields of a node, page by page; no page when there is nothing."""
        reader = Reader()
        link = self.open_link(Role.LOCAL, reader, "local")
        try:
            self.receive(link, [Get(self.ids(), soul, lex)])
            answer = await reader.next()
            if answer is not None and not answer.nodes and self.engine.near.has_upstreams:
                # Nothing here, but others were asked. What they know comes as a further answer.
                answer = await reader.next(self.config.upstream_seconds)
            while answer is not None:
                for _, fields in answer.nodes:
                    yield fields
                if not answer.more:
                    break
                self.drained(link)
                answer = await reader.next()
        finally:
            self.close_link(link)

    async def get(self, soul: Soul, lex: Lex = ALL) -> Fields:
        """The fields of a node that ``lex`` means; {} when there is nothing."""
        found: dict[Key, tuple[Value, State]] = {}
        async for fields in self.pages(soul, lex):
            found.update(fields)
        return found

    @asynccontextmanager
    async def watch(self, soul: Soul, key: Key | None = None) -> AsyncIterator[AsyncIterator[list[Cell]]]:
        """What is there, then every change, as lists of cells. A slow reader gets the newest values only."""
        watcher = Watcher(soul, key, self.config.watch_fields_max)
        link = self.open_link(Role.LOCAL, watcher, "local")
        try:
            self.receive(link, [Get(self.ids(), soul, ALL if key is None else Lex(exact=key))])
            yield watcher
        finally:
            self.close_link(link)

    def links(self) -> list[LinkInfo]:
        """Every link to another peer."""
        now = self.env.clock.now().monotonic
        return [
            LinkInfo(
                id=link,
                role=entry.role.value,
                address=entry.address,
                peer=entry.port.peer,
                opened_seconds=now - entry.opened,
                messages_in=entry.messages_in,
                messages_out=entry.messages_out,
                subscriptions=self.engine.near.links[link].wants_count,
                queued_bytes=entry.port.queued_bytes,
            )
            for link, entry in self._links.items()
            if entry.role is not Role.LOCAL
        ]

    def health(self) -> dict[str, object]:
        """``status`` is ``ok``, or ``degraded`` while the store refuses writes."""
        store = self.broken or "ok"
        links = self.links()
        return {
            "status": "ok" if self.broken is None else "degraded",
            "store": store,
            "links": {
                role.value: sum(1 for link in links if link.role == role.value)
                for role in (Role.INBOUND, Role.OUTBOUND)
            },
            "owed": self.engine.near.owed(),
            "deferred": len(self.engine.deferred),
        }

    def _heard(self, id: Id, error: AirError | None) -> None:
        waiting = self._waiting.get(id)
        if waiting is not None:
            waiting.error = error
            waiting.done.set()

    def _describe(self) -> None:
        engine, memory, counters = self.engine, self.memory, self.counters
        counters.describe("air_refused_total", "Messages refused, by code.", "code")
        counters.describe("air_peer_errors_total", "Errors that peers reported to us.")
        counters.describe("air_cut_total", "Links that were cut, by code.", "code")
        counters.describe("air_store_errors_total", "Batches and reads the store failed, by code.", "code")
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "air_cells_accepted": ("Fields that won and were kept.", lambda: engine.accepted),
            "air_cells_ignored": ("Fields that were old, equal or lower.", lambda: engine.ignored),
            "air_duplicates": ("Messages that had been seen.", lambda: engine.duplicates),
            "air_cache_hits": ("Reads answered from memory.", lambda: engine.hits),
            "air_cache_misses": ("Reads that went to disk.", lambda: engine.misses),
            "air_cache_bytes": ("Memory that nodes take.", lambda: memory.bytes),
            "air_cache_nodes": ("Nodes in memory.", lambda: len(memory)),
            "air_cache_evicted": ("Nodes that had to leave memory.", lambda: memory.evicted),
            "air_deferred": ("Writes that wait for their time.", lambda: len(engine.deferred)),
            "air_subscribed_nodes": (
                "Nodes that somebody wants to hear of.",
                lambda: len(engine.near.interest),
            ),
            "air_owed_cells": ("Fields that a dialled peer has not acknowledged.", engine.near.owed),
            "air_owed_dropped": ("Owed fields that were given up, to stay in bounds.", engine.near.dropped),
            "air_owed_refused": ("Writes that a dialled peer refused.", lambda: engine.near.refused),
            "air_links": ("Links to other peers.", lambda: len(self.links())),
        }
        for name, (help, read) in gauges.items():
            counters.gauge(name, help, read)


def _cells(nodes: Mapping[Soul, Mapping[Key, Value]], state: State) -> list[Cell]:
    cells = []
    for soul, fields in nodes.items():
        for key, raw in fields.items():
            value = canonical(raw)
            if value is None:
                raise Misuse(f"{soul!r} cannot hold {raw!r} at {key!r}", code="graph.bad-value")
            if not soul or not key or key == "__proto__" or key == "_":
                raise Misuse("a soul and a key are text that is not empty", code="graph.bad-name")
            cells.append(Cell(soul, key, value[0], state))
    return cells
