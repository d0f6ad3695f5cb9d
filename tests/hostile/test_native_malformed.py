"""Hundreds of ways to be wrong on the native wire: each has its code and ends the link only."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import psutil
import pytest

from air.base.clock import ManualClock
from air.base.errors import AirError, Closed, LimitReached, Violation
from air.base.keys import Identity
from air.codec.frame import FrameReader
from air.codec.zstd import Expander, ZstdConfig
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.security.noise import Noise
from air.sync.native.frames import Bye
from air.sync.native.limits import PROTOCOL, NativeLimits
from air.sync.native.reader import decode
from air.transport.memory_transport import Memory, MemoryNetwork
from tests.hostile.native_malformed import Case, greeting, impersonal, personal
from tests.layers.native_peers import Peer, peer, until
from tests.native_links import OURS, THEIRS, link

pytestmark = pytest.mark.hostile

MIB = 1024 * 1024
IMPERSONAL = impersonal()
CASES = [*personal(THEIRS, OURS), *IMPERSONAL]


def test_there_are_hundreds_of_them() -> None:
    assert len(CASES) >= 300
    assert len({case.code for case in CASES}) >= 35
    assert len({case.name for case in CASES}) == len(CASES)


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """What Python allocates inside stays below ``most`` bytes at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_frame_has_its_code_and_ends_the_link(case: Case) -> None:
    clock = ManualClock()
    data = (greeting(THEIRS) if case.greeted else b"") + case.data
    for size in (len(data), 4096):
        one = link(clock)
        with pytest.raises(Violation) as caught:
            for at in range(0, len(data), size):
                list(one.receive(data[at : at + size], clock.now()))
        assert caught.value.code == case.code
        assert caught.value.fatal or case.code.startswith("varint.")


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.code.startswith(("native.zstd", "limit."))], ids=lambda c: c.name
)
def test_a_bomb_takes_no_more_memory_than_was_stated(case: Case) -> None:
    clock = ManualClock()
    one = link(clock)
    list(one.receive(greeting(THEIRS), clock.now()))
    # A frame may be as large as the longest value; two copies of it, and what is made of small columns.
    with bounded(2 * NativeLimits().bytes_max), pytest.raises(Violation):
        list(one.receive(case.data, clock.now()))


def test_all_of_them_together_leave_the_process_as_small_as_it_was() -> None:
    # Also what the libraries take, which Python does not see.
    process, clock = psutil.Process(), ManualClock()
    before = process.memory_info().rss
    for case in CASES:
        one = link(clock)
        with pytest.raises(Violation):
            list(one.receive((greeting(THEIRS) if case.greeted else b"") + case.data, clock.now()))
    assert process.memory_info().rss - before < 128 * MIB


@pytest.mark.anyio
async def test_over_a_real_stream_the_code_is_told_and_an_honest_peer_notices_nothing() -> None:
    network = MemoryNetwork()
    async with peer(network=network) as victim, peer(network=network, dial=[victim.address]) as honest:
        await until(lambda: honest.sync.peers and victim.sync.peers)
        # Every seventh, and all whose code is rare: the rest is the same road.
        chosen, seen = [], set()
        for index in range(len(CASES)):
            code = CASES[index].code
            if index % 7 == 0 or code not in seen:
                chosen.append(index)
                seen.add(code)
        for start in range(0, len(chosen), 4):
            # Nobody may break the rules often: every few frames it is somebody else.
            attacker = Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()])
            async with attacker:
                own = [*personal(str(attacker.peer), str(victim.node.peer)), *IMPERSONAL]
                for index in chosen[start : start + 4]:
                    case = own[index]
                    assert await last_words(attacker, victim, case) == case.code, case.name
        await until(lambda: len(victim.hub.links()) == 1)
        await honest.hub.put({"after": {"k": 1}})
        await until(lambda: victim.hub.memory.node("after") is not None)


async def last_words(attacker: Node, victim: Peer, case: Case) -> str:
    """Send it, and read until the end: the code of the goodbye."""
    stream = await (await attacker.dial(victim.address)).open_stream(PROTOCOL)
    reader, limits, code = FrameReader(8 * MIB), NativeLimits(), ""
    data = (greeting(str(attacker.peer)) if case.greeted else b"") + case.data
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_send, stream, data)
            try:
                while True:
                    for frame in reader.receive(await stream.receive()):
                        said = decode(frame, Expander(ZstdConfig()), limits)
                        code = said.code if isinstance(said, Bye) else code
            except Closed:
                tasks.cancel_scope.cancel()
        await stream.reset()
    return code


async def _send(stream: object, data: bytes) -> None:
    try:
        await stream.send(data)  # type: ignore[attr-defined]
    except AirError:
        return


@pytest.mark.anyio
async def test_one_peer_has_only_so_many_links() -> None:
    network = MemoryNetwork()
    attacker = Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()])
    async with peer(network=network) as victim, attacker:
        session = await attacker.dial(victim.address)
        refused = 0
        for _ in range(6):
            try:
                stream = await session.open_stream(PROTOCOL)
                # Not everything: links with peers that hold everything replace each other.
                await stream.send(greeting(str(attacker.peer), everything=False))
                await stream.receive()
            except Closed:
                refused += 1
        assert refused == 6 - victim.sync.config.links_per_peer_max
        assert len(victim.hub.links()) == victim.sync.config.links_per_peer_max


def test_limits_are_limits() -> None:
    for case in CASES:
        if case.code.startswith("limit."):
            clock = ManualClock()
            with pytest.raises(LimitReached):
                list(link(clock).receive(greeting(THEIRS) + case.data, clock.now()))
