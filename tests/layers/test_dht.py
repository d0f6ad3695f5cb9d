"""The DHT between nodes in one process: searching, keeping, providing, and peers that break the rules."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest
from anyio.abc import TaskStatus

from air.base.address import Multiaddr
from air.base.clock import ManualClock
from air.base.env import Env
from air.base.errors import AirError, Closed, ConfigError, Misuse, Reset
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.codec.frame import FrameReader, encode_frame
from air.dht.codec import decode, encode
from air.dht.config import PROTOCOL, KadConfig
from air.dht.kademlia import Kademlia, Mode
from air.dht.key import place
from air.dht.message import Contact, Kind, Message, Record
from air.dht.upkeep import Upkeep
from air.dht.values import Anything, PublicKeys
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.protocols import Identify
from air.security.noise import Noise
from air.swarm.api import Host, StreamHandler
from air.swarm.session import Session
from air.swarm.stream import Stream
from air.transport.memory_transport import Memory, MemoryNetwork

pytestmark = pytest.mark.anyio

KEY = b"/air/k"
HELLO = b"\x12\x20" + hashlib.sha256(b"hello").digest()


class Peer:
    """A node with the DHT on it."""

    def __init__(
        self, network: MemoryNetwork, mode: Mode, config: KadConfig | None = None, env: Env | None = None
    ) -> None:
        self.dht = Kademlia(config, mode=mode, namespaces={"pk": PublicKeys(), "air": Anything()})
        self.node = Node(
            Identity.generate(),
            [Memory(network)],
            [Noise()],
            [Yamux()],
            [Identify(), self.dht],
            ["/memory/0"],
            env=env,
        )

    @property
    def id(self) -> PeerId:
        return self.node.peer

    async def joins(self, other: Peer) -> None:
        """Meet ``other``, and have it in the table."""
        await self.node.dial(other.node.addresses[0])
        with anyio.fail_after(10):
            while other.id not in self.dht.peers:
                await self.dht.ready(len(self.dht.peers) + 1)


@asynccontextmanager
async def peers(*modes: Mode, config: KadConfig | None = None) -> AsyncIterator[list[Peer]]:
    network = MemoryNetwork()
    made = [Peer(network, mode, config) for mode in modes]

    async def run(one: Peer, *, task_status: TaskStatus[None]) -> None:
        async with one.node:
            task_status.started()
            await anyio.sleep_forever()

    # Each in a task of its own: nested, an error of a test would be buried in as many groups.
    async with anyio.create_task_group() as tasks:
        for one in made:
            await tasks.start(run, one)
        yield made
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def crowd(count: int, config: KadConfig | None = None) -> AsyncIterator[list[Peer]]:
    """So many servers, each of which has met the one before it and looked around."""
    async with peers(*[Mode.SERVER] * count, config=config) as made:
        for before, after in pairwise(made):
            await after.node.dial(before.node.addresses[0])
            await after.dht.ready()
            await after.dht.closest(after.id.multihash)
        yield made


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


async def asked(session: Session, *messages: Message | bytes) -> list[Message]:
    """Send questions on one stream and read to its end."""
    config = KadConfig()
    async with await session.open_stream(PROTOCOL) as stream:
        for message in messages:
            data = message if isinstance(message, bytes) else encode_frame(encode(message, config))
            await stream.send(data)
        await stream.send_eof()
        return [decode(frame, config) for frame in await drained(stream)]


async def drained(stream: Stream) -> list[bytes]:
    reader, frames = FrameReader(64 * 1024), []
    while True:
        try:
            frames += reader.receive(await stream.receive())
        except Reset:
            raise
        except AirError:
            return frames


async def test_a_client_finds_a_peer_that_its_own_contact_knows_nothing_of() -> None:
    async with peers(Mode.SERVER, Mode.SERVER, Mode.SERVER, Mode.CLIENT) as (a, b, c, client):
        await b.joins(a)
        await c.joins(b)
        await until(lambda: c.id in b.dht.peers)
        await client.joins(a)
        found = await client.dht.find_peer(c.id)
        assert found == Contact(c.id, tuple(one.bare for one in c.node.addresses if one.bare))
        with pytest.raises(AirError) as caught:
            await client.dht.find_peer(Identity.generate().peer_id)
        assert caught.value.code == "kad.not-found"
        # A client is nobody's contact.
        assert all(client.id not in one.dht.peers for one in (a, b, c))


class Liar:
    """Answers every question at once: whoever is wanted, and a hundred others, are where nobody is."""

    def __init__(self) -> None:
        self.invented = [Identity.generate().peer_id for _ in range(100)]
        self.place: tuple[Multiaddr, ...] = ()

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: self._lie}

    async def run(self, host: Host, *, task_status: TaskStatus[None]) -> None:
        self.place = tuple(Multiaddr(f"/memory/{number}") for number in range(900, 916))
        task_status.started()

    async def _lie(self, stream: Stream) -> None:
        config, reader = KadConfig(send_bytes_max=60_000), FrameReader(64 * 1024)
        while True:
            for frame in reader.receive(await stream.receive()):
                asked = decode(frame, config)
                wanted = [PeerId.from_bytes(asked.key)] if asked.key[:1] == b"\0" else []
                contacts = tuple(Contact(peer, self.place) for peer in wanted + self.invented)
                answer = Message(asked.kind, asked.key, asked.record, contacts, contacts[:50])
                await stream.send(encode_frame(encode(answer, config)))


async def test_a_liar_delays_a_search_and_neither_ends_nor_changes_it() -> None:
    network = MemoryNetwork()
    lying = Node(
        Identity.generate(), [Memory(network)], [Noise()], [Yamux()], [Identify(), Liar()], ["/memory/0"]
    )
    config = KadConfig(request_seconds=1.0)
    honest, wanted, client = (Peer(network, Mode.SERVER, config) for _ in range(3))
    async with lying, honest.node, wanted.node, client.node:
        await wanted.joins(honest)
        await client.joins(honest)
        await client.node.dial(lying.addresses[0])
        await until(lambda: lying.peer in client.dht.peers)
        found = await client.dht.find_peer(wanted.id)
        assert found.addresses[0] == wanted.node.addresses[0].bare
        closest = await client.dht.closest(wanted.id.multihash)
        assert {one.peer for one in closest} == {honest.id, wanted.id, lying.peer}


async def test_in_a_crowd_the_closest_are_the_closest_and_hold_what_was_put() -> None:
    config = KadConfig(k=4)
    async with crowd(14, config) as made:
        target = place(KEY)
        nearest = sorted(made, key=lambda one: place(one.id.multihash) ^ target)
        for asking in (made[0], made[-1]):
            others = [one for one in nearest if one is not asking]
            assert [one.peer for one in await asking.dht.closest(KEY)] == [one.id for one in others[:4]]
        putting = nearest[-1]
        assert await putting.dht.put_value(KEY, b"v") == 4
        holding = [one for one in made if one.node.swarm.counters.get("kad_requests_in", "PUT_VALUE")]
        assert set(holding) == set(nearest[:4])
        assert await nearest[-2].dht.get_value(KEY) == b"v"


async def test_a_better_value_replaces_the_others_where_they_are_held() -> None:
    async with peers(Mode.SERVER, Mode.SERVER, Mode.SERVER, Mode.CLIENT) as (a, b, c, client):
        await b.joins(a)
        await c.joins(b)
        await a.joins(c)
        await client.joins(a)
        session = await client.node.dial(b.node.addresses[0])
        # Put where only one hears of it.
        await asked(session, Message(Kind.PUT_VALUE, KEY, Record(KEY, b"older")))
        session = await client.node.dial(c.node.addresses[0])
        await asked(session, Message(Kind.PUT_VALUE, KEY, Record(KEY, b"wiser")))
        assert await client.dht.get_value(KEY) == b"wiser"
        # Those that held another, or none, have it now.
        for one in (a, b, c):
            [answer] = await asked(
                await client.node.dial(one.node.addresses[0]), Message(Kind.GET_VALUE, KEY)
            )
            assert answer.record is not None
            assert answer.record.value == b"wiser"


async def test_what_is_not_valid_is_neither_put_nor_believed() -> None:
    async with peers(Mode.SERVER, Mode.SERVER, Mode.CLIENT) as (liar, honest, client):
        await honest.joins(liar)
        await client.joins(liar)
        wrong = b"/pk/" + honest.id.multihash
        for key, value, code in (
            (wrong, b"no key", "kad.bad-value"),
            (b"no key", b"v", "kad.bad-key"),
            (b"/none/k", b"v", "kad.no-validator"),
        ):
            with pytest.raises(Misuse) as caught:
                await client.dht.put_value(key, value)
            assert caught.value.code == code
            session = client.node.sessions[0]
            with pytest.raises(Reset):
                await asked(session, Message(Kind.PUT_VALUE, key, Record(key, value)))
        with pytest.raises(AirError) as missing:
            await client.dht.get_value(wrong)
        assert missing.value.code == "kad.not-found"
        key = honest.node.identity.public_key.to_bytes()
        assert await client.dht.put_value(wrong, key) == 2
        assert await client.dht.get_value(wrong, quorum=1) == key


async def test_who_provides_is_found_with_its_addresses_and_only_by_its_own_word() -> None:
    async with peers(Mode.SERVER, Mode.SERVER, Mode.CLIENT, Mode.CLIENT) as (a, b, has, wants):
        await b.joins(a)
        await has.joins(a)
        await wants.joins(b)
        assert await has.dht.provide(HELLO) == 2
        await until(lambda: b.node.swarm.counters.get("kad_requests_in", "ADD_PROVIDER") == 1)
        [found] = await wants.dht.find_providers(HELLO)
        assert found.peer == has.id
        assert found.addresses == tuple(one.bare for one in has.node.addresses)
        assert (await wants.node.dial(found.peer, found.addresses)).peer == has.id
        # One peer cannot say that another has something, and who has no address cannot be found.
        here = (Multiaddr("/memory/77"),)
        said = (Contact(has.id, here), Contact(wants.id))
        other = b"\x12\x20" + bytes(32)
        assert await asked(wants.node.sessions[0], Message(Kind.ADD_PROVIDER, other, providers=said)) == []
        with pytest.raises(AirError) as caught:
            await wants.dht.find_providers(other)
        assert caught.value.code == "kad.not-found"


async def test_questions_on_one_stream_are_answered_in_their_order_and_a_provider_by_silence() -> None:
    async with peers(Mode.SERVER, Mode.CLIENT) as (server, client):
        await client.joins(server)
        own = Contact(client.id, (Multiaddr("/memory/5"),))
        answers = await asked(
            client.node.sessions[0],
            Message(Kind.PING),
            Message(Kind.ADD_PROVIDER, HELLO, providers=(own,)),
            Message(Kind.GET_PROVIDERS, HELLO),
            Message(Kind.FIND_NODE, server.id.multihash),
        )
        assert [one.kind for one in answers] == [Kind.PING, Kind.GET_PROVIDERS, Kind.FIND_NODE]
        assert answers[1].providers == (own,)
        assert [one.peer for one in answers[2].closer] == [server.id]


async def test_a_stream_with_nonsense_is_reset_and_the_next_one_is_well() -> None:
    async with peers(Mode.SERVER, Mode.CLIENT) as (server, client):
        await client.joins(server)
        [session] = client.node.sessions
        for nonsense, code in (
            (encode_frame(b"\x7f\x61\x62"), "kad.malformed"),
            (encode_frame(b"\x08\x06"), "kad.unknown-type"),
            (b"\xff\xff\x7f", "frame.too-big"),
            (encode_frame(bytes(9))[:5], "frame.truncated"),
            (encode_frame(encode(Message(Kind.PUT_VALUE, KEY), KadConfig())), "kad.no-record"),
        ):
            with pytest.raises(Reset):
                await asked(session, nonsense)
            assert server.node.swarm.counters.get("streams_failed", code) == 1, code
        assert len(await asked(session, Message(Kind.PING))) == 1


async def test_a_peer_has_only_so_many_streams_and_waits_when_it_asks_too_fast() -> None:
    config = KadConfig(inbound_max=2, requests_burst=10, requests_per_second=100)
    async with peers(Mode.SERVER, Mode.CLIENT, config=config) as (server, client):
        await client.joins(server)
        [session] = client.node.sessions
        await until(lambda: not session.streams)
        held = [await session.open_stream(PROTOCOL) for _ in range(2)]
        for stream in held:
            await stream.send(encode_frame(encode(Message(Kind.PING), config)))
            await stream.receive()
        with pytest.raises(Reset) as caught:
            await asked(session, Message(Kind.PING))
        assert caught.value.code == "stream.resource-limit"
        for stream in held:
            await stream.aclose()
        await until(lambda: not server.node.sessions[0].streams)
        start = anyio.current_time()
        assert len(await asked(session, *[Message(Kind.PING)] * 40)) == 40
        assert anyio.current_time() - start > 0.2


async def test_many_searches_at_once_take_turns_at_a_server_that_takes_few_streams() -> None:
    config = KadConfig(inbound_max=2, outbound_max=2)
    async with peers(Mode.SERVER, Mode.CLIENT, config=config) as (server, client):
        await client.joins(server)
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(client.dht.closest, b"%d" % number)
        assert server.node.swarm.counters.get("streams_failed", "kad.streams") == 0
        assert client.node.swarm.counters.get("kad_requests_out", "ok") >= 30


async def test_a_server_that_stops_serving_leaves_the_table_and_so_does_one_that_is_gone() -> None:
    config = KadConfig(request_seconds=0.5)
    network = MemoryNetwork()
    one, stops, goes = (Peer(network, Mode.SERVER, config) for _ in range(3))
    async with one.node:
        async with stops.node, goes.node:
            await stops.joins(one)
            await goes.joins(one)
            await until(lambda: len(one.dht.peers) == 2)
            one.node.swarm.peerbook.present(stops.id, protocols=["/ipfs/id/1.0.0"])
            assert one.dht.peers == (goes.id,)
        for _ in range(config.failures_max + 1):
            with pytest.raises(AirError) as caught:
                await one.dht.closest(b"anything")
            assert caught.value.code == "kad.nobody"
        assert goes.id not in one.dht.peers


async def test_a_node_alone_dials_its_bootstrap_peers_until_one_is_there() -> None:
    network = MemoryNetwork()
    first = Peer(network, Mode.SERVER)
    async with first.node:
        address = str(first.node.addresses[0])
        late = Peer(network, Mode.CLIENT, KadConfig(bootstrap=(address,)))
        async with late.node:
            with anyio.fail_after(10):
                await late.dht.ready()
            assert late.dht.peers == (first.id,)
    with pytest.raises(ConfigError):
        Kademlia(KadConfig(bootstrap=("/memory/1",)))


async def test_what_was_put_and_provided_comes_again_in_time() -> None:
    network, clock = MemoryNetwork(), ManualClock()
    server = Peer(network, Mode.SERVER)
    client = Peer(network, Mode.CLIENT, KadConfig(republish_seconds=1.0), Env(clock))
    counters = server.node.swarm.counters
    async with server.node, client.node:
        await client.joins(server)
        await client.dht.put_value(KEY, b"v")
        await client.dht.provide(HELLO)
        upkeep = client.dht._upkeep
        assert upkeep is not None
        for advanced, put in ((0.5, 1), (0.6, 2), (0.5, 2), (0.6, 3)):
            clock.advance(advanced)
            await upkeep.again()
            await until(lambda put=put: counters.get("kad_requests_in", "ADD_PROVIDER") == put)
            assert counters.get("kad_requests_in", "PUT_VALUE") == put
        client.dht.stop_putting(KEY)
        client.dht.stop_providing(HELLO)
        clock.advance(2)
        await upkeep.again()
        assert counters.get("kad_requests_in", "PUT_VALUE") == 3


async def test_without_a_node_or_a_server_it_says_so() -> None:
    lost = Kademlia()
    with pytest.raises(Misuse):
        await lost.closest(KEY)
    with pytest.raises(Misuse):
        await lost.ready()
    async with peers(Mode.CLIENT) as (alone,):
        for call in (alone.dht.closest(KEY), alone.dht.put_value(KEY, b"v"), alone.dht.provide(HELLO)):
            with pytest.raises(AirError) as caught:
                await call
            assert caught.value.code == "kad.nobody"
        with pytest.raises(Misuse):
            await alone.dht.provide(bytes(81))


async def test_one_liar_neither_ends_a_search_for_providers_nor_fills_its_result() -> None:
    network, config = MemoryNetwork(), KadConfig(alpha=1)
    modes = (Mode.SERVER, Mode.SERVER, Mode.CLIENT, Mode.CLIENT)
    one, other, has, wants = (Peer(network, mode, config) for mode in modes)
    # The closest, so it is asked first.
    names = (Identity.generate() for _ in range(10_000))
    nearest = min(place(server.id.multihash) ^ place(HELLO) for server in (one, other))
    name = next(name for name in names if place(name.peer_id.multihash) ^ place(HELLO) < nearest)
    lying = Node(name, [Memory(network)], [Noise()], [Yamux()], [Identify(), Liar()], ["/memory/0"])
    async with lying, one.node, other.node, has.node, wants.node:
        await other.joins(one)
        await has.joins(one)
        assert await has.dht.provide(HELLO) == 2
        await until(lambda: other.node.swarm.counters.get("kad_requests_in", "ADD_PROVIDER") == 1)
        await wants.node.dial(lying.addresses[0])
        await wants.dht.ready()
        await wants.joins(one)
        found = await wants.dht.find_providers(HELLO, count=5)
        assert found[0].peer == has.id
        assert len(found) == 5


async def test_a_key_that_no_server_would_take_is_refused_here() -> None:
    async with peers(Mode.SERVER, Mode.CLIENT) as (server, client):
        await client.joins(server)
        dht = client.dht
        for operation, key, code in (
            (dht.closest, b"", "kad.no-key"),
            (dht.closest, bytes(20_000), "kad.key-too-long"),
            (dht.find_providers, b"", "kad.no-key"),
            (dht.find_providers, bytes(81), "kad.key-too-long"),
            (dht.provide, b"", "kad.no-key"),
            (dht.get_value, b"", "kad.no-key"),
        ):
            for _ in range(KadConfig().failures_max + 1):
                with pytest.raises(Misuse) as caught:
                    await operation(key)
                assert caught.value.code == code
        assert dht.peers == (server.id,)


def test_settings_that_cannot_work_are_refused() -> None:
    assert Kademlia(mode="server").mode is Mode.SERVER  # type: ignore[arg-type]
    for bad in (
        lambda: Kademlia(mode="sever"),  # type: ignore[arg-type]
        lambda: Kademlia(KadConfig(bootstrap=("nonsense",))),
        lambda: KadConfig(k=0),
        lambda: KadConfig(request_seconds=-1.0),
        lambda: KadConfig(records_max=-1),
        lambda: KadConfig(outbound_max=0),
    ):
        with pytest.raises(ConfigError):
            bad()


async def test_after_the_node_has_ended_it_says_so_and_can_run_on_another() -> None:
    network = MemoryNetwork()
    one = Peer(network, Mode.CLIENT)
    ended: list[str] = []

    async def waits() -> None:
        with pytest.raises(Closed) as caught:
            await one.dht.ready()
        ended.append(caught.value.code)

    def another() -> Node:
        return Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()], [Identify(), one.dht])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, one.node:
            tasks.start_soon(waits)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Misuse):
                await one.dht.run(one.node.swarm, task_status=anyio.TASK_STATUS_IGNORED)
        assert ended == ["node.closed"]
        assert one.dht.peers == ()
        with pytest.raises(Misuse):
            await one.dht.closest(KEY)
        async with another():
            with pytest.raises(AirError) as caught:
                await one.dht.closest(KEY)
            assert caught.value.code == "kad.nobody"


async def test_a_question_that_never_comes_to_its_end_does_not_keep_a_stream() -> None:
    async with peers(Mode.SERVER, Mode.CLIENT, config=KadConfig(idle_seconds=0.2)) as (server, client):
        await client.joins(server)
        [session] = client.node.sessions
        async with await session.open_stream(PROTOCOL) as stream:
            await stream.send(b"\xff\x7f")
            with anyio.fail_after(5):
                while server.node.sessions[0].streams:
                    try:
                        await stream.send(b"\x08")
                    except AirError:
                        break
                    await anyio.sleep(0.05)


def upkeep_of(one: Peer) -> Upkeep:
    assert one.dht._upkeep is not None
    return one.dht._upkeep


async def test_a_server_that_the_table_lost_is_tried_again_while_its_address_is_known() -> None:
    async with peers(Mode.SERVER, Mode.CLIENT) as (server, client):
        await client.joins(server)
        # What it does by itself must not get in the way.
        upkeep = upkeep_of(client)
        with anyio.fail_after(10):
            while client.node.sessions:
                for session in client.node.sessions:
                    await session.aclose()
                await anyio.wait_all_tasks_blocked()
        upkeep.parts.table.remove(server.id)
        await upkeep._join()
        await until(lambda: client.dht.peers == (server.id,))


async def test_however_many_come_few_wait_to_be_tried() -> None:
    async with peers(Mode.CLIENT) as (alone,):
        upkeep, book = upkeep_of(alone), alone.node.swarm.peerbook
        for number in range(3000):
            name = PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(b"%d" % number).digest())
            book.present(name, protocols=[PROTOCOL])
        assert len(upkeep._candidates) == 1024


async def test_what_nobody_took_is_put_again_soon() -> None:
    network, clock = MemoryNetwork(), ManualClock()
    server = Peer(network, Mode.SERVER)
    config = KadConfig()
    client = Peer(network, Mode.CLIENT, config, Env(clock))
    async with server.node, client.node:
        for call in (client.dht.put_value(KEY, b"v"), client.dht.provide(HELLO)):
            with pytest.raises(AirError):
                await call
        await client.joins(server)
        clock.advance(config.refresh_seconds)
        await upkeep_of(client).again()
        counters = server.node.swarm.counters
        assert counters.get("kad_requests_in", "PUT_VALUE") == 1
        assert counters.get("kad_requests_in", "ADD_PROVIDER") == 1


async def test_what_is_stopped_while_others_are_put_again_is_not() -> None:
    network, clock = MemoryNetwork(), ManualClock()
    server = Peer(network, Mode.SERVER)
    client = Peer(network, Mode.CLIENT, None, Env(clock))
    async with server.node, client.node:
        await client.joins(server)
        await client.dht.put_value(KEY, b"v")
        await client.dht.put_value(b"/air/other", b"v")
        upkeep = upkeep_of(client)

        async def stops(*_: object) -> int:
            client.dht.stop_putting(b"/air/other")
            return 1

        upkeep._own[Kind.PUT_VALUE, KEY].spread = stops
        clock.advance(KadConfig().republish_seconds)
        await upkeep.again()
        assert server.node.swarm.counters.get("kad_requests_in", "PUT_VALUE") == 2


async def test_a_member_that_no_search_comes_by_is_asked_for_a_sign_of_life() -> None:
    network, clock = MemoryNetwork(), ManualClock()
    server = Peer(network, Mode.SERVER)
    client = Peer(network, Mode.CLIENT, None, Env(clock))
    async with server.node, client.node:
        await client.joins(server)
        upkeep = upkeep_of(client)
        clock.advance(KadConfig().quiet_seconds)
        assert upkeep.parts.table.quiet(clock.now()) == [server.id]
        upkeep.check_quiet()
        await until(lambda: not upkeep.parts.table.quiet(clock.now()))
        assert client.dht.peers == (server.id,)
