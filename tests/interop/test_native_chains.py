"""Three daemons in a row, and the same graph at both ends: gun.js at one, Python at the other.

    gun.js client or browser tab - A - B - C - Python client

The links between the daemons are native, or one of them speaks GUN.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import anyio
import anyio.to_thread
import pytest

import air
from air import Graph, Node, Ref
from tests.interop.browser import Browser, missing_browser
from tests.interop.children import ROOT
from tests.interop.conftest import need
from tests.interop.gunjs import AirDaemon, GunClient
from tests.ports import kept_port

pytestmark = [pytest.mark.node, pytest.mark.anyio]

PAGE: Final = ROOT / "examples" / "todo"
SECONDS: Final = 10.0
BACKENDS: Final = ("asyncio", "trio", "asyncio")
"""Of the daemons, so that each event loop meets the other."""


@dataclass(frozen=True)
class Chain:
    """Daemons in a row."""

    daemons: Sequence[AirDaemon]
    wires: Sequence[str]

    @property
    def near(self) -> AirDaemon:
        return self.daemons[0]

    @property
    def middle(self) -> AirDaemon:
        return self.daemons[1]

    @property
    def far(self) -> AirDaemon:
        return self.daemons[-1]


@contextlib.asynccontextmanager
async def chained(folder: Path, *wires: str, static: Path | None = None) -> AsyncIterator[Chain]:
    """Daemons joined by links: ``native>`` is a native one that the left side dials, ``<gun`` a GUN one that
    the right side dials, and so on. They keep their addresses when they are started again."""
    ports = [(kept_port(), kept_port()) for _ in range(len(wires) + 1)]
    peers: list[list[str]] = [[] for _ in ports]
    for left, wire in enumerate(wires):
        dials, dialled = (left, left + 1) if wire.endswith(">") else (left + 1, left)
        gun, native = ports[dialled]
        peers[dials].append(f"ws://127.0.0.1:{gun}/gun" if "gun" in wire else f"/ip4/127.0.0.1/tcp/{native}")
    daemons: list[AirDaemon] = []
    async with contextlib.AsyncExitStack() as stack:
        for number, (gun, native) in enumerate(ports):
            arguments = ["--port", str(gun), "--listen", f"/ip4/127.0.0.1/tcp/{native}"]
            arguments += ["--backend", BACKENDS[number % len(BACKENDS)]]
            if static is not None and number == 0:
                arguments += ["--static", str(static)]
            daemon = AirDaemon.start(folder / f"air{number}", peers=peers[number], arguments=arguments)
            daemons.append(await stack.enter_async_context(daemon))
        chain = Chain(daemons, wires)
        await linked(chain)
        yield chain


async def linked(chain: Chain) -> None:
    """Wait until every daemon has its neighbours."""
    for number, daemon in enumerate(chain.daemons):
        wanted = 2 - (number in (0, len(chain.daemons) - 1))
        with anyio.fail_after(SECONDS):
            while await links(daemon) < wanted:
                await anyio.sleep(0.02)


async def links(daemon: AirDaemon) -> int:
    """How many links to other daemons there are."""
    token = (Path(daemon.ready["data"]) / "admin.token").read_text().strip()
    request = Request(f"{daemon.ready['admin']}/health", headers={"Authorization": f"Bearer {token}"})

    def ask() -> bytes:
        with urlopen(request, timeout=SECONDS) as response:
            return bytes(response.read())

    return sum(json.loads(await anyio.to_thread.run_sync(ask))["links"].values())


CHAINS: Final = [
    ("native>", "native>"),
    ("native>", "<gun"),
    ("gun>", "<native"),
]


@pytest.fixture(scope="module", params=CHAINS, ids=" ".join)
async def chain(
    request: pytest.FixtureRequest, node: None, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    async with chained(tmp_path_factory.mktemp("chain"), *request.param) as chain:
        yield chain


@pytest.fixture
async def alice(chain: Chain, tmp_path: Path) -> AsyncIterator[GunClient]:
    """gun.js at the near end."""
    async with GunClient.start(chain.near.url, log=tmp_path / "alice.log") as client:
        yield client


@pytest.fixture(params=["url", "multiaddr"])
async def bob(request: pytest.FixtureRequest, chain: Chain) -> AsyncIterator[Graph]:
    """Python at the far end, by either wire."""
    address = chain.far.url if request.param == "url" else str(chain.far.ready["native"][0])
    async with air.connect(address) as graph:
        yield graph


class Heard:
    """What a Python program is told of a node while the block is open: the latest of each key."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self.calls = 0
        self._news = anyio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, graph: Graph, soul: str) -> AsyncIterator[Heard]:
        heard = cls()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heard._listen, graph, soul)
            yield heard
            tasks.cancel_scope.cancel()

    async def _listen(self, graph: Graph, soul: str) -> None:
        async for change in graph.get(soul).on():
            self.latest[change.key] = change.value
            self.calls += 1
            self._news.set()

    async def until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = SECONDS) -> None:
        """Wait until the condition holds for the latest values."""
        with anyio.move_on_after(seconds):
            while not condition(self.latest):
                self._news = anyio.Event()
                await self._news.wait()
        assert condition(self.latest), self.latest


async def test_both_ends_hear_each_other_live(alice: GunClient, bob: Graph, soul: str) -> None:
    async with Heard.of(bob, soul) as heard:
        heard_by_alice = await alice.listen([soul, {"map": None}])
        await alice.put([soul], {"a": "from alice 😀", "n": 0.1, "gone": None})
        await heard.until({"a": "from alice 😀", "n": 0.1, "gone": None}.__eq__)
        await bob.put(soul, {"b": "from bob", "gone": True})
        await heard_by_alice.until_value("from bob")
        for number in range(5):
            await alice.put([soul, "a"], number)
            await bob.put(soul, {"b": -number})
        await heard.until({"a": 4, "n": 0.1, "gone": True, "b": -4}.__eq__)
        await heard_by_alice.until(lambda it: it.latest == heard.latest, what="the same")


async def test_one_end_finds_what_the_other_wrote_before(alice: GunClient, bob: Graph, soul: str) -> None:
    await alice.put([soul], {"name": "Ann", "home": {"city": "Hanoi"}})
    assert await bob.get(soul, "home", "city").once() == "Hanoi"
    await bob.put(soul + "/2", {"name": "Bob", "deep": {"er": True}})
    await alice.until_once([soul + "/2", "deep", "er"], True)


async def test_both_ends_agree_on_one_field_written_by_both(alice: GunClient, bob: Graph, soul: str) -> None:
    async with Heard.of(bob, soul) as heard:
        heard_by_alice = await alice.listen([soul, "x"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alice.put, [soul, "x"], "alice")
            tasks.start_soon(bob.put, soul, {"x": "bob"})
        await alice.put([soul, "a"], 1)
        await bob.put(soul, {"b": 1})
        await heard.until(lambda latest: {"x", "a", "b"} <= latest.keys())
        await heard_by_alice.until(lambda it: it.latest == {"x": heard.latest["x"]}, what="the same value")
    assert (await alice.once([soul, "x"])).value == await bob.get(soul, "x").once()


@pytest.fixture
async def carol(chain: Chain) -> AsyncIterator[Graph]:
    """Python at the far end by the native wire."""
    async with air.connect(str(chain.far.ready["native"][0])) as graph:
        yield graph


async def test_the_ends_converge_although_the_middle_is_killed_while_both_write(
    chain: Chain, alice: GunClient, carol: Graph, soul: str
) -> None:
    async with Heard.of(carol, soul) as heard:
        heard_by_alice = await alice.listen([soul, {"map": None}])
        await alice.put([soul], {"a0": 0})
        await carol.put(soul, {"b0": 0})
        await heard.until({"a0": 0, "b0": 0}.__eq__)
        wanted: dict[str, Any] = {"a0": 0, "b0": 0}

        async def write(name: str, put: Callable[[str, int], Awaitable[Any]], written: anyio.Event) -> None:
            for number in range(1, 40):
                key = f"{name}{number}"
                await put(key, number)
                wanted[key] = number
                if number == 5:
                    written.set()
                if number == 30:
                    await restarted.wait()

        restarted = anyio.Event()
        written = [anyio.Event(), anyio.Event()]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, "a", lambda key, it: alice.put([soul, key], it), written[0])
            tasks.start_soon(write, "b", lambda key, it: carol.put(soul, {key: it}), written[1])
            for event in written:
                await event.wait()
            chain.middle.kill()
            await chain.middle.wait()
            await chain.middle.restart()
            restarted.set()
        await heard.until(wanted.__eq__, 15)
        await heard_by_alice.until(lambda it: it.latest == wanted, 15, what="everything")
        # And live again.
        await alice.put([soul, "a0"], "again")
        await heard.until({**wanted, "a0": "again"}.__eq__)
        await carol.put(soul, {"b0": "again"})
        await heard_by_alice.until_value("again")


async def test_a_middle_that_dials_by_gun_asks_for_what_its_native_peers_want(
    node: None, tmp_path: Path, soul: str
) -> None:
    async with (
        chained(tmp_path, "native>", "gun>") as chain,
        GunClient.start(chain.near.url, log=tmp_path / "alice.log") as alice,
        air.connect(chain.far.url) as bob,
    ):
        await alice.put([soul], {"a": 1})
        heard_by_alice = await alice.listen([soul, {"map": None}])
        await heard_by_alice.until_value(1)
        assert await bob.get(soul, "a").once() == 1
        await bob.put(soul, {"b": 2})
        await heard_by_alice.until_value(2, 2)


@pytest.fixture(scope="module")
async def page_chain(
    node: None, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    """All native; the near end serves the page."""
    need(missing_browser())
    async with chained(tmp_path_factory.mktemp("page"), "native>", "<native", static=PAGE) as chain:
        yield chain


@pytest.mark.browser
async def test_a_browser_tab_and_a_python_program_share_a_list(
    page_chain: Chain, tmp_path: Path, soul: str
) -> None:
    async with Browser.start(tmp_path / "browser.log") as browser, air.connect(page_chain.far.url) as bob:
        items = bob.get("todo/chain")
        tab = await browser.open("tab", f"http://127.0.0.1:{page_chain.near.port}/?list=chain")
        await tab.connection("online")
        await tab.add("milk 🥛")
        await listed(items, ("milk 🥛", False))
        bread = await items.add({"text": "bread", "done": False, "at": 1})
        await tab.shows([("milk 🥛", False), ("bread", False)])
        await tab.tick("bread")
        await listed(items, ("milk 🥛", False), ("bread", True))

        page_chain.middle.kill()
        await page_chain.middle.wait()
        await tab.add("from the tab meanwhile")
        await bread.put({"text": "rye bread"})
        await page_chain.middle.restart()
        wanted = [("milk 🥛", False), ("rye bread", True), ("from the tab meanwhile", False)]
        await tab.shows(wanted)
        await listed(items, *wanted)
        assert await tab.errors() == []


async def listed(items: Ref, *wanted: tuple[str, bool]) -> None:
    """Wait until a list holds exactly these."""
    shown: set[tuple[Any, Any]] = set()
    with anyio.move_on_after(SECONDS):
        while shown != set(wanted):
            await anyio.sleep(0.02)
            nodes = [await items.get(key).once() for key in await items.map().once()]
            shown = {(node.get("text"), node.get("done")) for node in nodes if isinstance(node, Node)}
    assert shown == set(wanted)
