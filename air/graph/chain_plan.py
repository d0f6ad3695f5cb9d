"""What a nested dictionary writes: which fields of which nodes, and how the nodes are named. (core)

A mapping inside another becomes a node of its own with a link to it in the field, as gun.js has it: the node
that the field links to already, else the one named ``soul/key`` (gun-wire section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from air.base.errors import LimitReached, Misuse
from air.graph.api import Node, Path
from air.model.cell import Key, Soul
from air.model.value import Link, Value, canonical

__all__ = ["CELLS_MAX", "Place", "Plan"]

CELLS_MAX: Final = 1_000_000
"""Fields in one batch: ``limit.batch``."""

Place = tuple[Soul, Key]


class Plan:
    """One batch in the making. It is complete once ``nested`` and ``refs`` are empty."""

    def __init__(self) -> None:
        self.nodes: dict[Soul, dict[Key, Value]] = {}
        self.nested: dict[Place, Mapping[str, Any]] = {}
        """Mappings whose node is found by what their field links to now."""
        self.refs: dict[Place, Path] = {}
        """Values that are paths; where they lead is to be found out."""
        self._souls: dict[int, tuple[Mapping[str, Any], Soul]] = {}
        """Mappings that have a node: one that stands in several places is one node, also in a circle."""
        self._cells = 0

    def node(self, soul: Soul, fields: Mapping[str, Any]) -> None:
        """Write some fields of a node. Raises Misuse ``graph.bad-value`` and ``graph.bad-name``."""
        if not isinstance(soul, str) or not soul:
            raise Misuse("the soul of a node is text that is not empty", code="graph.bad-name")
        self._souls.setdefault(id(fields), (fields, soul))
        for key, value in fields.items():
            self.field(soul, key, value)

    def field(self, soul: Soul, key: Key, value: Any) -> None:
        """Write one field."""
        if not isinstance(key, str):
            raise Misuse(f"a key is text, not {key!r}", code="graph.bad-name")
        self._cells += 1
        if self._cells > CELLS_MAX:
            raise LimitReached(f"more than {CELLS_MAX} fields in one batch", code="limit.batch")
        held = canonical(value)
        if held is not None:
            self.link(soul, key, held[0])
        elif isinstance(value, Node):
            self.link(soul, key, Link(value.soul))
        elif isinstance(value, Mapping):
            known = self._souls.get(id(value))
            if known is not None:
                self.link(soul, key, Link(known[1]))
            else:
                self.nested[soul, key] = value
        elif isinstance(value, Path):
            if value.keys:
                self.refs[soul, key] = value
            else:
                self.link(soul, key, Link(value.soul))
        else:
            raise Misuse(
                f"a field cannot hold {type(value).__name__}: {key!r} of {soul!r}", code="graph.bad-value"
            )

    def link(self, soul: Soul, key: Key, value: Value) -> None:
        """Note what a field will hold."""
        self.nodes.setdefault(soul, {})[key] = value

    def settle(self, place: Place, linked: Soul | None) -> None:
        """Name the node of a mapping: ``linked`` is what its field links to now, if it does."""
        soul, key = place
        fields = self.nested.pop(place)
        known = self._souls.get(id(fields))
        target = known[1] if known is not None else linked or f"{soul}/{key}"
        self.link(soul, key, Link(target))
        if known is None:
            self.node(target, fields)
