"""The hub: the API of a running graph, for the program that holds it. (shell)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import anyio

from air.base.clock import Now
from air.base.env import Env
from air.base.errors import AirError, Misuse, StoreError
from air.base.metrics import Counters
from air.graph.mesh import LinkId, Role
from air.graph.state import Stamps
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import ALL, Lex
from air.model.message import Get, Id, Put
from air.model.value import Value, canonical
from air.store.memory import Memory
from air.store.worker import StoreWorker
from air.sync.exchange import Exchange, ExchangeConfig
from air.sync.local import Acks, Reader, Watcher

__all__ = ["STAMP_META", "Hub", "HubConfig", "Receipt"]

STAMP_META = "stamp"
"""Where the store remembers the highest stamp of our own writes, so that stamps rise across restarts."""


@dataclass(frozen=True, slots=True)
class HubConfig(ExchangeConfig):
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


@dataclass(slots=True)
class _Waiting:
    """A local put that waits for its ack."""

    done: anyio.Event = field(default_factory=anyio.Event)
    error: AirError | None = None


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
        self._acks: LinkId = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Be at work while the block is open; the store is drained at the end."""
        async with super().running():
            self._acks = self.open_link(Role.LOCAL, Acks(self._heard), "local")
            yield self

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
            self.meta = {STAMP_META: repr(state).encode()}
            try:
                self.carry_out(self.engine.receive(self._acks, Put(id, cells), now))
            finally:
                self.meta = None
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

    def _heard(self, id: Id, error: AirError | None) -> None:
        waiting = self._waiting.get(id)
        if waiting is not None:
            waiting.error = error
            waiting.done.set()


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
