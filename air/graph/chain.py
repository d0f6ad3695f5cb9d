"""The graph as a program uses it: references to nodes and fields, to read, write and follow them. (shell)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, overload

from air.base.errors import Misuse
from air.graph.api import Data, Input, Path, Receipt, Source
from air.graph.chain_live import Changes, Entries, Values, links, read, shown
from air.graph.chain_plan import Plan
from air.model.cell import Key, Soul
from air.model.lex import Lex
from air.model.value import Link, Value, canonical, unit_bytes

__all__ = ["Graph", "Ref"]


class Graph:
    """A running graph. It is opened by :func:`air.open` or :func:`air.connect`, and ends with their block."""

    __slots__ = ("_source",)

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def online(self) -> bool:
        """A peer that was dialled is connected."""
        return self._source.online

    def get(self, soul: Soul | Link, *keys: Key) -> Ref:
        """A reference to a node, or to what ``keys`` lead to from it. Nothing is read yet."""
        return Ref(self, soul.soul if isinstance(soul, Link) else soul, keys)

    @overload
    async def put(
        self,
        soul: Soul,
        fields: Mapping[Key, Input],
        /,
        *,
        peers: int | None = None,
        timeout: float | None = None,
    ) -> Receipt: ...
    @overload
    async def put(
        self,
        nodes: Mapping[Soul, Mapping[Key, Input]],
        /,
        *,
        peers: int | None = None,
        timeout: float | None = None,
    ) -> Receipt: ...
    async def put(
        self,
        soul: Soul | Mapping[Soul, Mapping[Key, Input]],
        fields: Mapping[Key, Input] | None = None,
        /,
        *,
        peers: int | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Write some fields of one node, or of many nodes, as one batch: all with the same state.

        It is durable here when this returns, and readable; other fields of the nodes stay. ``peers``: wait
        until so many dialled peers have acknowledged it as durable (None: 0 for an open graph, 1 for a
        connected one), but no longer than ``timeout`` seconds (None: 10). The receipt tells how many had;
        what others lack stays owed to them and is sent when they are back. Mappings inside become nodes of
        their own.

        Raises Misuse for what no node may hold, AirError with its code when the store or the peer refuses.
        """
        plan = Plan()
        if isinstance(soul, Mapping):
            for name, some in soul.items():
                plan.node(name, _mapping(some))
        else:
            plan.node(soul, _mapping(fields))
        return await self._write(plan, peers, timeout)

    async def _write(self, plan: Plan, peers: int | None, timeout: float | None) -> Receipt:
        while plan.nested or plan.refs:
            places, refs = list(plan.nested), list(plan.refs.items())
            plan.refs.clear()
            for (soul, key), path in refs:
                target = await self._soul_of(path)
                if target is None:
                    raise Misuse(f"{path!r} is no node to link to", code="graph.no-node")
                plan.link(soul, key, Link(target))
            if places:
                linked = await links(self._source, places)
                for place in places:
                    plan.settle(place, linked[place])
        return await self._source.write(plan.nodes, peers=peers, timeout=timeout)

    async def _soul_of(self, path: Path, seconds: float | None = None) -> Soul | None:
        """The node that a path leads to; None when it leads to none."""
        if not path.keys:
            return path.soul
        follow = await read(self._source, [(path.soul, ())], path.keys, depth=0, seconds=seconds)
        value = follow.found().value
        return value.soul if isinstance(value, Link) else None

    def _wrap(self, value: Value) -> Data:
        return Ref(self, value.soul) if isinstance(value, Link) else value


class Ref(Path):
    """A reference to a node, or to the field that some keys lead to: through links, as they are then.

    Nothing is read until a method is awaited. References to the same place of one graph are equal.
    """

    __slots__ = ("graph",)

    def __init__(self, graph: Graph, soul: Soul, keys: tuple[Key, ...] = ()) -> None:
        for name in (soul, *keys):
            if not isinstance(name, str) or not name:
                raise Misuse(
                    f"a soul and a key are text that is not empty, not {name!r}", code="graph.bad-name"
                )
        super().__init__(soul, keys)
        self.graph = graph

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Ref)
            and other.graph is self.graph
            and (other.soul, other.keys) == (self.soul, self.keys)
        )

    def __hash__(self) -> int:
        return hash((self.soul, self.keys))

    def __repr__(self) -> str:
        return f"Ref({', '.join(map(repr, (self.soul, *self.keys)))})"

    # -- places ----------------------------------------------------------------

    def get(self, *keys: Key) -> Ref:
        """What ``keys`` lead to from here. A field on the way that holds a link leads on to its node."""
        return Ref(self.graph, self.soul, (*self.keys, *keys))

    def back(self, steps: int = 1) -> Ref | Graph:
        """So many keys back; the graph itself beyond the node, and for -1."""
        if steps < 0 or steps > len(self.keys):
            return self.graph
        return Ref(self.graph, self.soul, self.keys[: len(self.keys) - steps])

    async def resolve(self, *, timeout: float | None = None) -> Ref | None:
        """The node that this leads to, by its own name; None when there is none. Raises as :meth:`once`."""
        soul = await self.graph._soul_of(self, timeout)
        return None if soul is None else Ref(self.graph, soul)

    # -- reading ---------------------------------------------------------------

    async def once(self, *, depth: int = 1, timeout: float | None = None) -> Data:
        """What is there now: a value, a :class:`Node`, or None when there is nothing.

        ``depth`` 0 leaves a link as a :class:`Ref`, 1 shows the node behind it with links as references, 2
        also shows the nodes behind those links, and so on; a circle ends in a reference.

        A connected graph waits for the peer's answer, ``timeout`` seconds at most (None: 5); while the peer
        cannot be reached it answers with what it has, and raises AirError ``graph.no-answer`` when it has
        nothing. Raises LimitReached ``limit.follow`` for more nodes than may be read at once.
        """
        follow = await read(self._source, [(self.soul, ())], self.keys, depth=depth, seconds=timeout)
        return shown(follow.found(), self.graph._wrap)

    @overload
    def on(self, *, whole: Literal[False] = False) -> Changes: ...
    @overload
    def on(self, *, whole: Literal[True], depth: int = 1) -> Values: ...
    def on(self, *, whole: bool = False, depth: int = 1) -> Changes | Values:
        """What is there, then every change, without end: an asynchronous iterator.

        By change: of a field its values, of a node its fields, each as a :class:`Change`. ``whole``: what
        :meth:`once` would return, again whenever it has changed. Links are followed as they are at any
        moment: when one changes, what is behind it now comes next.
        """
        if whole:
            return Values(self._source, self.soul, self.keys, self.graph._wrap, depth=depth)
        return Changes(self._source, self.soul, self.keys, self.graph._wrap)

    def map(self) -> Entries:
        """The entries of this node or set: live as an asynchronous iterator, now by ``await …once()``."""
        return self.range()

    def range(
        self,
        *,
        prefix: str = "",
        start: Key | None = None,
        end: Key | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Entries:
        """Those entries whose key begins with ``prefix`` and lies between ``start`` and ``end``, both
        included.

        Keys are compared whole and by UTF-16 unit, as JavaScript compares them. ``limit`` and ``reverse`` are
        for ``once()``: so many entries, in this order.
        """
        lex = _lex(prefix, start, end, reverse)
        return Entries(self._source, self.soul, self.keys, self.graph._wrap, lex, limit=limit)

    # -- writing ---------------------------------------------------------------

    async def put(self, value: Input, *, peers: int | None = None, timeout: float | None = None) -> Receipt:
        """Write a value, or some fields of the node that this leads to. None deletes, a reference links.

        Missing nodes on the way are made, named ``soul/key``. Arguments, result and errors are those of
        :meth:`Graph.put`.
        """
        plan = Plan()
        if not self.keys:
            plan.node(self.soul, _mapping(value))
        else:
            soul = await self._make_way(plan, self.keys[:-1])
            plan.field(soul, self.keys[-1], value)
        return await self.graph._write(plan, peers, timeout)

    async def add(self, value: Input, *, peers: int | None = None, timeout: float | None = None) -> Ref:
        """Add to the set that this leads to; returns a reference to the member. (``set`` in gun.js.)

        A mapping becomes a node with a name of its own. A reference, a link or a node is in the set once,
        however often it is added; a plain value is added as often as it is added.
        """
        source, plan = self._source, Plan()
        here = await self._make_way(plan, self.keys)
        if isinstance(value, Path):
            soul = await self.graph._soul_of(value, timeout)
            if soul is None:
                raise Misuse(f"{value!r} is no node to link to", code="graph.no-node")
        elif isinstance(value, Mapping) and _soul_named(value) is None:
            soul = source.new_soul()
            plan.node(soul, value)
        else:
            soul = _soul_named(value)
        if soul is None:
            key = source.new_soul()
            plan.field(here, key, value)
            member = Ref(self.graph, here, (key,))
        else:
            plan.link(here, soul, Link(soul))
            member = Ref(self.graph, soul)
        await self.graph._write(plan, peers, timeout)
        return member

    set = add

    async def unset(self, item: Input, *, peers: int | None = None, timeout: float | None = None) -> int:
        """Take a member out of the set: its entries become None, its node stays. Returns their number."""
        here = await self.graph._soul_of(self, timeout)
        if here is None:
            return 0
        soul = await self.graph._soul_of(item, timeout) if isinstance(item, Path) else _soul_named(item)
        wanted = self.graph._wrap(Link(soul)) if soul is not None else _plain(item)
        members = await Ref(self.graph, here).map().once(depth=0, timeout=timeout)
        gone = [key for key, value in members.items() if type(value) is type(wanted) and value == wanted]
        if gone:
            await self.graph.put(here, dict.fromkeys(gone), peers=peers, timeout=timeout)
        return len(gone)

    async def _make_way(self, plan: Plan, keys: Sequence[Key]) -> Soul:
        """The node that ``keys`` lead to; those that are missing on the way are planned."""
        soul = self.soul
        for key in keys:
            linked = (await links(self._source, [(soul, key)]))[soul, key]
            if linked is None:
                linked = f"{soul}/{key}"
                plan.link(soul, key, Link(linked))
            soul = linked
        return soul

    @property
    def _source(self) -> Source:
        return self.graph._source


def _mapping(fields: Any) -> Mapping[str, Any]:
    """What is written to a node itself. Raises Misuse ``graph.no-fields``."""
    if isinstance(fields, Mapping):
        return fields
    raise Misuse(f"a node takes a mapping of fields, not {type(fields).__name__}", code="graph.no-fields")


def _soul_named(value: Any) -> Soul | None:
    """The node that a link, a node that was read, or ``{"#": soul}`` names."""
    soul = value.get("#") if isinstance(value, dict) and len(value) == 1 else getattr(value, "soul", None)
    return soul if isinstance(soul, str) and soul else None


def _plain(value: Any) -> Value:
    """A plain value as it is stored. Raises Misuse ``graph.bad-value``."""
    held = canonical(value)
    if held is None:
        raise Misuse(f"no set holds {type(value).__name__}", code="graph.bad-value")
    return held[0]


def _lex(prefix: str, start: Key | None, end: Key | None, reverse: bool) -> Lex:
    """A LEX compares what follows the prefix (gun-wire 2.4); a range here compares whole keys."""
    if not prefix:
        return Lex(start=start, end=end, reverse=reverse)
    if start is not None and not start.startswith(prefix):
        if unit_bytes(start) > unit_bytes(prefix):
            return _NO_KEY
        start = None
    if end is not None and not end.startswith(prefix):
        if unit_bytes(end) < unit_bytes(prefix):
            return _NO_KEY
        end = None
    rest = len(prefix)
    return Lex(
        prefix=prefix,
        start=start and start[rest:],
        end=None if end is None else end[rest:],
        reverse=reverse,
    )


_NO_KEY: Final = Lex(exact="")
"""Holds no key, since no key is empty."""
