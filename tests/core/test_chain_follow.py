"""Following paths through links: against a reader that looks everything up anew each time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.errors import LimitReached
from air.graph.chain_follow import NOTHING, Follow, Found
from air.model.cell import Cell
from air.model.lex import ALL, Lex
from air.model.value import Link, Value

SOULS = "pqrs"
KEYS = "abc"
Graph = dict[str, dict[str, Value]]

values = st.one_of(st.none(), st.integers(0, 3), st.sampled_from(SOULS).map(Link))
writes = st.lists(st.tuples(st.sampled_from(SOULS), st.sampled_from(KEYS), values), max_size=30)


class World:
    """A graph that tells a follower what it watches, as a hub does."""

    def __init__(self, follow: Follow, graph: Graph | None = None) -> None:
        self.follow, self.graph = follow, graph or {}
        self.state = 0
        self.watched: dict[str, set[str | None]] = {}
        self.settle()

    def write(self, soul: str, key: str, value: Value) -> list[Any]:
        self.state += 1
        self.graph.setdefault(soul, {})[key] = value
        keys = self.watched.get(soul, set())
        out: list[Any] = []
        if None in keys or key in keys:
            out += self.follow.receive([Cell(soul, key, value, self.state)])
        return out + self.settle()

    def settle(self) -> list[Any]:
        out: list[Any] = []
        while wants := self.follow.take_wants():
            for begin, soul, key in wants:
                if begin:
                    self.watched.setdefault(soul, set()).add(key)
                    fields = self.graph.get(soul, {})
                    out += self.follow.receive(
                        [Cell(soul, k, v, self.state) for k, v in fields.items() if key in (None, k)]
                    )
                else:
                    self.watched[soul].discard(key)
        return out


def plain(found: Found) -> Any:
    if found.fields is None:
        return found.value
    return {key: plain(inner) for key, inner in found.fields.items()}


def look_up(graph: Graph, soul: str, keys: list[str], depth: int) -> Any:
    for key in keys[:-1]:
        value = graph.get(soul, {}).get(key)
        if not isinstance(value, Link):
            return None
        soul = value.soul
    if keys:
        value = graph.get(soul, {}).get(keys[-1])
        if not isinstance(value, Link) or depth == 0:
            return value
        soul = value.soul
    elif soul not in graph:
        return None
    return tree(graph, soul, depth, ())


def tree(graph: Graph, soul: str, depth: int, above: tuple[str, ...]) -> Any:
    above = (*above, soul)
    return {
        key: tree(graph, value.soul, depth - 1, above)
        if isinstance(value, Link) and depth > 1 and value.soul not in above
        else value
        for key, value in graph.get(soul, {}).items()
    }


@settings(max_examples=200, deadline=None)
@given(writes, st.lists(st.sampled_from(KEYS), max_size=3), st.integers(0, 3), st.integers(0, 30))
def test_a_path_leads_where_a_fresh_look_would(
    sent: list[Any], keys: list[str], depth: int, early: int
) -> None:
    depth = max(depth, 0 if keys else 1)
    graph: Graph = {}
    for soul, key, value in sent[:early]:
        graph.setdefault(soul, {})[key] = value
    follow = Follow([("p", ())], keys, depth=depth)
    world = World(follow, graph)
    for write in sent[early:]:
        world.write(*write)
        assert plain(follow.found()) == look_up(world.graph, "p", keys, depth)
    assert plain(follow.found()) == look_up(world.graph, "p", keys, depth)


@settings(max_examples=200, deadline=None)
@given(writes, st.lists(st.sampled_from(KEYS), max_size=2))
def test_the_last_change_of_a_field_is_what_is_there(sent: list[Any], keys: list[str]) -> None:
    world = World(Follow([("p", ())], keys, keep=False))
    told: dict[tuple[str, str], Value] = {}
    for write in sent:
        for change in world.write(*write):
            told[change.soul, change.key] = change.value
    expected = look_up(world.graph, "p", keys, 1)
    if isinstance(expected, dict):
        fields = {key: value for (_, key), value in told.items()}
        assert {key: fields.get(key, "missing") for key in expected} == expected
    elif expected is not None:
        assert expected in told.values()


@settings(max_examples=200, deadline=None)
@given(writes)
def test_each_entry_of_a_set_is_what_its_own_path_leads_to(sent: list[Any]) -> None:
    world = World(Follow([("p", ())], [ALL]))
    held: dict[str, Any] = {}
    for write in sent:
        world.write(*write)
        while (trail := world.follow.take_dirty()) is not None:
            held[trail[0]] = plain(world.follow.found(trail))
    for key in world.graph.get("p", {}):
        expected = look_up(world.graph, "p", [key], 1)
        # An entry is shown once something is seen of it.
        assert held.get(key) == expected or expected == {}


@settings(max_examples=200, deadline=None)
@given(writes, st.lists(st.sampled_from(KEYS), max_size=3))
def test_nothing_is_watched_but_what_the_path_leads_through(sent: list[Any], keys: list[str]) -> None:
    world = World(Follow([("p", ())], keys))
    for write in sent:
        world.write(*write)
    assert sum(len(wanted) for wanted in world.watched.values()) <= len(keys) + 1


def test_a_circle_ends_in_a_link() -> None:
    world = World(Follow([("p", ())], [], depth=9))
    world.write("p", "a", Link("q"))
    world.write("q", "b", Link("p"))
    assert plain(world.follow.found()) == {"a": {"b": Link("p")}}


def test_an_empty_node_behind_a_link_is_there_and_a_missing_field_is_not() -> None:
    world = World(Follow([("p", ())], ["a"]))
    assert world.follow.found() is NOTHING
    world.write("p", "a", Link("q"))
    assert plain(world.follow.found()) == {}


def test_a_path_through_too_many_nodes_is_refused() -> None:
    world = World(Follow([("p", ())], [Lex()], spots_max=3))
    world.write("p", "a", Link("q"))
    world.write("p", "b", Link("r"))
    with pytest.raises(LimitReached) as caught:
        world.write("p", "c", Link("s"))
    assert caught.value.code == "limit.follow"
