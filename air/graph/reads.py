"""Reads that wait for the disk, and how many of them each link has. (core)"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from air.graph.effects import Fetch, FetchSouls
from air.graph.mesh import LinkId
from air.model.cell import Key
from air.model.message import Get, SoulRange

__all__ = ["Read", "Reads"]


@dataclass(slots=True)
class Read:
    """A get that waits for the disk."""

    link: LinkId
    get: Get
    first: bool = True
    """It had not been asked before, so others may be asked too."""
    after: Key | None = None


class Reads:
    """Every read is counted from the effect that asks for it until its result is taken."""

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._open: dict[int, Read] = {}
        self._waiting: Counter[LinkId] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, link: LinkId) -> int:
        """Reads of one link."""
        return self._waiting[link]

    def ask(self, ticket: int, read: Read) -> Fetch | FetchSouls:
        """The effect that has ``read`` done; its result comes under ``ticket``."""
        self._open[ticket] = read
        self._waiting[read.link] += 1
        get = read.get
        if isinstance(get.soul, SoulRange):
            return FetchSouls(ticket, read.link, get.soul)
        return Fetch(ticket, read.link, get.soul, get.lex, read.after)

    def take(self, ticket: int) -> Read:
        """The read behind ``ticket``, which waits no more."""
        read = self._open.pop(ticket)
        left = self._waiting[read.link] - 1
        if left:
            self._waiting[read.link] = left
        else:
            del self._waiting[read.link]
        return read
