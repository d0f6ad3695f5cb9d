"""Varints and the frames they delimit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.errors import LimitReached, Misuse, Violation
from air.base.varint import VARINT_MAX, decode_varint, encode_varint, take_varint
from air.codec.frame import FrameReader, encode_frame, encode_frames


def code(hexed: str, limit: int = VARINT_MAX) -> str:
    with pytest.raises(Violation) as refused:
        take_varint(bytes.fromhex(hexed), limit=limit)
    return refused.value.code


@given(st.integers(0, VARINT_MAX), st.binary(max_size=4))
def test_what_is_written_is_read_and_the_rest_is_left(value: int, rest: bytes) -> None:
    written = encode_varint(value)
    assert take_varint(written + rest) == (value, len(written))
    assert decode_varint(written) == value
    for size in range(len(written)):
        assert take_varint(written[:size]) is None


@given(st.binary(max_size=12))
def test_one_value_has_one_spelling(data: bytes) -> None:
    try:
        taken = take_varint(data)
    except Violation:
        return
    if taken is not None:
        assert encode_varint(taken[0]) == data[: taken[1]]


def test_each_rule_has_its_code() -> None:
    assert code("9300") == code("8000") == code("ac8200") == "varint.padded"
    assert code("ff" * 9) == code("80808080808080808001") == "varint.too-long"
    assert code("8108", limit=1024) == "varint.too-large"
    for value in (-1, 2**63):
        with pytest.raises(Misuse):
            encode_varint(value)
    with pytest.raises(Violation) as refused:
        decode_varint(b"\x01\x01")
    assert refused.value.code == "varint.trailing"


def test_a_length_above_the_limit_is_refused_before_its_last_byte() -> None:
    four_mib = 4 * 1024 * 1024
    assert take_varint(encode_varint(four_mib), limit=four_mib) == (four_mib, 4)
    assert code("80808080", limit=four_mib) == "varint.too-large"
    assert take_varint(bytes.fromhex("808080"), limit=four_mib) is None


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_frames_do_not_depend_on_how_bytes_arrive(frames: list[bytes], data: st.DataObject) -> None:
    wire = encode_frames(frames)
    assert wire == b"".join(map(encode_frame, frames))
    assert FrameReader(300).receive(wire) == frames
    reader, got, at = FrameReader(300), [], 0
    while at < len(wire):
        size = data.draw(st.integers(1, len(wire) - at))
        got += reader.receive(wire[at : at + size])
        at += size
    reader.receive_eof()
    assert got == frames


@given(st.binary(max_size=200), st.binary(max_size=50), st.integers(1, 260))
def test_after_the_last_frame_the_bytes_are_left_alone(frame: bytes, rest: bytes, cut: int) -> None:
    wire = encode_frame(frame) + rest
    reader = FrameReader(200, frames_max=1)
    got = reader.receive(wire[:cut]) + reader.receive(wire[cut:])
    assert (got, reader.take_rest()) == ([frame], rest)
    reader.receive_eof()


def test_a_frame_above_the_limit_is_refused_by_its_length_alone() -> None:
    with pytest.raises(LimitReached) as refused:
        FrameReader(1000).receive(encode_varint(1001))
    assert refused.value.code == "frame.too-big"


def test_an_end_inside_a_frame_is_an_error() -> None:
    for wire in (b"\x80", b"\x05", b"\x05abcd"):
        reader = FrameReader(1000)
        assert reader.receive(wire) == []
        with pytest.raises(Violation) as refused:
            reader.receive_eof()
        assert refused.value.code == "frame.truncated"
