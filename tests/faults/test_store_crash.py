"""The store under kill -9, flipped bits, a full disk, and a disk that refuses to flush."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from air.base.errors import Full, StoreError, SyncFailed
from air.model import Cell, Lex, Link, SoulRange, unit_bytes
from air.store.items import item_hash
from air.store.record import encode_value
from air.store.sqlite import Sqlite, SqliteConfig

# -- kill -9 -------------------------------------------------------------------

WRITER = """
import sys
from air.model import Cell
from air.store.sqlite import Sqlite, SqliteConfig
store = Sqlite(sys.argv[1], SqliteConfig(checkpoint_pages=64))
first, size = int(sys.argv[2]), int(sys.argv[3])
for batch in range(first, first + 1_000_000):
    cells = [Cell(f"batch {batch}", f"{i}", "x" * (i * 7 % 300), batch + 1) for i in range(size)]
    cells.append(Cell("counter", "last", batch, batch + 1))
    store.write(cells, meta={"last": str(batch).encode()})
    sys.stdout.buffer.write(b"%d\\n" % batch)
    sys.stdout.buffer.flush()
"""


@pytest.mark.faults
def test_after_kill_9_every_reported_batch_is_whole_and_no_batch_is_partial(tmp_path: Path) -> None:
    path, size, seed = tmp_path / "air.db", 40, random.randrange(2**32)
    print(f"seed {seed}")
    chance, reported = random.Random(seed), -1
    for _ in range(10):
        before = reported
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(reported + 1), str(size)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().splitlines()
        child.wait()
        # A line may be cut; the first was read before the kill.
        whole = [int(line) for line in lines if line.isdigit()]
        reported = max([before + 1, *whole[:-1]])
        store = Sqlite(path)
        last = int(store.get_meta("last") or b"-1")
        assert last >= reported
        assert store.read("counter").fields == {"last": (last, last + 1)}
        for batch in range(before + 1, last + 1):
            fields = store.read(f"batch {batch}").fields
            assert fields == {f"{i}": ("x" * (i * 7 % 300), batch + 1) for i in range(size)}
        assert store.souls(f"batch {last}", prefix=f"batch {last + 1}") == []
        found = store.verify()
        assert (found.damaged, found.faults) == (0, [])
        store.close()
        reported = last


MARKING = """
import sys
from air.model import Cell
from air.store.sqlite import Sqlite, SqliteConfig
store = Sqlite(sys.argv[1], SqliteConfig(checkpoint_pages=64), writer="me")
first = int(sys.argv[2])
for batch in range(first, first + 1_000_000):
    cells = [Cell(f"node {(batch * 37 + i * 11) % 900}", f"{i % 3}", batch, batch + 1) for i in range(20)]
    theirs = [(("them", batch + 1),)] * len(cells)
    (_, sequence), = store.write(cells[:-1], marks=[*theirs[:9], None, *theirs[10:-1]]).dot
    if batch % 3 == 0:
        store.refresh(600)
    sys.stdout.buffer.write(b"%d %d\\n" % (batch, sequence))
    sys.stdout.buffer.flush()
"""


@pytest.mark.faults
def test_after_kill_9_no_dot_is_used_again_and_no_sum_is_stale(tmp_path: Path) -> None:
    path, seed = tmp_path / "air.db", random.randrange(2**32)
    print(f"seed {seed}")
    chance, batch, highest = random.Random(seed), 0, 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", MARKING, str(path), str(batch)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        told = [line.split() for line in [first, *child.stdout.read().splitlines(keepends=True)]]
        child.wait()
        used = [int(line[1]) for line in told[:-1] or told]
        assert used[0] > highest
        store = Sqlite(path, writer="me")
        count, added = store.fingerprint(None, None)
        cells = store.scan(SoulRange("", 10**9), fields_max=10**6, bytes_max=10**9).cells
        hashes = [
            item_hash(unit_bytes(soul), unit_bytes(key), float(state), encode_value(value))
            for soul, key, value, state in cells
        ]
        assert (count, added) == (len(hashes), sum(hashes) % 2**128)
        assert store.verify().sound
        ((_, highest),) = store.write([Cell("counter", "k", batch, batch + 1)]).dot
        assert highest > max(used)
        store.close()
        batch += len(told) + 2


# -- flipped bits --------------------------------------------------------------


def test_a_flipped_bit_never_shows_as_wrong_data(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, path = random.Random(seed), tmp_path / "air.db"
    store = Sqlite(path, SqliteConfig(durable=False))
    written: dict[tuple[str, str], tuple[Any, float]] = {}
    for node in range(40):
        for i in range(chance.randrange(1, 20)):
            value = chance.choice(
                [None, True, i, 1.5 * i, "text " * chance.randrange(40), "é😀\ud800", Link(f"n{i}")]
            )
            written[f"node {node}", f"field {i}"] = (value, 1795434300160 + i / 8)
    written["node 7", "long"] = ("long " * 5000, 1)
    store.write([Cell(soul, key, value, state) for (soul, key), (value, state) in written.items()])
    assert served(store) == written
    store.close()
    sound, caught = path.read_bytes(), 0
    copy = tmp_path / "copy.db"
    for _ in range(120):
        flipped = bytearray(sound)
        for _ in range(chance.choice([1, 1, 1, 5])):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        copy.write_bytes(flipped)
        for suffix in ("-wal", "-journal"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        try:
            store = Sqlite(copy, SqliteConfig(durable=False))
        except StoreError:
            caught += 1
            continue
        try:
            found = served(store)
            assert found.items() <= written.items()
            caught += len(found) < len(written)
        finally:
            try:
                store.close()
            except StoreError:
                caught += 1
    assert caught > 40


def served(store: Sqlite) -> dict[tuple[str, str], tuple[Any, float]]:
    """All that a store serves by any of its ways; what it refuses to read is left out."""
    found: dict[tuple[str, str], tuple[Any, float]] = {}
    names: set[str] = {f"node {node}" for node in range(40)}
    with contextlib.suppress(StoreError):
        names.update(store.souls())
    for soul in names:
        for lex in (Lex(), Lex(reverse=True), Lex(exact="field 0"), Lex(prefix="fi")):
            try:
                page = store.read(soul, lex)
            except StoreError:
                continue
            for key, field in page.fields.items():
                assert found.setdefault((soul, key), field) == field
    try:
        for cell in store.scan(SoulRange("", 10**9), fields_max=10**6, bytes_max=10**9).cells:
            assert found.setdefault((cell.soul, cell.key), cell[2:]) == cell[2:]
    except StoreError:
        pass
    return found


# -- a disk that refuses -------------------------------------------------------


class Disk(apsw.VFS):
    """The system's files, until told to fail: an extended result code for each kind of call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failing: dict[str, int] = {}
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return DiskFile(self, name, flags)

    def check(self, call: str) -> None:
        if call in self.failing:
            error = apsw.FullError("disk") if self.failing[call] == apsw.SQLITE_FULL else apsw.IOError("disk")
            error.extendedresult = self.failing[call]  # type: ignore[attr-defined]
            raise error


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.check("write log" if self._log else "write file")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.check("sync log" if self._log else "sync file")
        super().xSync(flags)

    def excepthook(self, *_: Any) -> bool:
        return True


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk("refusing")
    yield disk
    disk.unregister()


def opened(tmp_path: Path, disk: Disk) -> Sqlite:
    store = Sqlite(tmp_path / "air.db", SqliteConfig(vfs=disk.name, checkpoint_pages=32))
    store.write([Cell("s", "before", 1, 1)])
    return store


@pytest.mark.parametrize("code", [apsw.SQLITE_FULL, apsw.SQLITE_IOERR_WRITE])
def test_a_full_disk_refuses_a_batch_whole_and_goes_on_when_there_is_room(
    tmp_path: Path, disk: Disk, code: int
) -> None:
    store = opened(tmp_path, disk)
    disk.failing["write log"] = code
    for _ in range(3):
        with pytest.raises(Full) as caught:
            store.write([Cell("s", f"k{i}", "x" * 500, 1) for i in range(100)])
        assert caught.value.code == "store.full"
        assert list(store.read("s").fields) == ["before"]
    disk.failing.clear()
    store.write([Cell("s", "after", 1, 1)])
    store.close()
    store = Sqlite(tmp_path / "air.db")
    assert list(store.read("s").fields) == ["after", "before"]
    store.close()


def test_a_disk_that_fails_to_flush_ends_writing_until_the_store_is_opened_again(
    tmp_path: Path, disk: Disk
) -> None:
    store = opened(tmp_path, disk)
    disk.failing["sync log"] = apsw.SQLITE_IOERR_FSYNC
    with pytest.raises(SyncFailed) as caught:
        store.write([Cell("s", "lost", 1, 1)])
    assert caught.value.code == "store.sync-failed"
    disk.failing.clear()
    with pytest.raises(SyncFailed):
        store.write([Cell("s", "more", 1, 1)])
    assert "more" not in store.read("s").fields
    store.close()
    store = Sqlite(tmp_path / "air.db")
    assert store.write([Cell("s", "after", 1, 1)]) == {}
    assert store.read("s").fields.keys() >= {"before", "after"}
    store.close()


def test_a_flush_that_fails_while_the_log_is_moved_loses_nothing_and_ends_writing(
    tmp_path: Path, disk: Disk
) -> None:
    store = opened(tmp_path, disk)
    disk.failing["sync file"] = apsw.SQLITE_IOERR_FSYNC
    batch = [Cell("s", f"k{i}", "x" * 500, 1) for i in range(1000)]
    assert store.write(batch) == {}
    with pytest.raises(SyncFailed):
        store.write([Cell("s", "more", 1, 1)])
    disk.failing.clear()
    store.close()
    store = Sqlite(tmp_path / "air.db")
    assert len(store.read("s", fields_max=2000, bytes_max=10**7).fields) == 1001
    store.close()


def test_no_room_to_move_the_log_to_is_no_error_while_the_log_can_grow(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    disk.failing["write file"] = apsw.SQLITE_FULL
    for first in range(0, 1000, 100):
        store.write([Cell("s", f"k{i}", "x" * 500, 1) for i in range(first, first + 100)])
    disk.failing.clear()
    store.write([Cell("s", "after", 1, 1)])
    assert len(store.read("s", fields_max=2000, bytes_max=10**7).fields) == 1002
    store.close()


LIMITED = """
import resource, signal, sys
from air.base.errors import Full
from air.model import Cell
from air.store.sqlite import Sqlite
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
store, kept = Sqlite(sys.argv[1]), 0
try:
    for batch in range(1000):
        store.write([Cell("s", f"{batch}/{i}", "x" * 100, 1) for i in range(100)])
        kept += 100
except Full as error:
    print(kept, error.code)
"""


def test_a_file_that_may_not_grow_further_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "air.db"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    kept, code = done.stdout.split()
    assert code == "store.full"
    assert int(kept) > 500
    store = Sqlite(path)
    assert len(store.read("s", fields_max=10**6, bytes_max=10**9).fields) == int(kept)
    store.close()
