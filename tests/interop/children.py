"""A child process steered by lines: JSON commands in, JSON answers and events out. (shell)

Every wait is for a condition with a deadline, and leaving the context always ends the child.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from anyio import create_task_group, fail_after, move_on_after, open_process
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

__all__ = [
    "DEADLINE_SECONDS",
    "ROOT",
    "Child",
    "ChildDied",
    "NodeChild",
    "missing_tools",
    "running",
    "start_node",
]

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent

DEADLINE_SECONDS: Final = 10.0
"""How long a condition may take when a test names no time of its own: generous, as CI machines are small."""
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A line carries at most one value, and the largest value of the suite is a 5 MB text."""

_C = TypeVar("_C", bound="Child")


class ChildDied(Exception):
    """A child process ended although the test still needed it. The text holds the end of its log."""


@functools.cache
def missing_tools() -> str | None:
    """Why gun.js cannot be run here, or None when it can."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed; run: bash scripts/node.sh"
    if not (ROOT / "node_modules" / "gun" / "gun.js").exists():
        return "gun is not in node_modules; run: bash scripts/node.sh"
    major = subprocess.run(
        [node, "-p", "parseInt(process.versions.node)"], capture_output=True, text=True, check=True
    ).stdout
    return None if int(major) >= 18 else f"node {major.strip()} is too old, 18 is needed"


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raise a lone exception itself instead of the group a task group makes of it: tests read better."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from None


class Child:
    """A child process with a log file for its stderr; its stdout is read line by line."""

    name = "child"

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._changed = anyio.Event()
        self._over = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._over and self._process.returncode is None

    def log_tail(self, chars: int = 3000) -> str:
        """The end of what the child wrote to stderr."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(line for line in lines if not line.startswith("Hello wonderful person"))[-chars:]

    async def until(
        self, condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS, *, what: str = ""
    ) -> None:
        """Wait until the condition holds; it is looked at after every line of the child.

        Raises TimeoutError with the reason, or ChildDied when the child ended first.
        """
        with move_on_after(seconds) as scope:
            while not condition():
                if self._over:
                    raise ChildDied(
                        f"{self.name} ended while waiting for {what or condition}\n{self.log_tail()}"
                    )
                await self._changed.wait()
        if scope.cancelled_caught:
            raise TimeoutError(
                f"{self.name}: no {what or 'such thing'} within {seconds} s\n{self.log_tail()}"
            )

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def read_lines(self) -> None:
        assert self._process.stdout is not None
        lines = BufferedByteReceiveStream(self._process.stdout)
        try:
            while True:
                line = await lines.receive_until(b"\n", LINE_BYTES_MAX)
                self._heard(line)
                self._wake()
        except (
            anyio.EndOfStream,
            anyio.IncompleteRead,
            anyio.ClosedResourceError,
            anyio.BrokenResourceError,
        ):
            pass
        finally:
            self._over = True
            self._wake()

    def _heard(self, line: bytes) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def terminate(self) -> None:
        """SIGTERM: the child may drain."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for the child's end and return its exit code."""
        with fail_after(seconds):
            return await self._process.wait()

    async def goodbye(self) -> None:
        """Close the child's stdin and wait for its end, as every script of ours ends with its stdin."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        await self._process.wait()

    async def end(self) -> None:
        """Kill the child if it still runs, reap it, and close its pipes."""
        with move_on_after(DEADLINE_SECONDS, shield=True):
            self.kill()
            await self._process.wait()
            while not self._over:
                await self._changed.wait()
            await self._process.aclose()


@contextlib.asynccontextmanager
async def running(child: _C) -> AsyncIterator[_C]:
    with unwrapped():
        async with create_task_group() as tasks:
            tasks.start_soon(child.read_lines)
            try:
                yield child
            finally:
                await child.end()
                tasks.cancel_scope.cancel()


class NodeChild(Child):
    """A Node script that answers JSON commands by id and reports events."""

    def __init__(self, process: Process, log: Path) -> None:
        super().__init__(process, log)
        self._ids = count(1)
        self._answers: dict[int, Mapping[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        """Every event so far, oldest first."""

    def _heard(self, line: bytes) -> None:
        message = json.loads(line)
        if "id" in message:
            self._answers[message["id"]] = message
        else:
            self.events.append(message)
            self._event(message)

    def _event(self, event: dict[str, Any]) -> None:
        """Sort an event; the list of all events has it already."""

    async def start_command(self, do: str, **arguments: Any) -> int:
        """Send a command without waiting for its answer; returns its id for `answer`."""
        number = next(self._ids)
        line = json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n"
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(line)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, BrokenPipeError, ConnectionResetError):
            raise ChildDied(f"{self.name} is gone\n{self.log_tail()}") from None
        return number

    async def answer(self, number: int, seconds: float = DEADLINE_SECONDS) -> Any:
        """Wait for the answer to one command."""
        await self.until(lambda: number in self._answers, seconds, what=f"answer to command {number}")
        message = self._answers.pop(number)
        if "error" in message:
            raise RuntimeError(f"{self.name}: {message['error']}")
        return message["ok"]

    async def command(self, do: str, seconds: float = DEADLINE_SECONDS, **arguments: Any) -> Any:
        """Send a command and wait for its answer."""
        number = await self.start_command(do, **arguments)
        try:
            return await self.answer(number, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{do} {str(arguments)[:200]}: {error}") from None

    async def event(
        self, name: str, seconds: float = DEADLINE_SECONDS, *, since: int = 0, **fields: Any
    ) -> dict[str, Any]:
        """Wait for an event of that name and fields at or after position ``since`` of `events`."""

        def found() -> dict[str, Any] | None:
            for event in self.events[since:]:
                if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
                    return event
            return None

        await self.until(lambda: found() is not None, seconds, what=f"event {name} {fields or ''}")
        event = found()
        assert event is not None
        return event


async def start_node(script: str, setup: Mapping[str, Any], log: Path) -> Process:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stderr:
        return await open_process(
            ["node", str(HERE / script), json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
        )
