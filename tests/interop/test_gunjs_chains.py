"""Air between a stock gun.js relay and gun.js clients: data flows both ways and is found from either end.

    near client - Air - stock relay - far client
    near client - Air - Air - stock relay - far client

With ``--relay=stock`` the middle is a stock relay that floods: one with AXE never dials its peers.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.interop.gunjs import MISSING, AirDaemon, GunClient, StockRelay

pytestmark = [pytest.mark.node, pytest.mark.anyio]

Client = Callable[[str], AbstractAsyncContextManager[GunClient]]


@dataclass(frozen=True)
class Chain:
    """Relays in a row, and how to connect a client to either end."""

    far_relay: StockRelay
    near_url: str
    folder: Path

    @contextlib.asynccontextmanager
    async def near(self, name: str = "near") -> AsyncIterator[GunClient]:
        """A client of the last relay in the row."""
        async with GunClient.start(self.near_url, log=self.folder / f"{name}.log") as client:
            yield client

    @contextlib.asynccontextmanager
    async def far(self, name: str = "far") -> AsyncIterator[GunClient]:
        """A client of the stock relay at the far end."""
        async with GunClient.start(self.far_relay.url, log=self.folder / f"{name}.log") as client:
            yield client


@pytest.fixture(
    scope="module",
    params=[(True, 1), (False, 1), (True, 2), (False, 2)],
    ids=["axe", "flood", "axe-two", "flood-two"],
)
async def chain(
    request: pytest.FixtureRequest, node: None, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    """A stock relay with AXE on or off, and one or two relays under test in front of it."""
    axe, between = request.param
    folder = tmp_path_factory.mktemp("chain")
    async with contextlib.AsyncExitStack() as stack:
        far = await stack.enter_async_context(StockRelay.start(folder / "far", axe=axe))
        url = far.url
        for number in range(between):
            url = (
                await stack.enter_async_context(middle(request.config, folder / f"middle{number}", url))
            ).url
        yield Chain(far, url, folder)


def middle(
    config: pytest.Config, folder: Path, upstream: str
) -> AbstractAsyncContextManager[AirDaemon | StockRelay]:
    """The relay under test, dialling the one upstream."""
    if config.getoption("--relay", default="air") == "air":
        return AirDaemon.start(folder, peers=[upstream.replace("http", "ws", 1)])
    return StockRelay.start(folder, axe=False, peers=[upstream])


@pytest.fixture
async def near(chain: Chain) -> AsyncIterator[GunClient]:
    async with chain.near() as client:
        yield client


@pytest.fixture
async def far(chain: Chain) -> AsyncIterator[GunClient]:
    async with chain.far() as client:
        yield client


async def test_what_is_written_near_is_heard_far(near: GunClient, far: GunClient, soul: str) -> None:
    heard = await far.listen([soul, "x"])
    await near.put([soul, "x"], "one")
    await heard.until_value("one")
    await near.put([soul, "x"], "two")
    await heard.until_value("two")


async def test_what_is_written_far_is_heard_near(near: GunClient, far: GunClient, soul: str) -> None:
    heard = await near.listen([soul, "x"])
    await far.put([soul, "x"], "one")
    await heard.until_value("one")
    await far.put([soul, "x"], "two")
    await heard.until_value("two")


async def test_a_near_client_reads_what_only_the_far_relay_has(
    chain: Chain, near: GunClient, soul: str
) -> None:
    async with chain.far("writer") as writer:
        await writer.put([soul], {"name": "Ann 😀", "score": 0.1, "gone": None})
        states = (await writer.memory(soul)).states
    await near.until_once([soul], {"name": "Ann 😀", "score": 0.1, "gone": None})
    assert (await near.memory(soul)).states == states


async def test_a_near_client_reads_one_field_that_only_the_far_relay_has(
    chain: Chain, near: GunClient, soul: str
) -> None:
    async with chain.far("writer") as writer:
        await writer.put([soul], {"home": {"city": "Hanoi"}})
    await near.until_once([soul, "home", "city"], "Hanoi")


async def test_a_far_client_reads_what_was_written_near(chain: Chain, far: GunClient, soul: str) -> None:
    async with chain.near("writer") as writer:
        await writer.put([soul], {"name": "Bo", "nested": {"deep": True}})
    await far.until_once([soul, "name"], "Bo")
    await far.until_once([soul, "nested", "deep"], True)


async def test_something_nobody_has_is_answered_near_in_a_second(near: GunClient, soul: str) -> None:
    seen = await near.once([soul, "x"])
    assert seen.value is MISSING
    assert seen.ms < 1000


async def test_a_set_grows_from_both_ends(near: GunClient, far: GunClient, soul: str) -> None:
    near_list, far_list = await near.listen([soul, {"map": None}]), await far.listen([soul, {"map": None}])
    await near.set([soul], {"by": "near"})
    await far_list.until_value({"by": "near"})
    await far.set([soul], {"by": "far"})
    await near_list.until_value({"by": "far"})
    assert (await near.once([soul])).value == (await far.once([soul])).value


async def test_both_ends_agree_on_one_field_written_by_both(
    near: GunClient, far: GunClient, soul: str
) -> None:
    hears_far, hears_near = await near.listen([soul, "x"]), await far.listen([soul, "x"])
    await near.put([soul, "x"], "start")
    await hears_near.until_value("start")
    for n in range(10):
        await near.put([soul, "x"], f"near {n}", ack=False)
        if n == 9:
            # With one state for both, a gun.js that is answered with the loser takes it (its `miss`).
            await anyio.sleep(0.003)
        await far.put([soul, "x"], f"far {n}", ack=False)
    last = {"near 9", "far 9"}
    await hears_far.until(lambda it: it.values[-1] in last, what="one of the last values")
    await hears_near.until(lambda it: it.values[-1] in last, what="one of the last values")
    # The later of the two wins on both sides, whichever that was.
    with anyio.fail_after(10):
        while hears_far.values[-1] != hears_near.values[-1]:
            await anyio.sleep(0.02)


async def test_a_user_made_far_signs_in_near(near: GunClient, far: GunClient) -> None:
    alias = f"ann-{secrets.token_hex(4)}"
    pub = await far.sign_up(alias, "correct horse battery")
    assert await far.sign_in(alias, "correct horse battery") == pub
    await far.put([{"user": None}, "city"], "Hanoi")
    assert await near.sign_in(alias, "correct horse battery") == pub
    await near.until_once([{"user": pub}, "city"], "Hanoi")


async def test_five_hundred_puts_arrive_at_the_other_end(near: GunClient, far: GunClient, soul: str) -> None:
    heard = await far.listen([soul, {"map": None}])
    assert (await far.once([soul])).value is MISSING
    wanted = {f"k{n:03}": n for n in range(500)}
    await near.batch([soul], wanted)
    await heard.until(lambda it: len(it.latest) >= 500, 30, what="500 items")
    assert heard.latest == wanted


@pytest.mark.stock_fault("a relay that redials does not ask again for what its clients watch")
async def test_the_far_relay_is_dialled_again_after_it_was_killed(
    chain: Chain, near: GunClient, soul: str
) -> None:
    """The near side stays up meanwhile."""
    await near.put([soul, "x"], "before")
    heard = await near.listen([soul, "y"])
    await chain.far_relay.restart()
    async with chain.far("later") as later:
        await later.until_once([soul, "x"], "before")
        await later.put([soul, "y"], "from far")
        await heard.until_value("from far", 20)
        hears = await later.listen([soul, "x"])
        await near.put([soul, "x"], "after")
        await hears.until_value("after", 20)


@pytest.mark.stock_fault("a stock relay does not send its peers what they missed")
async def test_what_was_written_near_while_the_far_relay_was_dead_gets_there(
    chain: Chain, near: GunClient, soul: str
) -> None:
    await near.put([soul, "x"], "before")
    async with chain.far("reader") as reader:
        await reader.until_once([soul, "x"], "before")
    chain.far_relay.kill()
    await chain.far_relay.wait()
    await near.put([soul, "x"], "meanwhile")
    await chain.far_relay.restart()
    async with chain.far("later") as later:
        await later.until_once([soul, "x"], "meanwhile", seconds=20)
