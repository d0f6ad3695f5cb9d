"""Identity and secret files."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from air.base.errors import ConfigError
from air.base.keys import Identity, create_secret, read_secret, replace_secret


def test_an_identity_is_made_once_and_then_found_again(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    made = Identity.load_or_create(path)
    assert made.peer_id.startswith("12D3Koo")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.load_or_create(path).to_bytes() == made.to_bytes()
    assert made.peer_id in repr(made)
    assert os.listdir(tmp_path) == ["identity.key"]


def test_processes_that_create_an_identity_at_once_agree_on_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = [tmp_path / "identity.key"] * 32
        assert len({identity.peer_id for identity in pool.map(Identity.load_or_create, paths)}) == 1
    assert os.listdir(tmp_path) == ["identity.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o601])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    Identity.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600") as refused:
        Identity.load_or_create(path)
    assert refused.value.code == "secret.mode"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"CAESQA==", b"\xff" * 100, b"CAESQ" + b"A" * 87])
def test_a_file_without_a_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    create_secret(path, content)
    with pytest.raises(ConfigError) as refused:
        Identity.load_or_create(path)
    assert refused.value.code == "identity.bad-key"
    assert path.read_bytes() == content


def test_halves_that_do_not_belong_together_are_refused() -> None:
    one, other = Identity.generate(), Identity.generate()
    with pytest.raises(ConfigError, match="halves"):
        Identity.from_bytes(one.to_bytes()[:36] + other.public_bytes)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        Identity(b"short")


def test_a_secret_is_created_once_and_replaced_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert create_secret(path, b"first")
    assert not create_secret(path, b"second")
    assert read_secret(path) == b"first"
    replace_secret(path, b"third")
    assert read_secret(path) == b"third"
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "long"])
def test_what_is_no_secret_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "secret"
    match kind:
        case "folder":
            path.mkdir(mode=0o700)
        case "pipe":
            os.mkfifo(path, 0o600)
        case "long":
            create_secret(path, b"x" * 100_000)
    with pytest.raises(ConfigError) as refused:
        read_secret(path)
    assert refused.value.code == "secret.unreadable"
