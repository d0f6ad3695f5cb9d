"""HAM: which of two values a field keeps. (core)

The rule is GUN's, and it is a pure function of the two cells: every replica that has seen both
ends with the same one, in whatever order they came (gun-wire section 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from air.model.cell import Cell, State
from air.model.value import Value, value_bytes

__all__ = ["Verdict", "decide", "merge", "wins"]


class Verdict(Enum):
    ACCEPT = "accept"
    """The incoming value is kept."""
    IGNORE = "ignore"
    """The known value stays: it is newer, equal, or the greater text."""
    DEFER = "defer"
    """The incoming state is in the future of this machine's clock: judge again when it is due."""


def wins(value: Value, state: State, known_value: Value, known_state: State) -> bool:
    """True when (value, state) replaces the known one: the higher state, on equal states the greater text."""
    if state != known_state:
        return state > known_state
    if type(value) is type(known_value) and value == known_value:
        return False
    return value_bytes(value) > value_bytes(known_value)


def decide(machine: float, value: Value, state: State, known: tuple[Value, State] | None) -> Verdict:
    """Judge one incoming field. ``machine`` is Unix time in ms; ``known`` None: nothing is held yet."""
    if state > machine:
        return Verdict.DEFER
    if known is None or wins(value, state, *known):
        return Verdict.ACCEPT
    return Verdict.IGNORE


def merge(*batches: Iterable[Cell]) -> dict[tuple[str, str], Cell]:
    """What is left of some batches of cells, by (soul, key): the merge as a plain function.

    Commutative, associative and idempotent; stores and caches are measured against it.
    """
    kept: dict[tuple[str, str], Cell] = {}
    for batch in batches:
        for cell in batch:
            known = kept.get((cell.soul, cell.key))
            if known is None or wins(cell.value, cell.state, known.value, known.state):
                kept[cell.soul, cell.key] = cell
    return kept
