"""What an engine wants done: said by the core, done by ``sync/hub``. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from air.graph.mesh import LinkId
from air.model.cell import Cell, Key, Soul
from air.model.lex import Lex
from air.model.mark import Mark
from air.model.message import Message, SoulRange

__all__ = ["Effect", "Fetch", "FetchSouls", "Notify", "Persist", "Send", "Settled"]


@dataclass(slots=True)
class Send:
    """Say ``message`` on these links."""

    links: Sequence[LinkId]
    message: Message


@dataclass(slots=True)
class Persist:
    """Write ``cells`` as one batch, then call ``Engine.persisted`` or ``Engine.aborted`` with ``ticket``.

    Writes and fetches must be done in the order they were asked for: that is what lets the engine
    forget a node at any time and still never read an old value (see ``Engine``).
    """

    ticket: int
    cells: Sequence[Cell]
    marks: Sequence[Mark] | None = None
    """One for each cell when they were written elsewhere; None: they get this peer's own."""


@dataclass(slots=True)
class Fetch:
    """Read one page of a node, then call ``Engine.fetched``. ``link`` waits for the data, if anybody does."""

    ticket: int
    link: LinkId
    soul: Soul
    lex: Lex
    after: Key | None = None


@dataclass(slots=True)
class FetchSouls:
    """Read whole nodes by a prefix of their soul, then call ``Engine.fetched_souls``."""

    ticket: int
    link: LinkId
    range: SoulRange


@dataclass(slots=True)
class Settled:
    """A dialled peer has taken these cells, or refused them for good with ``error``."""

    peer: str
    """The name it is dialled by."""
    cells: Sequence[Cell]
    error: str | None = None


@dataclass(slots=True)
class Notify:
    """Tell watchers in this program about cells that have changed."""

    watchers: Sequence[LinkId]
    cells: Sequence[Cell]


Effect: TypeAlias = Send | Persist | Fetch | FetchSouls | Settled | Notify
