"""One zstd frame through a direction: later messages profit, lies and bombs do not get far."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from air.base.errors import Violation
from air.codec.zstd import BLOCK_BYTES_MAX, Expander, Squeezer, ZstdConfig

CONFIG = ZstdConfig()
MIB = 1024 * 1024


def refused(data: bytes, size: int, limit: int = 64 * MIB) -> str:
    with pytest.raises(Violation) as caught:
        Expander(CONFIG).expand(data, size, limit)
    assert caught.value.fatal
    return caught.value.code


@given(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=8))
def test_what_is_squeezed_comes_out_again(messages: list[bytes]) -> None:
    squeezer, expander = Squeezer(CONFIG), Expander(CONFIG)
    for message in messages:
        assert expander.expand(squeezer.squeeze(message), len(message), 1000) == message


def test_a_message_of_many_blocks_comes_out_again() -> None:
    message = random.Random(1).randbytes(3 * BLOCK_BYTES_MAX) + bytes(5 * BLOCK_BYTES_MAX) + b"end"
    squeezer, expander = Squeezer(CONFIG), Expander(CONFIG)
    for _ in range(3):
        assert expander.expand(squeezer.squeeze(message), len(message), 64 * MIB) == message


def test_a_message_that_was_said_before_costs_little() -> None:
    squeezer = Squeezer(CONFIG)
    message = random.Random(1).randbytes(2000)
    first, second = squeezer.squeeze(message), squeezer.squeeze(message)
    assert len(second) * 20 < len(first)


def block(kind: int, size: int, body: bytes, *, last: bool = False) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + body


BEGIN = bytes.fromhex("28b52ffd0038")
"""A frame without a size and with a window of 128 KiB."""
BOMB = block(1, BLOCK_BYTES_MAX, b"\0")


@pytest.mark.parametrize(
    ("data", "size", "code"),
    [
        (BEGIN + BOMB * 10_000, 100, "native.zstd-size"),
        (BEGIN + BOMB * 10_000, 63 * MIB, "native.zstd-size"),
        (BEGIN + BOMB, 65 * MIB, "native.zstd-too-big"),
        (BEGIN + BOMB, 2**31, "native.zstd-too-big"),
        (BEGIN + BOMB, BLOCK_BYTES_MAX + 1, "native.zstd-size"),
        (BEGIN + BOMB[:3], BLOCK_BYTES_MAX, "native.zstd-cut"),
        (BEGIN + BOMB[:2], BLOCK_BYTES_MAX, "native.zstd-cut"),
        (BEGIN + block(0, 5, b"abc"), 5, "native.zstd-cut"),
        (BEGIN + block(3, 5, b"abcde"), 5, "native.zstd-corrupt"),
        (BEGIN + block(0, BLOCK_BYTES_MAX + 1, b"a" * (BLOCK_BYTES_MAX + 1)), 131073, "native.zstd-corrupt"),
        (BEGIN + block(2, 5, b"\xff" * 5), 5, "native.zstd-corrupt"),
        (BEGIN + block(0, 5, b"abcde", last=True), 5, "native.zstd-end"),
        (BEGIN, 5, "native.zstd-size"),
        (b"", 5, "native.zstd-header"),
        (b"\0" * 20, 5, "native.zstd-header"),
        (bytes.fromhex("28b52ffd0060") + BOMB, BLOCK_BYTES_MAX, "native.zstd-window"),
        (bytes.fromhex("28b52ffd00a0") + BOMB, BLOCK_BYTES_MAX, "native.zstd-window"),
        (bytes.fromhex("28b52ffd00f8") + BOMB, BLOCK_BYTES_MAX, "native.zstd-header"),
        (zstandard.compress(b"abcde"), 5, "native.zstd-header"),
        (bytes.fromhex("28b52ffd0438") + block(0, 5, b"abcde"), 5, "native.zstd-header"),
        (bytes.fromhex("28b52ffd013807") + block(0, 5, b"abcde"), 5, "native.zstd-header"),
        (bytes.fromhex("502a4d1804000000abcdabcd"), 5, "native.zstd-header"),
    ],
)
def test_lies_have_a_code_each(data: bytes, size: int, code: str) -> None:
    assert refused(data, size) == code


def test_a_bomb_of_compressed_blocks_makes_one_block_too_many_at_most() -> None:
    # Blocks that say "as before" are a few bytes each and none of them states its length.
    squeezer = Squeezer(CONFIG)
    whole = squeezer.squeeze(bytes(200 * BLOCK_BYTES_MAX))
    assert len(whole) < 8192
    tracemalloc.start()
    try:
        assert refused(whole, 1000) == "native.zstd-size"
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_noise_never_comes_through(data: bytes, size: int) -> None:
    try:
        assert len(Expander(CONFIG).expand(BEGIN + data, size, MIB)) == size
    except Violation as error:
        assert error.code.startswith("native.zstd-")
