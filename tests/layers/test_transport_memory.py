"""The in-memory byte streams behave as sockets do."""

from __future__ import annotations

import anyio
import pytest

from air.base.errors import Closed, Reset
from air.transport.memory import memory_pair

pytestmark = pytest.mark.anyio


async def test_bytes_come_in_order_in_the_sizes_asked_for() -> None:
    near, far = memory_pair()
    await near.send(b"abcdef")
    await near.send(b"gh")
    assert [await far.receive(4), await far.receive(4), await far.receive()] == [b"abcd", b"ef", b"gh"]
    await far.send(b"back")
    assert await near.receive() == b"back"


async def test_a_writer_waits_while_the_buffer_is_full() -> None:
    near, far = memory_pair(10)
    done = False

    async def write() -> None:
        nonlocal done
        await near.send(b"0123456789abcdef")
        done = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        assert not done
        assert far.unread_bytes == 10
        assert await far.receive(3) == b"012"
        await anyio.wait_all_tasks_blocked()
        assert not done
        assert far.unread_bytes == 10
        assert await far.receive() == b"3456789"
        assert await far.receive() == b"abc"
        assert await far.receive() == b"def"
    assert done


async def test_a_half_close_lets_the_rest_be_read_and_the_other_way_go_on() -> None:
    near, far = memory_pair()
    await near.send(b"last")
    await near.send_eof()
    with pytest.raises(Reset):
        await near.send(b"more")
    assert await far.receive() == b"last"
    with pytest.raises(Closed) as caught:
        await far.receive()
    assert not isinstance(caught.value, Reset)
    await far.send(b"answer")
    assert await near.receive() == b"answer"


async def test_closing_ends_the_peer_s_reads_and_refuses_its_writes() -> None:
    near, far = memory_pair(4)
    await near.send(b"bye")

    async def blocked() -> None:
        with pytest.raises(Reset):
            await far.send(b"12345678")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(blocked)
        await anyio.wait_all_tasks_blocked()
        await near.aclose()
        await near.aclose()
    assert await far.receive() == b"bye"
    with pytest.raises(Closed):
        await far.receive()
    with pytest.raises(Reset):
        await near.receive()


async def test_a_cancelled_read_loses_nothing_and_close_wakes_a_reader() -> None:
    near, far = memory_pair()
    with anyio.move_on_after(0.01):
        await far.receive()
    await near.send(b"kept")
    assert await far.receive() == b"kept"

    async def waiting() -> None:
        with pytest.raises(Reset):
            await far.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        await far.aclose()
