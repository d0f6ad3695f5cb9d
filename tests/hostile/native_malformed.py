"""Malformed frames of the native wire: what is sent after the hello, and the code it must get."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import zstandard

from air.base.varint import encode_varint
from air.codec.frame import encode_frame
from air.codec.zstd import Squeezer, ZstdConfig
from air.model import Cell, Get, Link
from air.pb import graph_pb2 as pb
from air.sync.gun.limits import FORBIDDEN
from air.sync.native.frames import (
    Credit,
    Hello,
    Wish,
    encode_ack,
    encode_answer,
    encode_credit,
    encode_get,
    encode_hello,
    encode_put,
    encode_wishes,
    encode_zipped,
)
from air.sync.native.limits import VERSION, NativeLimits

__all__ = ["Case", "greeting", "impersonal", "personal"]

LIMITS = NativeLimits()
MIB = 1024 * 1024
STATE = 1_600_000_000_000
BAD_TEXT = [b"\xff", b"a\xc3", b"\xc0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80", b"\x80abc"]
CELLS = [
    Cell("s", "null", None, STATE),
    Cell("s", "no", False, STATE + 1),
    Cell("s", "yes", True, STATE + 2),
    Cell("s", "whole", 42, STATE + 3),
    Cell("t", "double", 1.5, STATE + 3),
    Cell("t", "text", "some text", STATE + 4.5),
    Cell("t", "link", Link("s"), STATE + 4.5),
]


class Case(NamedTuple):
    code: str
    name: str
    data: bytes
    greeted: bool = True
    """It follows a proper hello."""


def greeting(name: str, **other: Any) -> bytes:
    """The hello of a peer, framed."""
    usual = Hello(VERSION, name, True, 4096, 64 * MIB, 10**6, 10**9, 45_000, "test")
    return encode_frame(encode_hello(replace(usual, **other)))


def personal(peer: str, other: str) -> list[Case]:
    """What ``peer`` may send to ``other`` and should not, where it matters who they are."""
    return [*_hellos(peer, other), *_cut(peer), *_marks(peer), *_books()]


def impersonal() -> list[Case]:
    """What nobody should send."""
    return [*_frames(), *_columns(), *_names(), *_zstd(), *_questions(), *_large()]


def put(change: Callable[[pb.Cells], object], number: int = 1, marked: bool = False) -> bytes:
    """A proper batch, changed."""
    marks = [(("12D3A", 1), ("12D3B", 2))] * 3 + [()] * 2 + [(("12D3B", 3),)] * 2
    frame = pb.Frame.FromString(encode_put(number, CELLS, marks if marked else None, 0))
    change(frame.put.cells)
    return encode_frame(frame.SerializeToString())


def _hellos(peer: str, other: str) -> Iterator[Case]:
    def hello(code: str, name: str, **changes: Any) -> Case:
        return Case(code, f"hello {name}", greeting(peer, **changes), False)

    yield hello("native.version", "of version 0", version=0)
    yield hello("native.version", "of version 2", version=2)
    yield hello("native.self", "by our own name", peer=other)
    yield hello("native.wrong-peer", "by another name", peer="12D3KooWSomebody")
    yield hello("native.bad-id", "without a name", peer="")
    yield hello("native.bad-id", "with a long name", peer="x" * 129)
    for name in ("cells_max", "bytes_max", "credit_cells", "credit_bytes", "silent_ms"):
        yield hello("native.bad-hello", f"with no {name}", **{name: 0})
    yield hello("native.bad-hello", "with room for nothing", bytes_max=1000)
    yield hello("native.bad-hello", "with endless credit", credit_cells=2**63)
    raw = pb.Frame()
    raw.hello.version = VERSION
    for index, text in enumerate(BAD_TEXT):
        raw.hello.peer = text
        yield Case("native.bad-text", f"hello text {index}", encode_frame(raw.SerializeToString()), False)
    yield Case("native.no-hello", "a put first", put(lambda cells: None), False)
    yield Case("native.no-hello", "an ack first", encode_frame(encode_ack([1])), False)
    yield Case("native.no-hello", "a credit first", encode_frame(encode_credit(Credit(1, 1))), False)
    yield Case("native.no-hello", "a get first", encode_frame(encode_get(Get("q", "s"))), False)
    yield Case("native.hello-again", "a second hello", greeting(peer))


def _frames() -> Iterator[Case]:
    yield Case("native.bad-frame", "an empty frame", b"\0")
    yield Case("varint.padded", "a padded length", b"\x81\x00a")
    yield Case("frame.too-big", "a length without end", b"\xff" * 10)
    yield Case("frame.too-big", "a length of 2 GiB", encode_varint(2**31))
    yield Case("frame.too-big", "a length just too big", encode_varint(LIMITS.wire_bytes_max + 1))
    for seed in range(12):
        noise = b"\x07" + random.Random(seed).randbytes(30 + seed)  # wire type 7 does not exist
        yield Case("native.bad-frame", f"noise {seed}", encode_frame(noise))
    for number in (10, 14, 16, 100, 2**28):
        unknown = encode_varint(number << 3 | 2) + b"\x02ab"
        yield Case("native.bad-frame", f"a frame of kind {number}", encode_frame(unknown))
    yield Case("native.bad-frame", "JSON", encode_frame(b'{"put":{}}'))


def _cut(peer: str) -> Iterator[Case]:
    """Frames that end too early: the length is right, what is inside is not complete."""
    whole = {
        "put": encode_put(1, CELLS, [((peer, 1),)] * len(CELLS), 1),
        "answer": encode_answer("q", CELLS, more=False),
        "get": encode_get(Get("q", "some soul")),
        "wish": encode_wishes([Wish("soul"), Wish("prefix", prefix=True)]),
        "ack": encode_ack([1, 2, 3], "error"),
    }
    for name, frame in whole.items():
        for size in range(1, len(frame), 1 + len(frame) // 16):
            yield Case("native.bad-frame", f"{name} of {size} bytes", encode_frame(frame[:size]))


def _columns() -> Iterator[Case]:
    def case(code: str, name: str, change: Callable[[pb.Cells], object]) -> Case:
        return Case(code, f"columns: {name}", put(change))

    def assign(column: str, values: list[Any]) -> Callable[[pb.Cells], None]:
        def change(cells: pb.Cells) -> None:
            del getattr(cells, column)[:]
            getattr(cells, column).extend(values)

        return change

    for column in (
        "souls",
        "soul_runs",
        "key_of",
        "states",
        "state_runs",
        "wholes",
        "doubles",
        "texts",
        "links",
    ):
        bad = "native.bad-columns"
        yield case(bad, f"{column} one short", lambda cells, c=column: getattr(cells, c).pop())
        yield case(bad, f"{column} empty", assign(column, []))
        yield case(
            bad, f"{column} one more", lambda cells, c=column: getattr(cells, c).append(getattr(cells, c)[0])
        )
    yield case("native.bad-columns", "keys one short", lambda cells: cells.keys.pop())
    yield case("native.bad-columns", "no keys", assign("keys", []))
    yield case("native.bad-columns", "more keys than cells", lambda cells: cells.keys.append(b"x"))
    yield case("native.bad-columns", "more souls than cells", assign("souls", [b"s"] * 8))
    yield case("native.bad-columns", "more states than cells", assign("states", [1] * 8))
    yield case("native.bad-columns", "a number beyond the keys", assign("key_of", [0, 1, 2, 3, 4, 5, 7]))
    yield case("native.bad-columns", "a number far beyond the keys", assign("key_of", [2**32 - 1] * 7))
    yield case("native.bad-columns", "a field twice", assign("key_of", [0, 0, 2, 3, 4, 5, 6]))
    yield case("native.bad-columns", "a run of 0", assign("soul_runs", [0, 7]))
    yield case("native.bad-columns", "a run too long", assign("soul_runs", [4, 4]))
    yield case("native.bad-columns", "runs of 2**32", assign("soul_runs", [2**32 - 1, 2**32 - 1]))
    yield case("native.bad-columns", "state runs too long", assign("state_runs", [2**32 - 1] * 5))
    yield case("native.bad-columns", "no cells", lambda cells: cells.Clear())
    for kind in (7, 8, 128, 255):
        yield case(
            "native.bad-kind",
            f"kind {kind}",
            lambda cells, k=kind: setattr(cells, "kinds", bytes([k]) + cells.kinds[1:]),
        )
    yield case("native.bad-columns", "a kind without a value", lambda c: setattr(c, "kinds", bytes([5] * 7)))
    yield case("native.bad-columns", "one kind too few", lambda c: setattr(c, "kinds", c.kinds[:-1]))
    for number in (math.nan, math.inf, -math.inf):
        yield case("native.bad-number", f"a value of {number}", assign("doubles", [number]))
    for whole in (2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)):
        yield case("native.bad-number", f"a whole number of {whole}", assign("wholes", [whole]))
    for name, bits in {
        "infinity": 0x7FF0 << 48,
        "a nan": 0x7FF8 << 48,
        "minus infinity": -0x10 << 48,
    }.items():
        yield case("native.bad-state", f"a state of {name}", assign("states", [bits, 0, 0, 0, 0]))
    answer = pb.Frame.FromString(encode_answer("q", CELLS, more=False))
    answer.answer.cells.key_of[0] = 7
    yield Case("native.bad-columns", "an answer with wrong columns", encode_frame(answer.SerializeToString()))


def _names() -> Iterator[Case]:
    def case(code: str, name: str, column: str, value: bytes) -> Case:
        return Case(code, f"names: {name}", put(lambda cells: getattr(cells, column).__setitem__(0, value)))

    for column in ("souls", "keys", "texts", "links"):
        for index, text in enumerate(BAD_TEXT):
            yield case("native.bad-text", f"{column} text {index}", column, text)
    yield case("native.empty-soul", "an empty soul", "souls", b"")
    yield case("native.empty-soul", "a link to nothing", "links", b"")
    yield case("native.empty-key", "an empty key", "keys", b"")
    yield case("limit.soul", "a long soul", "souls", b"s" * 8193)
    yield case("limit.soul", "a long link", "links", "é".encode() * 8193)
    yield case("limit.key", "a long key", "keys", b"k" * 8193)
    for soul in sorted(FORBIDDEN):
        yield case("native.forbidden-name", f"soul {soul}", "souls", soul.encode())
    yield case("native.forbidden-name", "a link to __proto__", "links", b"__proto__")
    yield case("native.forbidden-name", "key __proto__", "keys", b"__proto__")
    yield case("native.forbidden-name", "key _", "keys", b"_")


def _marks(peer: str) -> Iterator[Case]:
    def case(code: str, name: str, column: str, *values: Any) -> Case:
        def change(cells: pb.Cells) -> None:
            del getattr(cells, column)[:]
            getattr(cells, column).extend(values)

        return Case(code, f"marks: {name}", put(change, marked=True))

    bad = "native.bad-columns"
    yield case(bad, "none, but a table of them", "marks")
    yield case(bad, "runs missing", "mark_runs")
    yield case(bad, "runs too long", "mark_runs", 3, 2, 2**32 - 1)
    yield case(bad, "a run of 0", "mark_runs", 5, 0, 2)
    yield case(bad, "a number beyond the table", "marks", 0, 1, 3)
    yield case(bad, "dots missing", "dot_sequences", 1, 2)
    yield case(bad, "writers of dots missing", "dot_writers", 0)
    yield case(bad, "sizes that do not add up", "mark_dots", 2, 0, 2)
    yield case(bad, "a size of 2**32", "mark_dots", 2, 0, 2**32 - 1)
    yield case(bad, "more marks than cells", "mark_dots", *[0] * 8)
    yield case(bad, "a writer twice", "writers", b"12D3A", b"12D3A")
    yield case(bad, "writers for nothing", "writers", *[b"%d" % i for i in range(9)])
    yield case("native.bad-mark", "a writer without a name", "writers", b"12D3A", b"")
    yield case("native.bad-mark", "a long writer", "writers", b"12D3A", b"x" * 129)
    yield case("native.bad-mark", "a dot by nobody", "dot_writers", 0, 1, 2)
    yield case("native.bad-mark", "sequence 0", "dot_sequences", 1, 0, 3)
    yield case("native.bad-mark", "sequence 2**63", "dot_sequences", 1, 2**63, 3)
    yield case("native.bad-mark", "a writer twice in a mark", "dot_writers", 0, 0, 1)
    for index, text in enumerate(BAD_TEXT):
        yield case("native.bad-text", f"writer text {index}", "writers", b"12D3A", text)
    many = [tuple((f"12D3{i}", i + 1) for i in range(9))] * len(CELLS)
    yield Case("native.bad-mark", "marks: nine dots", encode_frame(encode_put(1, CELLS, many, 0)))
    answer = pb.Frame.FromString(encode_answer("q", CELLS, more=False))
    answer.answer.cells.CopyFrom(pb.Frame.FromString(encode_put(1, CELLS, [()] * 7, 0)).put.cells)
    yield Case("native.bad-mark", "marks: an answer with some", encode_frame(answer.SerializeToString()))
    for low in (1, 6, 8):
        first = encode_put(1, CELLS[:1], [((peer, 9),)], 9)
        second = encode_put(2, CELLS[1:2], [((peer, low), ("12D3A", 5))], 0)
        yield Case("native.dots", f"dots back from 9 to {low}", encode_frame(first) + encode_frame(second))
    down = encode_put(2, CELLS[1:2], [((peer, 9),)], 8)
    yield Case("native.dots", "a floor that goes down", encode_frame(first) + encode_frame(down))


def _books() -> Iterator[Case]:
    """Numbers that only the two ends of a link know."""
    for number in (0, 2, 2**64 - 1):
        yield Case("native.batch", f"the first batch is {number}", put(lambda cells: None, number))
    twice = put(lambda cells: cells.Clear() or cells.MergeFrom(_one()))
    yield Case("native.batch", "a batch twice", twice + twice)
    for number in (0, 1, 2**64 - 1):
        yield Case("native.ack", f"an ack of {number}", encode_frame(encode_ack([number])))
    yield Case("native.ack", "a refusal of what was never sent", encode_frame(encode_ack([5], "no")))
    for credit in (Credit(2**40 + 1, 0), Credit(0, 2**64 - 1)):
        yield Case("native.credit", f"a credit of {credit}", encode_frame(encode_credit(credit)))
    yield Case("native.credit", "credit upon credit", encode_frame(encode_credit(Credit(2**40, 0))) * 3)
    # The window is 32,768 cells and 4 MiB.
    cells = [Cell("s", str(i), i, STATE) for i in range(4096)]
    batches = [encode_frame(encode_put(number, cells, None, 0)) for number in range(1, 10)]
    yield Case("native.credit", "cells beyond the credit", b"".join(batches))
    text = [Cell("s", "k", "x" * (3 * MIB), STATE)]
    batches = [encode_frame(encode_put(number, text, None, 0)) for number in range(1, 4)]
    yield Case("native.credit", "bytes beyond the credit", b"".join(batches))
    squeezer = Squeezer(ZstdConfig())
    plain = [encode_put(number, text, None, 0) for number in range(1, 4)]
    data = [encode_frame(encode_zipped(len(one), squeezer.squeeze(one))) for one in plain]
    yield Case("native.credit", "bytes beyond the credit, compressed", b"".join(data))
    answers = [encode_frame(encode_answer("q", cells, more=True)) for _ in range(9)]
    yield Case("native.credit", "answers beyond the credit", b"".join(answers))


def _one() -> pb.Cells:
    return pb.Frame.FromString(encode_put(1, CELLS[:1], None, 0)).put.cells


def _zstd() -> Iterator[Case]:
    def case(what: str, name: str, data: bytes, size: int) -> Case:
        return Case(f"native.zstd-{what}", f"zstd: {name}", encode_frame(encode_zipped(size, data)))

    def block(kind: int, size: int, body: bytes, last: bool = False) -> bytes:
        return (last | kind << 1 | size << 3).to_bytes(3, "little") + body

    begin = bytes.fromhex("28b52ffd0038")
    bomb = block(1, 131_072, b"\0")
    plain = encode_put(1, CELLS, None, 0)
    honest = Squeezer(ZstdConfig()).squeeze(plain)
    zeros = Squeezer(ZstdConfig()).squeeze(bytes(200 * 131_072))
    huge = begin + bomb * 8192
    yield case("size", "a bomb of 1 GiB said to be small", huge, 1000)
    yield case("size", "a bomb of 1 GiB said to be as large as allowed", huge, LIMITS.bytes_max)
    yield case("size", "a bomb of compressed blocks", zeros, 1000)
    yield case("too-big", "a bomb that says so", huge, 2**30)
    yield case("too-big", "4 GiB", honest, 2**32 - 1)
    yield case("too-big", "one byte too much", honest, LIMITS.bytes_max + 1)
    yield case("size", "one byte more than was said", honest, len(plain) - 1)
    yield case("size", "one byte less than was said", honest, len(plain) + 1)
    yield case("size", "said to be nothing", honest, 0)
    yield case("size", "nothing inside", begin, 10)
    yield case("header", "empty", b"", 10)
    yield case("header", "noise", b"\x99" * 50, 10)
    yield case("header", "not compressed", plain, len(plain))
    yield case("header", "a frame of its own", zstandard.compress(plain), len(plain))
    yield case("header", "a dictionary", bytes.fromhex("28b52ffd013807") + bomb, 131_072)
    yield case("header", "a checksum", bytes.fromhex("28b52ffd0438") + bomb, 131_072)
    yield case("header", "a skippable frame", bytes.fromhex("502a4d1804000000abcdabcd"), 10)
    for exponent in (11, 15, 20):
        head = bytes.fromhex("28b52ffd00") + bytes([exponent << 3])
        yield case("window", f"a window of 2**{10 + exponent}", head + bomb, 131_072)
    yield case("cut", "half a block", honest[:-4], len(plain))
    yield case("cut", "half a head of a block", begin + bomb[:2], 131_072)
    yield case("corrupt", "a block of no kind", begin + block(3, 5, b"abcde"), 5)
    yield case("corrupt", "a block that is too long", begin + block(0, 131_073, bytes(131_073)), 131_073)
    yield case("corrupt", "a compressed block of noise", begin + block(2, 30, b"\xff" * 30), 100)
    yield case("end", "the end of the zstd frame", begin + block(0, 5, b"abcde", last=True), 5)
    for name, inside in {
        "a hello": greeting("12D3A")[2:],
        "an ack": encode_ack([1]),
        "a credit": encode_credit(Credit(1, 1)),
        "zipped again": encode_zipped(len(plain), honest),
        "an unknown frame": encode_varint(100 << 3 | 2) + b"\x02ab",
        "noise": b"\x07" * 20,
    }.items():
        data = Squeezer(ZstdConfig()).squeeze(inside)
        yield Case("native.bad-frame", f"zstd: {name} inside", encode_frame(encode_zipped(len(inside), data)))


def _questions() -> Iterator[Case]:
    def case(code: str, name: str, **fields: Any) -> Case:
        frame = pb.Frame()
        frame.get.SetInParent()
        for field, value in {"id": pb.Id(text=b"q"), "soul": b"s", **fields}.items():
            if value is None:
                continue
            if isinstance(value, pb.Id | pb.Lex):
                getattr(frame.get, field).CopyFrom(value)
            else:
                setattr(frame.get, field, value)
        return Case(code, f"get: {name}", encode_frame(frame.SerializeToString()))

    yield case("native.bad-id", "no id", id=None)
    yield case("native.bad-id", "an empty id", id=pb.Id(text=b""))
    yield case("native.bad-id", "a long id", id=pb.Id(text=b"x" * 129))
    yield case("native.bad-id", "an id that is no number", id=pb.Id(number=math.nan))
    yield case("native.bad-id", "an endless id", id=pb.Id(number=math.inf))
    yield case("native.bad-text", "an id that is no text", id=pb.Id(text=b"\xff"))
    yield case("native.bad-lex", "of nothing", soul=None)
    yield case("native.empty-soul", "an empty soul", soul=b"")
    yield case("native.forbidden-name", "__proto__", soul=b"__proto__")
    yield case("limit.soul", "a long soul", soul=b"s" * 8193)
    yield case("limit.soul", "a long prefix of souls", soul=None, prefix=b"s" * 8193)
    yield case("native.empty-key", "an empty key", lex=pb.Lex(exact=b""))
    for budget in (0, 100_001, 2**32 - 1):
        yield case("native.bad-lex", f"a budget of {budget}", lex=pb.Lex(budget=budget))
    for name in ("exact", "prefix", "start", "end"):
        yield case("limit.key", f"a long {name}", lex=pb.Lex(**{name: b"k" * 8193}))
        yield case("native.bad-text", f"no text in {name}", lex=pb.Lex(**{name: b"\xff"}))

    def wish(code: str, name: str, *wishes: pb.Wish) -> Iterator[Case]:
        for kind in ("subscribe", "unsubscribe"):
            frame = pb.Frame()
            getattr(frame, kind).SetInParent()
            getattr(frame, kind).wishes.extend(wishes)
            yield Case(code, f"{kind}: {name}", encode_frame(frame.SerializeToString()))

    yield from wish("limit.wishes", "nothing")
    yield from wish("limit.wishes", "too much", *[pb.Wish(soul=b"s")] * 1025)
    yield from wish("native.bad-wish", "no soul", pb.Wish())
    yield from wish("native.bad-wish", "a field of a prefix", pb.Wish(prefix=b"s", key=b"k"))
    yield from wish("native.empty-soul", "an empty soul", pb.Wish(soul=b""))
    yield from wish("native.empty-key", "an empty key", pb.Wish(soul=b"s", key=b""))
    yield from wish("native.forbidden-name", "__proto__", pb.Wish(soul=b"s"), pb.Wish(soul=b"__proto__"))
    yield from wish("limit.soul", "a long prefix", pb.Wish(prefix=b"s" * 8193))
    yield from wish("limit.key", "a long key", pb.Wish(soul=b"s", key=b"k" * 8193))
    yield from wish("native.bad-text", "no text", pb.Wish(soul=b"\xff"))
    answer = pb.Frame()
    answer.answer.more = True
    yield Case("native.bad-id", "answer: to nothing", encode_frame(answer.SerializeToString()))
    yield Case("limit.acks", "ack: of nothing", encode_frame(encode_ack([])))
    yield Case("limit.acks", "ack: of too many", encode_frame(encode_ack([1] * 65_537)))


def _large() -> Iterator[Case]:
    """Frames that are too large in some way, or that would be once they are unfolded."""

    def case(code: str, name: str, frame: bytes) -> Iterator[Case]:
        yield Case(code, f"large: {name}", encode_frame(frame))
        data = Squeezer(ZstdConfig()).squeeze(frame)
        yield Case(code, f"large: {name}, compressed", encode_frame(encode_zipped(len(frame), data)))

    many = [Cell("s", str(i), None, STATE) for i in range(LIMITS.cells_max + 1)]
    yield from case("limit.cells", "too many cells", encode_put(1, many, None, 0))
    text = [Cell("s", "k", "x" * (LIMITS.value_chars_max + 1), STATE)]
    yield from case("limit.value", "a long value", encode_put(1, text, None, 0))
    for column, items in {
        "souls": [b""] * MIB,
        "keys": [b""] * MIB,
        "texts": [b""] * MIB,
        "links": [b"s" * 1000] * 3000,
    }.items():
        frame = pb.Frame()
        getattr(frame.put.cells, column).extend(items)
        yield from case("limit.columns", f"a million {column}", frame.SerializeToString())
    for column in ("soul_runs", "key_of", "states", "wholes", "dot_sequences", "marks"):
        frame = pb.Frame()
        getattr(frame.put.cells, column).extend([1] * (2 * MIB))
        yield from case("limit.columns", f"two million {column}", frame.SerializeToString())
    frame = pb.Frame()
    frame.put.cells.kinds = bytes(2 * MIB)
    yield from case("limit.columns", "two million kinds", frame.SerializeToString())
    yield Case("limit.columns", "large: an ack", encode_frame(encode_ack([1] * (2 * MIB))))
    yield from case("limit.columns", "unknown fields", b"\x12" + _long(b"\x9a\x06" + _long(bytes(2 * MIB))))
    yield from case(
        "native.bad-frame", "a length that lies", b"\x12" + encode_varint(3 * MIB) + bytes(2 * MIB)
    )
    yield from case("native.bad-frame", "groups", b"\x12" + _long(b"\x12" + _long(b"\x0b" * (2 * MIB))))


def _long(data: bytes) -> bytes:
    return encode_varint(len(data)) + data
