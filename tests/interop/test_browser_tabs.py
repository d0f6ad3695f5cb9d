"""Two tabs of a real browser with examples/todo and unmodified gun.js, served by the relay itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest

from tests.interop.browser import Browser, Tab, missing_browser
from tests.interop.children import ROOT
from tests.interop.conftest import need
from tests.interop.gunjs import AirDaemon, GunClient, StockRelay

pytestmark = [pytest.mark.browser, pytest.mark.anyio]

PAGE = ROOT / "examples" / "todo"


def test_the_page_runs_gun_js_as_its_package_ships_it(node: None) -> None:
    need(missing_browser())
    assert (PAGE / "vendor/gun.js").read_bytes() == (ROOT / "node_modules/gun/gun.js").read_bytes()


@pytest.fixture(scope="module")
async def page_relay(
    request: pytest.FixtureRequest, node: None, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AirDaemon | StockRelay]:
    """The relay under test, serving the page."""
    need(missing_browser())
    folder = tmp_path_factory.mktemp("page")
    kind = request.config.getoption("--relay", default="air")
    starting: AbstractAsyncContextManager[AirDaemon | StockRelay] = (
        AirDaemon.start(folder / "air", arguments=["--static", str(PAGE)])
        if kind == "air"
        else StockRelay.start(folder / "stock", axe=kind == "stock", static=PAGE)
    )
    async with starting as relay:
        yield relay


@pytest.fixture(scope="module")
async def browser(
    page_relay: AirDaemon | StockRelay, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Browser]:
    async with Browser.start(tmp_path_factory.mktemp("browser") / "browser.log") as browser:
        yield browser


@pytest.fixture(params=["one", "two"], ids=["one-profile", "two-profiles"])
async def tabs(
    request: pytest.FixtureRequest, page_relay: AirDaemon | StockRelay, browser: Browser
) -> tuple[Tab, Tab]:
    """Two tabs with an empty list; in two profiles they share nothing but the relay."""
    if not page_relay.alive:
        await page_relay.restart()
    name = re.sub(r"\W+", "-", request.node.name)
    url = f"http://127.0.0.1:{page_relay.port}/?list={name}"
    left = await browser.open(f"{name} left", url, profile=f"{name} one")
    right = await browser.open(f"{name} right", url, profile=f"{name} {request.param}")
    for tab in (left, right):
        await tab.connection("online")
        assert await tab.items() == []
    return left, right


async def test_both_tabs_see_each_others_edits(tabs: tuple[Tab, Tab], tmp_path: Path) -> None:
    left, right = tabs
    await left.add("milk")
    await right.shows([("milk", False)])
    await right.add("bread 🍞")
    await left.shows([("milk", False), ("bread 🍞", False)])
    assert await left.items() == await right.items()
    assert await right.summary() == "2 open of 2 items"

    await right.tick("milk")
    await left.shows([("milk", True), ("bread 🍞", False)])
    await left.tick("milk", on=False)
    await right.shows([("milk", False), ("bread 🍞", False)])

    await left.rename("milk", "oat milk")
    await right.shows([("oat milk", False), ("bread 🍞", False)])

    await right.remove("bread 🍞")
    await left.shows([("oat milk", False)])
    assert await left.summary() == "1 open of 1 item"

    await left.screenshot(tmp_path / "todo.png")
    assert (tmp_path / "todo.png").stat().st_size > 5_000
    assert await left.errors() == await right.errors() == []


async def test_markup_in_an_item_stays_text(tabs: tuple[Tab, Tab]) -> None:
    left, right = tabs
    texts = ["<img src=x onerror=alert(1)>", "<script>alert(2)</script>", "'\"&amp;"]
    for text in texts:
        await left.add(text)
    await right.shows([(text, False) for text in texts])
    await right.rename(texts[0], "<b>bold</b>")
    await left.shows([(text, False) for text in ["<b>bold</b>", *texts[1:]]])
    assert await left.errors() == await right.errors() == []


async def test_a_tab_opened_later_shows_the_whole_list(
    tabs: tuple[Tab, Tab],
    page_relay: AirDaemon | StockRelay,
    browser: Browser,
    request: pytest.FixtureRequest,
) -> None:
    left, right = tabs
    for number in range(8):
        await (left, right)[number % 2].add(f"item {number}")
    await left.tick("item 0")
    wanted = [(f"item {number}", number == 0) for number in range(8)]
    await right.shows(wanted)
    name = re.sub(r"\W+", "-", request.node.name)
    url = f"http://127.0.0.1:{page_relay.port}/?list={name}"
    later = await browser.open(f"{name} later", url, profile=f"{name} later")
    await later.shows(wanted)
    assert await later.summary() == "7 open of 8 items"
    assert await later.errors() == []


async def test_a_gun_client_in_node_and_a_tab_share_the_list(
    tabs: tuple[Tab, Tab], page_relay: AirDaemon | StockRelay, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    left, _ = tabs
    name = re.sub(r"\W+", "-", request.node.name)
    async with GunClient.start(page_relay.url, log=tmp_path / "node.log") as client:
        texts = await client.listen([f"todo/{name}", {"map": None}, "text"])
        await client.set([f"todo/{name}"], {"text": "from node", "done": False, "at": 1})
        await left.shows([("from node", False)])
        await left.add("from the tab")
        await texts.until_value("from the tab")


async def test_tabs_reconnect_by_themselves_after_a_kill_and_agree_on_what_was_written_meanwhile(
    tabs: tuple[Tab, Tab], page_relay: AirDaemon | StockRelay, tmp_path: Path
) -> None:
    left, right = tabs
    await left.add("milk")
    await left.add("bread")
    await right.shows([("milk", False), ("bread", False)])

    page_relay.kill()
    await left.connection("offline")
    await left.add("written while it was down")
    await left.tick("milk")
    await page_relay.restart()
    await left.shows([("milk", True), ("bread", False), ("written while it was down", False)])

    # gun.js itself redials two seconds after the loss; the page would help only after five.
    await left.connection("online")
    await right.connection("online")
    wanted = [("milk", True), ("bread", False), ("written while it was down", False)]
    await right.shows(wanted)
    await left.shows(wanted)

    await right.add("live again")
    await left.shows([*wanted, ("live again", False)])
    assert await left.items() == await right.items()

    await right.screenshot(tmp_path / "todo-after-restart.png")
    # A redial that comes too early would be an error on the console, but none of the page's own.
    for tab in tabs:
        assert [error for error in await tab.errors() if "WebSocket connection" not in error] == []


async def test_the_page_reconnects_when_the_relay_was_away_for_longer_than_gun_tries(
    tabs: tuple[Tab, Tab], page_relay: AirDaemon | StockRelay
) -> None:
    """gun.js has given up by then; the page asks it to dial again."""
    left, right = tabs
    await left.add("milk")
    await right.shows([("milk", False)])
    page_relay.kill()
    await page_relay.wait()
    for tab in tabs:
        await tab.connection("offline")
    for tab in tabs:
        await gave_up(tab)
    await page_relay.restart()
    for tab in tabs:
        await tab.connection("online", 15)
    await left.add("after the break")
    await right.shows([("milk", False), ("after the break", False)])


async def gave_up(tab: Tab) -> None:
    """Wait until the page's console tells of gun.js's failed redial."""
    with anyio.fail_after(10):
        while not any("WebSocket connection" in error for error in await tab.errors()):
            await anyio.sleep(0.1)
