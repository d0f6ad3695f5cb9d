"""Conflicts of a running graph: reading them, and choosing the other side after all. (shell)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from air.base.errors import AirError, Misuse
from air.graph.conflicts import Edit, history
from air.model.cell import Key, Soul
from air.model.lex import ALL, Lex
from air.store.journal import Conflict
from air.sync.hub import Hub, Receipt

__all__ = ["CONFLICTS_MAX", "Journal"]

T = TypeVar("T")

CONFLICTS_MAX = 10_000
"""Entries in one answer; ask again with the last id for more."""


class Journal:
    """The conflict journal of a hub's store."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def conflicts(
        self,
        after: int = 0,
        limit: int = CONFLICTS_MAX,
        *,
        soul: Soul | None = None,
        key: Key | None = None,
    ) -> list[Conflict]:
        """Entries with an id above ``after``, the oldest first; of one node or one field when asked for."""
        count = min(limit, CONFLICTS_MAX)
        return await self._ask(lambda store: store.conflicts(after, count, soul=soul, key=key))

    async def history(self, soul: Soul, key: Key | None = None) -> list[Edit]:
        """What became of a field, or of each field of a node, as far as it is known; [] for nothing."""
        fields = await self._hub.get(soul, ALL if key is None else Lex(exact=key))
        marks = await self._ask(lambda store: store.marks(soul, list(fields)))
        return history(fields, marks, await self.conflicts(soul=soul, key=key))

    async def undo(self, number: int) -> Receipt:
        """Write the value that lost conflict ``number`` once more, as a new edit that knows of both.

        Raises AirError ``journal.no-conflict`` when there is no such entry (any more).
        """
        conflict = await self._ask(lambda store: store.conflict(number))
        if conflict is None:
            raise AirError(f"the journal has no conflict {number}", code="journal.no-conflict")
        return await self._hub.put({conflict.soul: {conflict.key: conflict.lost.value}})

    async def _ask(self, question: Callable[[Any], T]) -> T:
        if self._hub.memory.authoritative:
            raise Misuse('the engine "memory" keeps no journal', code="journal.none")
        return await self._hub.ask(question)
