"""Identity and secret files."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from air.base.errors import ConfigError, Violation
from air.base.keys import Identity, create_secret, read_secret, replace_secret
from air.base.private_key import PrivateKey
from air.base.public_key import KeyType, PublicKey


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


def test_a_key_on_a_curve_that_nobody_here_knows_is_refused() -> None:
    oid = bytes.fromhex("06052b81040001")
    inner = b"\x02\x01\x01\x04\x20" + b"\x01" * 32 + bytes((0xA0, len(oid))) + oid
    with pytest.raises(ConfigError) as refused:
        PrivateKey(KeyType.ECDSA, bytes((0x30, len(inner))) + inner)
    assert refused.value.code == "identity.bad-key"


@pytest.mark.parametrize("type", [KeyType.RSA, KeyType.ECDSA])
def test_a_key_in_pkcs_8_is_written_in_the_form_that_libp2p_reads(type: KeyType) -> None:
    usual = PrivateKey.generate(type).to_bytes()
    key = load_der_private_key(usual[usual.index(b"\x30") :], None)
    odd = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert PrivateKey(type, odd).to_bytes() == usual


@pytest.mark.parametrize("length", ["a000", "ffff7f", "80808080808080808001", "80"])
def test_a_public_key_with_a_bad_length_is_malformed(length: str) -> None:
    with pytest.raises(Violation) as refused:
        PublicKey.from_bytes(b"\x08\x01\x12" + bytes.fromhex(length) + b"\x01" * 32)
    assert refused.value.code == "key.malformed"


def test_an_identity_that_cannot_be_kept_says_which_file_it_is_about(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "identity.key"
    with pytest.raises(ConfigError, match=r"missing/identity\.key: No such file") as refused:
        Identity.load_or_create(path)
    assert refused.value.code == "secret.unwritable"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_keeps_no_piece_of_a_secret(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_secret(tmp_path / "secret", b"piece")
    assert os.listdir(tmp_path) == []


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
