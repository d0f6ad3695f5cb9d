"""Tabs of a headless Chromium with the page examples/todo, as an async context manager. (shell)

The driver inside Node is tabs.mjs.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from anyio import move_on_after

from tests.interop.children import ROOT, NodeChild, running, start_node

__all__ = ["Browser", "Tab", "chromium_path", "missing_browser"]

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")

Item = tuple[str, bool]
"""What a person sees of an item: its text, and whether it is ticked."""


def chromium_path() -> str | None:
    """Where Chromium is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def missing_browser() -> str | None:
    """Why pages cannot be opened here, or None when they can."""
    if chromium_path() is None:
        return "chromium is not installed; run: bash scripts/browser.sh"
    if not (ROOT / "node_modules" / "playwright-core").exists():
        return "playwright-core is not in node_modules; run: bash scripts/browser.sh"
    if not (ROOT / "examples" / "todo" / "vendor" / "gun.js").exists():
        return "examples/todo/vendor/gun.js is missing; run: bash scripts/node.sh"
    return None


class Browser(NodeChild):
    """A headless Chromium with a fresh profile, gone with the context."""

    name = "browser"

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, log: Path) -> AsyncIterator[Browser]:
        process = await start_node("tabs.mjs", {"chromium": chromium_path()}, log)
        async with running(cls(process, log)) as browser:
            await browser.event("ready", 30.0)
            try:
                yield browser
            finally:
                # With its stdin closed the driver takes the browser down; killed, it would leave that behind.
                with move_on_after(10, shield=True):
                    await browser.goodbye()

    async def open(self, name: str, url: str, *, profile: str = "one") -> Tab:
        """Open a page in a new tab of a profile; profiles share nothing."""
        await self.command("open", 20.0, tab=name, profile=profile, url=url)
        return Tab(self, name)


class Tab:
    """One tab, worked as a person works the page."""

    def __init__(self, browser: Browser, name: str) -> None:
        self._browser = browser
        self._name = name

    async def add(self, text: str) -> None:
        """Type a new item and press Enter."""
        await self._browser.command("add", 15.0, tab=self._name, text=text)

    async def tick(self, text: str, on: bool = True) -> None:
        """Tick or untick an item."""
        await self._browser.command("tick", 15.0, tab=self._name, text=text, on=on)

    async def rename(self, text: str, to: str) -> None:
        """Give an item another text."""
        await self._browser.command("rename", 15.0, tab=self._name, text=text, to=to)

    async def remove(self, text: str) -> None:
        """Delete an item."""
        await self._browser.command("remove", 15.0, tab=self._name, text=text)

    async def items(self) -> list[Item]:
        """What is shown, from top to bottom."""
        shown = await self._browser.command("items", tab=self._name)
        return [(item["text"], item["done"]) for item in shown]

    async def shows(self, items: Sequence[Item], seconds: float = 10.0) -> None:
        """Wait until exactly these are shown, in any order."""
        shown = await self._browser.command(
            "until_items",
            seconds + 10,
            tab=self._name,
            items=[list(item) for item in items],
            ms=seconds * 1000,
        )
        assert sorted((item["text"], item["done"]) for item in shown) == sorted(items), f"tab {self._name}"

    async def connection(self, state: str, seconds: float = 10.0) -> None:
        """Wait until the page says it is "online" or "offline"."""
        await self._browser.command(
            "until_connection", seconds + 10, tab=self._name, state=state, ms=seconds * 1000
        )

    async def summary(self) -> str:
        """The line that counts the items."""
        return str(await self._browser.command("summary", tab=self._name))

    async def errors(self) -> list[str]:
        """Errors on the page's console, failed requests and dialogs so far."""
        return list(await self._browser.command("errors", tab=self._name))

    async def screenshot(self, path: Path) -> None:
        """Picture of the whole page, as PNG."""
        await self._browser.command("screenshot", 15.0, tab=self._name, path=str(path))
