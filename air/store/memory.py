"""Nodes in memory under a byte budget: the cache in front of a disk, or a store of its own. (core)

The engine reads and changes nodes here directly, without a copy and without a thread. What is least
recently used goes first when the budget is reached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from sys import intern

from air.base.errors import Misuse
from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.ham import wins
from air.model.lex import ALL, Lex, cost
from air.model.mark import Mark
from air.model.message import SoulRange
from air.model.value import Link, Value, unit_bytes, units_from_bytes
from air.store.api import PAGE_BYTES, PAGE_FIELDS, Bound, Page, Position
from air.store.items import Item, cut, item_hash, total
from air.store.record import encode_value

__all__ = ["FIELD_BYTES", "NODE_BYTES", "Memory", "Node", "size_of"]

NODE_BYTES = 460
"""What a node without fields takes in CPython 3.11: object, dictionary, place in the LRU order."""
FIELD_BYTES = 150
"""What a field takes beside the text of key and value: tuple, state, slots of the dictionary."""

ENCODED_BYTES = 33
"""What a bytes object takes beside its content."""


def size_of(value: Value) -> int:
    """Bytes of a value beyond the constant part, near enough for a budget."""
    if type(value) is str:
        return len(value) if value.isascii() else 4 * len(value)
    return 60 + 4 * len(value.soul) if type(value) is Link else 0


class Node:
    """The fields of one node that are in memory."""

    __slots__ = ("bytes", "complete", "encoded", "fields")

    def __init__(self, soul_size: int, complete: bool) -> None:
        self.fields: dict[Key, tuple[Value, State]] = {}
        self.complete = complete
        """True when a key that is not in ``fields`` does not exist."""
        self.bytes = NODE_BYTES + soul_size
        self.encoded: bytes | None = None
        """What a wire remembers of its last whole answer; gone when a field changes."""


class Memory:
    """A bounded map of nodes, and a :class:`~air.store.api.Store` by itself.

    ``authoritative`` says that nothing is behind it: a missing node then does not exist. As a cache
    (the default), a missing node is unknown.
    """

    __slots__ = ("_nodes", "authoritative", "bytes", "evicted", "limit_bytes")

    def __init__(self, limit_bytes: int, *, authoritative: bool = False) -> None:
        if limit_bytes <= 0:
            raise Misuse("a memory store needs a budget above 0 bytes")
        self.limit_bytes = limit_bytes
        self.authoritative = authoritative
        self.bytes = 0
        self.evicted = 0
        self._nodes: OrderedDict[Soul, Node] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, soul: Soul) -> Node | None:
        """The node, now the most recently used one; None when nothing of it is in memory."""
        node = self._nodes.get(soul)
        if node is not None:
            self._nodes.move_to_end(soul)
        return node

    def ensure(self, soul: Soul) -> Node:
        """The node, made when it is not there; complete from the start when nothing is behind this memory."""
        node = self.node(soul)
        if node is None:
            node = self._nodes[soul] = Node(4 * len(soul), self.authoritative)
            self.bytes += node.bytes
        return node

    def set(self, node: Node, key: Key, value: Value, state: State) -> None:
        """Put a field in place of whatever was there. The caller has judged it."""
        fields = node.fields
        known = fields.get(key)
        if known is None:
            # Names of fields repeat from node to node; one copy serves all.
            key = intern(key)
            grown = FIELD_BYTES + size_of(value)
        else:
            grown = size_of(value) - size_of(known[0])
        fields[key] = (value, state)
        self.charge(node, grown)
        if node.encoded is not None:
            self.forget_encoded(node)

    def charge(self, node: Node, size: int) -> None:
        """Account for ``size`` more bytes of a node (fewer when negative)."""
        node.bytes += size
        self.bytes += size

    def remember_encoded(self, node: Node, encoded: bytes) -> None:
        """Keep a wire's answer with the node until a field changes."""
        self.forget_encoded(node)
        node.encoded = encoded
        self.charge(node, len(encoded) + ENCODED_BYTES)
        if not self.authoritative:
            self.evict()
        elif self.bytes > self.limit_bytes:
            # Data does not make room for copies of itself when nothing is behind this memory.
            self.forget_encoded(node)

    def forget_encoded(self, node: Node) -> None:
        if node.encoded is not None:
            self.charge(node, -len(node.encoded) - ENCODED_BYTES)
            node.encoded = None

    def merge(self, cells: Sequence[Cell]) -> dict[int, Cell]:
        """Merge cells into the nodes that are in memory or, when authoritative, into all.

        Returns what is held instead for each cell that changed nothing. A cache must never learn a
        field of a node whose other fields it would then seem to know, so unknown nodes become
        incomplete ones.
        """
        kept: dict[int, Cell] = {}
        for index, (soul, key, value, state) in enumerate(cells):
            node = self.ensure(soul)
            known = node.fields.get(key)
            if known is None or wins(value, state, *known):
                self.set(node, key, value, state)
            else:
                kept[index] = Cell(soul, key, *known)
        return kept

    def learn(self, soul: Soul, lex: Lex, page: Page, *, first: bool, fields_max: int) -> Fields:
        """Keep what was read behind this memory, and return it with anything newer that memory knew.

        ``first``: the page is the first one of the answer to ``lex``. A node of more than ``fields_max``
        fields is not kept.
        """
        complete = first and page.next is None and lex.is_all
        node = self.node(soul)
        if node is None:
            one = lex.exact is not None and page.fields
            if not (complete or one) or len(page.fields) > fields_max:
                return page.fields
            node = self.ensure(soul)
        fields = dict(page.fields)
        for key, (value, state) in page.fields.items():
            known = node.fields.get(key)
            if known is None or wins(value, state, *known):
                if complete or lex.exact is not None:
                    self.set(node, key, value, state)
            else:
                fields[key] = known
        if complete and len(node.fields) <= fields_max:
            node.complete = True
            if not lex.reverse:
                self.evict()
                return node.fields
        self.evict()
        return fields

    def newest(self, soul: Soul, fields: Fields) -> Fields:
        """``fields`` of a node, each as it is in memory where that wins."""
        node = self.node(soul)
        if node is None:
            return fields
        known = node.fields
        return {
            key: known[key] if key in known and not wins(*pair, *known[key]) else pair
            for key, pair in fields.items()
        }

    def drop(self, soul: Soul) -> None:
        """Forget a node."""
        node = self._nodes.pop(soul, None)
        if node is not None:
            self.bytes -= node.bytes

    def evict(self) -> int:
        """Forget least recently used nodes until the budget holds. Returns how many went."""
        count = 0
        while self.bytes > self.limit_bytes and len(self._nodes) > 1:
            _, node = self._nodes.popitem(last=False)
            self.bytes -= node.bytes
            count += 1
        self.evicted += count
        return count

    # -- as a store of its own -------------------------------------------------

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
        node = self.node(soul)
        return Page({}, None) if node is None else select(node.fields, lex, after, fields_max, bytes_max)

    def write(self, cells: Sequence[Cell], /) -> dict[int, Cell]:
        kept = self.merge(cells)
        self.evict()
        return kept

    def souls(self, after: Soul = "", limit: int = 1024, *, prefix: str = "") -> Sequence[Soul]:
        low = unit_bytes(after)
        names = [
            soul for soul in self._nodes if soul.startswith(prefix) and (not after or unit_bytes(soul) > low)
        ]
        return sorted(names, key=unit_bytes)[:limit]

    def scan(self, range: SoulRange) -> list[Cell]:
        """The cells of all nodes whose soul starts with a prefix, within its budget (gun-wire 2.4)."""
        cells: list[Cell] = []
        spent = 0
        names = sorted(filter(lambda soul: soul.startswith(range.prefix), self._nodes), key=unit_bytes)
        for soul in reversed(names) if range.reverse else names:
            fields = self._nodes[soul].fields
            for key in sorted(fields, key=unit_bytes, reverse=range.reverse):
                if spent >= range.budget:
                    return cells
                spent += cost(fields[key][0])
                cells.append(Cell(soul, key, *fields[key]))
        return cells

    # -- as ranges of cells: by looking at all of them each time, since nothing is kept in order ---------

    def fingerprint(self, low: Bound, high: Bound, /) -> tuple[int, int]:
        """As :meth:`air.store.api.RangeSource.fingerprint`. Takes some seconds per million cells."""
        return total([item for _, item in self._items(low, high)])

    def split(self, low: Bound, high: Bound, parts: int, /) -> Sequence[Position]:
        """As :meth:`air.store.api.RangeSource.split`, and as slow."""
        return cut([place for place, _ in self._items(low, high)], low, parts)

    def items(self, low: Bound, high: Bound, limit: int, /) -> Sequence[Item]:
        """As :meth:`air.store.api.RangeSource.items`, and as slow."""
        return self._items(low, high)[:limit]

    def cells(self, positions: Sequence[Position], /) -> tuple[Sequence[Cell], Sequence[Mark]]:
        """As :meth:`air.store.api.RangeSource.cells`. There are no marks in memory: all are ()."""
        cells: list[Cell] = []
        for soul, key in positions:
            name, field = units_from_bytes(soul), units_from_bytes(key)
            node = self._nodes.get(name)
            if node is not None and (known := node.fields.get(field)) is not None:
                cells.append(Cell(name, field, *known))
        return cells, [()] * len(cells)

    def refresh(self, cells_max: int, /) -> bool:
        """Nothing can be done ahead."""
        return False

    def _items(self, low: Bound, high: Bound) -> list[Item]:
        found: list[Item] = []
        for soul, node in self._nodes.items():
            name = unit_bytes(soul)
            if (low is not None and name < low[0]) or (high is not None and name > high[0]):
                continue
            for key, (value, state) in node.fields.items():
                place = name, unit_bytes(key)
                if (low is None or place >= low) and (high is None or place < high):
                    found.append((place, item_hash(*place, state + 0.0, encode_value(value))))
        return sorted(found)

    def close(self) -> None:
        self._nodes.clear()
        self.bytes = 0


def select(
    fields: Mapping[Key, tuple[Value, State]],
    lex: Lex,
    after: Key | None = None,
    fields_max: int = PAGE_FIELDS,
    bytes_max: int = PAGE_BYTES,
) -> Page:
    """Choose from the fields of a whole node what :meth:`air.store.api.Store.read` would."""
    if lex.exact is not None or (lex.prefix and lex.prefix in fields):
        # Rule 5 of gun-wire 2.4: a prefix that is itself a key means only that key.
        only = lex.exact if lex.exact is not None else lex.prefix
        # The key is met before the bounds, so they must hold for it too.
        if only in fields and (lex.exact is not None or lex.holds(only)):
            return Page({only: fields[only]}, None)
        return Page({}, None)
    keys = sorted(fields if lex.is_all else filter(lex.holds, fields), key=unit_bytes, reverse=lex.reverse)
    if after is not None:
        mark = unit_bytes(after)
        keys = [key for key in keys if (unit_bytes(key) < mark if lex.reverse else unit_bytes(key) > mark)]
    chosen: dict[Key, tuple[Value, State]] = {}
    spent = size = 0
    for key in keys:
        if lex.budget is not None:
            if spent >= lex.budget:
                break
            spent += cost(fields[key][0])
        elif len(chosen) >= fields_max or size >= bytes_max:
            return Page(chosen, next(reversed(chosen)))
        chosen[key] = fields[key]
        size += len(key) + size_of(fields[key][0])
    return Page(chosen, None)
