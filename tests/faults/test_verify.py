"""``air verify``: an operator learns what is damaged, by name."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from air.daemon.cli import main
from air.model import Cell
from air.store.sqlite import Sqlite, SqliteConfig
from tests.faults.daemon import Client, Daemon

pytestmark = pytest.mark.faults


def verified(data: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capfd.readouterr()
    code = main(["verify", "--json", "--data", str(data)])
    out = capfd.readouterr().out
    return code, json.loads(out) if out else {}


def kept(data: Path, cells: int = 2000) -> Path:
    """A store in a folder of its own: its file."""
    path = data / "air.db"
    store = Sqlite(path)
    store.write([Cell(f"node {i}", "k", f"value {i} " * 4, 1) for i in range(cells)])
    store.close()
    return path


def flip(path: Path, text: bytes) -> None:
    """Flip a bit of where ``text`` is in a file."""
    data = bytearray(path.read_bytes())
    data[data.index(text)] ^= 1
    path.write_bytes(data)


def test_a_sound_store_is_said_to_be_sound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept(tmp_path)
    code, found = verified(tmp_path, capfd)
    assert (code, found["sound"], found["records"], found["damaged"]) == (0, True, 2000, 0)
    assert main(["verify", "--data", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "records  2000 sound, 0 damaged\n"


def test_damaged_records_are_counted_and_named_until_they_are_written_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = kept(tmp_path)
    flip(path, b"value 77 ")
    flip(path, b"value 1234 ")
    code, found = verified(tmp_path, capfd)
    assert (code, found["sound"], found["records"], found["damaged"]) == (1, False, 1998, 2)
    assert found["names"] == [["node 1234", "k"], ["node 77", "k"]]
    assert main(["verify", "--data", str(tmp_path)]) == 1
    told = capfd.readouterr()
    assert "damaged  node 77: k" in told.out
    assert told.err == "air: the store is damaged\n"
    store = Sqlite(path)
    assert store.read("node 77").fields == {}
    # Its state is not to be believed either: any write of the field takes its place.
    store.write([Cell("node 77", "k", "again", 0.5), Cell("node 1234", "k", "again", 0.5)])
    store.close()
    assert verified(tmp_path, capfd)[0] == 0


def test_transactions_lost_from_a_log_are_told_and_the_log_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = kept(tmp_path)
    store = Sqlite(path, SqliteConfig(checkpoint_pages=10_000))
    for i in range(5):
        store.write([Cell("late", f"k{i}", f"late value {i}", 1)])
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("air.db", "air.db-wal"):
        shutil.copy(tmp_path / name, crashed / name)
    store.close()
    flip(crashed / "air.db-wal", b"late value 2")
    code, found = verified(crashed, capfd)
    assert code == 1
    assert "up to 3 acknowledged transactions were lost to damage in the log" in found["faults"]
    # The log was put aside before it was written over, and is named until somebody has seen to it.
    assert b"late value 4" in (crashed / "air.db-wal.damaged").read_bytes()
    code, found = verified(crashed, capfd)
    assert code == 1
    assert [fault for fault in found["faults"] if "air.db-wal.damaged" in fault]
    (crashed / "air.db-wal.damaged").unlink()
    assert verified(crashed, capfd)[0] == 0


def test_no_store_at_all_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--data", str(tmp_path / "nothing")]) == 1
    assert "there is no data folder" in capfd.readouterr().err
    assert main(["verify", "--data", str(tmp_path)]) == 1
    assert "there is no store" in capfd.readouterr().err


def test_a_running_daemon_checks_its_own_store_and_shows_what_is_damaged_until_it_is_mended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = kept(tmp_path)
    flip(path, b"value 77 ")
    flip(path, b"value 1234 ")
    daemon = Daemon(tmp_path)
    try:
        status, health = daemon.health()
        assert (status, health["status"], health["damaged"], health["lost"]) == (200, "ok", 0, 0)
        code, found = verified(tmp_path, capfd)
        assert (code, found["sound"], found["records"], found["damaged"]) == (1, False, 1998, 2)
        assert found["names"] == [["node 1234", "k"], ["node 77", "k"]]
        status, health = daemon.health()
        assert (status, health["status"], health["damaged"]) == (200, "damaged", 2)
        assert main(["health", "--data", str(tmp_path)]) == 1
        assert "the daemon is damaged" in capfd.readouterr().err
        for node in ("node 77", "node 1234"):
            assert main(["put", node, "k=again", "--data", str(tmp_path)]) == 0
        code, found = verified(tmp_path, capfd)
        assert (code, found["records"], found["damaged"]) == (0, 2000, 0)
        assert daemon.health()[1]["status"] == "ok"
        assert main(["health", "--data", str(tmp_path)]) == 0
    finally:
        daemon.kill()


def test_lost_transactions_show_in_the_health_of_a_daemon(tmp_path: Path) -> None:
    path = kept(tmp_path)
    store = Sqlite(path, SqliteConfig(checkpoint_pages=10_000))
    for i in range(5):
        store.write([Cell("late", f"k{i}", f"late value {i}", 1)])
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("air.db", "air.db-wal"):
        shutil.copy(tmp_path / name, crashed / name)
    store.close()
    flip(crashed / "air.db-wal", b"late value 2")
    daemon = Daemon(crashed)
    try:
        status, health = daemon.health()
        assert (status, health["status"], health["lost"]) == (200, "damaged", 3)
    finally:
        daemon.kill()


def test_puts_go_on_while_a_running_daemon_checks_its_store(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, cells=60_000)
    daemon = Daemon(tmp_path)
    try:
        with ThreadPoolExecutor(1) as pool:
            check = pool.submit(verified, tmp_path, capfd)
            waits = []
            while not check.done() or not waits:
                began = time.monotonic()
                anyio.run(_put_once, daemon.url)
                waits.append(time.monotonic() - began)
            code, found = check.result()
        assert (code, found["damaged"]) == (0, 0)
        assert found["records"] >= 60_000
        assert len(waits) > 3, "the check was over before anything could be written"
        assert max(waits) < 1.0
    finally:
        daemon.kill()


async def _put_once(url: str) -> None:
    client = await Client.dial(url)
    assert not (await client.put("meanwhile", {"k": 1}, time.time() * 1000 - 1000)).get("err")
    await client.aclose()
