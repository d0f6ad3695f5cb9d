"""LEX: which keys a query means. (core)

Two things share the syntax. :func:`matches` is what gun.js applies to a key it already has
(gun-wire 2.5). :class:`Lex` is what a relay reads from its store (gun-wire 2.4), where bounds
are compared with what follows the prefix. They differ; both are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from air.base.errors import Violation
from air.model.value import Value, unit_bytes

__all__ = ["ALL", "BUDGET_MAX", "FREE_COST", "Lex", "cost", "matches", "parse_lex"]

BUDGET_MAX: Final = 100_000
"""A larger ``%`` counts as 1, as gun does it (gun-wire 2.4 rule 3)."""

FREE_COST: Final = 9
"""What a value without text costs of a budget."""


@dataclass(frozen=True, slots=True)
class Lex:
    """A set of keys in code-unit order.

    ``exact`` alone names one key. Else all keys that start with ``prefix`` and whose *rest* after it
    lies between ``start`` and ``end``, both included. ``budget`` ends the choice once the characters
    taken reach it (see :func:`cost`); None is no limit.
    """

    exact: str | None = None
    prefix: str = ""
    start: str | None = None
    end: str | None = None
    reverse: bool = False
    budget: int | None = None

    @property
    def is_all(self) -> bool:
        """True when every key is meant, without a budget."""
        return (
            self.exact is None
            and not self.prefix
            and self.start is None
            and self.end is None
            and self.budget is None
        )

    def bounds(self) -> tuple[bytes, bytes | None, bool]:
        """(low, high, high included) in the byte order of ``unit_bytes``; high None = no upper end."""
        if self.exact is not None:
            only = unit_bytes(self.exact)
            return only, only, True
        prefix = unit_bytes(self.prefix)
        low = prefix + unit_bytes(self.start) if self.start is not None else prefix
        if self.end is not None:
            return low, prefix + unit_bytes(self.end), True
        return (low, _after(prefix), False) if prefix else (low, None, False)

    def holds(self, key: str) -> bool:
        """True when the set has ``key`` (the budget and rule 5 aside)."""
        low, high, included = self.bounds()
        unit = unit_bytes(key)
        if unit < low or not unit.startswith(unit_bytes(self.prefix)):
            return False
        return high is None or unit < high or (included and unit == high)


ALL: Final = Lex()
"""Every key."""


def _after(prefix: bytes) -> bytes | None:
    """The first byte string that is greater than everything starting with ``prefix``."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def cost(value: Value) -> int:
    """What a value takes of a budget: its length in UTF-16 units, or 9 when it is not text or is empty."""
    if type(value) is str and value:
        return len(value) if value.isascii() else len(value.encode("utf-16-be", "surrogatepass")) // 2
    return FREE_COST


def parse_lex(raw: object, budget: object = None, *, reverse: bool = False) -> Lex:
    """Read the key part of a query: text, or an object with ``=``, ``*``, ``>``, ``<``, ``-``.

    ``budget`` is the ``%`` that stands beside it. Raises Violation ``gun.bad-lex``.
    Source: gun-wire 2.4.
    """
    if type(raw) is str:
        return Lex(exact=raw)
    if type(raw) is not dict:
        raise Violation("a LEX is text or an object", code="gun.bad-lex")
    parts: dict[str, str | None] = {}
    for mark in ("=", "*", ">", "<"):
        part = raw.get(mark)
        if part is not None and type(part) is not str:
            raise Violation(f"the {mark} of a LEX must be text", code="gun.bad-lex")
        parts[mark] = part
    reverse = reverse or bool(raw.get("-"))
    if parts["*"] is None and parts["="] is not None:
        return Lex(exact=parts["="])
    if parts["*"] is None and parts[">"] is None and parts["<"] is None:
        return Lex(reverse=reverse)
    return Lex(
        prefix=parts["*"] or "",
        start=parts[">"],
        end=parts["<"],
        reverse=reverse,
        budget=_budget(budget),
    )


def _budget(raw: object) -> int:
    """A missing, odd or too large ``%`` counts as 1, which takes one field."""
    if type(raw) in (int, float) and 0 < raw <= BUDGET_MAX:  # type: ignore[operator]
        return int(-(-raw // 1))  # type: ignore[operator]
    return 1


def matches(text: str, lex: str | Mapping[str, Any]) -> bool:
    """gun.js' own match of one key against a LEX. Source: gun-wire 2.5."""
    if isinstance(lex, str):
        return bool(lex) and text == lex
    equal, prefix, start, end = (_text(lex.get(mark)) for mark in ("=", "*", ">", "<"))
    first = equal or prefix or start or end
    if first and text == first:
        return True
    if equal is not None:
        return False
    lead = prefix or start
    if lead is not None and text.startswith(lead):
        return True
    if prefix is not None:
        return False
    unit = unit_bytes(text)
    if start is not None and end is not None:
        return unit_bytes(start) <= unit <= unit_bytes(end)
    if start is not None:
        return unit >= unit_bytes(start)
    return end is not None and unit <= unit_bytes(end)


def _text(part: object) -> str | None:
    return part if isinstance(part, str) else None
