"""What the program needs of the node it runs. (core)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from air.base.metrics import Counters
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.value import Value

__all__ = ["Conflict", "Edit", "Hub", "Journal", "LinkInfo", "Receipt", "Relay", "Version"]


class Receipt(Protocol):
    """What a durable put is answered with."""

    @property
    def state(self) -> State: ...
    @property
    def cells(self) -> int: ...


class LinkInfo(Protocol):
    """One link to a peer as an operator sees it: a dataclass, all of whose fields are shown."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Hub(Protocol):
    """One running graph with its links."""

    @property
    def peer_id(self) -> str: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def messages(self) -> int:
        """Messages taken from links so far."""
        ...

    async def put(self, nodes: Mapping[Soul, Mapping[Key, Value]], /) -> Receipt:
        """Durable when it returns. Raises AirError."""
        ...

    def pages(self, soul: Soul, lex: Lex = ALL, /) -> AsyncIterator[Fields]:
        """The fields of a node, page by page; no page or an empty one when there are none."""
        ...

    def watch(
        self, soul: Soul, key: Key | None = None, /
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Cell]]]:
        """What is there, then each change."""
        ...

    async def ask(self, question: Callable[[Any], Any], /) -> Any:
        """What ``question`` returns for the store, on its thread. Raises AirError."""
        ...

    def links(self) -> Sequence[LinkInfo]: ...
    def health(self) -> Mapping[str, object]:
        """At least ``status``, which is ``ok`` when all is well."""
        ...


class Version(Protocol):
    """A value that a field had, or would have had."""

    @property
    def value(self) -> Value: ...
    @property
    def state(self) -> State: ...
    @property
    def mark(self) -> Mark: ...


class Conflict(Protocol):
    """Two edits of one field, neither made in knowledge of the other."""

    @property
    def id(self) -> int: ...
    @property
    def soul(self) -> Soul: ...
    @property
    def key(self) -> Key: ...
    @property
    def lost(self) -> Version: ...
    @property
    def won(self) -> Version: ...
    @property
    def at(self) -> float: ...


class Edit(Protocol):
    """One value of a field, and what is known of it."""

    @property
    def key(self) -> Key: ...
    @property
    def value(self) -> Value: ...
    @property
    def state(self) -> State: ...
    @property
    def writer(self) -> str: ...
    @property
    def stands(self) -> bool: ...
    @property
    def conflict(self) -> int | None: ...
    @property
    def noticed(self) -> float | None: ...


class Journal(Protocol):
    """The conflicts of a graph. Its calls raise AirError."""

    async def conflicts(
        self, after: int = 0, limit: int = ..., *, soul: Soul | None = None, key: Key | None = None
    ) -> Sequence[Conflict]: ...
    async def history(self, soul: Soul, key: Key | None = None) -> Sequence[Edit]: ...
    async def undo(self, number: int) -> Receipt: ...


class Relay(Protocol):
    """A node that is up: its hub and where it can be reached."""

    @property
    def hub(self) -> Hub: ...
    @property
    def gun_addresses(self) -> Sequence[str]: ...
    @property
    def native_addresses(self) -> Sequence[str]: ...
    @property
    def journal(self) -> Journal: ...
    async def compare(
        self, target: str, low: Soul | None = None, high: Soul | None = None, *, dry_run: bool = False
    ) -> Any:
        """Make the graph and that of another peer equal; a dataclass that tells what it took."""
        ...

    @property
    def data(self) -> Path | str | None: ...
