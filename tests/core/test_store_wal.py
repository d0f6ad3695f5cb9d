"""What a write-ahead log promised, against what SQLite takes of it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from air.model import Cell
from air.store.sqlite import Sqlite, SqliteConfig
from air.store.wal import read_log

FRAME = 24 + 4096


class InMemory:
    """A file as SQLite's file systems offer it."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.written = self.flushed = 0

    def xFileSize(self) -> int:
        return len(self.data)

    def xRead(self, amount: int, offset: int, /) -> bytes:
        return bytes(self.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int, /) -> None:
        self.data[offset : offset + len(data)] = data
        self.written += len(data)

    def xSync(self, flags: int, /) -> None:
        self.flushed += 1


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A store as a crash leaves it: three transactions of one page and one of many in its log."""
    path = tmp_path / "air.db"
    store = Sqlite(path, SqliteConfig(durable=False))
    store.close()
    store = Sqlite(path, SqliteConfig(durable=False, checkpoint_pages=10_000))
    for i in range(3):
        store.write([Cell("s", f"k{i}", i, 1)])
    store.write([Cell(f"large {i}", "k", "x" * 1000, 1) for i in range(40)])
    files = [(tmp_path / name).read_bytes() for name in ("air.db", "air.db-wal")]
    store.close()
    path.write_bytes(files[0])
    (tmp_path / "air.db-wal").write_bytes(files[1])
    return path


def spoil(path: Path, frame: int, offset: int, data: bytes) -> None:
    """Write into frame ``frame``, counted from 0; -1 is the log's header."""
    wal = path.with_name("air.db-wal")
    content = bytearray(wal.read_bytes())
    start = offset if frame < 0 else 32 + frame * FRAME + offset
    content[start : start + len(data)] = data
    wal.write_bytes(content)


def taken(path: Path) -> tuple[int, int, int]:
    """Lost transactions, frames nobody can tell about, and nodes that are there."""
    store = Sqlite(path, SqliteConfig(durable=False))
    try:
        return store.lost, store.unfinished, len(store.souls())
    finally:
        store.close()


def test_a_log_is_read_and_written_again_as_it_is(crashed: Path) -> None:
    data = crashed.with_name("air.db-wal").read_bytes()
    file = InMemory(data)
    log = read_log(file, 4096, flush=2)
    assert (bytes(file.data), file.written, file.flushed) == (data, len(data), 1)
    assert log.begun == log.commits[-1] == (len(data) - 32) // FRAME
    assert log.commits[:3] == [1, 2, 3]
    untouched = InMemory(data)
    assert read_log(untouched, 4096) == log
    assert (untouched.written, untouched.flushed) == (0, 0)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 5000])
def test_a_log_that_ends_anywhere_is_read(crashed: Path, size: int) -> None:
    file = InMemory(crashed.with_name("air.db-wal").read_bytes()[:size])
    log = read_log(file, 4096, flush=2)
    assert (log.begun, log.bytes, file.flushed) == (int(size > FRAME), size, int(size > 0))


def test_a_sound_log_has_lost_nothing(crashed: Path) -> None:
    assert taken(crashed) == (0, 0, 41)


def test_damage_that_something_follows_has_cost_transactions(crashed: Path) -> None:
    spoil(crashed, 1, 2000, b"\xff")
    lost, _, nodes = taken(crashed)
    assert (lost, nodes) == (3, 1)
    assert crashed.with_name("air.db-wal.damaged").exists()


def test_damage_to_the_header_of_the_log_has_cost_all_of_it(crashed: Path) -> None:
    spoil(crashed, -1, 17, b"\xff")
    assert taken(crashed)[::2] == (4, 0)


def test_a_last_transaction_that_was_cut_is_not_called_lost(crashed: Path) -> None:
    frames = (crashed.with_name("air.db-wal").stat().st_size - 32) // FRAME
    spoil(crashed, 5, 2000, b"\xff")
    assert taken(crashed) == (0, frames - 3, 1)


def test_half_of_an_old_head_in_a_cut_transaction_is_not_taken_for_its_end(crashed: Path) -> None:
    # The head of a frame lay across two sectors, and the first still has what an older log wrote there.
    spoil(crashed, 5, 4, struct.pack(">I", 7))
    lost, unfinished, nodes = taken(crashed)
    assert (lost, nodes) == (0, 1)
    assert unfinished > 0
