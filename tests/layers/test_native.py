"""The native wire between whole peers in one process, over memory and over TCP, on both event loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest

from air.base.keys import Identity
from air.codec.frame import encode_frame
from air.model import Link, Message, Put
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.node.presets import services
from air.security.noise import Noise
from air.sync.native.frames import Wish, encode_wishes
from air.sync.native.limits import PROTOCOL, NativeConfig
from air.transport.memory_transport import Memory, MemoryNetwork
from tests.hostile.native_malformed import greeting
from tests.layers.native_peers import Peer, dialling, eventually, many, peer, until

pytestmark = pytest.mark.anyio

CLIENT = NativeConfig(everything=False)


async def holds(one: Peer, soul: str, fields: dict[str, object]) -> None:
    async def same() -> bool:
        return await one.fields(soul) == fields

    await eventually(same)


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_two_peers_that_hold_everything_converge_live(tmp_path: Path, kind: str) -> None:
    on_disk = [tmp_path / "a", tmp_path / "b"] if kind == "disk" else [None, None]
    async with (
        peer(data=on_disk[0]) as below,
        peer(data=on_disk[1], dial=[below.address]) as above,
    ):
        await until(lambda: above.sync.peers and below.sync.peers)
        await above.hub.put({"s": {"from": "above", "link": Link("t")}, "t": {"n": 1.5, "no": None}})
        await below.hub.put({"u": {"from": "below", "yes": True}})
        for one in (above, below):
            await holds(one, "s", {"from": "above", "link": Link("t")})
            await holds(one, "t", {"n": 1.5, "no": None})
            await holds(one, "u", {"from": "below", "yes": True})
        assert [link.role for link in above.hub.links()] == ["peer"]
        assert [link.role for link in below.hub.links()] == ["peer"]
        assert len(above.seen) == len(below.seen) == 1
        assert above.seen[0].peer == below.node.peer


async def test_marks_tell_every_peer_who_wrote_and_what_the_writer_had_seen(tmp_path: Path) -> None:
    async with (
        peer(data=tmp_path / "a") as a,
        peer(data=tmp_path / "b", dial=[a.address]) as b,
        peer(data=tmp_path / "c", dial=[b.address]) as c,
    ):
        await until(lambda: len(b.sync.peers) == 2 and a.sync.peers and c.sync.peers)
        puts: list[Put] = []
        receive = c.hub.receive

        def listen(link: int, messages: Iterable[Message]) -> None:
            heard = list(messages)
            puts.extend(message for message in heard if isinstance(message, Put))
            receive(link, heard)

        c.hub.receive = listen  # type: ignore[method-assign]
        await a.hub.put({"s": {"k": 1}})
        await until(lambda: puts)
        await holds(b, "s", {"k": 1})
        await b.hub.put({"s": {"k": 2}})
        await until(lambda: len(puts) == 2)
        [first], [second] = (put.marks or [] for put in puts)
        assert first[0][0] == str(a.node.peer)
        assert second[0][0] == str(b.node.peer)
        assert first[0] in second[1:]


async def test_a_write_goes_along_a_chain_of_peers_and_nothing_comes_back() -> None:
    network = MemoryNetwork()
    async with (
        peer(network=network) as a,
        peer(network=network, dial=[a.address]) as b,
        peer(network=network, dial=[b.address]) as c,
    ):
        await until(lambda: len(b.sync.peers) == 2 and a.sync.peers and c.sync.peers)
        for number in range(20):
            await a.hub.put({f"s{number}": {"n": number}})
        # Not by reading: what is not there yet would be asked for, and then come twice.
        await until(lambda: len(c.hub.memory) == 20)
        for number in range(20):
            assert await c.fields(f"s{number}") == {"n": number}
        assert c.hub.engine.ignored == 0
        assert a.hub.engine.ignored == 0


async def test_two_that_dial_each_other_at_once_keep_one_link() -> None:
    network = MemoryNetwork()
    async with peer(network=network) as a, peer(network=network) as b, anyio.create_task_group() as tasks:
        tasks.start_soon(dialling, a.sync, b.address)
        tasks.start_soon(dialling, b.sync, a.address)
        await until(lambda: a.sync.peers and b.sync.peers)
        await a.hub.put({"s": {"k": 1}})
        await holds(b, "s", {"k": 1})

        def one() -> bool:
            return [len([x for x in p.hub.links() if x.role == "peer"]) for p in (a, b)] == [1, 1]

        await until(one)
        await anyio.sleep(0.1)
        assert one()
        tasks.cancel_scope.cancel()


async def test_a_client_puts_durably_reads_and_is_told_what_it_asked_for(tmp_path: Path) -> None:
    async with (
        peer(data=tmp_path / "a") as daemon,
        peer(config=CLIENT, dial=[daemon.address]) as client,
        peer(config=CLIENT, dial=[daemon.address]) as other,
    ):
        await until(lambda: len(daemon.hub.links()) == 2)
        receipt = await client.hub.put({"s": {"k": 1, "l": "text"}}, peers=1, timeout=10)
        assert receipt.peers == 1
        assert await daemon.fields("s") == {"k": 1, "l": "text"}
        async with other.hub.watch("s") as changes:
            found = {cell.key: cell.value for cell in await anext(changes)}
            while found != {"k": 1, "l": "text"}:
                found |= {cell.key: cell.value for cell in await anext(changes)}
            await client.hub.put({"s": {"k": 2}, "not asked for": {"k": 3}})
            [change] = await anext(changes)
            assert (change.key, change.value) == ("k", 2)
        await eventually(lambda: _has(daemon, "not asked for"))
        assert len(other.hub.memory) == 1
        roles = {link.role for link in daemon.hub.links()}
        assert roles == {"inbound"}


async def _has(one: Peer, soul: str) -> bool:
    return bool(await one.fields(soul))


async def test_a_client_subscribes_to_a_prefix_and_no_longer() -> None:
    network = MemoryNetwork()
    async with peer(network=network) as daemon, peer(network=network, config=CLIENT) as client:
        wish = Wish("chat/", prefix=True)
        client.sync.subscribe(wish)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dialling, client.sync, daemon.address)
            await until(lambda: daemon.hub.links())
            await holds_after(daemon, client, "chat/1")
            await daemon.hub.put({"other": {"k": 1}})
            client.sync.unsubscribe(wish)
            client.sync.subscribe(Wish("news/", prefix=True))
            await holds_after(daemon, client, "news/1")
            await daemon.hub.put({"chat/2": {"k": 1}})
            await holds_after(daemon, client, "news/2")
            assert set(client.hub.memory.souls()) == {"chat/1", "news/1", "news/2"}
            tasks.cancel_scope.cancel()


async def holds_after(daemon: Peer, client: Peer, soul: str) -> None:
    """Write until the client, whose wish may be on its way, is told."""

    async def told() -> bool:
        await daemon.hub.put({soul: {"k": 1}})
        return client.hub.memory.node(soul) is not None

    await eventually(told)


async def test_what_is_written_while_the_daemon_is_away_is_paid_when_it_is_back(tmp_path: Path) -> None:
    network, identity, disk = MemoryNetwork(), Identity.generate(), tmp_path / "a"
    address = f"/memory/77/p2p/{identity.peer_id}"
    async with peer(network=network, config=CLIENT, dial=[address]) as client:
        await client.hub.put({"s": {"early": 1}})
        async with peer(network=network, listen="/memory/77", data=disk, identity=identity) as daemon:
            await holds(daemon, "s", {"early": 1})
        await client.hub.put({"s": {"late": 2}})
        async with peer(network=network, listen="/memory/77", data=disk, identity=identity) as daemon:
            await holds(daemon, "s", {"early": 1, "late": 2})
            await until(lambda: client.hub.engine.near.owed() == 0)


async def test_a_peer_without_the_native_wire_is_tried_again_until_it_has_it() -> None:
    network, identity = MemoryNetwork(), Identity.generate()
    plain = Node(identity, [Memory(network)], [Noise()], [Yamux()], services(), ["/memory/78"])
    async with peer(network=network, dial=[f"/memory/78/p2p/{identity.peer_id}"]) as one:
        async with plain:
            await until(lambda: plain.sessions)
            assert one.hub.links() == []
        async with peer(network=network, listen="/memory/78", identity=identity):
            await until(lambda: one.sync.peers)


async def test_more_than_may_wait_for_a_peer_is_dropped_and_repair_is_called() -> None:
    network = MemoryNetwork()
    small = NativeConfig(outbox_cells_max=100, batch_cells=10)
    stingy = NativeConfig(credit_cells=1)
    async with (
        peer(network=network, config=stingy) as below,
        peer(network=network, config=small, dial=[below.address]) as above,
    ):
        await until(lambda: above.sync.peers and below.sync.peers)
        await above.hub.put({f"s{n}": {"k": n} for n in range(200)})
        await until(lambda: len(above.seen) >= 2)
        assert above.seen[-1].overflows >= 1
        await above.hub.put({"after": {"k": 1}})
        await holds(below, "after", {"k": 1})


async def test_a_silent_link_is_dead_and_a_quiet_one_is_not() -> None:
    network = MemoryNetwork()
    quick = NativeConfig(silent_seconds=0.6, heartbeat_seconds=30)
    async with (
        peer(network=network, config=quick) as below,
        peer(network=network, dial=[below.address]) as above,
    ):
        await until(lambda: above.sync.peers and below.sync.peers)
        first = below.sync.peers[str(above.node.peer)]
        await anyio.sleep(1.5)
        assert below.sync.peers[str(above.node.peer)] is first
        # A peer whose event loop hangs says nothing any more; here it is only its writer.
        for carrier in above.sync._carriers:
            carrier.link._spoke = float("inf")
        await until(lambda: below.sync.peers.get(str(above.node.peer)) is not first)


async def test_all_of_it_goes_over_one_link_in_both_directions_at_once(tmp_path: Path) -> None:
    async with many(peer(data=tmp_path / "a")) as [below]:  # noqa: SIM117
        async with peer(data=tmp_path / "b", dial=[below.address]) as above:
            await until(lambda: above.sync.peers and below.sync.peers)

            async def write(one: Peer, name: str) -> None:
                for batch in range(10):
                    await one.hub.put({f"{name}/{batch}/{n}": {"n": n, "t": "x" * 20} for n in range(300)})

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, above, "a")
                tasks.start_soon(write, below, "b")
            for one, name in ((above, "b"), (below, "a")):
                await holds(one, f"{name}/9/299", {"n": 299, "t": "x" * 20})
                for batch in range(10):
                    for n in (0, 150, 299):
                        await holds(one, f"{name}/{batch}/{n}", {"n": n, "t": "x" * 20})


async def test_in_a_full_mesh_an_update_crosses_each_link_twice_at_most() -> None:
    network, count, updates = MemoryNetwork(), 5, 40
    crossings: Counter[tuple[str, str]] = Counter()

    def listen(one: Peer) -> None:
        receive = one.hub.receive

        def counted(link: int, messages: Iterable[Message]) -> None:
            heard = list(messages)
            here, there = str(one.node.peer), one.hub._links[link].port.peer
            cells = sum(len(message.cells) for message in heard if isinstance(message, Put))
            crossings[min(here, there), max(here, there)] += cells
            receive(link, heard)

        one.hub.receive = counted  # type: ignore[method-assign]

    async with many(*[peer(network=network) for _ in range(count)]) as peers:  # noqa: SIM117
        async with anyio.create_task_group() as tasks:
            for index, one in enumerate(peers):
                listen(one)
                for other in peers[:index]:
                    tasks.start_soon(dialling, one.sync, other.address)
            await until(lambda: all(len(one.sync.peers) == count - 1 for one in peers))
            for number in range(updates):
                await peers[number % count].hub.put({f"s{number}": {"n": number}})
            await until(lambda: all(len(one.hub.memory) == updates for one in peers))
            await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
    assert len(crossings) == count * (count - 1) // 2
    assert max(crossings.values()) <= 2 * updates
    assert sum(crossings.values()) >= updates * (count - 1)


async def test_a_subscriber_that_reads_nothing_holds_up_nobody_and_costs_its_fields_once() -> None:
    network = MemoryNetwork()
    deaf = Node(Identity.generate(), [Memory(network)], [Noise()], [Yamux()])
    async with (
        peer(network=network) as daemon,
        peer(network=network, dial=[daemon.address]) as other,
        deaf,
    ):
        await until(lambda: other.sync.peers)
        stream = await (await deaf.dial(daemon.address)).open_stream(PROTOCOL)
        wish = encode_frame(encode_wishes([Wish("", prefix=True)]))
        await stream.send(greeting(str(deaf.peer), everything=False, credit_cells=1) + wish)
        await until(lambda: any(link.subscriptions for link in daemon.hub.links()))
        [carrier] = [c for c in daemon.sync._carriers if c.peer == str(deaf.peer)]
        await daemon.hub.put({"all of its credit": {"k": 1}})
        await until(lambda: carrier.link.queued_cells == 0)
        for number in range(300):
            await daemon.hub.put({"hot": {f"k{n}": number for n in range(10)}})
        await until(lambda: other.hub.memory.node("hot") is not None)
        await holds(other, "hot", {f"k{n}": 299 for n in range(10)})
        [carrier] = [c for c in daemon.sync._carriers if c.peer == str(deaf.peer)]
        assert 0 < carrier.link.queued_cells <= 10


@pytest.mark.parametrize("dialler_stops", [True, False])
async def test_a_peer_that_stops_says_so_and_is_not_missed(dialler_stops: bool) -> None:
    network, identity, stop = MemoryNetwork(), Identity.generate(), anyio.Event()
    address = f"/memory/79/p2p/{identity.peer_id}"
    listener = {"listen": "/memory/79", "identity": identity}
    dialler = {"dial": [address]}
    goodbyes: list[bool] = []

    async def other() -> None:
        async with peer(network=network, **(dialler if dialler_stops else listener)):  # type: ignore[arg-type]
            await stop.wait()

    one = peer(network=network, **(listener if dialler_stops else dialler))  # type: ignore[arg-type]
    async with one as left, anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await until(lambda: left.sync.peers)
        close = left.hub.close_link

        def closed(link: int, *, goodbye: bool = False) -> None:
            goodbyes.append(goodbye)
            close(link, goodbye=goodbye)

        left.hub.close_link = closed  # type: ignore[method-assign]
        stop.set()
        await until(lambda: goodbyes)
        assert goodbyes == [True]
