"""What a store is. (core)

A store is synchronous and batched on purpose: it runs on a thread of its own, and one call handles
many cells. Its ``write`` is itself a merge, so a batch may be repeated and a store may have several
writers: an older cell never replaces a newer one, and of equal states the greater value text stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from air.model.cell import Cell, Fields, Key, Soul
from air.model.lex import ALL, Lex

__all__ = ["PAGE_BYTES", "PAGE_FIELDS", "Page", "Store"]

PAGE_FIELDS = 1024
PAGE_BYTES = 256 * 1024


class Page(NamedTuple):
    """Some fields of one node, in code-unit order of their keys (reversed for a reverse LEX)."""

    fields: Fields
    next: Key | None
    """Ask again with ``after=next`` for the following page; None: this was the last."""


class Store(Protocol):
    """Keeps cells, and merges what it is given. Not thread-safe: one thread at a time."""

    def read(
        self,
        soul: Soul,
        lex: Lex = ALL,
        /,
        *,
        after: Key | None = None,
        fields_max: int = PAGE_FIELDS,
        bytes_max: int = PAGE_BYTES,
    ) -> Page:
        """One page of the fields of ``soul`` that ``lex`` means; no fields when there are none.

        A page ends after ``fields_max`` fields or once ``bytes_max`` bytes of key and value are in it
        (so it holds at least one field). A LEX with a budget yields all it may in one page, whatever
        the limits; LEX rule 5 of gun-wire 2.4 holds: a prefix that is itself a stored key means only it.
        Raises StoreError. Damaged records are left out and counted.
        """
        ...

    def write(self, cells: Sequence[Cell], /) -> dict[int, Cell]:
        """Merge ``cells`` as one atomic, durable batch.

        Returns what the store holds instead for every cell that changed nothing: index into ``cells``
        -> the stored cell, which is newer, greater or equal. An empty result: every cell won.
        Raises Full, SyncFailed or StoreError; then nothing of the batch is kept.
        """
        ...

    def souls(self, after: Soul = "", limit: int = 1024, *, prefix: str = "") -> Sequence[Soul]:
        """Names of nodes in code-unit order, those greater than ``after``, at most ``limit``."""
        ...

    def close(self) -> None: ...
