"""A power cut at any write or flush, and a flush that fails: what was acknowledged is there, and whole."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from air.base.errors import StoreError, SyncFailed
from air.model import Cell, SoulRange
from air.store.batch import Failed, ReadDone, Result, Written
from air.store.sqlite import Sqlite, SqliteConfig
from air.store.worker import StoreWorker, WorkerConfig
from tests.faults.disk import Disk, Event
from tests.faults.scale import FULL, seeded

pytestmark = pytest.mark.faults

OPERATIONS = 1000
SAMPLE = 150
"""Power cuts in the suite; in full, one at every write and flush."""

State = dict[tuple[str, str], tuple[Any, float]]


def operations(chance: random.Random, count: int) -> list[list[Cell]]:
    """Batches of one to sixty fields over few names, so that most replace something; some lose."""
    made = []
    for number in range(1, count + 1):
        size = chance.choice([1, 1, 1, 2, 5, 60])
        soul = f"node {chance.randrange(30)}"
        state = number if chance.random() < 0.9 else chance.randrange(1, number + 1)
        keys = chance.sample(range(60), size)
        made.append([Cell(soul, f"k{key}", f"{number} " + "x" * chance.randrange(60), state) for key in keys])
    return made


def merged(state: State, batch: list[Cell]) -> State:
    out = dict(state)
    for soul, key, value, stamp in batch:
        known = out.get((soul, key))
        if known is None or (stamp, value) > (known[1], known[0]):
            out[soul, key] = (value, stamp)
    return out


@dataclass
class Run:
    """A run on a disk, and what the graph was after each of its operations."""

    disk: Disk
    states: list[State]


def opened(path: Path, disk: Disk) -> Sqlite:
    return Sqlite(path, SqliteConfig(vfs=disk.name, checkpoint_pages=48))


def written(path: Path, disk: Disk, chance: random.Random) -> Run:
    states: list[State] = [{}]
    store = opened(path, disk)
    disk.note("ready")
    for number, batch in enumerate(operations(chance, OPERATIONS), 1):
        store.write(batch, meta={"last": str(number).encode()})
        disk.note(number)
        states.append(merged(states[-1], batch))
        if number % 333 == 0:
            store.close()
            store = opened(path, disk)
    store.close()
    return Run(disk, states)


def content(store: Sqlite) -> State:
    page = store.scan(SoulRange("", 2**53), fields_max=10**6, bytes_max=10**9)
    return {(cell.soul, cell.key): (cell.value, cell.state) for cell in page.cells}


def checked(path: Path, files: list[tuple[str, bytes]], run: Run, acknowledged: int, where: str) -> None:
    """Open what a power cut left, and compare: with what was acknowledged, or with one operation more."""
    disk = Disk("after", files, sector=run.disk.sector)
    try:
        store = opened(path, disk)
        last = int(store.get_meta("last") or 0)
        assert last in (acknowledged, acknowledged + 1), f"{where}: {last}, acknowledged {acknowledged}"
        assert content(store) == run.states[last], where
        found = store.verify()
        assert (found.damaged, found.faults, store.lost) == (0, [], 0), where
        # And writing goes on.
        assert store.write([Cell("after", "k", 1, 1)]) == {}, where
        store.close()
    finally:
        disk.unregister()


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_power_cut_at_any_write_or_flush_loses_nothing_acknowledged(tmp_path: Path, sector: int) -> None:
    chance, path = seeded("power cuts"), tmp_path / "air.db"
    disk = Disk("recording", sector=sector)
    try:
        run = written(path, disk, chance)
    finally:
        disk.unregister()
    ready = disk.journal.index(Event("note", "", 0, "ready"))
    points = [point for point in disk.points() if point > ready]
    chosen = set(points if FULL else chance.sample(points, SAMPLE))
    platters, acknowledged = disk.platters(), 0
    for place, event in enumerate(disk.journal):
        if event.kind == "note" and isinstance(event.data, int):
            acknowledged = event.data
        if place in chosen:
            # The power fails when this has been asked for and is not done.
            keep = chance.choice([0.0, 0.5, 0.9, 1.0])
            applied = event.kind != "flush" and chance.random() < 0.7
            if applied:
                platters.apply(event)
            checked(
                path, platters.after_crash(chance, keep), run, acknowledged, f"{place} {event[:3]} {keep}"
            )
            if applied:
                continue
        platters.apply(event)
    print(f"{len(chosen)} power cuts at {len(points)} writes and flushes of {OPERATIONS} operations")


# -- a flush that fails --------------------------------------------------------


@pytest.mark.parametrize("kind", ["-wal", ".db"])
@pytest.mark.parametrize("how", ["recover", "open again"])
def test_after_a_flush_that_failed_once_only_a_verified_opening_brings_writing_back(
    tmp_path: Path, kind: str, how: str
) -> None:
    """What is acknowledged after it outlives a power cut, though the disk forgot what it did not flush."""
    chance, path = seeded("failing flushes"), tmp_path / "air.db"
    # Some flush of the log, and each of the few that move it into the file.
    flushes = (range(120) if FULL else sorted(chance.sample(range(120), 12))) if kind == "-wal" else range(4)
    refused = 0
    for flush in flushes:
        disk = Disk(f"failing {flush}", seed=chance.randrange(2**32))
        try:
            refused += fail_once(path, disk, kind, flush, how, chance)
        finally:
            disk.unregister()
    assert refused == len(flushes)


def fail_once(path: Path, disk: Disk, kind: str, flush: int, how: str, chance: random.Random) -> bool:
    where = f"{kind} flush {flush}"
    batches = operations(chance, 400)
    states: list[State] = [{}]
    store = opened(path, disk)
    disk.fail_flush, disk.only = flush, kind
    number = 0
    for number, batch in enumerate(batches, 1):
        states.append(merged(states[-1], batch))
        try:
            store.write(batch, meta={"last": str(number).encode()})
        except SyncFailed:
            break
    else:
        store.close()
        return False
    assert store.refusing == "store.sync-failed"
    with pytest.raises(SyncFailed):
        store.write(batches[number], meta={"last": b"never"})
    assert content(store) == states[number - 1], where  # reads go on, and see what was acknowledged
    disk.broken = True
    with pytest.raises(StoreError):
        store.recover()
    assert store.refusing is not None
    assert content(store) == states[number - 1], where
    disk.broken = False
    begun = len(disk.journal)
    if how == "recover":
        store.recover()
    else:
        store.close()
        store = opened(path, disk)
    assert store.refusing is None
    done = len(disk.journal)
    # The batch that failed is there whole, or not at all.
    last = int(store.get_meta("last") or 0)
    assert last in (number - 1, number), where
    assert content(store) == states[last], where
    after = [Cell("after", f"k{i}", i, 1) for i in range(30)]
    for cell in after:
        store.write([cell])
    wanted, events = merged(states[last], after), list(disk.journal)
    store.close()
    for cut, possible in [
        *((place, states[number - 1 : number + 1]) for place in chance.sample(range(begun, done + 1), 5)),
        *((len(events), [wanted]) for _ in range(3)),
    ]:
        platters = disk.platters()
        for event in events[:cut]:
            platters.apply(event)
        again = Disk("again", platters.after_crash(chance, chance.choice([0.0, 0.5, 1.0])))
        try:
            store = opened(path, again)
            assert content(store) in possible, f"{where}, then a power cut at {cut} ({begun} to {done})"
            found = store.verify()
            assert (found.damaged, found.faults, store.lost) == (0, [], 0), where
            store.close()
        finally:
            again.unregister()
    return True


def test_a_folder_that_cannot_be_flushed_cannot_hold_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a new file would be lost with the next power cut, and everything under it."""
    flush = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SyncFailed) as caught:
        Sqlite(tmp_path / "air.db")
    assert caught.value.code == "store.sync-failed"
    monkeypatch.undo()
    store = Sqlite(tmp_path / "air.db")
    store.write([Cell("s", "k", 1, 1)])
    store.close()


# -- and without anybody doing anything ----------------------------------------


@pytest.mark.anyio
async def test_a_relays_store_comes_back_by_itself_when_the_disk_flushes_again(tmp_path: Path) -> None:
    disk = Disk("coming back")
    try:
        store = opened(tmp_path / "air.db", disk)
        config = WorkerConfig(recover_first_seconds=0.02, recover_max_seconds=0.05)
        worker, results = StoreWorker(store, config), list[Result]()
        async with anyio.create_task_group() as tasks:
            await tasks.start(worker.run, results.extend)

            async def done(ask: Callable[[], None]) -> Result:
                count = len(results)
                ask()
                await until(lambda: len(results) > count)
                return results[-1]

            written = await done(lambda: worker.write(1, [Cell("s", "k", 1, 1)]))
            assert isinstance(written, Written)
            disk.broken = True
            failed = await done(lambda: worker.write(2, [Cell("s", "k", 2, 2)]))
            assert isinstance(failed, Failed)
            assert failed.error.code == worker.refusing == "store.sync-failed"
            read = await done(lambda: worker.read(3, "s"))
            assert isinstance(read, ReadDone)
            assert read.page.fields == {"k": (1, 1)}
            counters = worker.counters
            await until(lambda: counters.get("store_recoveries", "store.sync-failed") >= 3)
            assert isinstance(await done(lambda: worker.write(4, [Cell("s", "k", 3, 3)])), Failed)
            disk.broken = False
            await until(lambda: worker.refusing is None)
            assert counters.get("store_recoveries", "ok") == 1
            assert isinstance(await done(lambda: worker.write(5, [Cell("s", "k", 4, 4)])), Written)
            await worker.aclose()
    finally:
        disk.unregister()


async def until(ready: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not ready():
            await anyio.sleep(0.005)
