"""Peers that use what they may use until it hurts: bounded, told why, cut, and honest ones hardly notice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.load import Load, LoadConfig
from tests.hostile.attack import KINDS
from tests.hostile.daemons import Daemon, running

pytestmark = pytest.mark.hostile

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
CODES = {
    "garbage-text": {"limit.waste", "gun.too-many-errors"},
    "garbage-json": {"gun.too-many-errors", "limit.waste"},
    "garbage-empties": {"gun.too-many-errors", "limit.idle"},
    "garbage-large": {"limit.waste", "gun.too-many-errors"},
    "garbage-raw": {"ws.protocol", "ws.idle-flood"},
    "garbage-binary": {"ws.idle-flood"},
    "empty-frames": {"limit.idle"},
    "pings": {"ws.idle-flood"},
    "acks": {"limit.idle", "limit.waste"},
    "subscribe": {"gun.too-many-errors"},
    "unread": {"limit.unread", "limit.outbox"},
    "scan": {"limit.scans"},
    "replay-puts": {"limit.repeats"},
    "replay-gets": {"limit.repeats"},
    "future-years": {"gun.too-many-errors"},
    "future-hour": {"gun.too-many-errors"},
}
"""By kind of attack, the code under which it ends."""
TOLD = {
    "subscribe": "limit.subscriptions",
    "scan": "limit.scans",
    "future-years": "graph.future-state",
    "future-hour": "limit.deferred",
}
"""What the peer hears of single messages before that."""
FEW = ("garbage-text", "subscribe", "unread", "replay-puts", "scan")
ALL = bool(os.environ.get("AIR_HOSTILE_ALL"))


LINES = (
    *("[store]", 'cache_bytes = "8 MiB"', 'page_cache_bytes = "4 MiB"'),
    *("[gun]", "subscriptions_max = 5_000", "[log]", 'level = "info"'),
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("abuse"), *LINES) as daemon:
        yield daemon


def test_every_attack_is_cut_under_its_code_while_honest_clients_go_on(daemon: Daemon) -> None:
    kinds = [kind for kind in KINDS if kind in CODES] if ALL else ["garbage-text", "subscribe"]
    asyncio.run(_attacks(daemon, kinds))


async def _attacks(daemon: Daemon, kinds: list[str]) -> None:
    config = LoadConfig(warm_seconds=0.2, ramp_seconds=0.1, quiet_seconds=1.0)
    async with Load(daemon.gun, clients=8, config=config) as load:
        await load.puts(in_flight=32, seconds=1)
        before = (await load.puts(in_flight=32, seconds=1.2)).rate
        for kind in kinds:
            ratios = []
            for _ in range(3):
                result, during = await _attack(daemon, load, kind)
                after = (await load.puts(in_flight=32, seconds=1.2)).rate
                ratios.append(during * 2 / (before + after))
                before = after
                print(f"{kind}: {ratios[-1]:.2f} of {after:,.0f}/s, {result}, {daemon.rss / MIB:.0f} MiB")
                _check(daemon, kind, result)
                # Something else may have had the machine: what counts is that it can be done.
                if ratios[-1] >= 0.8:
                    break
            assert max(ratios) >= 0.8, f"{kind}: honest clients got {ratios}"
        assert (await load.check(200)).lost == 0


async def _attack(daemon: Daemon, load: Load, kind: str) -> tuple[dict[str, Any], float]:
    """What became of the attacker, and the rate of the honest ones meanwhile."""
    attack = asyncio.create_task(_run(daemon, kind))
    await asyncio.sleep(0.15)
    outcome = await load.puts(in_flight=32, seconds=2.5)
    assert outcome.missing == 0
    assert not outcome.refused
    return await attack, outcome.rate


async def _run(daemon: Daemon, kind: str) -> dict[str, Any]:
    """Attack once; what the attacker says of it."""
    command = ["-m", "tests.hostile.attack", kind, daemon.gun, "10"]
    attacker = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(30):
            out, _ = await attacker.communicate()
    finally:
        if attacker.returncode is None:
            attacker.kill()
            await attacker.wait()
    result: dict[str, Any] = json.loads(out)
    return result


def _check(daemon: Daemon, kind: str, result: dict[str, Any]) -> None:
    assert result["cut_after"] is not None, f"{kind} was never cut: {result}"
    assert result["cut_after"] < (5 if ALL else 7), result
    cuts = [
        code
        for code in CODES[kind]
        if daemon.metric("air_cut", code) or daemon.metric("air_ws_refused", code)
    ]
    assert cuts, f"{kind}: {daemon.ask('/metrics').decode()}"
    if result["close"] is not None and result["close"][0] == 1008:
        assert result["close"][1] in CODES[kind]
    if kind in TOLD:
        assert result["told"].get(TOLD[kind], 0) > 0, result


def test_memory_is_back_when_they_have_gone(tmp_path: Path) -> None:
    with running(tmp_path, *LINES) as daemon:
        asyncio.run(_rounds(daemon))


async def _rounds(daemon: Daemon) -> None:
    """Some of them at once, and again: in the end there is what there was at the start.

    The start is a process at work, whose caches (of nodes, and of pages in SQLite) are as full as can be:
    whatever is read and written fills them, which is what they are for. From then on the honest load is
    a trickle, because its own traces would hide those of the others.
    """
    kinds = [kind for kind in KINDS if kind in CODES] if ALL else list(FEW)
    config = LoadConfig(warm_seconds=0, ramp_seconds=0)
    async with Load(daemon.gun, clients=2, config=config) as load:
        await load.puts(in_flight=500, count=30_000, batch=True)
        await load.gets(load.written(), in_flight=500, count=30_000, batch=True)
        daemon.metric("air_links")
        start = await _settled(daemon, load, 0)
        ends = []
        for _ in range(2):
            for first in range(0, len(kinds), 5):
                results = await asyncio.gather(*(_run(daemon, kind) for kind in kinds[first : first + 5]))
                for result in results:
                    _check(daemon, result["kind"], result)
            peak = daemon.rss
            ends.append(await _settled(daemon, load, start + 10 * MIB))
            print(
                "MiB at the start, after attacks, then:", *(size // MIB for size in (start, peak, ends[-1]))
            )
        assert max(ends) <= start + 10 * MIB
        assert (await load.check(100)).lost == 0


async def _settled(daemon: Daemon, load: Load, wanted: int) -> int:
    """Resident bytes once they are as ``wanted``, or after the time in which all that is due is forgotten."""
    until = time.monotonic() + 22
    while daemon.rss > wanted and time.monotonic() < until:
        await load.puts(in_flight=4, seconds=1, rate=50)
    return daemon.rss
