"""The hub: the API of a running graph, for the program that holds it. (shell)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import anyio

from air.base.clock import Now
from air.base.env import Env
from air.base.errors import AirError, Misuse, StoreError, Violation
from air.base.metrics import Counters
from air.graph.effects import Settled
from air.graph.mesh import LinkId, Role
from air.graph.state import Stamps
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import Get, Id, Put
from air.model.value import Value, canonical
from air.store.memory import Memory
from air.store.worker import StoreWorker
from air.sync.exchange import Exchange, ExchangeConfig
from air.sync.local import Acks, Reader, Turns, Watcher
from air.sync.partition import Turn

__all__ = ["STAMP_META", "Hub", "HubConfig", "Receipt"]

_NOBODY: Final[Mapping[Id, State]] = {}

SOUL_CHARS_MAX: Final = 8192
KEY_CHARS_MAX: Final = 8192
VALUE_CHARS_MAX: Final = 16 * 1024 * 1024
"""What both wires take by default."""

STAMP_META = "stamp"
"""Where the store remembers the highest stamp of our own writes, so that stamps rise across restarts."""


@dataclass(frozen=True, slots=True)
class HubConfig(ExchangeConfig):
    put_seconds: float = 60.0
    """How long a local put waits for the disk before it gives up."""
    reach_seconds: float = 10.0
    """How long a local put waits for the peers that shall have it too."""
    upstream_seconds: float = 0.3
    """How long a local get that finds nothing waits for the peers that were asked."""
    watch_fields_max: int = 100_000
    """Changed fields a watcher may leave unread: ``limit.watch``."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A local put that is durable and readable."""

    state: State
    cells: int
    peers: int = 0
    """Dialled peers that had it durable as well when the put returned."""
    refusals: tuple[str, ...] = ()
    """What dialled peers said who refused it for good, as ``code: reason``."""


@dataclass(slots=True)
class _Waiting:
    """A local put that waits for its ack, and for peers to have it too."""

    places: set[tuple[Soul, Key]] = field(default_factory=set)
    peers: int = 0
    news: anyio.Event = field(default_factory=anyio.Event)
    done: bool = False
    error: AirError | None = None
    lacking: dict[str, set[tuple[Soul, Key]]] = field(default_factory=dict)
    """By peer: the fields that it has not taken yet; a peer that has taken none is not here."""
    refusals: list[str] = field(default_factory=list)

    @property
    def reached(self) -> int:
        return sum(not lacking for lacking in self.lacking.values())

    def settled(self, peer: str, place: tuple[Soul, Key]) -> None:
        lacking = self.lacking.get(peer)
        if lacking is None:
            lacking = self.lacking[peer] = set(self.places)
        lacking.discard(place)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """True once ``condition`` holds; False when that takes too long."""
        with anyio.move_on_after(seconds):
            while not condition():
                self.news = anyio.Event()
                await self.news.wait()
        return condition()


class Hub(Exchange):
    """A running graph. Its calls are links of their own to the engine, as those of any peer."""

    config: HubConfig

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
        super().__init__(memory, worker, env or Env(), config or HubConfig(), counters or Counters())
        self.peer_id = peer_id
        self._stamps = stamps
        self._waiting: dict[Id, _Waiting] = {}
        self._reaching: dict[tuple[Soul, Key], dict[Id, State]] = {}
        """Fields whose puts wait for peers, with the state that each of them wrote."""
        self._acks: LinkId = 0
        self._turn_watches: set[Turns] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be at work while the block is open; the store is drained at the end."""
        async with super().running():
            self._acks = self.open_link(Role.LOCAL, Acks(self._heard), "local")
            yield self

    async def put(
        self,
        nodes: Mapping[Soul, Mapping[Key, Value]],
        *,
        peers: int = 0,
        timeout: float | None = None,
    ) -> Receipt:
        """Write some fields of some nodes as one batch; they are durable and readable when this returns.

        All of them get the same state. ``peers``: wait until so many dialled peers have them durable too,
        but no longer than ``timeout`` seconds (HubConfig.reach_seconds); the receipt tells how many had. What
        they have not taken stays owed to them. Raises Misuse for values that no node may hold, AirError with
        the store's code when it refuses, Closed when the hub ends first.
        """
        clock = self.env.clock.now()
        state = self._stamps.next(clock.wall)
        cells = _cells(nodes, state)
        if not cells:
            return Receipt(state, 0)
        # Our own stamps may run ahead of a clock that stands still; they are never the future to us.
        now = Now(clock.monotonic, max(clock.wall, state))
        id = self.ids()
        waiting = self._waiting[id] = _Waiting(peers=peers)
        if peers:
            waiting.places = {(cell.soul, cell.key) for cell in cells}
            for place in waiting.places:
                self._reaching.setdefault(place, {})[id] = state
        try:
            # The stamp rides in the transaction of the write that it is on.
            self.meta = {STAMP_META: repr(state).encode()}
            try:
                self.carry_out(self.engine.receive(self._acks, Put(id, cells), now))
            finally:
                self.meta = None
            await self._durable(waiting)
            if peers:
                seconds = self.config.reach_seconds if timeout is None else timeout
                await waiting.until(
                    lambda: waiting.reached >= peers or len(waiting.refusals) >= peers, seconds
                )
        finally:
            del self._waiting[id]
            for place in waiting.places:
                puts = self._reaching[place]
                del puts[id]
                if not puts:
                    del self._reaching[place]
        return Receipt(state, len(cells), waiting.reached, tuple(waiting.refusals))

    async def merge(self, cells: Sequence[Cell], marks: Sequence[Mark], origin: LinkId = 0) -> None:
        """Merge cells that were written elsewhere; they are durable when this returns.

        ``origin``: the link to the peer that has them, which is not told of them. Cells of the future wait
        for their time without anybody waiting for them; those too far ahead are left out and counted. Raises
        as :meth:`put`.
        """
        now = self.env.clock.now()
        due = [index for index, cell in enumerate(cells) if cell.state <= now.wall]
        if len(due) < len(cells):
            self._merge_later(cells, marks, origin, now)
            cells, marks = [cells[index] for index in due], [marks[index] for index in due]
        if not cells:
            return
        id = self.ids()
        waiting = self._waiting[id] = _Waiting()
        try:
            put = Put(id, cells, marks=marks, origin=origin)
            self.carry_out(self.engine.receive(self._acks, put, now))
            await self._durable(waiting)
        finally:
            del self._waiting[id]

    def _merge_later(self, cells: Sequence[Cell], marks: Sequence[Mark], origin: LinkId, now: Now) -> None:
        for cell, mark in zip(cells, marks, strict=True):
            if cell.state > now.wall:
                try:
                    # A comparison brings it again in each pass until it is due. By its id it is held once.
                    id = f"{cell.soul}/{cell.key}/{cell.state!r}"
                    put = Put(id, [cell], marks=[mark], origin=origin)
                    self.carry_out(self.engine.receive(self._acks, put, now))
                except Violation as error:
                    self.counters.add("air_refused_total", 1, error.code)

    async def _durable(self, waiting: _Waiting) -> None:
        if not await waiting.until(lambda: waiting.done, self.config.put_seconds):
            raise StoreError(
                "the store did not answer in time; the write may still happen", code="store.slow"
            )
        if waiting.error is not None:
            raise waiting.error

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

    @contextmanager
    def turns(self) -> Iterator[AsyncIterator[Turn]]:
        """Each time that the network comes apart or together again, from now on."""
        watch = Turns()
        self._turn_watches.add(watch)
        try:
            yield watch
        finally:
            self._turn_watches.remove(watch)

    def turned(self, turn: Turn) -> None:
        for watch in self._turn_watches:
            watch.add(turn)

    def _heard(self, id: Id, error: AirError | None) -> None:
        waiting = self._waiting.get(id)
        if waiting is not None:
            waiting.error, waiting.done = error, True
            waiting.news.set()

    def settled(self, effect: Settled) -> None:
        if not self._reaching:
            return
        for cell in effect.cells:
            place = (cell.soul, cell.key)
            for id, state in self._reaching.get(place, _NOBODY).items():
                if state > cell.state:
                    continue
                waiting = self._waiting[id]
                if effect.error is None:
                    waiting.settled(effect.peer, place)
                elif effect.error not in waiting.refusals:
                    waiting.refusals.append(effect.error)
                waiting.news.set()


def _cells(nodes: Mapping[Soul, Mapping[Key, Value]], state: State) -> list[Cell]:
    cells = []
    for soul, fields in nodes.items():
        if len(soul) > SOUL_CHARS_MAX:
            raise _too_long(soul, SOUL_CHARS_MAX, "limit.soul")
        for key, raw in fields.items():
            held = canonical(raw)
            if held is None:
                raise Misuse(f"{soul!r} cannot hold {raw!r} at {key!r}", code="graph.bad-value")
            if not soul or not key or key == "__proto__" or key == "_":
                raise Misuse("a soul and a key are text that is not empty", code="graph.bad-name")
            if len(key) > KEY_CHARS_MAX:
                raise _too_long(key, KEY_CHARS_MAX, "limit.key")
            (value,) = held
            if type(value) is str and len(value) > VALUE_CHARS_MAX:
                raise _too_long(value, VALUE_CHARS_MAX, "limit.value")
            cells.append(Cell(soul, key, value, state))
    return cells


def _too_long(text: str, most: int, code: str) -> Misuse:
    """No peer would take it, so it must not be owed to any."""
    return Misuse(f"{len(text)} characters, where {most} are the limit", code=code)
