"""Marks: who wrote a value and what that writer had seen of the field before. (core)

A *dot* is one write by one peer: (peer id, sequence), the sequence rising with each batch that this peer
writes. The mark of a value is its own dot, followed by the newest dot of every other writer whose value of
this field it follows, directly or not: a dotted version vector of one field. Two values of a field are
concurrent when neither mark holds the dot of the other, so nobody who wrote one of them knew the other.
HAM needs none of this to choose a winner; marks tell whether there was something to choose.
"""

from __future__ import annotations

from typing import Final, TypeAlias

__all__ = ["MARK_DOTS_MAX", "Dot", "Mark", "concurrent", "covers", "follow", "joined"]

Dot: TypeAlias = tuple[str, int]
"""(peer id of the writer, its sequence from 1 on)."""
Mark: TypeAlias = tuple[Dot, ...]
"""The dot of a value, then those it follows, each writer once. () is unknown: it is concurrent to nothing."""

MARK_DOTS_MAX: Final = 8
"""Writers remembered per field. Beyond, the ones mentioned last are forgotten, and an old edit of theirs that
arrives late may then be taken for a concurrent one."""


def covers(mark: Mark, dot: Dot) -> bool:
    """True when who wrote with ``mark`` had seen ``dot`` or something later by the same writer."""
    writer, sequence = dot
    return any(known >= sequence for name, known in mark if name == writer)


def concurrent(a: Mark, b: Mark) -> bool:
    """True when neither value was written in knowledge of the other."""
    return bool(a and b) and not covers(a, b[0]) and not covers(b, a[0])


def joined(first: Mark, other: Mark) -> Mark:
    """``first``, which keeps its dot, after having seen ``other`` as well. Ends after MARK_DOTS_MAX dots."""
    if not first or not other:
        return first
    seen = dict(other)
    for name, sequence in first:
        seen[name] = max(sequence, seen.get(name, 0))
    own = first[0]
    del seen[own[0]]
    rest = [(name, seen.pop(name)) for name, _ in first[1:]]
    return (own, *rest, *seen.items())[:MARK_DOTS_MAX]


def follow(dot: Dot, seen: Mark) -> Mark:
    """The mark of a write by ``dot`` over a value with mark ``seen``."""
    return joined((dot,), seen)
