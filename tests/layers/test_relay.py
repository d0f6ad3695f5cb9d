"""A whole relay in this process: real sockets, a real disk, both event loops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from air.base.errors import AirError, Closed, Misuse
from air.model import Cell, Lex, Link
from air.node.config import AdminConfig, Config, GunConfig, NodeConfig, StoreConfig
from air.node.relay import Relay
from air.sync.partition import PartitionConfig
from air.transport.websocket import WebSocketConn, dial_websocket

pytestmark = pytest.mark.anyio


def settings(data: Path, *, engine: str = "sqlite", **gun: Any) -> Config:
    return Config(
        node=NodeConfig(data=data),
        gun=GunConfig(**{"port": 0, **gun}),
        store=StoreConfig(engine=engine),
        admin=AdminConfig(port=0),
    )


class Client:
    """A GUN client that sends what it is told to and remembers what it hears."""

    def __init__(self, conn: WebSocketConn) -> None:
        self.conn = conn
        self.heard: list[dict[str, Any]] = []
        self.frames: list[bytes] = []

    async def send(self, *messages: object) -> None:
        await self.conn.send([json.dumps(message).encode() for message in messages])

    async def until(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        with anyio.fail_after(10):
            while True:
                for message in self.heard:
                    if wanted(message):
                        return message
                for frame in await self.conn.receive():
                    self.frames.append(frame)
                    parsed = json.loads(frame)
                    self.heard += parsed if isinstance(parsed, list) else [parsed]

    async def answer(self, id: str) -> dict[str, Any]:
        return await self.until(lambda m: m.get("@") == id)

    async def put(self, soul: str, fields: dict[str, Any], state: float, id: str) -> dict[str, Any]:
        graph = {soul: {"_": {"#": soul, ">": dict.fromkeys(fields, state)}, **fields}}
        await self.send({"#": id, "put": graph})
        return await self.answer(id)

    async def get(self, soul: str, id: str, key: str | None = None) -> dict[str, Any]:
        await self.send({"#": id, "get": {"#": soul} | ({} if key is None else {".": key})})
        return await self.answer(id)


@asynccontextmanager
async def client(relay: Relay) -> AsyncIterator[Client]:
    conn = await dial_websocket(relay.gun_addresses[0])
    try:
        yield Client(conn)
    finally:
        await conn.aclose()


async def eventually(check: Callable[[], Awaitable[Any]]) -> Any:
    with anyio.fail_after(10):
        while not (found := await check()):
            await anyio.sleep(0.01)
    return found


async def test_the_relay_greets_and_answers_puts_and_gets(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as app:
        greeting = await app.until(lambda m: m.get("dam") == "?")
        assert len(greeting["pid"]) == 9
        assert (await app.put("s", {"a": 1, "b": {"#": "t"}}, 5, "p1"))["ok"] is True
        found = await app.get("s", "g1")
        assert found["put"] == {"s": {"_": {"#": "s", ">": {"a": 5, "b": 5}}, "a": 1, "b": {"#": "t"}}}
        assert set(await app.get("nowhere", "g2")) == {"#", "@"}


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as app:
        assert (await app.put("s", {"text": "ü😀"}, 5.25, "p1"))["ok"]
    async with Relay(settings(tmp_path)) as relay, client(relay) as app:
        found = await app.get("s", "g1")
        assert found["put"]["s"]["text"] == "ü😀"
        assert found["put"]["s"]["_"][">"] == {"text": 5.25}
        # And an older state, written now, does not win over what is on disk.
        assert (await app.put("s", {"text": "old"}, 5, "p2"))["ok"]
        assert (await app.get("s", "g2"))["put"]["s"]["text"] == "ü😀"


async def test_a_relay_that_stops_acknowledges_what_it_has_taken_and_says_goodbye(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        relay = Relay(settings(tmp_path))
        async with relay:
            app = await stack.enter_async_context(client(relay))
            await app.get("s", "g0")
            await app.send(
                *(
                    {"#": f"p{i}", "put": {f"s{i}": {"_": {"#": f"s{i}", ">": {"k": 5}}, "k": i}}}
                    for i in range(500)
                )
            )
            await app.answer("p0")
        with pytest.raises(Closed):
            await app.until(lambda m: False)
        assert app.conn.close_code == 1001
        acked = {m["@"] for m in app.heard if m.get("ok")}
    async with Relay(settings(tmp_path)) as relay:
        kept = [i for i in range(500) if await relay.hub.get(f"s{i}")]
    assert acked == {f"p{i}" for i in kept}
    assert acked


async def test_the_memory_engine_forgets_and_serves_alike(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path, engine="memory")) as relay, client(relay) as app:
        await app.put("room/a", {"k": 1}, 5, "p1")
        await app.put("room/b", {"k": 2}, 5, "p2")
        assert (await app.get("room/a", "g1", "k"))["put"]["room/a"]["k"] == 1
        await app.send({"#": "g2", "get": {"#": {"*": "room/"}, "%": 1000}})
        assert set((await app.answer("g2"))["put"]) == {"room/a", "room/b"}
        assert await relay.hub.get("room/b") == {"k": (2, 5)}
    assert not (tmp_path / "air.db").exists()


async def test_a_subscriber_is_told_and_the_writer_hears_no_echo(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as one, client(relay) as two:
        await one.get("chat", "g1")
        await two.get("chat", "g2")
        await two.put("chat", {"m1": "hello"}, 5, "p1")
        told = await one.until(lambda m: "put" in m)
        assert told["put"]["chat"]["m1"] == "hello"
        assert not [m for m in two.heard if "put" in m]


async def test_a_quiet_connection_hears_the_keep_alive(tmp_path: Path) -> None:
    config = settings(tmp_path, keepalive_seconds=1.0)
    async with Relay(config) as relay, client(relay) as app:
        with anyio.fail_after(5):
            while b"[]" not in app.frames:
                app.frames += await app.conn.receive()


async def test_a_large_node_comes_in_parts_below_the_size_that_stock_relays_damage(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as app:
        for start in range(0, 6000, 500):
            fields = {f"k{i:05}": "x" * 50 for i in range(start, start + 500)}
            await app.put("big", fields, 5, f"p{start}")
        app.frames.clear()
        await app.send({"#": "g", "get": {"#": "big"}})
        await app.until(lambda m: m.get("@") == "g" and "%" not in m)
        parts = [m for m in app.heard if m.get("@") == "g"]
        keys = [key for part in parts for key in part["put"]["big"] if key != "_"]
        assert sorted(keys) == [f"k{i:05}" for i in range(6000)]
        assert len({part["#"] for part in parts}) == len(parts)
        assert max(map(len, app.frames)) < 32_768


async def test_who_asks_and_does_not_read_is_cut_by_name_and_others_are_served(tmp_path: Path) -> None:
    config = settings(tmp_path, queue_bytes_max=64 * 1024)
    async with Relay(config) as relay, client(relay) as deaf, client(relay) as app:
        await deaf.get("chat", "g0")
        for i in range(200):
            await app.put("chat", {f"m{i}": "x" * 100_000}, i + 1, f"p{i}")
            if relay.hub.counters.get("air_cut_total", "limit.outbox"):
                break
        assert relay.hub.counters.get("air_cut_total", "limit.outbox") == 1
        with pytest.raises(Closed):
            while True:
                await deaf.conn.receive()
        assert deaf.conn.close_code in (1006, 1008)


async def test_a_peer_that_breaks_the_rules_is_told_why_and_closed(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as bad:
        await bad.conn.send([b"junk"] * 150)
        with pytest.raises(Closed):
            while True:
                bad.frames += await bad.conn.receive()
        assert bad.conn.close_code == 1008
        assert bad.conn.close_reason == "gun.too-many-errors"
        assert any(b"gun.bad-frame" in frame for frame in bad.frames)
        async with client(relay) as app:
            assert (await app.put("s", {"a": 1}, 5, "p1"))["ok"]


async def test_two_relays_joined_by_one_dialling_the_other_share_a_graph(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path / "a")) as below:
        config = settings(tmp_path / "b", peers=(below.gun_addresses[0],))
        async with Relay(config) as above, client(below) as low, client(above) as high:
            await eventually(lambda: _outbound(above))
            await low.put("old", {"k": "from below"}, 5, "p0")
            # A read above finds what only the relay below has.
            assert (await high.get("old", "g0"))["@"] == "g0"
            await high.until(lambda m: m.get("put", {}).get("old", {}).get("k") == "from below")
            # Writes go both ways, live.
            await low.get("up", "g1")
            await high.put("up", {"k": "from above"}, 5, "p1")
            await low.until(lambda m: m.get("put", {}).get("up", {}).get("k") == "from above")
            await high.get("down", "g2")
            await low.put("down", {"k": "later"}, 6, "p2")
            await high.until(lambda m: m.get("put", {}).get("down", {}).get("k") == "later")


async def _outbound(relay: Relay) -> bool:
    return any(link.role == "outbound" and link.peer for link in relay.hub.links())


async def test_what_was_written_while_the_other_relay_was_away_reaches_it_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with Relay(settings(tmp_path / "a")) as first:
        port = int(first.gun_addresses[0].split(":")[2].split("/")[0])
    config = settings(tmp_path / "b", peers=(f"ws://127.0.0.1:{port}/gun",))
    async with Relay(config) as above:
        # The other has never been reached from here.
        await above.hub.put({"s": {"k": "offline"}})
        async with Relay(settings(tmp_path / "a", port=port)) as back:

            async def arrived() -> bool:
                return bool(await back.hub.get("s"))

            await eventually(arrived)

            async def settled() -> bool:
                return above.hub.engine.near.owed() == 0

            await eventually(settled)


async def test_relays_meet_over_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    async with Relay(settings(tmp_path / "a", tls_cert=cert, tls_key=key)) as below:
        assert below.gun_addresses[0].startswith("wss://127.0.0.1:")
        config = settings(tmp_path / "b", peers=(below.gun_addresses[0],), peer_ca=cert)
        async with Relay(config) as above:
            await above.hub.put({"s": {"k": "over tls"}})

            async def arrived() -> bool:
                return bool(await below.hub.get("s"))

            await eventually(arrived)


async def test_a_tls_key_that_others_can_read_is_refused(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    open_key = tmp_path / "key.pem"
    open_key.write_bytes(certificate[1].read_bytes())
    open_key.chmod(0o644)
    with pytest.raises(AirError) as refused:
        async with Relay(settings(tmp_path, tls_cert=certificate[0], tls_key=open_key)):
            pass
    assert refused.value.code == "secret.mode"


async def test_one_address_may_have_only_so_many_links(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path, links_per_address_max=2)) as relay:
        async with client(relay) as one, client(relay) as two:
            with pytest.raises(AirError):
                async with client(relay):
                    pass
            assert relay.counters.get("tcp_crowded") == 1
            await one.get("s", "g")
            await two.get("s", "g")

        async def room() -> bool:
            return not relay.hub.links()

        await eventually(room)
        async with client(relay) as three:
            await three.get("s", "g")


# -- the graph for this program ------------------------------------------------


async def test_a_local_put_is_durable_and_read_back(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay:
        receipt = await relay.hub.put({"ann": {"name": "Ann", "age": 7, "boss": Link("bob"), "gone": None}})
        assert receipt.cells == 4
        found = await relay.hub.get("ann")
        assert {key: value for key, (value, _) in found.items()} == {
            "name": "Ann", "age": 7, "boss": Link("bob"), "gone": None,
        }  # fmt: skip
        assert {state for _, state in found.values()} == {receipt.state}
        assert await relay.hub.get("ann", Lex(exact="name")) == {"name": ("Ann", receipt.state)}
        assert await relay.hub.get("nobody") == {}
        with pytest.raises(AirError):
            await relay.hub.put({"ann": {"list": [1]}})  # type: ignore[dict-item]


async def test_a_local_put_that_no_peer_would_take_is_refused_with_the_name_of_the_limit(
    tmp_path: Path,
) -> None:
    async with Relay(settings(tmp_path)) as relay:
        for nodes, code in (
            ({"s" * 8193: {"k": 1}}, "limit.soul"),
            ({"s": {"k" * 8193: 1}}, "limit.key"),
            ({"s": {"k": "v" * (16 * 1024 * 1024 + 1)}}, "limit.value"),
        ):
            with pytest.raises(Misuse) as refused:
                await relay.hub.put(nodes)  # type: ignore[arg-type]
            assert refused.value.code == code
        assert (await relay.hub.put({"s" * 8192: {"k" * 8192: "v"}})).cells == 1


async def test_stamps_rise_across_a_restart_even_when_the_clock_was_set_back(tmp_path: Path) -> None:
    from air.base.clock import ManualClock
    from air.base.env import Env

    class Set(ManualClock):
        """A real clock for waiting, and a wall clock that somebody has set."""

        def now(self):  # type: ignore[no-untyped-def]
            import time

            return super().now()._replace(monotonic=time.monotonic())

    async with Relay(settings(tmp_path), Env(clock=Set(1_800_000_000_000.0))) as relay:
        before = await relay.hub.put({"s": {"k": "before"}})
    async with Relay(settings(tmp_path), Env(clock=Set(1_700_000_000_000.0))) as relay:
        after = await relay.hub.put({"s": {"k": "after"}})
        assert after.state > before.state
        assert (await relay.hub.get("s"))["k"] == ("after", after.state)


async def test_a_watcher_hears_what_is_there_and_what_changes(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as app:
        await app.put("s", {"a": 1}, 5, "p1")
        async with relay.hub.watch("s") as changes:
            with anyio.fail_after(5):
                assert await changes.__anext__() == [Cell("s", "a", 1, 5)]
                await app.put("s", {"a": 2, "b": 3}, 6, "p2")
                seen = await changes.__anext__()
        assert seen == [Cell("s", "a", 2, 6), Cell("s", "b", 3, 6)]
        # Left: nothing of it stays.
        assert relay.hub.engine.near.interest.of("s") is None


async def test_pages_of_a_large_node_are_read_as_they_are_consumed(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay:
        for start in range(0, 20_000, 2_000):
            await relay.hub.put({"big": {f"k{i:05}": i for i in range(start, start + 2_000)}})
        relay.hub.memory.drop("big")
        pages, keys = 0, []
        async for fields in relay.hub.pages("big"):
            pages += 1
            keys += fields
        assert pages > 10
        assert keys == [f"k{i:05}" for i in range(20_000)]
        assert len(relay.hub.memory) == 0


async def test_links_and_health_tell_what_is_connected(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path)) as relay, client(relay) as app:
        await app.send({"dam": "?", "pid": "my-pid", "#": "x"})
        await app.get("s", "g1")
        (link,) = relay.hub.links()
        assert (link.role, link.peer, link.subscriptions) == ("inbound", "my-pid", 1)
        assert relay.hub.health()["status"] == "ok"


async def test_a_dialled_relay_that_is_gone_shows_as_a_split_until_it_is_back(tmp_path: Path) -> None:
    config = settings(tmp_path / "a")
    async with Relay(config) as below:
        url = below.gun_addresses[0]
    gun = replace(config.gun, port=int(url.rsplit(":", 1)[1].split("/")[0]))
    config = replace(config, gun=gun)
    async with Relay(settings(tmp_path / "b", peers=(url,))) as above, AsyncExitStack() as stack:
        above.hub.partition.config = PartitionConfig(grace_seconds=0.1)
        turns = stack.enter_context(above.hub.turns())
        async with Relay(config):
            await eventually(lambda: _outbound(above))
            assert above.hub.health()["split"] is None
        await eventually(lambda: _split(above, True))
        assert above.hub.health()["status"] == "ok"
        assert above.hub.health()["split"]["missing"] == [url]  # type: ignore[index]
        async with Relay(config):
            await eventually(lambda: _split(above, False))
        assert [(await anext(turns)).split, (await anext(turns)).split] == [True, False]


async def _split(relay: Relay, split: bool) -> bool:
    return (relay.hub.health()["split"] is not None) is split
