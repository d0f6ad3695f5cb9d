"""What became of a field: the value that stands, and those that lost without anybody having meant it. (core)

The journal of the store knows the losers of concurrent edits. Values that were overwritten by somebody who
knew them are gone: that is what writing means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from air.model.cell import Key, State
from air.model.mark import Mark
from air.model.value import Value
from air.store.journal import Conflict

__all__ = ["Edit", "history"]


@dataclass(frozen=True, slots=True)
class Edit:
    """One value of a field, and who wrote it when."""

    key: Key
    value: Value
    state: State
    """When, as the writer stamped it: Unix ms."""
    writer: str
    """Peer id of the Air peer that took the edit first; "" when it is not known."""
    stands: bool
    """It is what the field holds now."""
    conflict: int | None = None
    """Number of the entry in the journal; None for the value that stands."""
    noticed: float | None = None
    """When this peer learnt that it had lost: Unix ms."""


def writer_of(mark: Mark) -> str:
    """The peer that a mark names as its writer, or ""."""
    return mark[0][0] if mark else ""


def history(
    fields: Mapping[Key, tuple[Value, State]], marks: Mapping[Key, Mark], conflicts: Iterable[Conflict]
) -> list[Edit]:
    """Edits of some fields of a node, by key and then the newest first."""
    edits = [
        Edit(key, value, state, writer_of(marks.get(key, ())), stands=True)
        for key, (value, state) in fields.items()
    ]
    edits += [
        Edit(
            conflict.key,
            conflict.lost.value,
            conflict.lost.state,
            writer_of(conflict.lost.mark),
            stands=False,
            conflict=conflict.id,
            noticed=conflict.at,
        )
        for conflict in conflicts
    ]
    # An edit that lost and was chosen again stands, and its entry stays as the story of how it came.
    return sorted(edits, key=lambda edit: (edit.key, not edit.stands, -edit.state, -(edit.conflict or 0)))
