"""One task waits until another has news: on both event loops, whatever is cancelled in between."""

from __future__ import annotations

import anyio
import pytest

from air.base.errors import Misuse
from air.base.waker import Waker

pytestmark = pytest.mark.anyio


async def test_who_waits_goes_on_when_it_is_woken_and_not_before() -> None:
    waker, seen = Waker(), list[str]()

    async def wait() -> None:
        for _ in range(2):
            await waker.wait()
            seen.append("woken")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert (waker.waiting, seen) == (True, [])
        waker.wake()
        assert not waker.waiting
        # A second time before it has run is one time.
        waker.wake()
        await anyio.wait_all_tasks_blocked()
        assert (waker.waiting, seen) == (True, ["woken"])
        waker.wake()
    assert seen == ["woken", "woken"]


async def test_a_wake_that_nobody_waits_for_is_lost() -> None:
    waker = Waker()
    waker.wake()
    with anyio.move_on_after(0.01) as scope:
        await waker.wait()
    assert scope.cancelled_caught


async def test_after_a_wait_that_was_cancelled_another_task_waits_and_is_woken() -> None:
    waker = Waker()
    with anyio.move_on_after(0.01):
        await waker.wait()
    assert not waker.waiting
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waker.wait)
        await anyio.wait_all_tasks_blocked()
        waker.wake()


async def test_a_scope_that_is_cancelled_already_ends_the_wait() -> None:
    waker = Waker()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await waker.wait()
    assert scope.cancelled_caught
    assert not waker.waiting


async def test_two_tasks_may_not_wait_at_a_time() -> None:
    waker = Waker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waker.wait)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Misuse):
            await waker.wait()
        waker.wake()
