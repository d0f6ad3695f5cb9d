"""The graph API over a graph in this program, on disk and in memory, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import air
from air import Change, Entry, Graph, Link, Node, Ref
from air.base.errors import AirError, ConfigError, LimitReached, Misuse, StoreError

pytestmark = pytest.mark.anyio

SECONDS = 10.0


@pytest.fixture(params=["memory", "disk"])
async def graph(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Graph]:
    async with air.open(None if request.param == "memory" else tmp_path / "data") as graph:
        yield graph


def fields(value: Any) -> dict[str, Any]:
    assert isinstance(value, Node)
    return dict(value)


async def taken(live: Any) -> Any:
    with anyio.fail_after(SECONDS):
        return await anext(live)


# -- writing and reading -------------------------------------------------------


async def test_values_come_back_as_they_were_written(graph: Graph) -> None:
    ann = graph.get("ann")
    written = {"name": "Ann", "age": 7, "size": 1.5, "admin": True, "left": False, "gone": None}
    receipt = await ann.put(written)
    assert (receipt.cells, receipt.peers) == (6, 0)
    node = await ann.once()
    assert node == written
    assert isinstance(node, Node)
    assert node.soul == "ann"
    assert node.state("age") == receipt.state
    for key, value in written.items():
        assert await ann.get(key).once() == value


async def test_a_put_merges_and_never_replaces(graph: Graph) -> None:
    await graph.put("ann", {"a": 1, "b": 2})
    await graph.get("ann").put({"b": 3})
    await graph.get("ann", "c").put(4)
    assert await graph.get("ann").once() == {"a": 1, "b": 3, "c": 4}


async def test_nothing_reads_as_none(graph: Graph) -> None:
    assert await graph.get("nobody").once() is None
    assert await graph.get("nobody", "name").once() is None
    assert await graph.get("nobody", "friend", "name").once() is None
    assert await graph.get("nobody").map().once() == {}
    assert await graph.get("nobody", "friends").map().once() == {}


async def test_a_batch_is_one_state(graph: Graph) -> None:
    receipt = await graph.put({f"n{i}": {"a": i, "b": i} for i in range(100)})
    assert receipt.cells == 200
    for soul in ("n0", "n99"):
        node = await graph.get(soul).once()
        assert isinstance(node, Node)
        assert {node.state(key) for key in node} == {receipt.state}


async def test_a_mapping_inside_becomes_a_node_named_by_its_place(graph: Graph) -> None:
    await graph.put("ann", {"name": "Ann", "home": {"city": "Hanoi", "geo": {"lat": 21.03}}})
    assert fields(await graph.get("ann").once())["home"] == graph.get("ann/home")
    assert await graph.get("ann/home/geo").once() == {"lat": 21.03}
    assert await graph.get("ann", "home", "geo", "lat").once() == 21.03


async def test_a_mapping_goes_into_the_node_that_the_field_links_to(graph: Graph) -> None:
    await graph.put({"ann": {"boss": Link("bob")}, "bob": {"name": "Bob"}})
    await graph.get("ann").put({"boss": {"age": 50}})
    await graph.get("ann", "boss").put({"city": "Hue"})
    assert await graph.get("bob").once() == {"name": "Bob", "age": 50, "city": "Hue"}


async def test_one_mapping_in_several_places_is_one_node_also_in_a_circle(graph: Graph) -> None:
    tag: dict[str, Any] = {"label": "x"}
    tag["self"] = tag
    await graph.put("a", {"first": tag, "second": tag, "inner": {"third": tag}})
    targets = {
        await graph.get("a", *keys).resolve()
        for keys in (["first"], ["second"], ["inner", "third"], ["first", "self"])
    }
    assert len(targets) == 1


async def test_a_mapping_that_holds_the_node_itself_links_back(graph: Graph) -> None:
    ann: dict[str, Any] = {"name": "Ann"}
    ann["me"] = ann
    await graph.put("ann", ann)
    assert await graph.get("ann", "me").once(depth=0) == graph.get("ann")


async def test_an_empty_mapping_makes_a_link_to_a_node_without_fields(graph: Graph) -> None:
    await graph.put("ann", {"home": {}})
    assert await graph.get("ann", "home").once(depth=0) == graph.get("ann/home")
    assert await graph.get("ann", "home").once() == {}


async def test_a_put_through_missing_nodes_makes_them(graph: Graph) -> None:
    await graph.get("a", "b", "c", "d").put(1)
    assert await graph.get("a", "b", "c", "d").once() == 1
    assert await graph.get("a/b/c").once() == {"d": 1}
    await graph.get("a", "b", "c", "e").put(2)
    assert await graph.get("a/b/c").once() == {"d": 1, "e": 2}


async def test_references_links_and_nodes_are_values(graph: Graph) -> None:
    bob = graph.get("bob")
    await bob.put({"name": "Bob"})
    await graph.put("ann", {"a": bob, "b": Link("bob"), "c": await bob.once(), "d": {"#": "bob"}})
    assert await graph.get("ann").once() == dict.fromkeys("abcd", bob)
    await graph.put("zoe", {"boss": graph.get("ann", "a")})
    assert await graph.get("zoe", "boss").resolve() == bob


async def test_a_deleted_field_is_none_and_a_cut_link_leaves_the_node(graph: Graph) -> None:
    await graph.put("ann", {"name": "Ann", "home": {"city": "Hue"}})
    await graph.get("ann", "name").put(None)
    await graph.get("ann", "home").put(None)
    assert await graph.get("ann").once() == {"name": None, "home": None}
    assert await graph.get("ann/home").once() == {"city": "Hue"}
    # As in gun.js, what is written there again is the same node.
    await graph.get("ann", "home").put({"zip": 1})
    assert await graph.get("ann", "home").once() == {"city": "Hue", "zip": 1}


async def test_depth_says_how_many_nodes_deep_is_read(graph: Graph) -> None:
    await graph.put("a", {"x": 1, "b": {"y": 2, "c": {"z": 3}}})
    a = graph.get("a")
    assert await a.once() == {"x": 1, "b": graph.get("a/b")}
    assert await a.once(depth=2) == {"x": 1, "b": {"y": 2, "c": graph.get("a/b/c")}}
    assert await a.once(depth=9) == {"x": 1, "b": {"y": 2, "c": {"z": 3}}}
    assert await a.get("b").once(depth=0) == graph.get("a/b")
    whole = await a.once(depth=9)
    assert isinstance(whole, Node)
    assert whole.plain() == {"x": 1, "b": {"y": 2, "c": {"z": 3}}}
    shallow = await a.once()
    assert isinstance(shallow, Node)
    assert shallow.plain() == {"x": 1, "b": {"#": "a/b"}}


async def test_circles_end_in_references(graph: Graph) -> None:
    await graph.put({"a": {"b": Link("b")}, "b": {"a": Link("a")}})
    assert await graph.get("a").once(depth=9) == {"b": {"a": graph.get("a")}}


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda g: g.put("a", {"x": [1]}), "graph.bad-value"),
        (lambda g: g.put("a", {"x": float("nan")}), "graph.bad-value"),
        (lambda g: g.put("a", {"x": b"bytes"}), "graph.bad-value"),
        (lambda g: g.put("a", {"x": {"y": object()}}), "graph.bad-value"),
        (lambda g: g.put("a", {1: 1}), "graph.bad-name"),
        (lambda g: g.put("a", {"": 1}), "graph.bad-name"),
        (lambda g: g.put("", {"x": 1}), "graph.bad-name"),
        (lambda g: g.put("a", 5), "graph.no-fields"),
        (lambda g: g.get("a").put(None), "graph.no-fields"),
        (lambda g: g.put("a", {"x": g.get("b", "nothing")}), "graph.no-node"),
        (lambda g: g.get("s").add(g.get("b", "nothing")), "graph.no-node"),
        (lambda g: g.get("s").add([1]), "graph.bad-value"),
    ],
)
async def test_what_no_node_may_hold_is_refused_before_anything_is_written(
    graph: Graph, write: Callable[[Graph], Any], code: str
) -> None:
    with pytest.raises(Misuse) as caught:
        await write(graph)
    assert caught.value.code == code
    assert await graph.get("a").once() is None


async def test_empty_names_are_refused_where_they_stand(graph: Graph) -> None:
    for make in (lambda: graph.get(""), lambda: graph.get("a", ""), lambda: graph.get("a").get("b", "")):
        with pytest.raises(Misuse, match="not empty"):
            make()


async def test_back_goes_up_to_the_graph(graph: Graph) -> None:
    name = graph.get("ann", "boss", "name")
    assert name.back() == graph.get("ann", "boss")
    assert name.back(2) == graph.get("ann")
    assert name.back(0) == name
    assert name.back(3) is graph
    assert name.back(-1) is graph
    assert repr(name) == "Ref('ann', 'boss', 'name')"
    assert len({name, graph.get("ann").get("boss").get("name")}) == 1
    assert graph.get(Link("ann")) == graph.get("ann")


# -- sets and ranges -----------------------------------------------------------


async def test_a_set_holds_a_node_once_and_loses_it_again(graph: Graph) -> None:
    friends, bob = graph.get("ann", "friends"), graph.get("bob")
    await bob.put({"name": "Bob"})
    cat = await friends.add({"name": "Tom"})
    assert await friends.add(bob) == bob
    await friends.add(await bob.resolve())  # type: ignore[arg-type]
    await friends.set(Link("bob"))
    members = await friends.map().once()
    assert members == {cat.soul: {"name": "Tom"}, "bob": {"name": "Bob"}}
    assert await friends.map().get("name").once() == {cat.soul: "Tom", "bob": "Bob"}
    assert await friends.map().once(depth=0) == {cat.soul: cat, "bob": bob}
    assert await friends.unset(bob) == 1
    assert await friends.unset(bob) == 0
    assert await friends.unset(members[cat.soul]) == 1
    assert await friends.map().once() == {}
    assert await bob.once() == {"name": "Bob"}


async def test_plain_values_are_added_under_names_of_their_own(graph: Graph) -> None:
    words = graph.get("words")
    first = await words.add("yes")
    await words.add("yes")
    await words.add(1)
    await words.add(True)
    assert await first.once() == "yes"
    assert sorted(map(str, (await words.map().once()).values())) == ["1", "True", "yes", "yes"]
    assert await words.unset(1) == 1
    assert await words.unset("yes") == 2
    assert list((await words.map().once()).values()) == [True]
    assert await graph.get("no", "set").unset(1) == 0


async def test_a_range_is_cut_by_whole_keys_in_their_order(graph: Graph) -> None:
    days = {f"2024/{month:02}/{day:02}": month * day for month in (1, 2, 3) for day in (1, 15)}
    log = graph.get("log")
    await log.put({**days, "2024/02": 0, "note": "x", "2024/03/20": None})
    assert list(await log.range(prefix="2024/02").once()) == ["2024/02", "2024/02/01", "2024/02/15"]
    assert list(await log.range(prefix="2024/", start="2024/02/01", end="2024/03/01").once()) == [
        "2024/02/01",
        "2024/02/15",
        "2024/03/01",
    ]
    assert list(await log.range(prefix="2024/", start="2024/03").once()) == ["2024/03/01", "2024/03/15"]
    assert list(await log.range(prefix="2024/", end="2024/01/01").once()) == ["2024/01/01"]
    assert list(await log.range(prefix="2024/", start="2023", end="2025", limit=1).once()) == ["2024/01/01"]
    assert list(await log.range(prefix="2024/", reverse=True, limit=2).once()) == ["2024/03/15", "2024/03/01"]
    assert list(await log.range(reverse=True, limit=1).once()) == ["note"]
    assert list(await log.range(limit=1).once()) == ["2024/01/01"]
    assert list(await log.range(start="2024/03/02").once()) == ["2024/03/15", "note"]
    assert list(await log.range(end="2024/01/15").once()) == ["2024/01/01", "2024/01/15"]
    for nothing in (
        log.range(prefix="2024/", start="2025"),
        log.range(prefix="2024/", end="2023"),
        log.range(limit=0),
        log.range(start="b", end="a"),
    ):
        assert await nothing.once() == {}
    assert list(await log.map().once()) == sorted([*days, "2024/02", "note"])


async def test_a_range_goes_by_the_order_of_javascript(graph: Graph) -> None:
    # U+1F600 is two units that begin with 0xD83D, so it comes before U+FF5E.
    await graph.put("n", {"\uff5e": 1, "\U0001f600": 2, "a": 3, "b\uffff": 4, "b\uffffx": 5, "c": 6})
    assert list((await graph.get("n").range(start="a").once()).values()) == [3, 4, 5, 6, 2, 1]
    assert list((await graph.get("n").range(prefix="b\uffff").once()).values()) == [4, 5]
    assert list((await graph.get("n").range(prefix="b", reverse=True).once()).values()) == [5, 4]


async def test_a_node_of_many_pages_is_read_whole(graph: Graph) -> None:
    await graph.put("big", {f"k{i:05}": i for i in range(6000)})
    entries = await graph.get("big").map().once()
    assert list(entries.values()) == list(range(6000))
    assert len(fields(await graph.get("big").once())) == 6000
    assert list(await graph.get("big").range(prefix="k05", limit=3, reverse=True).once()) == [
        "k05999",
        "k05998",
        "k05997",
    ]


# -- live ----------------------------------------------------------------------


async def test_changes_of_a_field_begin_with_what_is_there(graph: Graph) -> None:
    name = graph.get("ann", "name")
    receipt = await name.put("Ann")
    async with name.on() as changes:
        assert await taken(changes) == Change("ann", "name", "Ann", receipt.state)
        await graph.put("ann", {"name": "Anna", "age": 7})
        assert (await taken(changes)).value == "Anna"
        await name.put(None)
        assert (await taken(changes)).value is None


async def test_changes_of_a_node_come_by_field(graph: Graph) -> None:
    await graph.put("ann", {"a": 1, "b": 2})
    async with graph.get("ann").on() as changes:
        first = [await taken(changes), await taken(changes)]
        assert {change.key: change.value for change in first} == {"a": 1, "b": 2}
        await graph.put({"ann": {"b": graph.get("bob")}, "bob": {"x": 1}})
        change = await taken(changes)
        assert (change.soul, change.key, change.value) == ("ann", "b", graph.get("bob"))


async def test_whole_values_come_again_with_every_change(graph: Graph) -> None:
    ann = graph.get("ann")
    await ann.put({"a": 1, "home": {"city": "Hue"}})
    async with ann.on(whole=True) as shallow, ann.on(whole=True, depth=2) as deep:
        assert await taken(shallow) == {"a": 1, "home": graph.get("ann/home")}
        assert await taken(deep) == {"a": 1, "home": {"city": "Hue"}}
        await ann.get("home", "city").put("Hanoi")
        assert await taken(deep) == {"a": 1, "home": {"city": "Hanoi"}}
        await ann.get("a").put(2)
        assert fields(await taken(shallow))["a"] == 2


async def test_a_live_path_follows_its_links_when_they_change(graph: Graph) -> None:
    ann, name = graph.get("ann"), graph.get("ann", "friend", "name")
    await graph.put(
        {"ann": {"friend": Link("bob")}, "bob": {"name": "Bob"}, "cat": {"name": "Cat"}, "dan": {"age": 1}}
    )
    async with (
        name.on() as changes,
        name.on(whole=True) as values,
        graph.get("ann", "friend").on() as fields_,
    ):
        assert (await taken(changes)).value == await taken(values) == (await taken(fields_)).value == "Bob"
        await ann.put({"friend": Link("cat")})
        assert (await taken(changes)).value == await taken(values) == "Cat"
        change = await taken(fields_)
        assert (change.soul, change.value) == ("cat", "Cat")
        # The node that is no longer led to is no longer heard of.
        await graph.put({"bob": {"name": "Bobby"}, "cat": {"name": "Cathy"}})
        assert (await taken(changes)).value == await taken(values) == (await taken(fields_)).value == "Cathy"
        await ann.get("friend").put(None)
        gone = await taken(changes)
        assert (gone.soul, gone.key, gone.value) == ("ann", "friend", None)
        assert await taken(values) is None
        await taken(fields_)
        # Back at a node that was shown before: what is there comes again.
        await ann.get("friend").put(Link("bob"))
        assert (await taken(changes)).value == await taken(values) == "Bobby"


async def test_a_live_view_waits_for_what_is_not_there_yet(graph: Graph) -> None:
    async with graph.get("a", "b", "c").on() as changes, graph.get("a").on(whole=True) as values:
        with anyio.move_on_after(0.05) as waited:
            await anext(changes)
        assert waited.cancelled_caught
        await graph.get("a", "b", "c").put(1)
        assert (await taken(changes)).value == 1
        assert await taken(values) == {"b": graph.get("a/b")}


async def test_a_live_set_tells_of_members_that_come_change_and_go(graph: Graph) -> None:
    friends, bob = graph.get("friends"), graph.get("bob")
    await bob.put({"name": "Bob"})
    await friends.put({"bob": bob, "old": None})
    async with friends.map() as entries, friends.map().get("name") as named:
        assert await taken(entries) == Entry("bob", {"name": "Bob"})
        assert await taken(named) == ("bob", "Bob")
        tom = await friends.add({"name": "Tom"})
        assert await taken(entries) == (tom.soul, {"name": "Tom"})
        assert await taken(named) == (tom.soul, "Tom")
        await bob.put({"name": "Bobby"})
        assert await taken(entries) == ("bob", {"name": "Bobby"})
        await friends.unset(bob)
        assert await taken(entries) == ("bob", None)
        await friends.add("word")
        assert (await taken(entries)).value == "word"


async def test_a_live_range_tells_of_its_keys_only(graph: Graph) -> None:
    log = graph.get("log")
    async with log.range(prefix="b", end="b5") as entries:
        await log.put({"a1": 1, "b1": 2, "b9": 3})
        await log.put({"b3": 4})
        assert [await taken(entries), await taken(entries)] == [("b1", 2), ("b3", 4)]
    with pytest.raises(Misuse):
        await anext(log.range(limit=1))


async def test_a_loop_over_changes_ends_with_break_and_leaves_nothing(graph: Graph) -> None:
    await graph.put("ann", {"a": 1, "b": 2})
    before = links(graph)
    async for change in graph.get("ann").on():
        assert change.value in (1, 2)
        break
    async for _ in graph.get("ann").map():
        break
    assert links(graph) == before


async def test_a_closed_view_ends(graph: Graph) -> None:
    changes = graph.get("ann").on()
    await changes.aclose()
    changes.close()
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


# -- slow readers --------------------------------------------------------------


async def test_a_slow_reader_gets_the_newest_and_holds_up_nobody(graph: Graph) -> None:
    counter = graph.get("counter", "n")
    await counter.put(0)
    seen = 0
    async with counter.on() as slow, counter.on() as quick:
        assert (await taken(slow)).value == 0
        assert (await taken(quick)).value == 0
        for number in range(1, 201):
            await counter.put(number)
            assert (await taken(quick)).value == number
            seen += 1
        assert (await taken(slow)).value == 200
        with anyio.move_on_after(0.02) as waited:
            await anext(slow)
        assert waited.cancelled_caught
    assert seen == 200


async def test_a_reader_that_leaves_too_many_fields_unread_is_told_so(graph: Graph) -> None:
    hub(graph).config = replaced(hub(graph).config, watch_fields_max=10)
    async with graph.get("n").on() as slow, graph.get("n").on() as quick:
        for number in range(12):
            await graph.put("n", {f"k{number}": number})
            assert (await taken(quick)).value == number
        with pytest.raises(LimitReached) as caught:
            await anext(slow)
        assert caught.value.code == "limit.watch"


# -- opening -------------------------------------------------------------------


async def test_a_folder_keeps_what_was_written(tmp_path: Path) -> None:
    async with air.open(tmp_path / "data") as graph:
        receipt = await graph.put("ann", {"name": "Ann", "home": {"city": "Hue"}})
        assert receipt.durable
    async with air.open(str(tmp_path / "data"), durability="memory") as graph:
        assert await graph.get("ann").once(depth=2) == {"name": "Ann", "home": {"city": "Hue"}}
        later = await graph.put("ann", {"name": "Anna"})
        assert not later.durable
        assert later.state > receipt.state


async def test_a_folder_is_open_once(tmp_path: Path) -> None:
    async with air.open(tmp_path):
        with pytest.raises(StoreError) as caught:
            async with air.open(tmp_path):
                pass
        assert caught.value.code == "store.locked"


async def test_what_the_block_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    opened: list[Callable[[], AbstractAsyncContextManager[Graph]]] = [air.open, lambda: air.open(tmp_path)]
    for make in opened:
        with pytest.raises(KeyError):
            async with make():
                raise KeyError
        with anyio.move_on_after(0.01) as waited:
            async with make():
                await anyio.sleep_forever()
        assert waited.cancelled_caught


async def test_a_peer_that_is_no_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        async with air.open(peers=["ftp://x"]):
            pass
    assert caught.value.code == "config.bad-peer"


async def test_a_program_that_only_writes_lets_others_run(graph: Graph) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for number in range(20):
            await graph.put("n", {"v": number})
            await graph.get("n", "v").once()
        tasks.cancel_scope.cancel()
    assert turns >= 20


def hub(graph: Graph) -> Any:
    return graph._source._hub  # type: ignore[attr-defined]


def links(graph: Graph) -> set[int]:
    return set(hub(graph)._links)


def replaced(config: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(config, **changes)


def test_errors_and_names_are_where_they_are_said_to_be() -> None:
    assert issubclass(air.AirError, AirError)
    for name in air.__all__:
        assert getattr(air, name) is not None
    assert set(air.__all__) <= set(dir(air))
    with pytest.raises(AttributeError):
        air.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert Ref is air.Ref
