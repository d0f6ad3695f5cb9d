"""What every Muxer has to do, as a suite that anybody can run against their own. (shell)

    await check_muxer(Yamux(), pair)

runs all of ``CHECKS``; ``await check_muxer(Yamux(), pair, only="resets_are_seen")`` runs one. Whatever
goes wrong comes as an AssertionError that names the check, what does not come to an end as a TimeoutError.
Each runs twice: once with the dialling side in the first role, once with the listening side.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from air.base.env import Env
from air.base.errors import AirError, Closed, Reset
from air.mux.api import MuxedConn, Muxer
from air.testing.muxer_scenes import SCENES, Scene
from air.testing.muxer_streams import echo_all, read_exactly
from air.testing.running import Crumbs, Lumps, run_checks
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
    other = muxer if peer is None else peer
    await run_checks(
        CHECKS, lambda check, swapped: check(muxer, other, pair, swapped), only=only, seconds=seconds
    )


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
    for below in (near, far):
        await _expect_closed(below)


async def _expect_closed(below: ByteStream) -> None:
    try:
        await below.send(b"x")
    except Closed:
        return
    raise AssertionError("the connection has ended, and what it was made from is open")


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
        for below in (near, far):
            await _expect_closed(below)
        after = {task.id for task in anyio.get_running_tasks()}
        assert after <= before, f"cancelled at call {n}, {len(after - before)} tasks are left"


# What comes from below


async def bytes_come_in_any_pieces(one: Muxer, two: Muxer, pair: PairFactory, swapped: bool) -> None:
    """Frames may arrive in crumbs, and several as one lump."""
    data = random.Random(6).randbytes(400)
    for through in (Crumbs, Lumps):

        async def wrapped(through: type[Crumbs | Lumps] = through) -> tuple[ByteStream, ByteStream]:
            near, far = await pair()
            return through(near), through(far)

        async with _joined(one, two, wrapped) as (dialer, listener):
            a, b = (listener, dialer) if swapped else (dialer, listener)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(echo_all, b)
                for _ in range(3):
                    stream = await a.open()
                    await stream.send(data)
                    await stream.send_eof()
                    assert await read_exactly(stream, len(data)) == data, (
                        "bytes were changed by how they came"
                    )
                    await stream.aclose()
                tasks.cancel_scope.cancel()


async def garbage_ends_the_connection(one: Muxer, two: Muxer, pair: PairFactory, swapped: bool) -> None:
    """Whatever a peer says: ``run`` returns, ``error`` is an AirError, and so is what waiting calls get."""
    for seed in range(30):
        near, far = await pair()
        mine, other = (far, near) if swapped else (near, far)
        conn = (two if swapped else one).wrap(mine, dialer=not swapped, env=Env())
        dice = random.Random(seed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.run)
            try:
                await other.send(bytes(dice.choices((0, 1, 2, 3, 255), k=seed)) + dice.randbytes(seed * 50))
                await other.send_eof()
                while True:
                    await conn.accept()
            except AirError:
                pass
        assert isinstance(conn.error, AirError), "there was garbage, and the connection has no error"
        await other.aclose()


async def a_cut_below_is_told_to_everybody(one: Muxer, two: Muxer, pair: PairFactory, swapped: bool) -> None:
    """When the stream below ends without a goodbye, whoever waits is told, and ``run`` returns."""
    near, far = await pair()
    dialer, listener = one.wrap(near, dialer=True, env=Env()), two.wrap(far, dialer=False, env=Env())
    a, b, cut = (listener, dialer, near) if swapped else (dialer, listener, far)
    got: list[AirError] = []

    async def wait(action: Callable[[], Awaitable[object]]) -> None:
        try:
            await action()
        except AirError as error:
            got.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dialer.run)
        tasks.start_soon(listener.run)
        mine = await a.open()
        await mine.send(b"?")
        theirs = await b.accept()
        assert await theirs.receive() == b"?", "the first byte of a stream did not arrive"
        for stream in (mine, theirs):
            tasks.start_soon(wait, stream.receive)
        tasks.start_soon(wait, a.accept)
        await anyio.wait_all_tasks_blocked()
        await cut.aclose()
    assert len(got) == 3, "the line was cut, and a call gave something"
    assert sum(isinstance(error, Reset) for error in got) >= 2, f"the line was cut, and readers heard {got}"
    assert a.error is not None, "the line was cut, and the connection has no error"


def _scene(scene: Scene) -> Check:
    async def check(one: Muxer, two: Muxer, pair: PairFactory, swapped: bool) -> None:
        async with _joined(one, two, pair) as (dialer, listener):
            await (scene(listener, dialer) if swapped else scene(dialer, listener))

    return check


CHECKS: Final[dict[str, Check]] = {scene.__name__: _scene(scene) for scene in SCENES} | {
    check.__name__: check
    for check in (
        bytes_come_in_any_pieces,
        garbage_ends_the_connection,
        a_cut_below_is_told_to_everybody,
        cancelled_anywhere_leaves_no_task,
    )
}
"""Name -> what is run with the dialling muxer, the listening one, a factory, whether roles are swapped."""
