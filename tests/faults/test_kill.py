"""Acked means kept: a daemon killed under load, again and again, over the same data."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from air.base.errors import AirError
from air.transport.websocket import WebSocketConn, dial_websocket

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

KILLS = int(os.environ.get("AIR_KILLS", "20"))
WRITERS = 4
BATCH = 1000


@pytest.fixture
def anyio_backend() -> str:
    """The daemon is the one under test; one event loop is enough for the writers."""
    return "asyncio"


@dataclass
class Ledger:
    """What was acknowledged, kept outside the daemon."""

    acked: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    batches: set[str] = field(default_factory=set)
    """Souls that were written as one batch, acknowledged or not."""


def start(data: Path) -> tuple[subprocess.Popen[bytes], str]:
    daemon = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "air",
            "run",
            "--data",
            data,
            "--port",
            "0",
            "--admin",
            "127.0.0.1:0",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert daemon.stdout is not None
    line = daemon.stdout.readline()
    assert line, "the daemon did not start again"
    return daemon, json.loads(line)["gun"][0]


def put(id: str, soul: str, fields: dict[str, str], state: int) -> bytes:
    node = {"_": {"#": soul, ">": dict.fromkeys(fields, state)}, **fields}
    return json.dumps({"#": id, "put": {soul: node}}).encode()


async def write(url: str, name: str, ledger: Ledger) -> None:
    """Keep 50 puts under way, one in ten of them a batch, until the daemon is gone."""
    under_way: dict[str, tuple[str, dict[str, str], int]] = {}
    count = 0
    state = int(time.time() * 1000) - 1000
    with suppress(AirError):
        conn = await dial_websocket(url)
        try:
            while True:
                frames = []
                while len(under_way) < 50:
                    count += 1
                    id, soul = f"{name}-{count}-{random.random()}", f"{name}/{count}"
                    fields = {"k": f"{name} {count}"}
                    if count % 10 == 0:
                        fields = {f"k{i:04}": str(i) for i in range(BATCH)}
                        ledger.batches.add(soul)
                    elif count % 3 == 0:
                        soul = f"{name}/hot"
                    under_way[id] = (soul, fields, state + count)
                    frames.append(put(id, soul, fields, state + count))
                await conn.send(frames)
                for message in await messages(conn):
                    done = under_way.pop(message.get("@"), None)
                    if done is None:
                        continue
                    assert message.get("ok"), message
                    soul, fields, stamp = done
                    for key, value in fields.items():
                        ledger.acked[soul, key] = (value, stamp)
        finally:
            await conn.aclose()


async def messages(conn: WebSocketConn) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for frame in await conn.receive():
        parsed = json.loads(frame)
        out += parsed if isinstance(parsed, list) else [parsed]
    return out


async def read_all(url: str, souls: list[str]) -> dict[tuple[str, str], tuple[str, int]]:
    """Everything the daemon says these nodes hold."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    conn = await dial_websocket(url)
    try:
        for start_at in range(0, len(souls), 200):
            waiting = {
                f"g{i}-{random.random()}": soul for i, soul in enumerate(souls[start_at : start_at + 200])
            }
            await conn.send(
                [json.dumps({"#": id, "get": {"#": soul}}).encode() for id, soul in waiting.items()]
            )
            with anyio.fail_after(30):
                while waiting:
                    for message in await messages(conn):
                        if message.get("@") not in waiting:
                            continue
                        for soul, node in message.get("put", {}).items():
                            for key, state in node["_"][">"].items():
                                found[soul, key] = (node[key], state)
                        if "%" not in message:
                            del waiting[message["@"]]
    finally:
        await conn.aclose()
    return found


def check(ledger: Ledger, found: dict[tuple[str, str], tuple[str, int]], souls: set[str]) -> None:
    for (soul, key), (value, state) in ledger.acked.items():
        if soul in souls:
            assert (soul, key) in found, f"acknowledged and gone: {soul} {key}"
            kept, stamp = found[soul, key]
            assert stamp > state or kept == value, f"acknowledged and changed: {soul} {key}"
    for soul in ledger.batches & souls:
        count = sum(1 for place in found if place[0] == soul)
        assert count in (0, BATCH), f"{count} of {BATCH} fields of a batch"


async def test_nothing_acknowledged_is_lost_by_kill_9_under_load(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    ledger = Ledger()
    daemon, url = start(tmp_path)
    try:
        for round in range(KILLS):
            names = [f"r{round}w{writer}" for writer in range(WRITERS)]
            async with anyio.create_task_group() as tasks:
                for name in names:
                    tasks.start_soon(write, url, name, ledger)
                await anyio.sleep(0.05 + 0.4 * chance.random())
                daemon.send_signal(signal.SIGKILL)
                daemon.wait()
            daemon, url = start(tmp_path)
            mine = {soul for soul, _ in ledger.acked} | ledger.batches
            mine = {soul for soul in mine if soul.split("/")[0] in names}
            check(ledger, await read_all(url, sorted(mine)), mine)
        souls = {soul for soul, _ in ledger.acked} | ledger.batches
        check(ledger, await read_all(url, sorted(souls)), souls)
        print(f"{len(ledger.acked)} acknowledged fields, {KILLS} kills")
        assert len(ledger.acked) > 100 * KILLS
    finally:
        daemon.kill()
        daemon.wait()
