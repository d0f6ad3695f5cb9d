"""What is owed to a peer that we dial: writes it has not acknowledged, and what we asked it for. (core)

A debt belongs to the peer, not to a connection: what was written while it was away is sent when it is
back, with the same states, until it acknowledges. gun.js clients lose such writes (gun-wire F4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from air.model.cell import Cell, Key, Soul
from air.model.message import Id

__all__ = ["Upstream", "UpstreamConfig"]


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    owed_max: int = 100_000
    """Fields kept for one peer until it acknowledges; beyond, the oldest debt is dropped and counted."""
    asked_max: int = 100_000
    """Nodes and fields we remember having asked it for on this connection."""
    settle_seconds: float = 100.0
    """A write sent on a living connection this long ago counts as taken: a stock relay never answers a
    put whose fields are all stale or equal (gun-wire 1.9). Longer than a dead connection goes unnoticed, and
    said once more on the next connection: a peer whose clock is behind answers when the write is due."""
    put_cells_max: int = 200
    """Fields per message when a debt is sent again (a stock relay's reader damages large frames, F1)."""


@dataclass(slots=True)
class _Sent:
    cells: Sequence[Cell]
    at: float


class Upstream:
    """The books of one peer that we dial."""

    __slots__ = ("_again", "_asked", "_config", "_owed", "_said", "_sent", "dropped")

    def __init__(self, config: UpstreamConfig) -> None:
        self._config = config
        self._owed: dict[tuple[Soul, Key], Cell] = {}
        self._again: dict[tuple[Soul, Key], Cell] = {}
        """Taken without an answer; to be said once more on the next connection."""
        self._said: set[tuple[Soul, Key]] = set()
        """Of what is owed, what is being said once more."""
        self._sent: dict[Id, _Sent] = {}
        self._asked: set[tuple[Soul, Key | None]] = set()
        self.dropped = 0

    @property
    def owed(self) -> int:
        return len(self._owed)

    def owe(self, cells: Iterable[Cell]) -> None:
        """Remember writes until the peer acknowledges them; a newer value of a field replaces an older."""
        owed = self._owed
        for cell in cells:
            place = (cell.soul, cell.key)
            owed.pop(place, None)
            self._again.pop(place, None)
            self._said.discard(place)
            if len(owed) >= self._config.owed_max:
                oldest = next(iter(owed))
                del owed[oldest]
                self._said.discard(oldest)
                self.dropped += 1
            owed[place] = cell

    def sent(self, id: Id, cells: Sequence[Cell], monotonic: float) -> None:
        """These cells went out as message ``id``."""
        self._sent[id] = _Sent(cells, monotonic)

    def acknowledged(self, id: Id, *, taken: bool = True) -> Sequence[Cell] | None:
        """The peer has taken message ``id`` (or refused it for good): its cells, None when it was not ours.

        Not ``taken``: it cannot keep it at the moment, so it is still owed.
        """
        sent = self._sent.pop(id, None)
        if sent is None:
            return None
        if taken:
            self._settle(sent.cells)
        return sent.cells

    def _settle(self, cells: Iterable[Cell], *, again: bool = False) -> None:
        for cell in cells:
            place = (cell.soul, cell.key)
            held = self._owed.get(place)
            if held is not None and held.state <= cell.state:
                del self._owed[place]
                if again and place not in self._said and len(self._again) < self._config.owed_max:
                    self._again[place] = cell
                self._said.discard(place)
            elif not again:
                late = self._again.get(place)
                if late is not None and late.state <= cell.state:
                    del self._again[place]

    @property
    def deadline(self) -> float | None:
        """When :meth:`tick` has something to settle, on the monotonic clock; None: nothing is on its way."""
        for sent in self._sent.values():
            return sent.at + self._config.settle_seconds
        return None

    def tick(self, monotonic: float) -> None:
        """Settle what was sent long ago on a connection that still lives."""
        while self._sent:
            id, sent = next(iter(self._sent.items()))
            if sent.at + self._config.settle_seconds > monotonic:
                return
            del self._sent[id]
            self._settle(sent.cells, again=True)

    def lost(self) -> None:
        """The connection is gone: whatever was on its way is owed again, and nothing is subscribed."""
        self._sent.clear()
        self._asked.clear()
        again, self._again = self._again, {}
        self.owe(again.values())
        self._said.update(again)

    def debts(self) -> Iterator[list[Cell]]:
        """Everything owed, in messages of a size that any relay can read."""
        cells = list(self._owed.values())
        for start in range(0, len(cells), self._config.put_cells_max):
            yield cells[start : start + self._config.put_cells_max]

    def ask(self, soul: Soul, key: Key | None) -> bool:
        """True when this has not been asked on this connection, so that asking is worth a message.

        Asking subscribes, and what is subscribed is told without asking.
        """
        if (soul, None) in self._asked or (soul, key) in self._asked:
            return False
        if len(self._asked) < self._config.asked_max:
            self._asked.add((soul, key))
        return True
