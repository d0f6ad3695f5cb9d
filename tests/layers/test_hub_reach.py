"""A local put that waits for dialled peers, between whole relays in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from air.node.relay import Relay
from tests.layers.test_relay import _outbound, eventually, settings

pytestmark = pytest.mark.anyio


async def test_a_put_can_wait_until_a_dialled_peer_has_it_on_its_disk_too(tmp_path: Path) -> None:
    async with (
        Relay(settings(tmp_path / "a")) as below,
        Relay(settings(tmp_path / "b", peers=(below.gun_addresses[0],))) as above,
    ):
        await eventually(lambda: _outbound(above))
        receipt = await above.hub.put({"s": {f"k{n}": n for n in range(500)}}, peers=1)
        assert (receipt.cells, receipt.peers, receipt.refusals) == (500, 1, ())
        assert len(await below.hub.get("s")) == 500
        # Nobody has to wait for peers.
        assert (await above.hub.put({"s": {"k": 1}})).peers == 0


async def test_a_put_that_reaches_no_peer_in_time_is_durable_here_and_says_so(tmp_path: Path) -> None:
    async with Relay(settings(tmp_path / "a")) as below:
        url = below.gun_addresses[0]
    async with Relay(settings(tmp_path / "b", peers=(url,))) as above:
        receipt = await above.hub.put({"s": {"k": 1}}, peers=1, timeout=0.05)
        assert (receipt.cells, receipt.peers) == (1, 0)
        assert (await above.hub.get("s"))["k"][0] == 1


async def test_a_put_made_while_the_peer_was_away_is_reached_when_it_is_back(tmp_path: Path) -> None:
    config = settings(tmp_path / "a")
    async with Relay(config) as below:
        url = below.gun_addresses[0]
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    async with Relay(settings(tmp_path / "b", peers=(url,))) as above, anyio.create_task_group() as tasks:
        reached: list[int] = []

        async def write() -> None:
            reached.append((await above.hub.put({"s": {"k": 1}}, peers=1, timeout=20)).peers)

        tasks.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        async with Relay(replace(config, gun=replace(config.gun, port=port))):
            with anyio.fail_after(20):
                while not reached:
                    await anyio.sleep(0.05)
        assert reached == [1]
