"""What the graph API hands out, and what it needs of the peer behind it. (core)"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import Lex
from air.model.value import Link, Value

if TYPE_CHECKING:
    from air.graph.chain import Ref

__all__ = ["Change", "Data", "Entry", "Input", "Lookout", "Node", "Path", "Receipt", "Scalar", "Source"]

Scalar: TypeAlias = "bool | int | float | str | None"
"""What a field may hold beside a link."""
Data: TypeAlias = "Scalar | Ref | Node"
"""What a field reads as: a link is a :class:`Ref`, or the :class:`Node` behind it if that was asked for."""
Input: TypeAlias = "Scalar | Ref | Link | Node | Mapping[str, Any]"
"""What may be written to a field: a mapping becomes a node of its own, with a link to it in the field."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a write when ``put`` returns. It is readable at once in any case."""

    state: State
    """The stamp of every cell of the batch, Unix time in ms."""
    cells: int
    """Fields that were written."""
    peers: int
    """Dialled peers that had acknowledged it as durable by then. What others lack stays owed to them."""
    durable: bool
    """It outlives this process: it is on this program's disk, or ``peers`` is above 0."""


class Path:
    """A node and the fields that lead on from it."""

    __slots__ = ("keys", "soul")

    def __init__(self, soul: Soul, keys: tuple[Key, ...] = ()) -> None:
        self.soul, self.keys = soul, keys


class Node(Mapping[Key, "Data"]):
    """The fields of a node as they were at one moment. A deleted field is there, and None.

    Equal to a ``dict`` with the same fields.
    """

    __slots__ = ("_fields", "_states", "soul")

    def __init__(self, soul: Soul, fields: Mapping[Key, Data], states: Mapping[Key, State]) -> None:
        self.soul = soul
        self._fields, self._states = fields, states

    def __getitem__(self, key: Key) -> Data:
        return self._fields[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Node({self.soul!r}, {dict(self._fields)!r})"

    def state(self, key: Key) -> State:
        """When a field was written, Unix time in ms. Raises KeyError for a field that is not there."""
        return self._states[key]

    def plain(self) -> dict[Key, Any]:
        """A dictionary that JSON can carry: links as ``{"#": soul}``, nodes inside as dictionaries."""
        plain: dict[Key, Any] = {}
        for key, value in self._fields.items():
            if isinstance(value, Node):
                plain[key] = value.plain()
            elif isinstance(value, Path):
                plain[key] = {"#": value.soul}
            else:
                plain[key] = value
        return plain


@dataclass(frozen=True, slots=True)
class Change:
    """One field has one more value."""

    soul: Soul
    key: Key
    value: Any
    """The value; a link as a :class:`Ref`. None: deleted, or no longer to be reached."""
    state: State
    """Its stamp, Unix time in ms."""


class Entry(NamedTuple):
    """One entry of a node or set: its key, and what is there now."""

    key: Key
    value: Any
    """The value, the node behind a link, or None when the entry was deleted."""


class Lookout(Protocol):
    """Several fields and nodes watched at once. A slow reader finds the newest value of each field."""

    @property
    def asking(self) -> bool:
        """Somebody was asked, has not answered yet, and may still do so in time."""
        ...

    @property
    def unanswered(self) -> bool:
        """Of those who were asked, none has answered in time."""
        ...

    @property
    def offline(self) -> bool:
        """What this program has was told, and whoever knows more cannot be reached at present."""
        ...

    def add(self, soul: Soul, key: Key | None) -> None:
        """Watch a field, or with None a node. What is there comes first, also when it was shown before."""
        ...

    def drop(self, soul: Soul, key: Key | None) -> None: ...
    def take(self) -> Cell | None:
        """The newest value of one field that has changed; None when nothing has. Raises LimitReached."""
        ...

    async def wait(self) -> None:
        """Wait until there is something to take, or ``asking`` or ``offline`` has changed."""
        ...

    def close(self) -> None:
        """Watch nothing more. Again: nothing happens. It may be called from any thread."""
        ...


class Source(Protocol):
    """A running peer, as the graph API sees it."""

    @property
    def online(self) -> bool:
        """A peer that was dialled is connected."""
        ...

    async def write(
        self, nodes: Mapping[Soul, Mapping[Key, Value]], *, peers: int | None, timeout: float | None
    ) -> Receipt: ...

    async def look(self, seconds: float | None = None, *, hasty: bool = False) -> Lookout:
        """A lookout with nothing to watch yet.

        ``seconds`` bound the wait for those who are asked. ``hasty``: who has nothing is not waited for any
        longer, although others whom it asks may have something.
        """
        ...

    def pages(self, soul: Soul, lex: Lex, seconds: float | None = None) -> AsyncGenerator[Fields, None]:
        """Fields of a node in order of their keys, page by page."""
        ...

    def new_soul(self) -> Soul:
        """A name that nobody else gives."""
        ...
