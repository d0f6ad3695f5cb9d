"""What every Muxer has to do, as a suite that anybody can run against their own. (shell)

    await check_muxer(Yamux(), pair)

runs all of ``CHECKS``; ``await check_muxer(Yamux(), pair, only="resets_are_seen")`` runs one. A failed check
raises AssertionError, one that does not come to an end raises TimeoutError. Each runs twice: once with the
dialling side in the first role, once with the listening side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from air.base.env import Env
from air.mux.api import MuxedConn, Muxer
from air.testing.muxer_scenes import SCENES, Scene, echo_all, read_exactly
from air.transport.api import ByteStream

__all__ = ["CHECKS", "PairFactory", "check_muxer"]

PairFactory = Callable[[], Awaitable[tuple[ByteStream, ByteStream]]]
"""Makes two connected byte streams: the dialling end, the listening end."""

Check = Callable[[Muxer, Muxer, PairFactory, bool], Awaitable[None]]


async def check_muxer(
    muxer: Muxer,
    pair: PairFactory,
    *,
    peer: Muxer | None = None,
    only: str | None = None,
    seconds: float = 60.0,
) -> None:
    """Run the suite. ``peer`` is the listening side's muxer when it is another; ``seconds`` is for each."""
    for name in CHECKS if only is None else (only,):
        check = CHECKS[name]
        for swapped in (False, True):
            with anyio.fail_after(seconds):
                await check(muxer, muxer if peer is None else peer, pair, swapped)


@asynccontextmanager
async def _joined(one: Muxer, two: Muxer, pair: PairFactory) -> AsyncIterator[tuple[MuxedConn, MuxedConn]]:
    near, far = await pair()
    dialer, listener = one.wrap(near, dialer=True, env=Env()), two.wrap(far, dialer=False, env=Env())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dialer.run)
        tasks.start_soon(listener.run)
        yield dialer, listener
        await dialer.aclose()
        await listener.aclose()
    assert dialer.error is not None, "the dialler's connection did not end"
    assert listener.error is not None, "the listener's connection did not end"


# Cancellation


class _Tripwire:
    """A byte stream that cancels a scope at the n-th call."""

    def __init__(self, inner: ByteStream, calls: list[int], scope: anyio.CancelScope) -> None:
        self._inner, self._calls, self._scope = inner, calls, scope

    def _count(self) -> None:
        self._calls[0] -= 1
        if self._calls[0] == 0:
            self._scope.cancel()

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        self._count()
        return await self._inner.receive(max_bytes)

    async def send(self, data: bytes, /) -> None:
        self._count()
        await self._inner.send(data)

    async def send_eof(self) -> None:
        self._count()
        await self._inner.send_eof()

    async def aclose(self) -> None:
        self._count()
        await self._inner.aclose()


async def cancelled_anywhere_leaves_no_task(one: Muxer, two: Muxer, pair: PairFactory, swapped: bool) -> None:
    """Whatever call is under way when a connection is cancelled, it and its tasks end."""
    before = {task.id for task in anyio.get_running_tasks()}
    for n in range(1, 40):
        near, far = await pair()
        with anyio.CancelScope() as scope:
            calls = [n]
            a = one.wrap(_Tripwire(near, calls, scope), dialer=not swapped, env=Env())
            b = two.wrap(_Tripwire(far, calls, scope), dialer=swapped, env=Env())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(a.run)
                tasks.start_soon(b.run)
                tasks.start_soon(echo_all, b)
                for _ in range(3):
                    stream = await a.open()
                    await stream.send(b"x" * 300_000)
                    await read_exactly(stream, 300_000)
                    await stream.aclose()
                await a.aclose()
                await b.aclose()
        after = {task.id for task in anyio.get_running_tasks()}
        assert after <= before, f"cancelled at call {n}, {len(after - before)} tasks are left"


def _scene(scene: Scene) -> Check:
    async def check(one: Muxer, two: Muxer, pair: PairFactory, swapped: bool) -> None:
        async with _joined(one, two, pair) as (dialer, listener):
            await (scene(listener, dialer) if swapped else scene(dialer, listener))

    return check


CHECKS: Final[dict[str, Check]] = {scene.__name__: _scene(scene) for scene in SCENES} | {
    "cancelled_anywhere_leaves_no_task": cancelled_anywhere_leaves_no_task
}
"""Name -> what is run with the dialling muxer, the listening one, a factory, whether roles are swapped."""
