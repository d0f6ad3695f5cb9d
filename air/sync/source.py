"""A hub as what the graph API reads from and writes to. (shell)"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from anyio import Event, move_on_after
from anyio.lowlevel import checkpoint

from air.base.errors import AirError
from air.graph.api import Receipt
from air.graph.effects import Send, Settled
from air.graph.mesh import LinkId, Role
from air.model.cell import Fields, Key, Soul
from air.model.lex import ALL, Lex
from air.model.message import Answer, Get, Id, Message
from air.model.value import Value
from air.sync.api import Port
from air.sync.hub import Hub
from air.sync.local import Lookout

__all__ = ["AskingHub", "HubSource", "SourceConfig"]

log = logging.getLogger("air.open")

_ABOVE: Final = (Role.OUTBOUND, Role.PEER)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    peers_first: bool = False
    """Dialled peers are asked before anything is taken for all there is: this graph is a view of theirs."""
    answer_seconds: float = 5.0
    """How long a read of such a view waits for the answer of a peer."""
    late_seconds: float = 0.1
    """How long a peer that has nothing itself may still pass on what others answer it."""
    hot_max: int = 100_000
    """Fields and nodes remembered as answered on the present connection; what is forgotten is asked again."""


class AskingHub(Hub):
    """A hub that knows which of its questions were answered by the peers that it dials."""

    view: SourceConfig = SourceConfig()
    started = False
    """The first connection was made, or waited for long enough."""

    def begin(self, config: SourceConfig) -> None:
        """Take settings; before anything is asked."""
        self.view = config
        self.above: set[LinkId] = set()
        """Links to peers that we dialled."""
        self.books: dict[int, _Book] = {}
        self.orphans: deque[_Book] = deque()
        """Books that were closed in another thread."""
        self._expected: dict[Id, tuple[_Book, Id, Soul, Key | None]] = {}
        self._hot: set[tuple[Soul, Key | None]] = set()
        self._evicted = 0
        self._news = Event()

    @property
    def on_disk(self) -> bool:
        """What peers answer is merged with the disk before it is told."""
        return self._worker is not None

    async def first_connection(self, seconds: float) -> None:
        """Wait for a peer that we dial, so long at most."""
        with move_on_after(seconds):
            while not self.above:
                self._news = Event()
                await self._news.wait()
        self.started = True

    async def settle_debts(self, seconds: float) -> None:
        """Wait until peers that are connected have taken what is owed to them, so long at most."""
        near = self.engine.near
        with move_on_after(seconds, shield=True):
            while self.above and near.owed():
                self._news = Event()
                await self._news.wait()
        if self.view.peers_first and near.owed():
            log.warning("writes that no peer has acknowledged are lost", extra={"fields": near.owed()})

    def settled(self, effect: Settled) -> None:
        super().settled(effect)
        self._news.set()

    def open_link(
        self, role: Role, port: Port, address: str, name: str = "", *, dialled: bool | None = None
    ) -> LinkId:
        link = super().open_link(role, port, address, name, dialled=dialled)
        if role in _ABOVE:
            self.started = True
            self.above.add(link)
            self._news.set()
            for book in list(self.books.values()):
                book.connected()
        return link

    def close_link(self, link: LinkId, *, goodbye: bool = False) -> None:
        super().close_link(link, goodbye=goodbye)
        if link in self.above:
            self.above.remove(link)
            self._news.set()
            if not self.above:
                self._hot.clear()
                for book in list(self.books.values()):
                    book.lookout.wake_up()

    def receive(self, link: LinkId, messages: Iterable[Message]) -> None:
        if not self._expected:
            super().receive(link, messages)
            return
        messages = list(messages)
        super().receive(link, messages)
        for message in messages:
            if type(message) is Answer and not message.more:
                expected = self._expected.pop(message.re, None)
                if expected is not None:
                    book, id, soul, key = expected
                    if len(self._hot) >= self.view.hot_max:
                        self._hot.clear()
                    self._hot.add((soul, key))
                    book.answered_there(id, len(message.nodes))

    def is_hot(self, soul: Soul, key: Key | None) -> bool:
        """A dialled peer has answered for this on the present connection, and tells us whatever changes."""
        if self.memory.evicted != self._evicted:
            # What was told may be gone again.
            self._evicted = self.memory.evicted
            self._hot.clear()
        return (soul, None) in self._hot or (soul, key) in self._hot

    def expect(self, asked: Id, book: _Book, id: Id, soul: Soul, key: Key | None) -> None:
        """The answer to ``asked`` counts for ask ``id`` of a book."""
        self._expected[asked] = (book, id, soul, key)

    def expect_no_more(self, asked: Id) -> None:
        self._expected.pop(asked, None)

    def ask_above(self, soul: Soul, key: Key | None) -> Id:
        """Ask dialled peers once more than the engine found worth while."""
        id = self.ids()
        self.carry_out([Send(tuple(self.above), Get(id, soul, _lex(key)))])
        return id


@dataclass(slots=True)
class _Ask:
    soul: Soul
    key: Key | None
    due: float
    asked: Id | None = None
    """The id under which dialled peers were asked."""
    here: int = 1
    """Answers of this program's own that are still to come."""
    there: bool = False


class _Book:
    """What one lookout has asked, of this program and of the peers that it dials."""

    def __init__(self, hub: AskingHub, seconds: float | None, hasty: bool) -> None:
        self._hub, self._hasty = hub, hasty
        view = hub.view
        self._seconds = seconds
        if seconds is None:
            self._seconds = view.answer_seconds if view.peers_first else hub.config.upstream_seconds
        self._asks: dict[Id, _Ask] = {}
        self._late: dict[Id, float] = {}
        """Peers have nothing, but may have asked others."""
        self.unanswered = False
        self._thread = threading.get_ident()
        self.lookout = Lookout(self, hub.config.watch_fields_max)
        self._link = hub.open_link(Role.LOCAL, self.lookout, "local")
        hub.books[self._link] = self

    # -- asking ------------------------------------------------------------------

    def ask(self, soul: Soul, key: Key | None) -> None:
        hub, id = self._hub, self._hub.ids()
        assert self._seconds is not None
        ask = self._asks[id] = _Ask(soul, key, self._now() + self._seconds)
        hub.receive(self._link, [Get(id, soul, _lex(key))])
        if hub.engine.near.asker(id) == self._link and hub.above:
            ask.asked = id
            hub.expect(id, self, id, soul, key)
        elif not hub.view.peers_first or hub.is_hot(soul, key):
            ask.there = True
        elif hub.above:
            self._ask_above(id, ask)
        self._check(id, ask)

    def _ask_above(self, id: Id, ask: _Ask) -> None:
        ask.asked = self._hub.ask_above(ask.soul, ask.key)
        self._hub.expect(ask.asked, self, id, ask.soul, ask.key)

    def connected(self) -> None:
        """A peer has come (back) that can be asked."""
        if self._hub.view.peers_first:
            for id, ask in list(self._asks.items()):
                if not ask.there:
                    self._forget(ask)
                    self._ask_above(id, ask)
        self.lookout.wake_up()

    def leave(self, soul: Soul, key: Key | None, others: Collection[Key | None]) -> None:
        for id, ask in list(self._asks.items()):
            if (ask.soul, ask.key) == (soul, key):
                self._close(id, ask)
        if key is not None:
            if None not in others:
                self._hub.unsubscribe(self._link, soul, key)
            return
        self._hub.unsubscribe(self._link, soul)
        for other in others:
            self._hub.receive(self._link, [Get(self._hub.ids(), soul, _lex(other))])

    # -- answers -----------------------------------------------------------------

    def answered_here(self, id: Id, *, empty: bool) -> None:
        self._late.pop(id, None)
        ask = self._asks.get(id)
        if ask is not None:
            ask.here = max(ask.here - 1, 0)
            if not empty and not self._hub.view.peers_first:
                ask.there = True
            self._check(id, ask)

    def answered_there(self, id: Id, nodes: int) -> None:
        ask = self._asks.get(id)
        if ask is not None:
            if ask.asked == id and self._hub.on_disk:
                # The answer is on its way through the disk; what came of it is answered here once more.
                ask.here += nodes
            ask.asked, ask.there = None, True
            if not nodes and not self._hasty:
                self._late[id] = self._now() + self._hub.view.late_seconds
            self._check(id, ask)
        self.lookout.wake_up()

    def _check(self, id: Id, ask: _Ask) -> None:
        if not ask.here and ask.there and id in self._asks:
            self._close(id, ask)

    def _close(self, id: Id, ask: _Ask) -> None:
        self._forget(ask)
        del self._asks[id]

    def _forget(self, ask: _Ask) -> None:
        if ask.asked is not None:
            self._hub.expect_no_more(ask.asked)
            ask.asked = None

    # -- time --------------------------------------------------------------------

    def _now(self) -> float:
        return self._hub.env.clock.now().monotonic

    def _expire(self) -> None:
        now = self._now()
        for id, ask in list(self._asks.items()):
            if ask.due > now:
                break
            # This program's own disk is waited for in any case.
            if not ask.here:
                self.unanswered = self.unanswered or self._hub.view.peers_first
                self._close(id, ask)
        while self._late:
            id, due = next(iter(self._late.items()))
            if due > now:
                break
            del self._late[id]

    @property
    def asking(self) -> bool:
        self._expire()
        return bool(self._asks or self._late)

    @property
    def offline(self) -> bool:
        hub = self._hub
        return (
            hub.view.peers_first
            and hub.started
            and not hub.above
            and not any(ask.here for ask in self._asks.values())
        )

    def patience(self) -> float | None:
        due = [ask.due for ask in self._asks.values() if not ask.here][:1] + list(self._late.values())[:1]
        return max(min(due) - self._now(), 0) if due else None

    # -- the end -----------------------------------------------------------------

    def close(self) -> None:
        if threading.get_ident() != self._thread:
            # The garbage collector may run anywhere; the hub belongs to its own thread.
            self._hub.orphans.append(self)
            return
        for ask in self._asks.values():
            self._forget(ask)
        self._asks.clear()
        self._hub.books.pop(self._link, None)
        self._hub.close_link(self._link)


class HubSource:
    """The :class:`air.graph.api.Source` of a hub."""

    def __init__(self, hub: AskingHub, *, durable: bool) -> None:
        self._hub, self._durable = hub, durable

    @property
    def online(self) -> bool:
        return bool(self._hub.above)

    async def write(
        self, nodes: Mapping[Soul, Mapping[Key, Value]], *, peers: int | None, timeout: float | None
    ) -> Receipt:
        hub = self._hub
        # Not only for the disk's sake: a program that does nothing but write shall let others run.
        await checkpoint()
        await hub.room()
        if peers is None:
            peers = int(hub.view.peers_first and (bool(hub.above) or not hub.started))
        receipt = await hub.put(nodes, peers=peers, timeout=timeout)
        if receipt.refusals and receipt.peers < peers:
            code, _, text = receipt.refusals[0].partition(": ")
            raise AirError(f"a peer has refused it: {text or code}", code=code)
        return Receipt(receipt.state, receipt.cells, receipt.peers, self._durable or receipt.peers > 0)

    async def look(self, seconds: float | None = None, *, hasty: bool = False) -> Lookout:
        await checkpoint()
        hub = self._hub
        while hub.orphans:
            hub.orphans.popleft().close()
        return _Book(hub, seconds, hasty).lookout

    async def pages(self, soul: Soul, lex: Lex, seconds: float | None = None) -> AsyncGenerator[Fields, None]:
        if self._hub.view.peers_first or self._hub.above:
            # Peers are asked for the whole node, which a LEX subscribes to anyway; the choice is made here.
            lookout = await self.look(seconds)
            try:
                lookout.add(soul, None)
                seen = False
                while lookout.asking and not (lookout.offline and seen):
                    while lookout.take() is not None:
                        seen = True
                    if lookout.asking and not (lookout.offline and seen):
                        await lookout.wait()
                if lookout.unanswered and not seen and lookout.take() is None:
                    raise AirError(
                        "nothing is known here, and nobody who was asked has answered", code="graph.no-answer"
                    )
            finally:
                lookout.close()
        async with aclosing(self._hub.pages(soul, lex)) as pages:  # type: ignore[type-var]
            async for fields in pages:
                yield fields

    def new_soul(self) -> Soul:
        """Rising with time and not to be guessed, as gun.js makes them."""
        return f"{_base36(int(self._hub.env.clock.now().wall))}{self._hub.ids()}"


def _lex(key: Key | None) -> Lex:
    return ALL if key is None else Lex(exact=key)


_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"
