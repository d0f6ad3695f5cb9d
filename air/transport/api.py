"""What everything above the transport floor may expect of a connection. (core)"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

__all__ = ["ByteStream", "Piece", "can_send_now", "sender"]

Piece: TypeAlias = bytes | bytearray | memoryview
"""A part of what is sent."""


class ByteStream(Protocol):
    """An ordered stream of bytes between two machines.

    One task may read while another writes; two tasks may not do the same thing at once.
    A read that is cancelled loses nothing. A write that is cancelled leaves an unknown part of its
    bytes on the way, so the stream is good for nothing afterwards but ``aclose``.

    It may also have ``send_many(pieces)``, which sends all pieces as one write (:func:`sender`), and
    ``send_now(pieces)``, which does the same at once, from outside of any task, while :func:`can_send_now` is
    true.
    """

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        """At least one byte, at most ``max_bytes``; never ``b""``.

        Raises Closed at the end of the stream, Reset when it was cut.
        """
        ...

    async def send(self, data: bytes, /) -> None:
        """Return when the operating system has taken all of ``data``. Raises Reset when it will not."""
        ...

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; reading goes on. Does nothing where that cannot be said."""
        ...

    async def aclose(self) -> None:
        """Close both directions at once. What is still on its way may be lost. May be repeated."""
        ...


def can_send_now(stream: Any) -> bool:
    """Whether ``stream.send_now(pieces)`` may be called: it exists, and nothing sent before waits."""
    return bool(getattr(stream, "can_send_now", False))


def sender(stream: ByteStream) -> Callable[[Sequence[Piece]], Awaitable[None]]:
    """What sends pieces as one write: the ``send_many`` of the stream, or ``send`` of all joined."""
    many: Callable[[Sequence[Piece]], Awaitable[None]] | None = getattr(stream, "send_many", None)
    return many if many is not None else lambda pieces: stream.send(b"".join(pieces))
