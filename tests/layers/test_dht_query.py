"""Asking other peers, who answer what a test wants: whose fault a failure is, and who gets into the table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest

from air.base.address import Multiaddr
from air.base.clock import ManualClock
from air.base.env import Env
from air.base.errors import AirError, Closed, LimitReached, Reset, Unreachable, Violation
from air.base.metrics import Counters
from air.base.peer_id import PeerId
from air.codec.frame import FrameReader, encode_frames
from air.dht.codec import decode, encode
from air.dht.config import KadConfig
from air.dht.message import Contact, Kind, Message, Record
from air.dht.query import Querier
from air.dht.table import RoutingTable
from air.swarm.peerbook import PeerBook, Source

pytestmark = pytest.mark.anyio

CONFIG = KadConfig(request_seconds=5.0)
ASKED = Message(Kind.FIND_NODE, b"k")


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(b"%d" % number).digest())


PEERS = [peer(number) for number in range(1, 30)]


class FakeStream:
    def __init__(self, said: Iterable[Message] | AirError | None) -> None:
        self.said = said

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, data: bytes) -> None:
        for frame in FrameReader(64 * 1024).receive(data):
            decode(frame, CONFIG)

    async def receive(self) -> bytes:
        if self.said is None:
            await anyio.sleep_forever()
        if isinstance(self.said, AirError):
            raise self.said
        answers, self.said = list(self.said or ()), Closed()
        return encode_frames([encode(one, CONFIG) for one in answers])


class FakeHost:
    """A node as the DHT sees it. Each session is gone as soon as its answer has come."""

    def __init__(self, config: KadConfig = CONFIG, env: Env | None = None) -> None:
        self.peer, self.env = peer(0), Env() if env is None else env
        self.counters, self.peerbook = Counters(), PeerBook()
        self.where = Multiaddr("/ip4/8.8.8.8/tcp/1")
        self.said: Iterable[Message] | AirError | None = [ASKED]
        self.unreachable: AirError | None = None
        self.table = RoutingTable(self.peer, config)
        self.querier = Querier(self, self.table, config, lambda: None)  # type: ignore[arg-type]

    def discovered(self, peer: PeerId, addresses: Iterable[Multiaddr], source: Source) -> None:
        self.peerbook.add(peer, addresses, source, self.env.clock.now())

    def session(self, _: PeerId) -> None:
        return None

    async def dial(self, _: PeerId) -> FakeHost:
        if self.unreachable is not None:
            raise self.unreachable
        return self

    @property
    def remote_address(self) -> Multiaddr:
        return self.where

    async def open_stream(self, _: str) -> FakeStream:
        return FakeStream(self.said)


async def test_who_answers_and_leaves_at_once_counts_in_its_network_all_the_same() -> None:
    host = FakeHost()
    for one in PEERS:
        await host.querier.ask(Contact(one), ASKED)
    assert 0 < len(host.table) <= CONFIG.group_table_max


async def test_a_member_that_moves_into_a_full_network_leaves_the_table() -> None:
    host = FakeHost()
    for number, one in enumerate(PEERS):
        host.where = Multiaddr(f"/ip4/{20 + number}.1.1.1/tcp/1")
        await host.querier.ask(Contact(one), ASKED)
    assert len(host.table) == len(PEERS)
    host.where = Multiaddr("/ip4/8.8.8.8/tcp/1")
    for one in PEERS:
        await host.querier.ask(Contact(one), ASKED)
    assert 0 < len(host.table) <= CONFIG.group_table_max


@pytest.mark.parametrize(
    ("message", "said", "unreachable", "its_fault"),
    [
        (ASKED, Closed(), None, True),
        (ASKED, Reset(), None, True),
        (ASKED, [Message(Kind.PING)], None, True),
        (ASKED, None, Unreachable("gone", [("/ip4/8.8.8.8/tcp/1", "dial.refused: no")]), True),
        (ASKED, None, Unreachable("full", [("…", "limit.system.connections: full")]), False),
        (ASKED, None, LimitReached(code="limit.peer.streams-out"), False),
        (Message(Kind.FIND_NODE, bytes(20_000)), [ASKED], None, False),
        (Message(Kind.PUT_VALUE, b"k", Record(b"k", b"not valid")), Reset(), None, False),
        (Message(Kind.PUT_VALUE, b"k", Record(b"k", b"v")), Closed(), None, True),
    ],
    ids=[
        "left",
        "reset",
        "wrong answer",
        "unreachable",
        "our connections",
        "our streams",
        "too long",
        "refused",
        "put and left",
    ],
)
async def test_a_member_leaves_the_table_only_for_its_own_fault(
    message: Message, said: Any, unreachable: AirError | None, its_fault: bool
) -> None:
    host = FakeHost()
    await host.querier.ask(Contact(PEERS[0]), ASKED)
    host.said, host.unreachable = said, unreachable
    for _ in range(CONFIG.failures_max + 1):
        with pytest.raises(AirError):
            await host.querier.ask(Contact(PEERS[0]), message)
    assert (PEERS[0] not in host.table) == its_fault


async def test_hearsay_about_a_member_ends_unless_somebody_says_it_again() -> None:
    clock = ManualClock()
    host = FakeHost(env=Env(clock))
    hearsay = Contact(PEERS[0], (Multiaddr("/ip4/9.9.9.9/tcp/1"),))
    await host.querier.ask(hearsay, ASKED)
    for _ in range(6):
        assert host.querier.contacts(PEERS[:1]) == [hearsay]
        clock.advance(100)
        await host.querier.search(b"k", settle=3)
    assert host.querier.contacts(PEERS[:1]) == [Contact(PEERS[0])]
    await host.querier.ask(hearsay, ASKED)
    assert host.querier.contacts(PEERS[:1]) == [hearsay]


async def test_what_is_answered_by_silence_may_be_echoed_once() -> None:
    host, told = FakeHost(), Message(Kind.ADD_PROVIDER, b"k", providers=(Contact(peer(0)),))
    host.said = [told, Message(Kind.FIND_NODE)]
    await host.querier.tell(Contact(PEERS[0]), told)
    host.said = [told, told, Message(Kind.FIND_NODE)]
    with pytest.raises(Violation) as caught:
        await host.querier.tell(Contact(PEERS[0]), told)
    assert caught.value.code == "kad.wrong-answer"


@pytest.mark.parametrize("end", ["time", "cancelled"])
async def test_peers_that_hang_hold_up_neither_a_search_nor_what_follows(end: str) -> None:
    config = KadConfig(query_seconds=0.05 if end == "time" else 60.0)
    host = FakeHost(config)
    await host.querier.ask(Contact(PEERS[0]), ASKED)
    host.said = None
    contacts = [Contact(one) for one in PEERS]

    async def search() -> None:
        await host.querier.search(b"k", settle=3)

    async def spread() -> None:
        assert await host.querier.spread(contacts, ASKED) == 0

    runs: list[Callable[[], Any]] = [search, spread]
    for run in runs:
        with anyio.fail_after(2), anyio.move_on_after(0.05 if end == "cancelled" else 2) as scope:
            await run()
        assert scope.cancelled_caught == (end == "cancelled")
    assert host.querier._turns == {}
    assert PEERS[0] in host.table
