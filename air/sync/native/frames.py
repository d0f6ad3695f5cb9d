"""Frames of the native wire: what they mean, and their bytes. (core)

A frame is one protobuf message. Nothing of protobuf leaves ``frames``, ``reader`` and ``columns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import Get, Id, SoulRange
from air.pb import graph_pb2 as pb
from air.sync.native.columns import fill, text_bytes

__all__ = [
    "CREDIT_MAX",
    "Acked",
    "Batch",
    "Bye",
    "Credit",
    "Frame",
    "Hello",
    "Part",
    "Wish",
    "Wishes",
    "encode_ack",
    "encode_answer",
    "encode_bye",
    "encode_credit",
    "encode_get",
    "encode_hello",
    "encode_put",
    "encode_wishes",
    "encode_zipped",
]


@dataclass(frozen=True, slots=True)
class Hello:
    """Who somebody is, and what it takes."""

    version: int
    peer: str
    everything: bool
    cells_max: int
    bytes_max: int
    credit_cells: int
    credit_bytes: int
    silent_ms: int
    agent: str = ""
    relays: bool = False
    """It asks relays for what it is asked for."""


@dataclass(slots=True)
class Batch:
    """Cells to merge, answered by an ack of the number."""

    number: int
    cells: list[Cell]
    marks: list[Mark] | None
    floor: int
    size: int
    """Bytes of the frame before compression: what it costs of the credit."""


@dataclass(slots=True)
class Part:
    """Part of an answer to a question, or why there is none."""

    re: Id
    cells: list[Cell]
    more: bool
    error: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Acked:
    """What became of some batches."""

    numbers: tuple[int, ...]
    error: str | None


@dataclass(frozen=True, slots=True)
class Wish:
    """A soul, or all souls with a prefix, that somebody wants to hear of; ``key``: one field of the soul."""

    text: Soul
    key: Key | None = None
    prefix: bool = False
    ends: bool = False
    """No longer."""

    @property
    def ended(self) -> Wish:
        """The end of this wish."""
        return replace(self, ends=True)

    def question(self, id: Id) -> Get:
        """A wish for a soul as the question that it is: it is answered, and stays."""
        return Get(id, self.text, ALL if self.key is None else Lex(exact=self.key))


Wishes: TypeAlias = tuple[Wish, ...]
"""Of one frame: all of them begin, or all of them end."""


@dataclass(frozen=True, slots=True)
class Credit:
    """More may be sent."""

    cells: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender closes, and says why."""

    code: str
    text: str


Frame: TypeAlias = Hello | Batch | Part | Acked | Get | Wishes | Credit | Bye

CREDIT_MAX: Final = 2**40
"""More than anybody has room for."""


def encode_hello(hello: Hello) -> bytes:
    frame = pb.Frame()
    out = frame.hello
    out.version, out.everything = hello.version, hello.everything
    out.peer, out.agent = text_bytes(hello.peer), text_bytes(hello.agent)
    out.cells_max, out.bytes_max = hello.cells_max, hello.bytes_max
    out.credit_cells, out.credit_bytes = hello.credit_cells, hello.credit_bytes
    out.silent_ms, out.relays = hello.silent_ms, hello.relays
    return frame.SerializeToString()


def encode_put(number: int, cells: Sequence[Cell], marks: Sequence[Mark] | None, floor: int) -> bytes:
    frame = pb.Frame()
    out = frame.put
    out.batch, out.floor = number, floor
    fill(out.cells, cells, marks)
    return frame.SerializeToString()


def encode_answer(re: Id, cells: Sequence[Cell], *, more: bool, error: str | None = None) -> bytes:
    frame = pb.Frame()
    out = frame.answer
    _fill_id(out.re, re)
    out.more = more
    if cells:
        fill(out.cells, cells)
    if error is not None:
        out.error = text_bytes(error)
    return frame.SerializeToString()


def encode_ack(numbers: Sequence[int], error: str | None = None) -> bytes:
    frame = pb.Frame()
    frame.ack.batches.extend(numbers)
    if error is not None:
        frame.ack.error = text_bytes(error)
    return frame.SerializeToString()


def encode_get(get: Get) -> bytes:
    frame = pb.Frame()
    out = frame.get
    _fill_id(out.id, get.id)
    if isinstance(get.soul, SoulRange):
        out.prefix = text_bytes(get.soul.prefix)
        out.lex.reverse, out.lex.budget = get.soul.reverse, get.soul.budget
        return frame.SerializeToString()
    out.soul = text_bytes(get.soul)
    lex = get.lex
    if lex is not ALL:
        out.lex.prefix, out.lex.reverse = text_bytes(lex.prefix), lex.reverse
        for name, text in (("exact", lex.exact), ("start", lex.start), ("end", lex.end)):
            if text is not None:
                setattr(out.lex, name, text_bytes(text))
        if lex.budget is not None:
            out.lex.budget = lex.budget
    return frame.SerializeToString()


def encode_wishes(wishes: Sequence[Wish]) -> bytes:
    """``wishes``: at least one, and all begin or all end."""
    frame = pb.Frame()
    out = frame.unsubscribe if wishes[0].ends else frame.subscribe
    for wish in wishes:
        one = out.wishes.add()
        if wish.prefix:
            one.prefix = text_bytes(wish.text)
        else:
            one.soul = text_bytes(wish.text)
            if wish.key is not None:
                one.key = text_bytes(wish.key)
    return frame.SerializeToString()


def encode_credit(credit: Credit) -> bytes:
    frame = pb.Frame()
    frame.credit.cells, frame.credit.bytes = credit.cells, credit.bytes
    frame.credit.SetInParent()
    return frame.SerializeToString()


def encode_bye(bye: Bye) -> bytes:
    frame = pb.Frame()
    frame.bye.code, frame.bye.text = text_bytes(bye.code), text_bytes(bye.text)
    return frame.SerializeToString()


def encode_zipped(size: int, data: bytes) -> bytes:
    frame = pb.Frame()
    frame.zipped.size, frame.zipped.data = size, data
    return frame.SerializeToString()


def _fill_id(out: pb.Id, id: Id) -> None:
    if type(id) is str:
        out.text = text_bytes(id)
    elif type(id) is int and -(2**63) <= id < 2**63:
        out.whole = id
    else:
        out.number = float(id)
