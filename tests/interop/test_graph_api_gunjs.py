"""The table "Coming from gun.js": each left side runs in gun.js, each right side in Python, on one daemon."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import air
from air import Change, Graph, Link, Node, Ref
from tests.interop.children import ROOT, NodeChild, running, start_node
from tests.interop.relays import Relay

pytestmark = [pytest.mark.node, pytest.mark.anyio]

SECONDS = 10.0
PAGE = (ROOT / "docs" / "python-api.md").read_text()
TABLE = PAGE.partition("## Coming from gun.js")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| `(gun[^`]*)` \| `([^`]*)` \|", TABLE, re.MULTILINE)

SEED: dict[str, dict[str, Any]] = {
    "ann": {"name": "Ann", "age": 7, "boss": Link("bob"), "friends": Link("ann/friends")},
    "ann/friends": {"bob": Link("bob"), "cat": Link("cat")},
    "bob": {"name": "Bob", "city": "Hue"},
    "cat": {"name": "Cat"},
    "dan": {"name": "Dan"},
}
"""What is there before each row, under names of its own."""


def renamed(text: str, tag: str) -> str:
    """The souls of a row become this run's own; keys of sets are souls too."""
    return re.sub(r"(['\"])(ann|bob|cat|dan)(?=['\"/])", rf"\g<1>{tag}-\2", text)


def named(value: Any, tag: str) -> Any:
    """Values with the names of the documentation."""
    if isinstance(value, str):
        return value.removeprefix(f"{tag}-")
    if isinstance(value, Link):
        return {"#": named(value.soul, tag)}
    if isinstance(value, Ref):
        return {"#": named(value.soul, tag)}
    if isinstance(value, dict | Node):
        return {named(key, tag): named(inner, tag) for key, inner in value.items()}
    return value


@pytest.fixture
async def gun(relay: Relay, tmp_path: Path) -> AsyncIterator[NodeChild]:
    process = await start_node("gun_expressions.cjs", {"peers": [relay.url]}, tmp_path / "gun.log")
    async with running(NodeChild(process, tmp_path / "gun.log")) as child:
        await child.event("ready")
        yield child


@pytest.fixture
async def graph(relay: Relay) -> AsyncIterator[Graph]:
    async with air.connect(relay.url) as graph:
        yield graph


async def seeded(relay: Relay, tag: str) -> None:
    async with air.connect(relay.url) as graph:
        await graph.put(
            {
                f"{tag}-{soul}": {
                    renamed(f"'{key}'", tag)[1:-1] if soul == "ann/friends" else key: Link(
                        f"{tag}-{value.soul}"
                    )
                    if isinstance(value, Link)
                    else value
                    for key, value in fields.items()
                }
                for soul, fields in SEED.items()
            }
        )


async def change(relay: Relay, tag: str) -> None:
    """What happens while a row listens."""
    async with air.connect(relay.url) as graph:
        await graph.put(
            {
                f"{tag}-ann": {"name": "Anna", "boss": Link(f"{tag}-dan")},
                f"{tag}-cat": {"name": "Cathy"},
            }
        )


async def stored(relay: Relay, tag: str) -> dict[str, Any]:
    """Everything that a row may have written, with the names of the documentation."""
    async with air.connect(relay.url) as graph:
        nodes = {}
        for soul in (*SEED, "ann/home"):
            nodes[soul] = named(await graph.get(f"{tag}-{soul}").once(), tag)
        members = await graph.get(f"{tag}-ann/friends").map().once()
        # New members have names that nobody can foresee.
        nodes["ann/friends"] = sorted(str(named(member, tag)) for member in members.values())
        return nodes


class Called:
    """The calls of one expression's callback."""

    def __init__(self, gun: NodeChild, run: int, tag: str) -> None:
        self._gun, self._run, self._tag = gun, run, tag

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [
            (named(event.get("key"), self._tag), named(event.get("value"), self._tag))
            for event in self._gun.events
            if event["event"] == "called" and event["run"] == self._run
        ]

    async def until(self, condition: Callable[[list[tuple[str, Any]]], bool]) -> None:
        try:
            await self._gun.until(lambda: condition(self.calls), SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"gun.js has called back with {self.calls}") from error


async def run_gun(gun: NodeChild, expression: str, tag: str) -> Called:
    number = await gun.start_command("run", code=renamed(expression, tag))
    called = Called(gun, number, tag)
    await gun.answer(number)
    return called


async def evaluated(graph: Graph, expression: str) -> Any:
    code = f"async def row(graph):\n    return {expression}\n"
    scope: dict[str, Any] = {}
    exec(code, scope)
    return await scope["row"](graph)


def test_the_table_is_there() -> None:
    assert len(ROWS) >= 20
    assert len(ROWS) == len(re.findall(r"^\| `gun", TABLE, re.MULTILINE))


WRITES = [row for row in ROWS if ".put(" in row[0] or ".set(" in row[0]]
LIVE = [row for row in ROWS if row[1].startswith("async for")]
READS = [row for row in ROWS if row not in WRITES and row not in LIVE]


@pytest.mark.parametrize(("js", "python"), WRITES)
async def test_both_write_the_same(js: str, python: str, relay: Relay, gun: NodeChild, graph: Graph) -> None:
    number = WRITES.index((js, python))
    left, right = f"js{number}", f"py{number}"
    for tag in (left, right):
        await seeded(relay, tag)
    await evaluated(graph, renamed(python, right))
    expected = await stored(relay, right)
    await run_gun(gun, js, left)
    with anyio.move_on_after(SECONDS):
        while await stored(relay, left) != expected:
            await anyio.sleep(0.02)
    assert await stored(relay, left) == expected


@pytest.mark.parametrize(("js", "python"), READS)
async def test_both_read_the_same(js: str, python: str, relay: Relay, gun: NodeChild, graph: Graph) -> None:
    tag = f"r{READS.index((js, python))}"
    await seeded(relay, tag)
    found = named(await evaluated(graph, renamed(python, tag)), tag)
    called = await run_gun(gun, js, tag)
    if ".map()" in js:
        assert found

        def complete(calls: list[tuple[str, Any]]) -> bool:
            seen = dict(calls)
            if ".get('name')" in js:
                return sorted(value for _, value in calls) == sorted(found.values())
            return all(_same(seen.get(key), value) for key, value in found.items())

        await called.until(complete)
        return
    await called.until(lambda calls: any(value == found for _, value in calls))


def _same(value: Any, found: Any) -> bool:
    # gun.js shows the link in a LEX's map, or the node behind it, whichever it has by then.
    return bool(value == found) or (isinstance(found, dict) and isinstance(value, dict))


@pytest.mark.parametrize(("js", "python"), LIVE)
async def test_both_see_the_same_changes(
    js: str, python: str, relay: Relay, gun: NodeChild, graph: Graph
) -> None:
    tag = f"l{LIVE.index((js, python))}"
    await seeded(relay, tag)
    matched = re.fullmatch(r"async for ([\w, ]+) in (.+):", python)
    assert matched is not None
    live = await evaluated(graph, f"({renamed(matched[2], tag)})")
    last: Any = {"Anna": "Anna", "Cathy": ("cat", {"name": "Cathy"}), "Dan": "Dan"}
    expected = last["Cathy" if "map" in js else "Dan" if "boss" in js else "Anna"]
    if ".on(whole" in python:
        expected = {"name": "Anna", "age": 7, "boss": {"#": "dan"}, "friends": {"#": "ann/friends"}}
    called = await run_gun(gun, js, tag)
    await called.until(lambda calls: bool(calls))
    seen: list[Any] = []
    with anyio.fail_after(SECONDS):
        async for item in live:
            value = item.value if isinstance(item, Change) else tuple(item) if "key" in matched[1] else item
            value = (
                tuple(named(part, tag) for part in value) if isinstance(value, tuple) else named(value, tag)
            )
            if not seen:
                await change(relay, tag)
            seen.append(value)
            if value == expected:
                break
    if "key" in matched[1]:
        await called.until(lambda calls: expected in calls)
    else:
        await called.until(lambda calls: any(value == expected for _, value in calls))
