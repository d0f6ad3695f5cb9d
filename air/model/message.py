"""What peers say to each other about the graph, whichever wire it came by. (core)

Ids are text chosen by the asker; ``re`` is the id of the message that is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex

__all__ = ["Ack", "Answer", "Get", "Message", "Put", "SoulRange"]


@dataclass(slots=True)
class Put:
    """Merge these cells. Answered by one :class:`Ack` once they are durable."""

    id: str
    cells: Sequence[Cell]
    seen_by: tuple[str, ...] = ()
    """Peer ids that have this message already (``><`` on the GUN wire)."""
    extra: dict[str, object] | None = None
    """Fields of the message that Air has no use for; they travel on as they came."""


@dataclass(frozen=True, slots=True)
class SoulRange:
    """All nodes whose soul starts with ``prefix``, within a budget (gun-wire 2.4)."""

    prefix: str
    budget: int
    reverse: bool = False


@dataclass(slots=True)
class Get:
    """Tell me these fields now, and keep me told. Answered by one or more :class:`Answer`."""

    id: str
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
    """Part of the answer to a get. No cells and not ``more``: there is nothing."""

    id: str
    re: str
    cells: Sequence[Cell] = ()
    more: bool = False
    """Further parts follow."""


@dataclass(slots=True)
class Ack:
    """The answer to a put: durable and readable, or refused with ``error``."""

    id: str
    re: str
    error: str | None = None


Message: TypeAlias = Put | Get | Answer | Ack
