"""Daemons linked by the native wire, counted from outside: how often an update travels, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import anyio
import pytest

import air
from tests.faults.daemon import Client
from tests.ports import kept_port
from tests.stack.daemons import Daemon, stopped

pytestmark = pytest.mark.anyio

COUNT: Final = 5
UPDATES: Final = 40
SECONDS: Final = 20.0


@pytest.fixture
def anyio_backend() -> str:
    """What is under test runs in other processes."""
    return "asyncio"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Five daemons, each of which dials every other: of two links that meet one is kept."""
    folder = tmp_path_factory.mktemp("mesh")
    ports = [kept_port() for _ in range(COUNT)]
    addresses = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]

    def start(number: int) -> Daemon:
        options = ["--listen", addresses[number], "--backend", ("asyncio", "trio")[number % 2]]
        for other in range(COUNT):
            if other != number:
                options += ["--peer", addresses[other]]
        return Daemon(folder / f"air{number}", *options)

    with ThreadPoolExecutor(COUNT) as threads:
        daemons = list(threads.map(start, range(COUNT)))
    with stopped(daemons):
        yield daemons


async def until(condition: Any, what: str) -> None:
    with anyio.move_on_after(SECONDS):
        while not condition():
            await anyio.sleep(0.05)
        return
    pytest.fail(f"not within {SECONDS:g} s: {what}")


async def met(mesh: list[Daemon]) -> None:
    """Wait until all are linked with all, once, and what opened twice is closed again."""
    await until(
        lambda: all(
            daemon.health()["links"] == {"inbound": 0, "outbound": 0, "peer": COUNT - 1} for daemon in mesh
        ),
        "a full mesh",
    )


def heard(daemon: Daemon) -> dict[str, int]:
    """Cells that came over each link so far, by peer."""
    return {link["peer"]: link["cells_in"] for link in daemon.peers()}


async def test_an_update_crosses_each_link_of_a_full_mesh_twice_at_most(mesh: list[Daemon]) -> None:
    await met(mesh)
    cells = [(it.metric("air_native_cells_in_total"), it.metric("air_native_cells_out_total")) for it in mesh]
    before = [heard(daemon) for daemon in mesh]
    for number in range(UPDATES):
        # Each after the one before has arrived everywhere, so that none of them share a message.
        mesh[number % COUNT].put(f"mesh/{number}", {"n": number})
        await until(lambda soul=f"mesh/{number}": all(it.get(soul) for it in mesh), "everywhere")
    ids = [daemon.peer for daemon in mesh]
    after = [heard(daemon) for daemon in mesh]
    for here in range(COUNT):
        for there in range(here):
            crossings = sum(
                after[one][ids[other]] - before[one][ids[other]]
                for one, other in ((here, there), (there, here))
            )
            assert crossings <= 2 * UPDATES
    arrived = [it.metric("air_native_cells_in_total") - was for it, (was, _) in zip(mesh, cells, strict=True)]
    left = [it.metric("air_native_cells_out_total") - was for it, (_, was) in zip(mesh, cells, strict=True)]
    links = COUNT * (COUNT - 1) // 2
    # No daemon can have an update without its having come, and on no link does it go more than twice.
    assert UPDATES * (COUNT - 1) <= sum(arrived) <= 2 * links * UPDATES
    assert sum(left) == sum(arrived)


async def test_a_subscriber_of_one_node_receives_nothing_else(mesh: list[Daemon]) -> None:
    await met(mesh)
    daemon, other = mesh[0], mesh[3]
    gun = await Client.dial(daemon.url)
    await gun.conn.send([b'{"#":"wish","get":{"#":"wanted"}}'])
    async with air.connect(daemon.native) as graph:
        changes = graph.get("wanted").on()
        other.put("wanted", {"n": 0})
        with anyio.fail_after(SECONDS):
            assert (await anext(changes)).value == 0
        await until(lambda: links_from(daemon, mesh)[0]["subscriptions"] == 1, "a subscription")
        before = [link["messages_out"] for link in links_from(daemon, mesh)]
        for number in range(UPDATES):
            other.put(f"unwanted/{number}", {"n": number})
        other.put("wanted", {"n": 1})
        with anyio.fail_after(SECONDS):
            assert (await anext(changes)).value == 1
        # One update, and one sign of life at most.
        after = [link["messages_out"] for link in links_from(daemon, mesh)]
        assert [now - was for now, was in zip(after, before, strict=True)] == [1, 1]
        assert daemon.get(f"unwanted/{UPDATES - 1}") == {"n": UPDATES - 1}
    souls: set[str] = set()
    with anyio.fail_after(SECONDS):
        while not souls:
            for message in await gun.messages():
                if message.get("put", {}) and message["put"].get("wanted", {}).get("n") == 1:
                    souls |= message["put"].keys()
                assert not message.get("put") or set(message["put"]) == {"wanted"}
    await gun.aclose()


def links_from(daemon: Daemon, mesh: list[Daemon]) -> list[dict[str, Any]]:
    """The links of clients, not of the mesh."""
    ids = {other.peer for other in mesh}
    return [link for link in daemon.peers() if link["peer"] not in ids]
