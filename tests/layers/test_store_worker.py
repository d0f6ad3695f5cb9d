"""The store's thread over a real file: order, batches, back-pressure, and the end."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from air.base.errors import Full, StoreError
from air.model import Cell, Lex, Mark, SoulRange
from air.store.api import Kept
from air.store.batch import AskDone, Failed, ReadDone, Result, ScanDone, Written
from air.store.sqlite import Sqlite, SqliteConfig
from air.store.window import WindowConfig
from air.store.worker import StoreWorker, WorkerConfig

pytestmark = pytest.mark.anyio

FAST = SqliteConfig(durable=False)


class Slow(Sqlite):
    """A store whose writes can be held up, and that knows how its batches looked."""

    def __init__(self, path: Path, writer: str | None = None) -> None:
        super().__init__(path, FAST, writer=writer)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.error: StoreError | None = None

    def write(
        self,
        cells: Sequence[Cell],
        /,
        *,
        meta: Mapping[str, bytes] | None = None,
        marks: Sequence[Mark | None] | None = None,
    ) -> Kept:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append(len(cells))
        if self.error is not None:
            raise self.error
        return super().write(cells, meta=meta, marks=marks)


class Collector:
    """Results as they come, with a way to wait for them."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.calls = 0
        self._changed = anyio.Event()

    def __call__(self, results: Sequence[Result]) -> None:
        self.results += results
        self.calls += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, count: int) -> list[Result]:
        with anyio.fail_after(10):
            while len(self.results) < count:
                await self._changed.wait()
        return self.results

    @property
    def tokens(self) -> list[object]:
        return [result.token for result in self.results]


@asynccontextmanager
async def working(
    store: Sqlite, config: WorkerConfig | None = None
) -> AsyncIterator[tuple[StoreWorker, Collector]]:
    worker, collector = StoreWorker(store, config), Collector()
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run, collector)
        yield worker, collector
        await worker.aclose()


async def entered(store: Slow) -> None:
    """Wait until the thread is inside a write."""
    assert await anyio.to_thread.run_sync(store.entered.wait, 10)


def cells(name: str, count: int, state: float = 1) -> list[Cell]:
    return [Cell("s", f"{name}{i}", i, state) for i in range(count)]


async def test_a_read_that_was_queued_after_a_write_sees_it(tmp_path: Path) -> None:
    async with working(Sqlite(tmp_path / "air.db", FAST)) as (worker, collector):
        for i in range(50):
            worker.write(("w", i), [Cell("s", "k", i, i + 1)])
            worker.read(("r", i), "s", Lex(exact="k"))
        results = await collector.until(100)
        assert collector.tokens == [(kind, i) for i in range(50) for kind in "wr"]
        for i, result in enumerate(results[1::2]):
            assert isinstance(result, ReadDone)
            value, _ = result.page.fields["k"]
            assert value >= i


async def test_what_queues_during_a_commit_becomes_one_transaction_with_every_job_answered(
    tmp_path: Path,
) -> None:
    store = Slow(tmp_path / "air.db")
    async with working(store) as (worker, collector):
        store.gate.clear()
        worker.write("first", cells("a", 1))
        await entered(store)
        worker.write("old", [Cell("s", "x", "newer", 9), Cell("s", "a0", "older", 0)])
        worker.write("same", [Cell("s", "x", "older", 1), Cell("s", "y", 1, 1)])
        worker.write("new", cells("b", 3))
        store.gate.set()
        results = await collector.until(4)
        assert store.batches == [1, 7]
        assert results == [
            Written("first", {}),
            Written("old", {1: Cell("s", "a0", 0, 1)}),
            Written("same", {0: Cell("s", "x", "newer", 9)}),
            Written("new", {}),
        ]
        assert worker.counters.get("store_commits") == 2
        assert worker.counters.get("store_cells") == 8
        assert worker.backlog_cells == worker.backlog_bytes == worker.backlog_reads == 0


async def test_in_sync_mode_every_write_is_its_own_commit(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    async with working(store, WorkerConfig(durability="sync")) as (worker, collector):
        store.gate.clear()
        for i in range(5):
            worker.write(i, cells(f"k{i}", 2))
        store.gate.set()
        await collector.until(5)
        assert store.batches == [2] * 5


async def test_scans_and_pages_are_answered(tmp_path: Path) -> None:
    async with working(Sqlite(tmp_path / "air.db", FAST)) as (worker, collector):
        worker.write("w", cells("k", 10))
        worker.read("page", "s", after="k3", fields_max=2)
        worker.scan("scan", SoulRange("s", 1000), fields_max=4)
        _, page, scan = await collector.until(3)
        assert isinstance(page, ReadDone)
        assert (list(page.page.fields), page.page.next) == (["k4", "k5"], "k5")
        assert isinstance(scan, ScanDone)
        assert len(scan.page.cells) == 4
        worker.scan("more", SoulRange("s", 1000), after=scan.page.next)
        more = (await collector.until(4))[-1]
        assert isinstance(more, ScanDone)
        assert [cell.key for cell in more.page.cells] == ["k4", "k5", "k6", "k7", "k8", "k9"]


async def test_reads_beyond_the_ceiling_of_a_batch_go_with_the_next(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    async with working(store, WorkerConfig(batch_read_bytes_max=1000)) as (worker, collector):
        store.gate.clear()
        worker.write("w", [Cell("s", "k", "x" * 900, 1)])
        for i in range(6):
            worker.read(i, "s")
        store.gate.set()
        await collector.until(7)
        assert collector.tokens == ["w", 0, 1, 2, 3, 4, 5]
        assert collector.calls >= 6


async def test_a_store_that_is_full_fails_the_writes_and_still_reads(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    async with working(store) as (worker, collector):
        worker.write("good", cells("k", 1))
        await collector.until(1)
        store.gate.clear()
        store.error = Full("no room")
        worker.write("bad", cells("l", 1))
        worker.write("too", cells("m", 1))
        worker.read("r", "s")
        store.gate.set()
        _, bad, too, read = await collector.until(4)
        assert isinstance(bad, Failed)
        assert isinstance(too, Failed)
        assert bad.error.code == too.error.code == "store.full"
        assert isinstance(read, ReadDone)
        assert list(read.page.fields) == ["k0"]
        assert worker.counters.get("store_failed", "store.full") == 2


async def test_one_write_that_cannot_be_stored_does_not_cost_the_others(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    async with working(store) as (worker, collector):
        store.gate.clear()
        worker.write("good", cells("a", 1))
        worker.write("bad", [Cell("s", "b", 1, float("nan"))])
        worker.write("fine", cells("c", 1))
        store.gate.set()
        good, bad, fine = await collector.until(3)
        assert (good, fine) == (Written("good", {}), Written("fine", {}))
        assert isinstance(bad, Failed)
        assert bad.error.code == "store.bad-cell"


async def test_room_waits_while_a_ceiling_is_reached(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    config = WorkerConfig(queued_cells_max=10, queued_bytes_max=10_000, queued_reads_max=3)
    async with working(store, config) as (worker, _collector):
        for give in (
            lambda: worker.write("many", cells("k", 10)),
            lambda: worker.write("long", [Cell("s", "long", "x" * 10_000, 1)]),
            lambda: [worker.write("w", cells("r", 1))] + [worker.read(i, "s") for i in range(3)],
        ):
            await worker.room()
            store.gate.clear()
            give()
            assert worker.crowded
            with anyio.move_on_after(0.02) as waited:
                await worker.room()
            assert waited.cancelled_caught
            store.gate.set()
            with anyio.fail_after(10):
                await worker.room()
            assert not worker.crowded


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_at_the_end_what_is_queued_is_committed_and_reported(tmp_path: Path, how: str) -> None:
    store = Slow(tmp_path / "air.db")
    worker, collector = StoreWorker(store), Collector()
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run, collector)
        store.gate.clear()
        worker.write("first", cells("a", 1))
        await entered(store)
        for i in range(20):
            worker.write(i, cells(f"k{i}-", 5))
        if how == "cancelled":
            tasks.cancel_scope.cancel()
            store.gate.set()
        else:
            store.gate.set()
            await worker.aclose()
    assert collector.tokens == ["first", *range(20)]
    assert all(isinstance(result, Written) for result in collector.results)
    with pytest.raises(StoreError) as caught:
        worker.write("late", cells("z", 1))
    assert caught.value.code == "store.closed"
    again = Sqlite(tmp_path / "air.db", FAST)
    assert len(again.read("s").fields) == 101
    again.close()


async def test_at_the_end_nobody_waits_for_a_window_and_jobs_out_of_time_are_told(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    worker, collector = (
        StoreWorker(store, WorkerConfig(drain_seconds=0.01, batch_read_bytes_max=1)),
        Collector(),
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run, collector)
        store.gate.clear()
        worker.write("slow", cells("a", 1))
        await entered(store)
        worker.write("slower", cells("b", 1))
        for i in range(5):
            worker.read(i, "s")
        tasks.cancel_scope.cancel()
        threading.Timer(0.1, store.gate.set).start()
    assert collector.tokens == ["slow", "slower", 0, 1, 2, 3, 4]
    assert isinstance(collector.results[0], Written)
    assert isinstance(collector.results[-1], Failed | ReadDone)
    assert worker.backlog_cells == worker.backlog_reads == 0


async def test_entries_ride_with_the_batch(tmp_path: Path) -> None:
    async with working(Sqlite(tmp_path / "air.db", FAST)) as (worker, collector):
        worker.write(1, cells("a", 1), meta={"clock": b"1"})
        worker.write(2, cells("b", 1), meta={"clock": b"2"})
        await collector.until(2)
    again = Sqlite(tmp_path / "air.db", FAST)
    assert again.get_meta("clock") == b"2"
    again.close()


async def test_writes_with_and_without_marks_share_a_transaction_and_each_is_told_its_own(
    tmp_path: Path,
) -> None:
    store = Slow(tmp_path / "air.db", writer="me")
    theirs: Mark = (("a", 4), ("b", 2))
    async with working(store) as (worker, collector):
        store.gate.clear()
        worker.write("first", cells("k", 2))
        await entered(store)
        worker.write("own", [Cell("s", "x", 1, 1), Cell("s", "k0", "old", 0)])
        worker.write("theirs", [Cell("s", "y", 1, 1), Cell("s", "k1", "new", 5)], marks=[theirs, theirs])
        worker.write("more", [Cell("s", "z", 1, 1)])
        store.gate.set()
        first, own, others, more = await collector.until(4)
        assert store.batches == [2, 5]
        assert isinstance(first, Written)
        assert isinstance(own, Written)
        assert isinstance(others, Written)
        assert isinstance(more, Written)
        one, two = (("me", 1),), (("me", 2),)
        assert first.marks() == [one, one]
        assert own.marks() == [two, one]
        assert others.marks() == [theirs, theirs]
        assert more.marks() == [two]
        worker.ask("conflicts", lambda store: [entry.lost.mark for entry in store.conflicts()])
        answer = (await collector.until(5))[-1]
        assert answer == AskDone("conflicts", [one])


async def test_a_question_sees_what_was_written_before_it_and_errors_come_back(tmp_path: Path) -> None:
    def refuse(_: Sqlite) -> None:
        raise StoreError("no", code="store.none")

    async with working(Sqlite(tmp_path / "air.db", FAST)) as (worker, collector):
        for i in range(20):
            worker.write(("w", i), cells(f"k{i}-", 3))
            worker.ask(("q", i), lambda store: len(store.read("s").fields))
        worker.ask("bad", refuse)
        results = await collector.until(41)
        answers = [result.answer for result in results if isinstance(result, AskDone)]
        assert len(answers) == 20
        assert all(count >= 3 * (i + 1) for i, count in enumerate(answers))
        bad = results[-1]
        assert isinstance(bad, Failed)
        assert (bad.token, bad.error.code) == ("bad", "store.none")
        assert worker.backlog_reads == 0
        await worker.aclose()
        with pytest.raises(StoreError):
            worker.ask("late", refuse)


async def test_busy_writers_share_commits(tmp_path: Path) -> None:
    store = Slow(tmp_path / "air.db")
    config = WorkerConfig(window=WindowConfig(share_min=0.0))
    async with working(store, config) as (worker, collector):
        for i in range(400):
            worker.write(i, cells(f"k{i}-", 1))
            if i % 4 == 0:
                await anyio.lowlevel.checkpoint()
        await collector.until(400)
        assert collector.tokens == list(range(400))
        assert len(store.batches) < 200


async def test_a_fault_in_the_callers_results_still_closes_the_store(tmp_path: Path) -> None:
    def broken(_: Sequence[Result]) -> None:
        raise RuntimeError("a fault of the caller")

    worker = StoreWorker(Sqlite(tmp_path / "air.db", FAST))
    with pytest.raises(BaseExceptionGroup):
        async with anyio.create_task_group() as tasks:
            await tasks.start(worker.run, broken)
            worker.write(1, cells("a", 1))
    Sqlite(tmp_path / "air.db", FAST).close()


async def test_a_worker_that_never_ran_closes_its_store_too(tmp_path: Path) -> None:
    worker = StoreWorker(Sqlite(tmp_path / "air.db", FAST))
    await worker.aclose()
    await worker.aclose()
    Sqlite(tmp_path / "air.db", FAST).close()
