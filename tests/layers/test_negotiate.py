"""multistream-select on streams, on both event loops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from air.base.env import Env
from air.base.errors import AirError, Closed, Denied, Misuse, Reset, Violation
from air.negotiate.multistream import MultistreamConfig
from air.negotiate.select import LazyStream, answer, ask_list, propose, propose_lazily
from air.transport.api import ByteStream
from air.transport.memory import MemoryStream, memory_pair

pytestmark = pytest.mark.anyio

ENV = Env()
HEADER = bytes.fromhex("132f6d756c746973747265616d2f312e302e300a")
ECHO = b"\x0c/echo/1.0.0\n"
NA = b"\x03na\n"


async def gather(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run all, return all results or exceptions."""
    results: list[Any] = [None] * len(calls)

    async def run(at: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[at] = await call()
        except AirError as error:
            results[at] = error

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for at, call in enumerate(calls):
                tasks.start_soon(run, at, call)
    return results


async def read(stream: ByteStream, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += await stream.receive(size - len(got))
    return got


async def test_the_first_common_protocol_is_agreed_on_and_the_stream_goes_on() -> None:
    one, other = memory_pair()
    dialled, answered = await gather(
        lambda: propose(one, ["/tls/1.0.0", "/noise", "/other"], env=ENV),
        lambda: answer(other, ["/other", "/noise"], env=ENV),
    )
    assert dialled.protocol == answered.protocol == "/noise"
    assert (dialled.stream, answered.stream) == (one, other)
    await dialled.stream.send(b"abc")
    assert await answered.stream.receive() == b"abc"


async def test_no_common_protocol() -> None:
    one, other = memory_pair()

    async def dial() -> None:
        try:
            await propose(one, ["/a/1", "/b/1"], env=ENV)
        finally:
            await one.aclose()

    dialled, answered = await gather(dial, lambda: answer(other, ["/c/1"], env=ENV))
    assert isinstance(dialled, Denied)
    assert dialled.code == "multistream.unsupported"
    assert isinstance(answered, Closed)


async def test_bytes_behind_the_proposal_come_first_in_the_stream() -> None:
    one, other = memory_pair()
    await one.send(HEADER + ECHO + b"request")
    await one.send(b" body")
    answered = await answer(other, ["/echo/1.0.0"], env=ENV)
    assert await answered.stream.receive(3) == b"req"
    assert await read(answered.stream, 9) == b"uest body"
    await answered.stream.send(b"answer")
    assert await read(one, 39) == HEADER + ECHO + b"answer"
    await answered.stream.send_eof()
    await answered.stream.aclose()
    with pytest.raises(Closed):
        await one.receive()


async def test_a_listener_serves_one_who_asked_and_left_at_once() -> None:
    one, other = memory_pair()
    await one.send(HEADER + ECHO + b"fire and forget")
    await one.send_eof()
    answered = await answer(other, ["/echo/1.0.0"], env=ENV)
    assert await answered.stream.receive() == b"fire and forget"

    # Nobody is there any more to take the verdict.
    one, other = memory_pair()
    await one.send(HEADER + ECHO + b"fire and forget")
    await one.aclose()
    with pytest.raises(Reset):
        await other.send(b"x")
    answered = await answer(other, ["/echo/1.0.0"], env=ENV)
    assert await answered.stream.receive() == b"fire and forget"


async def test_silence_and_nonsense_end_a_negotiation_and_leave_the_stream_to_its_owner() -> None:
    quick = MultistreamConfig(timeout_seconds=0.05)
    one, other = memory_pair()
    for late in await gather(
        lambda: propose(one, ["/a/1"], env=ENV, config=quick),
        lambda: answer(memory_pair()[0], [], env=ENV, config=quick),
    ):
        assert isinstance(late, Violation)
        assert late.code == "multistream.timeout"
    one, other = memory_pair()
    await other.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(Violation):
        await answer(one, ["/a/1"], env=ENV)
    await one.send(b"still open")
    assert await other.receive() == b"still open"
    with pytest.raises(Misuse):
        await propose(one, [], env=ENV)


async def test_a_list_of_protocols_can_be_asked_for() -> None:
    one, other = memory_pair()
    listed, left = await gather(lambda: list_and_leave(one), lambda: answer(other, ["/a/1", "/b/1"], env=ENV))
    assert listed == ("/a/1", "/b/1")
    assert isinstance(left, Closed)


async def list_and_leave(stream: ByteStream) -> tuple[str, ...]:
    found = await ask_list(stream, env=ENV)
    await stream.aclose()
    return found


def lazily(stream: MemoryStream, **config: float) -> LazyStream[MemoryStream]:
    return propose_lazily(stream, "/echo/1.0.0", env=ENV, config=MultistreamConfig(**config))  # type: ignore[arg-type]


async def test_a_lazy_proposal_travels_with_the_first_bytes() -> None:
    one, other = memory_pair()
    lazy = lazily(one)
    assert other.unread_bytes == 0
    await lazy.send(b"request")
    assert await other.receive() == HEADER + ECHO + b"request"
    await lazy.send_many([b" and", b" more"])
    assert await other.receive() == b" and more"
    assert not lazy.confirmed
    await other.send(HEADER + ECHO + b"answer")
    assert await lazy.receive(3) == b"ans"
    assert await lazy.receive() == b"wer"
    assert lazy.confirmed
    await lazy.send(b"x")
    await lazy.send_many([b"y"])
    assert await read(other, 2) == b"xy"


async def test_a_lazy_proposal_is_sent_by_whoever_reads_first() -> None:
    one, other = memory_pair()
    lazy = lazily(one)
    read_first, answered = await gather(lazy.receive, lambda: greet(other))
    assert read_first == b"welcome"
    assert answered is None
    one, other = memory_pair()
    lazy = lazily(one)
    await lazy.send_eof()
    assert await other.receive() == HEADER + ECHO
    with pytest.raises(Closed):
        await other.receive()


async def greet(stream: ByteStream) -> None:
    answered = await answer(stream, ["/echo/1.0.0"], env=ENV)
    await answered.stream.send(b"welcome")


async def test_a_lazy_guess_can_be_wrong() -> None:
    one, other = memory_pair()
    lazy = lazily(one)
    await lazy.send(b"request")
    await other.send(HEADER + NA)
    for _ in range(2):
        with pytest.raises(Denied) as wrong:
            await lazy.receive()
        assert wrong.value.code == "multistream.unsupported"
    with pytest.raises(Denied):
        await lazy.send(b"more")
    await lazy.aclose()


async def test_closing_a_lazy_stream_waits_for_the_answer_but_not_for_long() -> None:
    one, other = memory_pair()
    lazy = lazily(one)
    await lazy.send(b"request")
    await gather(lazy.aclose, lambda: answer(other, ["/echo/1.0.0"], env=ENV))
    assert lazy.confirmed
    one, other = memory_pair()
    lazy = lazily(one, goodbye_seconds=0.05)
    await lazy.send(b"request")
    with anyio.fail_after(2):
        await lazy.aclose()
    assert not lazy.confirmed
    # Nothing was sent, so there is nothing to wait for.
    one, other = memory_pair()
    lazy = lazily(one)
    with anyio.fail_after(1):
        await lazy.aclose()
    with pytest.raises(Closed):
        await other.receive()


async def test_a_reader_and_a_writer_of_a_lazy_stream_may_start_together() -> None:
    one, other = memory_pair(16)
    lazy = lazily(one)

    async def talk() -> bytes:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lazy.send, b"request")
            return await lazy.receive()

    async def serve() -> bytes:
        answered = await answer(other, ["/echo/1.0.0"], env=ENV)
        got = await read(answered.stream, 7)
        await answered.stream.send(b"answer")
        return got

    assert await gather(talk, serve) == [b"answer", b"request"]


async def test_a_reader_of_a_lazy_stream_does_not_wait_for_a_writer_that_waits_for_it() -> None:
    one, other = memory_pair(100)
    lazy = lazily(one)

    async def echo() -> None:
        answered = await answer(other, ["/echo/1.0.0"], env=ENV)
        while True:
            await answered.stream.send(await answered.stream.receive())

    async def take() -> int:
        size = len(await read(lazy, 1000))
        await lazy.aclose()
        return size

    # The writer is first, and has to wait for the peer, which has to wait for the reader.
    results = await gather(lambda: lazy.send(bytes(1000)), take, echo)
    assert results[:2] == [None, 1000]


@pytest.mark.parametrize("room", [30, 1000])  # the proposal has 33 bytes
@pytest.mark.parametrize("later", range(5))
async def test_the_end_of_a_lazy_stream_does_not_overtake_the_proposal_of_its_reader(
    later: int, room: int
) -> None:
    one, other = memory_pair(room)
    lazy = lazily(one)

    async def end() -> None:
        for _ in range(later):  # whatever step the reader is at
            await anyio.lowlevel.checkpoint()
        await lazy.send_eof()

    results = await gather(lambda: read(lazy, 7), end, lambda: greet(other))
    assert results == [b"welcome", None, None]


async def test_a_lazy_stream_is_closed_at_the_answer_although_somebody_reads() -> None:
    one, other = memory_pair()
    lazy = lazily(one)
    await lazy.send(b"request")

    async def serve() -> None:
        await anyio.wait_all_tasks_blocked()
        await answer(other, ["/echo/1.0.0"], env=ENV)

    with anyio.fail_after(2):
        _, read_last, _ = await gather(lazy.aclose, lazy.receive, serve)
    assert isinstance(read_last, Closed)
    assert lazy.confirmed


async def test_a_proposal_that_was_cut_off_is_not_repeated_in_part() -> None:
    one, other = memory_pair(4)
    lazy = lazily(one)
    with anyio.move_on_after(0.05):
        await lazy.send(b"request")
    assert other.unread_bytes == 4
    for use in (lazy.receive, lambda: lazy.send(b"x")):
        with pytest.raises(Reset):
            await use()
