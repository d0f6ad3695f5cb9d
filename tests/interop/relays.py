"""Relays under test as async context managers: stock gun.js ones, and Air's daemon. (shell)"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from anyio import create_task_group, open_process
from anyio.abc import Process, TaskGroup

from tests.interop.children import DEADLINE_SECONDS, ROOT, Child, NodeChild, start_node, unwrapped
from tests.ports import kept_port

__all__ = ["AirDaemon", "Relay", "StockRelay"]

_R = TypeVar("_R", bound="_Restartable")


class Relay(Protocol):
    """What a test may do with any relay."""

    @property
    def url(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    def kill(self) -> None: ...
    async def restart(self) -> None: ...
    def log_tail(self) -> str: ...


class _Restartable:
    """Starts the same child again, on the same port and data."""

    def __init__(self, tasks: TaskGroup, log: Path) -> None:
        # One task group for all incarnations: a restart happens inside contexts that were entered later.
        self._tasks = tasks
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._child: Any = None
        # Named beforehand, so that it is still free when the child is started again.
        self._port = kept_port()

    @property
    def url(self) -> str:
        """Where gun.js clients connect."""
        return f"http://127.0.0.1:{self._port}/gun"

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        return int(self._child.pid)

    @property
    def alive(self) -> bool:
        return self._child is not None and bool(self._child.alive)

    def log_tail(self) -> str:
        """The end of the process's log."""
        return str(self._child.log_tail())

    def kill(self) -> None:
        """SIGKILL, without waiting; see `wait`."""
        self._child.kill()

    def terminate(self) -> None:
        """SIGTERM, without waiting; see `wait`."""
        self._child.terminate()

    async def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for the end of the process and return its exit code."""
        return int(await self._child.wait(seconds))

    async def stop(self) -> None:
        """Kill it if it still runs."""
        if self._child is not None:
            await self._child.end()

    async def restart(self) -> None:
        """Kill it if it still runs, and start it again on the same port and data."""
        await self.stop()
        await self.launch()

    async def launch(self) -> None:
        """Start the process and wait until it serves."""
        raise NotImplementedError

    def _begin(self, child: Child) -> None:
        self._child = child
        self._tasks.start_soon(child.read_lines)


@contextlib.asynccontextmanager
async def _kept(make: Callable[[TaskGroup], _R]) -> AsyncIterator[_R]:
    with unwrapped():
        async with create_task_group() as tasks:
            one = make(tasks)
            try:
                await one.launch()
                yield one
            finally:
                await one.stop()
                tasks.cancel_scope.cancel()


class _RelayProcess(NodeChild):
    name = "stock relay"


class StockRelay(_Restartable):
    """A stock gun.js relay with its default options, in a process of its own."""

    def __init__(
        self, tasks: TaskGroup, folder: Path, *, axe: bool, peers: Sequence[str], static: Path
    ) -> None:
        super().__init__(tasks, folder / "relay.log")
        self._setup = {"dir": str(folder), "static": str(static), "axe": axe, "peers": list(peers)}

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, folder: Path, *, axe: bool = True, peers: Sequence[str] = (), static: Path | None = None
    ) -> AsyncIterator[StockRelay]:
        """Run a relay that keeps its data in ``folder``; ``axe`` False makes it flood instead.

        ``static`` is a folder of files to serve beside it.
        """
        shown = static or folder
        async with _kept(lambda tasks: cls(tasks, folder, axe=axe, peers=peers, static=shown)) as relay:
            yield relay

    async def launch(self) -> None:
        process = await start_node("gun_relay.cjs", {**self._setup, "port": self._port}, self._log)
        child = _RelayProcess(process, self._log)
        self._begin(child)
        self._port = (await child.event("ready"))["port"]

    async def command(self, do: str, **arguments: Any) -> Any:
        """Have the relay's own program do a get or a put."""
        return await self._child.command(do, **arguments)


class _DaemonProcess(Child):
    name = "air daemon"

    def __init__(self, process: Process, log: Path) -> None:
        super().__init__(process, log)
        self.ready: dict[str, Any] | None = None
        """The line the daemon prints when it serves."""

    def _heard(self, line: bytes) -> None:
        if self.ready is None:
            self.ready = json.loads(line)


class AirDaemon(_Restartable):
    """The daemon under test, in a process of its own."""

    def __init__(
        self, tasks: TaskGroup, data: Path, *, peers: Sequence[str], arguments: Sequence[str]
    ) -> None:
        super().__init__(tasks, data.parent / f"{data.name}.log")
        self._data = data
        self._peers = peers
        self._arguments = arguments

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, data: Path, *, peers: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> AsyncIterator[AirDaemon]:
        """Run ``air run`` over the folder ``data`` on free ports, with these peers and further arguments."""
        async with _kept(lambda tasks: cls(tasks, data, peers=peers, arguments=arguments)) as daemon:
            yield daemon

    @property
    def ready(self) -> dict[str, Any]:
        """The line the daemon printed when it was ready: its addresses."""
        return dict(self._child.ready)

    async def launch(self) -> None:
        command = [
            *(sys.executable, "-m", "air", "run", "--data", str(self._data), "--host", "127.0.0.1"),
            *("--port", str(self._port), "--admin", "127.0.0.1:0", "--json"),
            *(part for peer in self._peers for part in ("--peer", peer)),
            *self._arguments,
        ]
        # What the person running the suite has configured for their own daemon must not leak in.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AIR_")}
        environ["XDG_CONFIG_HOME"] = str(self._data.parent / "no-config")
        with self._log.open("ab") as stderr:
            process = await open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=environ,
            )
        child = _DaemonProcess(process, self._log)
        self._begin(child)
        await child.until(lambda: child.ready is not None, 20.0, what="line with the addresses")
        assert child.ready is not None
        self._port = int(child.ready["gun"][0].rsplit(":", 1)[1].split("/")[0])
