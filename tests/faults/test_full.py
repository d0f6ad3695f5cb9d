"""A disk without room: reads go on, puts are refused by name, and writing comes back without a restart."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.faults.daemon import Client, Daemon
from tests.stack.daemons import Daemon as Neighbour

pytestmark = [pytest.mark.faults, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


BATCH = {f"k{i}": "x" * 200 for i in range(200)}


async def fill(client: Client, state: float) -> tuple[int, dict[str, Any]]:
    """Write until it is refused: how many nodes were taken, and the refusal."""
    for number in range(400):
        ack = await client.put(f"fill/{state}/{number}", BATCH, state)
        if not ack.get("ok"):
            return number, ack
    raise AssertionError("the disk never filled")


async def until(ready: Callable[[], object], seconds: float) -> None:
    with anyio.fail_after(seconds):
        while not await anyio.to_thread.run_sync(ready):
            await anyio.sleep(0.05)


async def starved(data: Path, take: Callable[[Daemon], None], give: Callable[[Daemon], None]) -> None:
    daemon = Daemon(data)
    try:
        now = time.time() * 1000 - 10_000
        client = await Client.dial(daemon.url)
        assert (await client.put("before", {"k": 1}, now))["ok"]
        take(daemon)
        taken, refusal = await fill(client, now)
        assert "store.full" in refusal["err"], refusal
        # Refused once more, and not half taken; what was there is served, and the operator is told.
        assert "store.full" in (await client.put("refused", BATCH, now)).get("err", "")
        souls = ["before", "refused", *(f"fill/{now}/{number}" for number in range(taken + 1))]
        found = await client.read(souls)
        assert found["before", "k"] == (1, now)
        assert len(found) == 1 + taken * len(BATCH)
        status, health = await anyio.to_thread.run_sync(daemon.health)
        assert (status, health["status"], health["store"]) == (503, "degraded", "store.full")
        assert daemon.metric("air_store_refusing") == 1
        give(daemon)
        # It comes back by itself, before anybody writes.
        await until(lambda: daemon.health()[1]["status"] == "ok", 15)
        assert (await client.put("after", BATCH, now + 1))["ok"]
        assert daemon.metric("air_store_refusing") == 0
        await client.aclose()
        assert daemon.stop() == 0
        daemon = Daemon(data)
        client = await Client.dial(daemon.url)
        found = await client.read([*souls, "after"])
        assert len(found) == 1 + (taken + 1) * len(BATCH)
        await client.aclose()
    finally:
        daemon.kill()


async def test_files_that_may_not_grow_further_and_then_may(tmp_path: Path) -> None:
    def take(daemon: Daemon) -> None:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (900_000, resource.RLIM_INFINITY))

    def give(daemon: Daemon) -> None:
        everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, everything)

    await starved(tmp_path, take, give)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes. Only root can make one."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "small"
    folder.mkdir()
    if mount is None or umount is None:
        pytest.skip("no mount here")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


async def test_a_small_file_system_that_is_full_and_then_has_room(small: Path) -> None:
    ballast = small / "ballast"

    def take(daemon: Daemon) -> None:
        ballast.write_bytes(bytes(2_500_000))

    await starved(small / "data", take, lambda _: ballast.unlink())


async def test_a_peer_whose_disk_was_full_gets_what_it_refused_once_there_is_room(tmp_path: Path) -> None:
    small = Neighbour(tmp_path / "small", "--listen", "/ip4/127.0.0.1/tcp/0")
    large = Neighbour(
        tmp_path / "large", "--listen", "/ip4/127.0.0.1/tcp/0", "--set", f"native.peers={small.native}"
    )
    try:
        client = await Client.dial(large.url)
        now = time.time() * 1000 - 10_000
        assert (await client.put("before", {"k": 1}, now))["ok"]
        await until(lambda: small.call("GET", "/v1/node", soul="before"), 15)
        resource.prlimit(small.process.pid, resource.RLIMIT_FSIZE, (900_000, resource.RLIM_INFINITY))
        for number in range(30):
            assert (await client.put(f"much/{number}", BATCH, now))["ok"]
        await until(lambda: small.metric("air_store_refusing") == 1, 30)
        resource.prlimit(small.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

        def equal() -> bool:
            # Reading from the small one would ask the other for what is missing.
            with suppress(AssertionError):
                left = large.call("POST", "/v1/sync", peer=small.peer, dry_run="true")
                return bool(left["equal"] and left["sent"] == 0)
            return False

        await until(equal, 60)
        await client.aclose()
    finally:
        small.process.kill()
        large.process.kill()
