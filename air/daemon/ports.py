"""What the program needs of the node it runs. (core)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from air.base.metrics import Counters
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import ALL, Lex
from air.model.value import Value

__all__ = ["Hub", "LinkInfo", "Receipt", "Relay"]


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

    def links(self) -> Sequence[LinkInfo]: ...
    def health(self) -> Mapping[str, object]:
        """At least ``status``, which is ``ok`` when all is well."""
        ...


class Relay(Protocol):
    """A node that is up: its hub and where it can be reached."""

    @property
    def hub(self) -> Hub: ...
    @property
    def gun_addresses(self) -> Sequence[str]: ...
    @property
    def data(self) -> Path | str | None: ...
