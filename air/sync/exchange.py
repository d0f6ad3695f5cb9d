"""The exchange: one engine, its store and its links; the engine's effects are carried out here. (shell)

It decides nothing. Messages go into the engine, and the effects that come out are carried out: bytes to
ports, batches and reads to the store's worker in their order, changes to watchers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar, cast

import anyio
from anyio.abc import TaskStatus

from air.base.clock import Now
from air.base.entropy import IdSource
from air.base.env import Env
from air.base.errors import AirError, Full, LimitReached, SyncFailed, Violation
from air.base.metrics import Counters
from air.graph.effects import Effect, Fetch, FetchSouls, Notify, Persist, Send, Settled
from air.graph.engine import Engine, EngineConfig
from air.graph.mesh import LinkId, Role
from air.model.cell import Key, Soul
from air.model.message import Answer, Message, Put
from air.store.batch import AskDone, Failed, ReadDone, Result, ScanDone, Written
from air.store.memory import Memory
from air.store.worker import StoreWorker
from air.sync.api import Port
from air.sync.partition import PartitionConfig, PartitionWatch, Turn
from air.sync.status import LinkInfo, describe

__all__ = ["Exchange", "ExchangeConfig"]

log = logging.getLogger("air.hub")

T = TypeVar("T")

_WATCHED: Final = frozenset({Role.OUTBOUND, Role.PEER})
"""Links whose loss may mean that the network has come apart."""

_NAP_SECONDS = 5.0
"""The longest that the engine is not asked whether something is due."""


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    engine: EngineConfig = field(default_factory=EngineConfig)
    high_bytes: int = 1024 * 1024
    """A link with more than this waiting gets no further pages, and is not read from."""
    queued_bytes_max: int = 64 * 1024 * 1024
    """A link that lets more than this pile up is cut: ``limit.outbox``."""
    partition: PartitionConfig = field(default_factory=PartitionConfig)


@dataclass(slots=True)
class _Link:
    role: Role
    port: Port
    address: str
    opened: float
    name: str = ""
    messages_in: int = 0
    messages_out: int = 0
    cells_in: int = 0
    parked: list[Fetch] = field(default_factory=list)
    """Pages that are read once the port has drained."""


@dataclass(eq=False, slots=True)
class _Question:
    """Somebody waits for what the store says."""

    done: anyio.Event = field(default_factory=anyio.Event)
    answer: Any = None
    error: AirError | None = None

    def answered(self, result: Result) -> None:
        if isinstance(result, AskDone):
            self.answer = result.answer
        elif isinstance(result, Failed):
            self.error = result.error
        self.done.set()


class Exchange:
    """An engine at work. ``worker`` None: ``memory`` is all there is, and nothing outlives the process."""

    def __init__(
        self,
        memory: Memory,
        worker: StoreWorker | None,
        env: Env,
        config: ExchangeConfig,
        counters: Counters,
    ) -> None:
        self.config = config
        self.env = env
        self.counters = counters
        self.ids = IdSource(env.entropy)
        self.memory = memory
        self.engine = Engine(memory, self.ids, config.engine, counters)
        self.messages = 0
        """Messages taken from links so far."""
        self.broken: str | None = None
        """Why writes are refused at the moment, or None."""
        self.meta: dict[str, bytes] | None = None
        """What goes into the store with the batches that are written now."""
        self.partition = PartitionWatch(config.partition)
        self._worker = worker
        self._links: dict[LinkId, _Link] = {}
        self._next_link = 0
        self._alarm = anyio.Event()
        self._stopping: anyio.Event | None = None
        describe(counters, self.engine, self.partition, lambda: len(self.links()))

    # -- running ---------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the store's worker and the clock while the block is open; drain the store at the end."""
        async with anyio.create_task_group() as tasks:
            if self._worker is not None:
                await tasks.start(self._worker.run, self._results)
            await tasks.start(self._clock)
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
            self._alarm = anyio.Event()
            with anyio.move_on_after(self.nap(now)):
                await self._alarm.wait()
            self.tick(self.env.clock.now())

    def tick(self, now: Now) -> None:
        """Do what is due."""
        self.carry_out(self.engine.tick(now))
        self._look_around(now)

    def nap(self, now: Now) -> float:
        """Seconds until the engine is to be woken. Not for ever: each write that is sent sets a deadline."""
        deadlines = (self.engine.deadline(now), self.partition.deadline(now))
        deadline = min((one for one in deadlines if one is not None), default=None)
        return _NAP_SECONDS if deadline is None else min(max(deadline - now.monotonic, 0), _NAP_SECONDS)

    def _look_around(self, now: Now) -> None:
        """Say so when the network comes apart, and when it is whole again."""
        turn = self.partition.tick(now)
        if turn is not None:
            level = logging.WARNING if turn.split else logging.INFO
            text = "the network has come apart" if turn.split else "the network is whole again"
            log.log(level, text, extra={"missing": list(turn.missing), "seconds": round(turn.seconds, 3)})
            self.turned(turn)

    def turned(self, turn: Turn) -> None:
        """The network has come apart, or together again: for the program that wants to know."""

    # -- links -----------------------------------------------------------------

    def open_link(
        self, role: Role, port: Port, address: str, name: str = "", *, dialled: bool | None = None
    ) -> LinkId:
        """Connect a port. Whatever the engine owes this peer is queued at once.

        ``name`` tells which peer is behind a link of role OUTBOUND or PEER. ``dialled``: this program brings
        the link back when it ends, so the peer is missed whatever it said; None: when it is OUTBOUND.
        """
        self._next_link += 1
        link, now = self._next_link, self.env.clock.now()
        self._links[link] = _Link(role, port, address, now.monotonic, name=name)
        self.carry_out(self.engine.attach(link, role, now, name))
        if role in _WATCHED:
            self.partition.up(name, now, dialled=role is Role.OUTBOUND if dialled is None else dialled)
            self._look_around(now)
            self._alarm.set()
        return link

    def close_link(self, link: LinkId, *, goodbye: bool = False) -> None:
        """A port is gone; ``goodbye``: the other end said that it would leave."""
        self.engine.detach(link)
        entry = self._links.pop(link, None)
        if entry is None:
            return
        for fetch in entry.parked:
            self.engine.give_up(fetch.ticket)
        if entry.role in _WATCHED:
            self.partition.down(entry.name, self.env.clock.now(), goodbye=goodbye)
            self._alarm.set()

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
            if type(message) is Put:
                entry.cells_in += len(message.cells)
            elif type(message) is Answer:
                entry.cells_in += sum(len(fields) for _, fields in message.nodes)
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

    def tell_wishes(self, link: LinkId) -> None:
        """A peer asks relays for what it is asked for: tell it what is wanted here, now and later."""
        self.carry_out(self.engine.tell_wishes(link))

    def subscribe(self, link: LinkId, prefix: str) -> None:
        """Tell a link of every node whose soul starts with ``prefix`` from now on. Raises LimitReached."""
        self.engine.subscribe(link, prefix)

    def unsubscribe(
        self, link: LinkId, soul: Soul | None = None, key: Key | None = None, *, prefix: str | None = None
    ) -> None:
        """A link wants no more to be told of a node, of one field of it, or of a prefix."""
        self.engine.unsubscribe(link, soul, key, prefix=prefix)

    async def room(self) -> None:
        """Wait until the store takes more: a reader awaits this between batches. For ever once we stop."""
        if self._stopping is not None:
            await anyio.sleep_forever()
        if self._worker is not None:
            await self._worker.room()

    async def ask(self, question: Callable[[Any], T], /) -> T:
        """What ``question`` returns for the store, asked on the store's thread behind all that was written.

        For short questions: everything else waits meanwhile. Raises what it raises, and Closed at the end.
        """
        if self._worker is None:
            return question(self.memory)
        token = _Question()
        self._worker.ask(token, question)
        await token.done.wait()
        if token.error is not None:
            raise token.error
        return cast(T, token.answer)

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
            elif kind is Settled:
                self.settled(effect)  # type: ignore[arg-type]

    def settled(self, effect: Settled) -> None:
        """A dialled peer has taken a write: for the program that waits for it."""

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
            self._worker.write(persist.ticket, persist.cells, meta=self.meta, marks=persist.marks)

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
            kind, token = type(result), result.token
            if type(token) is _Question:
                token.answered(result)
                continue
            ticket = cast(int, token)
            if kind is Written:
                self.broken = None
                written = cast(Written, result)
                effects = engine.persisted(ticket, written.kept, now, written.marks)
            elif kind is ReadDone:
                effects = engine.fetched(ticket, cast(ReadDone, result).page, now)
            elif kind is ScanDone:
                effects = engine.fetched_souls(ticket, cast(ScanDone, result).page.cells, now)
            else:
                error = cast(Failed, result).error
                self.counters.add("air_store_errors_total", 1, error.code)
                log.error("the store failed", extra={"code": error.code, "reason": str(error)})
                # A store that refuses all writes comes back by itself, and the worker knows how it is.
                if engine.is_writing(ticket) and not isinstance(error, Full | SyncFailed):
                    self.broken = error.code
                effects = engine.aborted(ticket, f"{error.code}: {error}", now)
            self.carry_out(effects)
        if self._stopping is not None:
            self._stopping.set()

    # -- for operators ----------------------------------------------------------

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
                cells_in=entry.cells_in,
                subscriptions=self.engine.near.links[link].wants_count,
                queued_bytes=entry.port.queued_bytes,
            )
            for link, entry in self._links.items()
            if entry.role is not Role.LOCAL
        ]

    def health(self) -> dict[str, object]:
        """``status`` is ``ok``, ``degraded`` while the store refuses writes, ``damaged`` when data is lost.

        A ``split`` of the network leaves it ``ok``: this peer serves as well as before, and to restart it
        would help nobody.
        """
        refusing = None if self._worker is None else self._worker.refusing
        store = refusing or self.broken or "ok"
        damaged, lost = (0, 0) if self._worker is None else (self._worker.damaged, self._worker.lost)
        links, split = self.links(), self.partition.split
        return {
            "status": "degraded" if store != "ok" else "damaged" if damaged or lost else "ok",
            "store": store,
            "damaged": damaged,
            "lost": lost,
            "links": {
                role.value: sum(1 for link in links if link.role == role.value)
                for role in (Role.INBOUND, Role.OUTBOUND, Role.PEER)
            },
            "split": None
            if split is None
            else {"since": split.since, "missing": list(split.missing), "expected": split.expected},
            "owed": self.engine.near.owed(),
            "deferred": len(self.engine.deferred),
        }
