"""What the hub needs of a wire. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from air.base.errors import Violation
from air.model.cell import Cell
from air.model.message import Message

__all__ = ["Codec", "Port"]


class Codec(Protocol):
    """Encodes a message once for all links that share the codec."""

    def encode(self, message: Message, targets: Sequence[str] = ()) -> list[Any]: ...


class Port(Protocol):
    """One end of a link, as the hub sees it: somewhere to put bytes, never to wait."""

    @property
    def codec(self) -> Codec: ...
    @property
    def peer(self) -> str:
        """The peer id that the other end told, or ""."""
        ...

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent. The hub stops feeding a port above its high-water mark."""
        ...

    def queue(self, messages: list[Any]) -> None:
        """Take what the codec made of a message."""
        ...

    def changed(self, cells: Sequence[Cell]) -> None:
        """Take changes that this program watches; wires are told by messages."""
        ...

    def wake(self) -> None:
        """Something was queued: send it soon."""
        ...

    def refuse(self, id: object, error: Violation) -> None: ...
    def cut(self, error: Violation) -> None:
        """Tell the peer why, and close."""
        ...
