"""Clients coming and going for as long as one likes: nothing of the daemon may grow.

``AIR_SOAK_SECONDS`` lengthens it; `make soak` takes ten minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bench.client import connect
from bench.load import Load, LoadConfig
from tests.hostile.daemons import Daemon, running

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("AIR_SOAK_SECONDS", "20"))
RATE = 500
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    second: float
    rss: int
    threads: int
    descriptors: int
    links: float


def sample(daemon: Daemon, began: float) -> Sample:
    process = psutil.Process(daemon.process.pid)
    return Sample(
        time.monotonic() - began,
        process.memory_info().rss,
        process.num_threads(),
        process.num_fds(),
        daemon.metric("air_links"),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares: what is gained in a second."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


async def come_and_go(daemon: Daemon, until: float) -> int:
    """Connect, subscribe, write a little, leave: politely or not."""
    visits = 0
    while time.monotonic() < until:
        connection = await connect(daemon.gun)
        name = f"visit/{random.randrange(200)}"
        await connection.ask({"get": {"#": name}}, 2.0)
        state = time.time() * 1000 - 1000
        node = {"_": {"#": name, ">": {"k": state}}, "k": visits}
        assert await connection.ask({"put": {name: node}}, 5.0)
        await asyncio.sleep(random.random() * 0.3)
        if random.random() < 0.5:
            await connection.aclose()
        elif connection._transport is not None:
            connection._transport.abort()
        visits += 1
    return visits


def test_nothing_grows_while_clients_come_and_go(tmp_path: Path) -> None:
    # Caches that are full soon: what grows from then on is not theirs.
    caches = ('cache_bytes = "2 MiB"', 'page_cache_bytes = "2 MiB"')
    with running(tmp_path, "[store]", *caches) as daemon:
        asyncio.run(_soak(daemon))


async def _soak(daemon: Daemon) -> None:
    began = time.monotonic()
    until = began + SECONDS
    samples: list[Sample] = []

    async def watch() -> None:
        while time.monotonic() < until:
            samples.append(await asyncio.to_thread(sample, daemon, began))
            await asyncio.sleep(max(0.25, SECONDS / 200))

    config = LoadConfig(warm_seconds=0, ramp_seconds=0, messages_max=int(RATE * SECONDS * 2) + 10_000)
    async with Load(daemon.gun, clients=4, config=config) as load:
        outcome, *visits, _ = await asyncio.gather(
            load.puts(in_flight=64, seconds=SECONDS, rate=RATE),
            *(come_and_go(daemon, until) for _ in range(8)),
            watch(),
        )
        check = await load.check(200)
    assert (outcome.missing, sum(outcome.refused.values()), check.lost, check.wrong) == (0, 0, 0, 0)
    assert outcome.operations >= 0.9 * RATE * SECONDS
    # What is remembered for some seconds and the cache fill up first.
    settled = [one for one in samples if one.second >= min(60.0, 0.5 * SECONDS)]
    first = settled[: max(1, len(settled) // 4)]
    last = settled[-max(1, len(settled) // 4) :]
    grows = {
        name: slope([(one.second, float(getattr(one, name))) for one in settled])
        for name in ("rss", "threads", "descriptors", "links")
    }
    print(
        json.dumps({"seconds": SECONDS, "visits": sum(visits), "rate": round(outcome.rate), "slopes": grows}),
        f"rss {samples[0].rss / MIB:.0f} … {samples[-1].rss / MIB:.0f} MiB",
        f"threads {samples[-1].threads}, descriptors {samples[-1].descriptors}",
    )
    assert sum(visits) > SECONDS
    hour = 3600 * grows["rss"] / MIB
    # Half a minute cannot tell a leak from a heap that finds its size; ten minutes can.
    assert grows["rss"] < (200_000 if SECONDS < 300 else 10_000), f"memory grows by {hour:.0f} MiB an hour"
    for name in ("threads", "descriptors", "links"):
        more = max(getattr(one, name) for one in last) - max(getattr(one, name) for one in first)
        assert more <= 8, f"{name} grow: {grows[name]:.3f} a second"
    await asyncio.sleep(0.5)
    left = await asyncio.to_thread(sample, daemon, began)
    assert left.links == 0
