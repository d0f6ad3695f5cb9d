"""The data folder between daemon and command line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from air.base.errors import ConfigError, StoreError
from air.base.keys import replace_secret
from air.daemon.datadir import (
    DaemonFile,
    hold,
    is_held,
    load_or_create_token,
    read_daemon_file,
    write_daemon_file,
)


def hold_for_ever(folder: Path, ready: Connection) -> None:
    with hold(folder):
        write_daemon_file(folder, DaemonFile("http://127.0.0.1:1", os.getpid()))
        ready.send(True)
        signal.pause()


def test_a_folder_has_one_holder_who_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    assert not is_held(folder)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold_for_ever, args=(folder, there))
    process.start()
    try:
        assert here.poll(20)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert is_held(folder)
        with pytest.raises(StoreError, match=f"process {process.pid}") as refused, hold(folder):
            pass
        assert refused.value.code == "store.locked"
    finally:
        process.kill()
        process.join()
    assert not is_held(folder)
    assert read_daemon_file(folder) == DaemonFile("http://127.0.0.1:1", process.pid or 0)
    with hold(folder):
        assert is_held(folder)
    assert not is_held(folder)
    assert read_daemon_file(folder) is None


def test_asking_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    for _ in range(50):
        assert not is_held(tmp_path)
        with hold(tmp_path):
            assert is_held(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file") as refused, hold(tmp_path / "file" / "data"):
        pass
    assert refused.value.code == "daemon.data"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"admin":1,"pid":2}', b"\xff"])
def test_a_damaged_daemon_file_is_none(tmp_path: Path, content: bytes) -> None:
    replace_secret(tmp_path / "daemon.json", content)
    assert read_daemon_file(tmp_path) is None


def test_the_token_is_made_once_and_is_secret(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    token = load_or_create_token(path)
    assert len(bytes.fromhex(token)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_token(path) == token
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_token(path)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"two words " * 8])
def test_a_token_that_could_be_guessed_or_sent_wrongly_is_refused(tmp_path: Path, content: bytes) -> None:
    replace_secret(tmp_path / "admin.token", content)
    with pytest.raises(ConfigError) as refused:
        load_or_create_token(tmp_path / "admin.token")
    assert refused.value.code == "admin.bad-token-file"
