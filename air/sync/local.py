"""Ports of this program itself: a read, a watch, and the acks of local writes. (shell)"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio

from air.base.errors import AirError, LimitReached, Violation
from air.model.cell import Cell, Key, Soul
from air.model.ham import wins
from air.model.message import Ack, Answer, Message

__all__ = ["Acks", "Reader", "Watcher"]

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
