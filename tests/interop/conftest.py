"""Fixtures of the interop tests: a relay to test, and gun.js clients of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.interop.children import missing_tools
from tests.interop.gunjs import AirDaemon, GunClient, Relay, StockRelay

NewClient = Callable[..., AbstractAsyncContextManager[GunClient]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--relay=stock`` checks the tests themselves: what passes there and fails on Air is Air's fault."""
    parser.addoption(
        "--relay",
        choices=("air", "stock", "stock-flood"),
        default="air",
        help="which relay the gun.js clients of tests/interop meet (stock-flood: AXE off)",
    )


def _kind(config: pytest.Config) -> str:
    return str(config.getoption("--relay", default="air"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what the stock relay is known to get wrong: ``@pytest.mark.stock_fault("why")``."""
    if _kind(config) == "air":
        return
    for item in items:
        fault = item.get_closest_marker("stock_fault")
        if fault is not None:
            item.add_marker(
                pytest.mark.xfail(reason=f"fault of the stock relay: {fault.args[0]}", strict=False)
            )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stock_fault(why): fails with --relay=stock, for a documented reason")


def need(missing: str | None) -> None:
    """Skip with the reason, or fail where nothing may be missing."""
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop is enough here: it only steers child processes, and what is under test runs in those."""
    return "asyncio"


@pytest.fixture(scope="session")
def node() -> None:
    """Node.js with gun.js."""
    need(missing_tools())


@pytest.fixture(scope="module")
async def _module_relay(
    request: pytest.FixtureRequest, node: None, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Relay]:
    folder = tmp_path_factory.mktemp("relay")
    kind = _kind(request.config)
    starting: AbstractAsyncContextManager[Relay] = (
        AirDaemon.start(folder / "air")
        if kind == "air"
        else StockRelay.start(folder / "stock", axe=kind == "stock")
    )
    async with starting as relay:
        yield relay


@pytest.fixture
async def relay(_module_relay: Relay) -> Relay:
    """The relay under test: one process for a module, started anew when a test has killed it.

    Tests keep apart by souls of their own (the fixture ``soul``).
    """
    if not _module_relay.alive:
        await _module_relay.restart()
    return _module_relay


@pytest.fixture
def new_client(relay: Relay, tmp_path: Path) -> NewClient:
    """Start one more gun.js client of the relay: ``async with new_client("name") as client``."""

    @contextlib.asynccontextmanager
    async def start(name: str = "extra", *, tap: bool = False) -> AsyncIterator[GunClient]:
        async with GunClient.start(relay.url, log=tmp_path / f"{name}.log", tap=tap) as client:
            yield client

    return start


@pytest.fixture
async def alice(new_client: NewClient) -> AsyncIterator[GunClient]:
    """A gun.js process, connected to the relay only."""
    async with new_client("alice") as client:
        yield client


@pytest.fixture
async def bob(new_client: NewClient) -> AsyncIterator[GunClient]:
    """A second gun.js process, connected to the relay only."""
    async with new_client("bob") as client:
        yield client


@pytest.fixture
def soul(request: pytest.FixtureRequest) -> str:
    """A soul that no other test uses."""
    return f"test/{request.node.name}"
