"""What the suites share: how checks are run, how a failed one is told, streams that make trouble. (shell)"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from air.base.errors import Closed, Misuse
from air.transport.api import ByteStream

__all__ = ["Crumbs", "Lumps", "cancel_as_bytes_come", "run_checks"]

Check = TypeVar("Check")


async def run_checks(
    checks: Mapping[str, Check],
    run: Callable[[Check, bool], Awaitable[None]],
    *,
    only: str | None,
    seconds: float,
    roles: Sequence[str] = ("the dialling side", "the listening side"),
) -> None:
    """Run each check once per role; ``run`` is told the check and whether the roles are swapped.

    Raises AssertionError for whatever went wrong, TimeoutError after ``seconds``, both with the name of the
    check; Misuse when there is no check called ``only``.
    """
    if only is not None and only not in checks:
        raise Misuse(f"there is no check {only!r}; there are {', '.join(checks)}")
    for name in checks if only is None else (only,):
        for swapped, role in enumerate(roles):
            where = f"{name}, {role} first" if len(roles) > 1 else name
            with anyio.move_on_after(seconds) as scope:
                try:
                    await run(checks[name], bool(swapped))
                except Exception as error:
                    found = _cause(error)
                    raise AssertionError(f"{where}: {_text(found)}") from found
            if scope.cancelled_caught:
                raise TimeoutError(f"{where}: no end within {seconds} s")


def _cause(error: BaseException) -> BaseException:
    """What a person wants to see of a group: what a check says, or else the first error."""
    while isinstance(error, BaseExceptionGroup):
        said, others = error.split(AssertionError)
        error = (said or others or error).exceptions[0]
    return error


def _text(error: BaseException) -> str:
    if not isinstance(error, AssertionError):
        return repr(error)
    # An assertion without a message says best itself what it is about.
    return str(error) or traceback.extract_tb(error.__traceback__)[-1].line or "failed"


class Crumbs:
    """A ByteStream that gives a few bytes at a time, as a network may, and lets others run in between."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner, self._turn = inner, 0
        self.send, self.send_eof, self.aclose = inner.send, inner.send_eof, inner.aclose

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        await checkpoint()
        self._turn += 1
        return await self._inner.receive(min(max_bytes, self._turn % 3 + 1))


class Lumps:
    """A ByteStream that gives what was sent in several pieces as one, as a slow network does."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner, self._held = inner, bytearray()
        self.send, self.send_eof, self.aclose = inner.send, inner.send_eof, inner.aclose

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        held = self._held
        if not held:
            held += await self._inner.receive(max_bytes)
        try:
            with anyio.move_on_after(0.005):
                while len(held) < max_bytes:
                    held += await self._inner.receive(max_bytes - len(held))
        except Closed:
            pass  # the next call meets it again
        data = bytes(held[:max_bytes])
        del held[:max_bytes]
        return data


async def cancel_as_bytes_come(sender: ByteStream, receiver: ByteStream) -> None:
    """Cancel ``receive`` while bytes come in: it gives them, or the next call does."""
    for turn in range(16):
        got: list[bytes] = []
        scope = anyio.CancelScope()

        async def read(got: list[bytes] = got, scope: anyio.CancelScope = scope) -> None:
            with scope:
                got.append(await receiver.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await checkpoint()
            await sender.send(b"abc")
            if turn < 8:
                for _ in range(turn):
                    await checkpoint()
            else:
                await anyio.sleep(0.0002 * (turn - 7))
            scope.cancel()
        with anyio.move_on_after(2):
            while len(b"".join(got)) < 3:
                got.append(await receiver.receive())
        assert b"".join(got) == b"abc", "bytes got lost with a receive that was cancelled as they came"
