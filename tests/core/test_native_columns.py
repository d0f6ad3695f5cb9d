"""Cells by columns: whatever a graph may hold comes back as it was, and nothing else comes in."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.errors import Violation
from air.model import Cell, Link
from air.model.value import canonical_number
from air.pb.graph_pb2 import Cells
from air.sync.native.columns import fill, read_columns, read_text, text_bytes
from air.sync.native.limits import NativeLimits

LIMITS = NativeLimits()


def numbers() -> st.SearchStrategy[int | float]:
    whole = st.integers(-(2**53), 2**53)
    broken = st.floats(allow_nan=False, allow_infinity=False).map(canonical_number)
    return st.one_of(whole, broken)  # type: ignore[arg-type]


def joined(text: str) -> str:
    """Surrogate pairs as one character, as any reader of JSON has them."""
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


texts = st.text(st.characters(exclude_categories=()), max_size=12).map(joined)
names = texts.filter(lambda t: t not in ("", "_") and not t.startswith("__") and t not in dir(object))
names = st.one_of(st.sampled_from(["a", "b", "name", "chat/1", "\ud83d", "ä", "😀"]), names).filter(
    lambda t: (
        t not in ("constructor", "prototype", "hasOwnProperty", "isPrototypeOf", "toString", "valueOf")
        and not t.startswith(("propertyIs", "toLocale"))
    )
)
values = st.one_of(st.none(), st.booleans(), numbers(), texts, names.map(Link))
marks = st.lists(
    st.tuples(st.sampled_from(["12D3A", "12D3B", "12D3C"]), st.integers(1, 2**63 - 1)),
    max_size=3,
    unique_by=lambda dot: dot[0],
).map(tuple)
cells = st.lists(
    st.builds(Cell, names, names, values, numbers()), min_size=1, max_size=40, unique_by=lambda c: c[:2]
)


def roundtrip(some: list[Cell], their: Any = None) -> tuple[list[Cell], Any]:
    out = Cells()
    fill(out, some, their)
    return read_columns(Cells.FromString(out.SerializeToString()), LIMITS)


def same(a: list[Cell], b: list[Cell]) -> bool:
    return [(*c, type(c.value), type(c.state)) for c in a] == [(*c, type(c.value), type(c.state)) for c in b]


@given(cells, st.data())
def test_cells_and_marks_come_back_as_they_were(some: list[Cell], data: st.DataObject) -> None:
    their = data.draw(st.one_of(st.none(), st.lists(marks, min_size=len(some), max_size=len(some))))
    back, their_back = roundtrip(some, their)
    assert same(back, some)
    assert all(type(cell) is Cell for cell in back)
    assert their_back == their


def test_states_at_both_ends_of_the_doubles_come_back() -> None:
    largest = struct.unpack("<d", struct.pack("<Q", 0x7FEFFFFFFFFFFFFF))[0]
    some = [
        Cell("s", str(i), None, state)
        for i, state in enumerate((-largest, largest, 0, -largest, 5e-324, -5e-324, 2**53, -1.5))
    ]
    assert same(roundtrip(some)[0], some)


@given(texts)
def test_text_is_utf8_with_half_pairs_kept(text: str) -> None:
    assert read_text(text_bytes(text)) == text


@pytest.mark.parametrize(
    "data", [b"\xff", b"a\xc3", b"\xed\xa0\xbd\xed\xb8\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]
)
def test_bytes_that_are_no_text_are_refused(data: bytes) -> None:
    with pytest.raises(Violation) as caught:
        read_text(data)
    assert caught.value.code == "native.bad-text"


def test_one_writes_batch_is_small() -> None:
    some = [Cell(f"node/{i}", key, 1, 1_700_000_000_000.25) for i in range(100) for key in ("x", "y")]
    out = Cells()
    fill(out, some, [(("12D3KooW", 7),)] * 200)
    assert len(out.states) == len(out.state_runs) == len(out.marks) == 1
    assert len(out.SerializeToString()) < 200 * 10


def test_numbers_are_spelled_as_the_model_has_them() -> None:
    out = Cells()
    fill(out, [Cell("s", "k", 1.5, 1)])
    out.doubles[0] = 3.0
    cell = read_columns(out, LIMITS)[0][0]
    assert (type(cell.value), type(cell.state)) == (int, int)
    out.doubles[0] = math.nan
    with pytest.raises(Violation, match="finite"):
        read_columns(out, LIMITS)
