"""What peers say to each other about the graph, whichever wire it came by. (core)

Ids are chosen by the sender, text as a rule (gun takes numbers too, and gets them back as they came);
``re`` is the id of the message that is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from air.model.cell import Cell, Fields, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark

__all__ = ["Ack", "Answer", "Ephemeral", "Get", "Id", "Message", "Put", "SoulRange", "refused_for_now"]

Id: TypeAlias = str | int | float


@dataclass(slots=True)
class Put:
    """Merge these cells. Answered by one :class:`Ack` once they are durable."""

    id: Id
    cells: Sequence[Cell]
    seen_by: tuple[str, ...] = ()
    """Peer ids that have this message already (``><`` on the GUN wire)."""
    extra: dict[str, object] | None = None
    """Fields of the message that Air has no use for; they travel on as they came."""
    marks: Sequence[Mark] | None = None
    """One for each cell, when it came by the native wire; else the store gives this peer's own."""
    origin: int = 0
    """The link that the cells came by, when it is not the one that is answered; 0: it is."""


@dataclass(frozen=True, slots=True)
class SoulRange:
    """All nodes whose soul starts with ``prefix``, within a budget (gun-wire 2.4)."""

    prefix: str
    budget: int
    reverse: bool = False


@dataclass(slots=True)
class Get:
    """Tell me these fields now, and keep me told. Answered by one or more :class:`Answer`."""

    id: Id
    soul: Soul | SoulRange
    lex: Lex = ALL
    known: str | None = None
    """Hash of what the asker has; an equal answer need not be sent (``##`` on the GUN wire)."""

    @property
    def key(self) -> Key | None:
        """The one field that is asked for, or None."""
        return self.lex.exact


@dataclass(slots=True)
class Answer:
    """Part of the answer to a get. No nodes and not ``more``: there is nothing."""

    id: Id
    re: Id
    nodes: Sequence[tuple[Soul, Fields]] = ()
    more: bool = False
    """Further parts follow."""
    known: str | None = None
    """Hash of what the asker said it has; an answer that is just that need not be sent."""
    memo: object = None
    """The node in memory that this answer is the whole of, for a wire that remembers what it encoded."""

    def cells(self) -> list[Cell]:
        return [Cell(soul, key, *pair) for soul, fields in self.nodes for key, pair in fields.items()]


@dataclass(slots=True)
class Ack:
    """The answer to a put: durable and readable, or refused with ``error``."""

    id: Id
    re: Id
    error: str | None = None


@dataclass(slots=True)
class Ephemeral:
    """Something that peers say to each other and nobody keeps: it goes to every other link, once."""

    id: Id
    fields: dict[str, object]
    seen_by: tuple[str, ...] = ()


Message: TypeAlias = Put | Get | Answer | Ack | Ephemeral


def refused_for_now(error: str | None) -> bool:
    """Whether a put was refused by a disk, which may keep it tomorrow, and not for what it is."""
    return error is not None and error.startswith("store.")
