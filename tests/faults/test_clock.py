"""A wall clock that jumps or stands still under a running relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from air.base.clock import Now, SystemClock
from air.base.env import Env
from air.node.config import AdminConfig, Config, GunConfig, NodeConfig
from air.node.relay import Relay
from tests.faults.daemon import Client, frame

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

HOUR = 3600.0
RECHECK_SECONDS = 0.5


class Wrong:
    """The system's clock, set off by some seconds, or with a wall clock that has stopped."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self.off_seconds = 0.0
        self._stopped: float | None = None

    def now(self) -> Now:
        now = self._system.now()
        wall = now.wall if self._stopped is None else self._stopped
        return Now(now.monotonic, wall + self.off_seconds * 1000)

    def stand_still(self) -> None:
        self._stopped = self._system.now().wall

    def go_on(self) -> None:
        self._stopped = None


class Counting:
    """A relay whose wake-ups are counted."""

    def __init__(self, relay: Relay, clock: Wrong) -> None:
        self.relay, self.clock, self.ticks = relay, clock, 0
        engine = relay.hub.engine
        # Look at the clock ten times as often as one would, so that a test need not wait for it.
        engine.deferred.config = replace(engine.deferred.config, recheck_seconds=RECHECK_SECONDS)
        tick = engine.tick

        def counted(now: Now) -> object:
            self.ticks += 1
            return tick(now)

        engine.tick = counted  # type: ignore[method-assign,assignment]

    async def idle(self, seconds: float) -> int:
        """Wake-ups while nothing happens for so long."""
        before = self.ticks
        await anyio.sleep(seconds)
        return self.ticks - before


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Counting]:
    clock = Wrong()
    config = Config(node=NodeConfig(data=data), gun=GunConfig(port=0), admin=AdminConfig(port=0))
    async with Relay(config, Env(clock=clock)) as relay:
        yield Counting(relay, clock)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_stamps_rise_across_a_jump_of_the_clock_and_a_restart(tmp_path: Path, jump: float) -> None:
    states = []
    async with running(tmp_path) as here:
        states += [(await here.relay.hub.put({"n": {"k": i}})).state for i in range(20)]
        here.clock.off_seconds = jump
        states += [(await here.relay.hub.put({"n": {"k": 20 + i}})).state for i in range(20)]
        # Each is a newer value, whatever the clock says, and can be read at once.
        assert (await here.relay.hub.get("n"))["k"] == (39, states[-1])
        here.clock.off_seconds = 0
        states += [(await here.relay.hub.put({"n": {"k": 40 + i}})).state for i in range(20)]
    async with running(tmp_path) as here:
        states.append((await here.relay.hub.put({"n": {"k": "last"}})).state)
        assert (await here.relay.hub.get("n"))["k"] == ("last", states[-1])
    assert states == sorted(set(states))


async def test_stamps_rise_while_the_clock_stands_still(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        here.clock.stand_still()
        states = [(await here.relay.hub.put({"n": {"k": i}})).state for i in range(200)]
        assert states == sorted(set(states))
        assert (await here.relay.hub.get("n"))["k"] == (199, states[-1])


async def test_a_write_from_the_future_is_not_lost_by_jumps_and_is_done_when_it_is_due(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as here:
        client = await Client.dial(here.relay.gun_addresses[0])
        clock, deferred = here.clock, here.relay.hub.engine.deferred
        due = clock.now().wall + 1800_000
        await client.conn.send([frame("later", "n", {"k": "later"}, due)])
        soon = clock.now().wall + 300
        await client.conn.send([frame("soon", "m", {"k": "soon"}, soon)])
        with anyio.fail_after(5):
            while len(deferred) < 2:
                await anyio.sleep(0.01)
        # An hour back: now nothing is due for an hour, nothing is dropped, and nothing spins.
        clock.off_seconds = -HOUR
        assert await here.idle(1.0) <= 5
        assert len(deferred) == 2
        # Right again: the one that was due meanwhile is done at the next look.
        clock.off_seconds = 0
        with anyio.fail_after(8):
            assert await acknowledged(client) == "soon"
        assert len(deferred) == 1
        # An hour forward: the other is due as well.
        clock.off_seconds = HOUR
        with anyio.fail_after(8):
            assert await acknowledged(client) == "later"
        assert (await client.read(["n", "m"])) == {("n", "k"): ("later", due), ("m", "k"): ("soon", soon)}
        await client.aclose()


@pytest.mark.parametrize("ahead_ms", [0.25, 40])
async def test_a_clock_that_stands_still_costs_no_busy_loop(tmp_path: Path, ahead_ms: float) -> None:
    """However near the write is that waits for it."""
    async with running(tmp_path) as here:
        client = await Client.dial(here.relay.gun_addresses[0])
        here.clock.stand_still()
        await client.conn.send([frame("p", "n", {"k": 1}, here.clock.now().wall + ahead_ms)])
        with anyio.fail_after(5):
            while not len(here.relay.hub.engine.deferred):
                await anyio.sleep(0.01)
        assert await here.idle(0.6) <= 30
        here.clock.go_on()
        with anyio.fail_after(8):
            assert await acknowledged(client) == "p"
        await client.aclose()


async def acknowledged(client: Client) -> str:
    """The id of the next put that is acknowledged."""
    while True:
        for message in await client.messages():
            if message.get("ok") and "@" in message:
                return str(message["@"])
