"""A connection that ended leaves nothing to the cyclic collector, which is kept out of the way of traffic."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from air.node.config import AdminConfig, Config, GunConfig, NodeConfig
from air.node.relay import Relay
from air.sync.gun.wire import GunLink
from tests.hostile.attack import frame
from tests.hostile.peer import Peer

pytestmark = [pytest.mark.hostile, pytest.mark.anyio]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _malformed(port: int) -> None:
    with Peer(port) as peer:
        peer.send(frame(b"{" * 100) * 300)
        while peer.listen():
            pass
        assert peer.close == (1008, "gun.too-many-errors")


def _refused(port: int) -> None:
    with Peer(port) as peer:
        peer.say([{"#": f"g{at}", "get": {"#": f"none/{at}"}} for at in range(300)])
        while peer.listen():
            pass
        assert peer.close == (1008, "gun.too-many-errors")


def _reset(port: int) -> None:
    with Peer(port) as peer:
        peer.put("s", {"k": 1}, 1, "p")
        peer.send(frame(b"{}")[:3])


def _unread(port: int) -> None:
    with Peer(port) as peer:
        peer.put("large", {f"k{at}": "v" * 1000 for at in range(500)}, 1, "p")
        for at in range(400):
            peer.say({"#": f"g{at}", "get": {"#": "large"}})
        # It takes nothing, and leaves while there is something on the way to it.
        time.sleep(0.2)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("meet", [_malformed, _refused, _reset, _unread])
async def test_a_link_that_ended_is_freed_at_once(tmp_path: Path, meet: object) -> None:
    config = Config(
        NodeConfig(data=tmp_path), GunConfig(port=0, subscriptions_max=10), admin=AdminConfig(port=0)
    )
    async with Relay(config) as relay:
        port = int(relay.gun_addresses[0].rpartition(":")[2].partition("/")[0])
        for _ in range(5):
            await anyio.to_thread.run_sync(meet, port)
        with anyio.move_on_after(5):
            while relay.hub.links():
                await anyio.sleep(0.02)
        # The last one may still be on the stack of whatever ended it.
        assert sum(type(one) is GunLink for one in gc.get_objects()) <= 1
