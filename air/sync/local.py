"""Ports of this program itself: a read, a watch, and the acks of local writes. (shell)"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

import anyio

from air.base.errors import AirError, LimitReached, Violation
from air.model.cell import Cell, Key, Soul
from air.model.ham import wins
from air.model.message import Ack, Answer, Id, Message
from air.sync.partition import Turn

__all__ = ["Acks", "Book", "Lookout", "Reader", "Turns", "Watcher"]

_TURNS_MAX: Final = 100
_PAGES_AHEAD: Final = 4
"""Pages that are read before the consumer has taken the first."""


class _Plain:
    """The codec of this program: a message is its own encoding."""

    def encode(self, message: Message, targets: Sequence[str] = ()) -> list[Any]:
        return [message]


class _LocalPort:
    """What all local ports share: nothing is sent, so nothing waits."""

    codec = _Plain()
    peer = ""
    queued_bytes = 0

    def wake(self) -> None: ...

    def changed(self, cells: Sequence[Cell]) -> None: ...

    def cut(self, error: Violation) -> None: ...


class Acks(_LocalPort):
    """Hears what becomes of local writes."""

    def __init__(self, heard: Callable[[Any, AirError | None], None]) -> None:
        self._heard = heard

    def queue(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Ack):
                error = None
                if message.error is not None:
                    code, _, text = message.error.partition(": ")
                    error = AirError(text, code=code)
                self._heard(message.re, error)

    def refuse(self, id: object, error: Violation) -> None:
        self._heard(id, error)


class Reader(_LocalPort):
    """The pages of one read."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque()
        self._error: AirError | None = None
        self._news = anyio.Event()

    @property
    def queued_bytes(self) -> int:  # type: ignore[override]
        # The hub compares with a mark in bytes; what matters here is whether to read on.
        return 0 if len(self._answers) < _PAGES_AHEAD else 2**40

    def queue(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Answer):
                # A node in memory goes on changing; the consumer gets what was there now.
                self._answers.append(
                    Answer(message.id, message.re, [(s, dict(f)) for s, f in message.nodes], message.more)
                )
            elif isinstance(message, Ack) and message.error is not None:
                code, _, text = message.error.partition(": ")
                self._error = AirError(text, code=code)
        self._news.set()

    def refuse(self, id: object, error: Violation) -> None:
        self._error = error
        self._news.set()

    async def next(self, seconds: float | None = None) -> Answer | None:
        """The next part; None when ``seconds`` pass without one. Raises what the engine refused."""
        with anyio.move_on_after(seconds):
            while not self._answers and self._error is None:
                self._news = anyio.Event()
                await self._news.wait()
        if self._answers:
            return self._answers.popleft()
        if self._error is not None:
            raise self._error
        return None


class Watcher(_LocalPort):
    """What a watcher has not read yet: the newest value of each field that changed.

    A slow consumer skips values that are already overwritten and blocks nobody.
    """

    def __init__(self, soul: Soul, key: Key | None, fields_max: int) -> None:
        self._soul, self._key, self._fields_max = soul, key, fields_max
        self._pending: dict[Key, Cell] = {}
        self._shown: dict[Key, Cell] = {}
        """What was read, so that a page that was on its way while something newer came shows nothing old."""
        self._error: AirError | None = None
        self._news = anyio.Event()

    def queue(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Answer):
                self.changed([cell for cell in message.cells() if cell.soul == self._soul])

    def refuse(self, id: object, error: Violation) -> None:
        self._error = error
        self._news.set()

    def changed(self, cells: Sequence[Cell]) -> None:
        pending = self._pending
        for cell in cells:
            if self._key is not None and cell.key != self._key:
                continue
            known = pending.get(cell.key) or self._shown.get(cell.key)
            if known is None or wins(cell.value, cell.state, known.value, known.state):
                pending[cell.key] = cell
        if len(pending) > self._fields_max:
            self._error = LimitReached("this watcher does not read what changes", code="limit.watch")
            pending.clear()
        self._news.set()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> list[Cell]:
        while not self._pending:
            if self._error is not None:
                raise self._error
            self._news = anyio.Event()
            await self._news.wait()
        return self.take()

    def take(self) -> list[Cell]:
        """What has not been read yet; empty when nothing has changed."""
        cells, shown = list(self._pending.values()), self._shown
        shown.update(self._pending)
        self._pending.clear()
        while len(shown) > self._fields_max:
            del shown[next(iter(shown))]
        return cells


class Book(Protocol):
    """Who was asked for what a lookout watches, and who has answered."""

    @property
    def asking(self) -> bool: ...
    @property
    def unanswered(self) -> bool: ...
    @property
    def offline(self) -> bool: ...
    def ask(self, soul: Soul, key: Key | None) -> None: ...
    def leave(self, soul: Soul, key: Key | None, others: Collection[Key | None]) -> None: ...
    def answered_here(self, id: Id, *, empty: bool) -> None: ...
    def patience(self) -> float | None:
        """Seconds until ``asking`` changes by itself; None: it does not."""
        ...

    def close(self) -> None: ...


class Lookout(_LocalPort):
    """Several fields and nodes watched through one port, to which more can be added at any time.

    ``book`` knows who was asked and who has answered. It belongs to one event loop; only :meth:`close` may
    be called from another thread.
    """

    def __init__(self, book: Book, fields_max: int) -> None:
        self._book, self._fields_max = book, fields_max
        self._places: dict[Soul, set[Key | None]] = {}
        self._pending: dict[Soul, dict[Key, Cell]] = {}
        self._shown: dict[Soul, dict[Key, Cell]] = {}
        """What was taken, so that a page that was on its way while something newer came shows nothing old."""
        self._pending_count = self._shown_count = 0
        self._error: AirError | None = None
        self._news = anyio.Event()
        self._closed = False

    # -- as a port ---------------------------------------------------------------

    def queue(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Answer):
                self.changed(message.cells())
                if not message.more:
                    self._book.answered_here(message.re, empty=not message.nodes)
            elif isinstance(message, Ack) and message.error is not None:
                code, _, text = message.error.partition(": ")
                self._fail(AirError(text, code=code))
        self._news.set()

    def refuse(self, id: object, error: Violation) -> None:
        self._fail(error)

    def changed(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            keys = self._places.get(cell.soul)
            if keys is None or (None not in keys and cell.key not in keys):
                continue
            pending = self._pending.setdefault(cell.soul, {})
            known = pending.get(cell.key) or self._shown.get(cell.soul, {}).get(cell.key)
            if known is None or wins(cell.value, cell.state, known.value, known.state):
                self._pending_count += cell.key not in pending
                pending[cell.key] = cell
        if self._pending_count > self._fields_max:
            self._pending.clear()
            self._pending_count = 0
            self._fail(LimitReached("this watcher does not read what changes", code="limit.watch"))
        self._news.set()

    def _fail(self, error: AirError) -> None:
        self._error = self._error or error
        self._news.set()

    # -- for the graph API -------------------------------------------------------

    @property
    def asking(self) -> bool:
        return self._error is None and self._book.asking

    @property
    def unanswered(self) -> bool:
        return self._book.unanswered

    @property
    def offline(self) -> bool:
        return self._book.offline

    def wake_up(self) -> None:
        """The book has changed."""
        self._news.set()

    def add(self, soul: Soul, key: Key | None) -> None:
        self._places.setdefault(soul, set()).add(key)
        self._forget(soul, key)
        self._book.ask(soul, key)

    def drop(self, soul: Soul, key: Key | None) -> None:
        keys = self._places[soul]
        keys.discard(key)
        if not keys:
            del self._places[soul]
            self._forget(soul, None)
        self._book.leave(soul, key, keys)

    def _forget(self, soul: Soul, key: Key | None) -> None:
        for place, counted in ((self._shown, False), (self._pending, True)):
            fields = place.get(soul)
            if fields is None or (counted and soul in self._places):
                # What was not taken yet is as new as an answer will be.
                continue
            before = len(fields)
            fields.pop(key, None) if key is not None else fields.clear()
            if counted:
                self._pending_count -= before - len(fields)
            else:
                self._shown_count -= before - len(fields)
            if not fields:
                del place[soul]

    def take(self) -> Cell | None:
        if self._error is not None:
            raise self._error
        for soul, fields in self._pending.items():
            key, cell = next(iter(fields.items()), (None, None))
            if key is None or cell is None:
                continue
            del fields[key]
            self._pending_count -= 1
            if not fields:
                del self._pending[soul]
            self._show(cell)
            return cell
        return None

    def _show(self, cell: Cell) -> None:
        shown = self._shown.setdefault(cell.soul, {})
        self._shown_count += cell.key not in shown
        shown[cell.key] = cell
        while self._shown_count > self._fields_max:
            oldest = next(iter(self._shown))
            del self._shown[oldest][next(iter(self._shown[oldest]))]
            self._shown_count -= 1
            if not self._shown[oldest]:
                del self._shown[oldest]

    async def wait(self) -> None:
        if self._pending_count or self._error is not None:
            return
        self._news = anyio.Event()
        with anyio.move_on_after(self._book.patience()):
            await self._news.wait()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._book.close()


class Turns:
    """Splits of the network and their ends that somebody has not read yet; of many, the newest."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque(maxlen=_TURNS_MAX)
        self._news = anyio.Event()

    def add(self, turn: Turn) -> None:
        self._turns.append(turn)
        self._news.set()

    def __aiter__(self) -> Turns:
        return self

    async def __anext__(self) -> Turn:
        while not self._turns:
            self._news = anyio.Event()
            await self._news.wait()
        return self._turns.popleft()
