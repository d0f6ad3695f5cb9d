"""Acked means kept: a daemon killed under load, again and again, over the same data."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from air.base.errors import AirError
from air.store.sqlite import Sqlite
from tests.faults.daemon import Client, Daemon, Found, frame
from tests.faults.scale import FULL, seeded

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

KILLS = int(os.environ.get("AIR_KILLS") or (200 if FULL else 20))
WRITERS = 4
BATCH = 1000
UNDER_WAY = 50
REMEMBERED = 500
"""Acknowledged fields of each round that are looked for once more at the very end."""


@pytest.fixture
def anyio_backend() -> str:
    """The daemon is the one under test; one event loop is enough for the writers."""
    return "asyncio"


@dataclass
class Ledger:
    """What was acknowledged, kept outside the daemon."""

    acked: Found = field(default_factory=dict)
    batches: set[str] = field(default_factory=set)
    """Souls that were written as one batch, acknowledged or not."""

    @property
    def souls(self) -> list[str]:
        return sorted({soul for soul, _ in self.acked} | self.batches)

    def check(self, found: Found) -> None:
        for place, (value, state) in self.acked.items():
            assert place in found, f"acknowledged and gone: {place}"
            kept, stamp = found[place]
            assert stamp > state or kept == value, f"acknowledged and changed: {place}"
        counts = dict.fromkeys(self.batches, 0)
        for soul, _ in found:
            if soul in counts:
                counts[soul] += 1
        torn = {soul: count for soul, count in counts.items() if count not in (0, BATCH)}
        assert not torn, f"fields of {BATCH} that were one batch: {torn}"


async def write(url: str, name: str, ledger: Ledger, chance: random.Random) -> None:
    """Keep some puts under way, one in ten of them a batch, until the daemon is gone."""
    under_way: dict[str, tuple[str, dict[str, str], int]] = {}
    count = 0
    state = int(time.time() * 1000) - 100_000
    with suppress(AirError):
        client = await Client.dial(url)
        try:
            while True:
                frames = []
                while len(under_way) < UNDER_WAY:
                    count += 1
                    id, soul = f"{name}-{count}", f"{name}/{count}"
                    fields = {"k": f"{name} {count}"}
                    kind = chance.randrange(10)
                    if kind == 0:
                        fields = {f"k{i:04}": str(i) for i in range(BATCH)}
                        ledger.batches.add(soul)
                    elif kind < 4:
                        soul = f"{name}/hot"
                    under_way[id] = (soul, fields, state + count)
                    frames.append(frame(id, soul, fields, state + count))
                await client.conn.send(frames)
                for message in await client.messages():
                    done = under_way.pop(message.get("@", ""), None)
                    if done is None:
                        continue
                    assert message.get("ok"), message
                    soul, fields, stamp = done
                    for key, value in fields.items():
                        known = ledger.acked.get((soul, key))
                        if known is None or known[1] < stamp:
                            ledger.acked[soul, key] = (value, stamp)
        finally:
            await client.aclose()


async def read(url: str, souls: list[str]) -> Found:
    client = await Client.dial(url)
    try:
        return await client.read(souls)
    finally:
        await client.aclose()


async def test_nothing_acknowledged_is_lost_by_kill_9_under_load(tmp_path: Path) -> None:
    chance = seeded("kills")
    remembered = Ledger()
    acked = batches = early = 0
    slowest = 0.0
    daemon = Daemon(tmp_path)
    try:
        for round in range(KILLS):
            ledger = Ledger()
            async with anyio.create_task_group() as tasks:
                for writer in range(WRITERS):
                    seed = chance.randrange(2**32)
                    tasks.start_soon(write, daemon.url, f"r{round}w{writer}", ledger, random.Random(seed))
                await anyio.sleep(0.05 + 0.3 * chance.random())
                daemon.kill()
            if chance.random() < 0.2:
                # And once more while it comes back.
                starting = Daemon.spawn(tmp_path)
                time.sleep(0.5 * chance.random())
                starting.kill()
                starting.wait()
                early += 1
            daemon = Daemon(tmp_path)
            slowest = max(slowest, daemon.ready_seconds)
            ledger.check(await read(daemon.url, ledger.souls))
            acked, batches = acked + len(ledger.acked), batches + len(ledger.batches)
            places = chance.sample(sorted(ledger.acked), min(REMEMBERED, len(ledger.acked)))
            remembered.acked.update({place: ledger.acked[place] for place in places})
        remembered.check(await read(daemon.url, remembered.souls))
        assert daemon.stop() == 0
        store = Sqlite(tmp_path / "air.db")
        found = store.verify()
        store.close()
        assert (found.damaged, found.faults) == (0, [])
        print(
            f"{KILLS} kills under load and {early} while starting; {acked} fields acknowledged,"
            f" {batches} batches; slowest start {slowest:.2f} s; {found.cells} records verified"
        )
        assert acked > 100 * KILLS
    finally:
        daemon.kill()
