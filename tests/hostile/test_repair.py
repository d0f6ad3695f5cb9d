"""Peers that lie in reconciliation: each lie has its code, and costs a bounded amount."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.errors import AirError, Denied, Violation
from air.base.varint import encode_varint
from air.codec.zstd import Squeezer, ZstdConfig
from air.model import Cell
from air.pb import graph_pb2, repair_pb2
from air.sync.native.columns import fill
from air.sync.repair.bounds import flat, join_bounds
from air.sync.repair.config import (
    CREDIT_BATCHES,
    FRAME_BYTES_MAX,
    IDS_MAX,
    PARTS_MAX,
    SPANS_MAX,
    TALK_BYTES_MAX,
    RepairConfig,
)
from air.sync.repair.initiator import Initiator
from air.sync.repair.messages import Frame, FrameCodec, Opening
from air.sync.repair.responder import Responder
from air.sync.repair.salt import Salt
from air.sync.repair.spans import Give, Ids, Print, Span, Take
from tests.repair_peers import SALT, Cells

NOW = 1_700_000_000_000
STORED = [Cell(f"s{i:05d}", "k", i, NOW) for i in range(2_000)]
SMALL = RepairConfig(talk_floor_bytes=64 * 1024, talk_cell_bytes=64)


def at(index: int) -> tuple[bytes, bytes]:
    return f"s{index:05d}".encode(), b""


def cells(count: int, text: str = "") -> bytes:
    columns = graph_pb2.Cells()
    fill(columns, [Cell(f"n{i}", "k", text or i, NOW) for i in range(count)])
    return columns.SerializeToString()


def raw(**fields: Any) -> bytes:
    return repair_pb2.Frame(**fields).SerializeToString()


def ranges(count: int = 1, **fields: Any) -> bytes:
    """A request about ``count`` neighbouring ranges, spelled by hand."""
    bounds = [at(index) for index in range(count + 1)]
    fields.setdefault("bounds", join_bounds([flat(bound) for bound in bounds]))
    return raw(**{"number": 1, "id_bytes": 3, "opening": OPENING, **fields})


OPENING = repair_pb2.Opening(salt=SALT)


def squeezed(data: bytes) -> bytes:
    return Squeezer(ZstdConfig()).squeeze(data)


def opened(**fields: Any) -> bytes:
    return raw(number=1, id_bytes=3, opening=OPENING, **fields)


def prints(count: int) -> dict[str, Any]:
    return {"kinds": b"\x01" * count, "counts": [1] * count, "prints": bytes(6 * count)}


def shared_bounds(length: int, count: int) -> bytes:
    """Bounds that repeat one long soul: few bytes that say much."""
    first = b"a" * length + b"\xff"
    out = [encode_varint(0), encode_varint(len(first)), first]
    for index in range(count):
        more = f"{index:06d}".encode()
        out += [encode_varint(len(first)), encode_varint(len(more)), more]
    return b"".join(out)


NAN = struct.unpack("<q", struct.pack("<d", float("nan")))[0]

TO_RESPONDER: dict[str, tuple[str, list[bytes]]] = {
    "not protobuf": ("repair.malformed", [b"\xff\xff\xff"]),
    "half a field": ("repair.malformed", [b"\x22\x7fabc"]),
    "nothing opened": ("repair.bad-opening", [raw(number=1, id_bytes=3)]),
    "short salt": ("repair.malformed", [raw(number=1, opening=repair_pb2.Opening(salt=b"short"))]),
    "no salt": ("repair.malformed", [raw(number=1, opening=repair_pb2.Opening())]),
    "range backwards": (
        "repair.bad-bounds",
        [raw(number=1, opening=repair_pb2.Opening(salt=SALT, low=b"b\xff", high=b"a\xff"))],
    ),
    "range of nothing": (
        "repair.bad-bounds",
        [raw(number=1, opening=repair_pb2.Opening(salt=SALT, low=b"b\xff", high=b"b\xff"))],
    ),
    "range that is no place": (
        "repair.bad-bounds",
        [raw(number=1, opening=repair_pb2.Opening(salt=SALT, low=b"no key"))],
    ),
    "opened twice at once": ("repair.bad-opening", [opened(), opened()]),
    "number missing": ("repair.bad-number", [raw(opening=OPENING, **prints(1), bounds=b"\0\0\0\0")]),
    "number skipped": ("repair.bad-number", [raw(number=2, id_bytes=3, opening=OPENING)]),
    "number again": ("repair.bad-number", [opened(), raw(number=1, id_bytes=3)]),
    "answers to nothing": ("repair.bad-number", [opened(last=True)]),
    "no length of ids": ("repair.overrun", [raw(number=1, opening=OPENING)]),
    "ids of 17 bytes": ("repair.malformed", [raw(number=1, id_bytes=17, opening=OPENING)]),
    "bounds without ranges": ("repair.malformed", [ranges(1)]),
    "a kind that is none": ("repair.malformed", [ranges(1, kinds=b"\x05")]),
    "one bound too few": ("repair.bad-bounds", [ranges(1, **prints(2))]),
    "one bound too many": ("repair.bad-bounds", [ranges(3, **prints(2))]),
    "bounds cut short": ("repair.bad-bounds", [ranges(**prints(1), bounds=b"\0\x05ab")]),
    "a bound shares too much": ("repair.bad-bounds", [ranges(**prints(1), bounds=b"\0\x02a\xff\x07\x01b")]),
    "bounds fall": ("repair.bad-bounds", [ranges(**prints(1), bounds=join_bounds([b"b\xff", b"a\xff"]))]),
    "bounds stand": ("repair.bad-bounds", [ranges(**prints(1), bounds=join_bounds([b"b\xff", b"b\xff"]))]),
    "a bound after the end": (
        "repair.bad-bounds",
        [ranges(**prints(2), bounds=join_bounds([b"b\xff", b"", b"c\xff"]))],
    ),
    "a bound with two ends": (
        "repair.bad-bounds",
        [ranges(**prints(1), bounds=join_bounds([b"", b"a\xffb\xff"]))],
    ),
    "a bound as long as a book": (
        "repair.bad-bounds",
        [ranges(**prints(1), bounds=join_bounds([b"", b"a" * 70_000 + b"\xff"]))],
    ),
    "bounds that unfold": ("repair.bad-bounds", [ranges(**prints(100), bounds=shared_bounds(60_000, 100))]),
    "outside of the session": (
        "repair.bad-bounds",
        [
            raw(
                number=1,
                id_bytes=3,
                opening=repair_pb2.Opening(salt=SALT, low=b"b\xff", high=b"c\xff"),
                bounds=join_bounds([b"a\xff", b""]),
                **prints(1),
            )
        ],
    ),
    "beyond the session": (
        "repair.bad-bounds",
        [
            raw(
                number=1,
                id_bytes=3,
                opening=repair_pb2.Opening(salt=SALT, low=b"b\xff", high=b"c\xff"),
                bounds=join_bounds([b"", b"d\xff"]),
                **prints(1),
            )
        ],
    ),
    "too many ranges": ("repair.too-many-ranges", [ranges(2 * SPANS_MAX + 1, **prints(2 * SPANS_MAX + 1))]),
    "more ranges than may be asked": ("repair.overrun", [ranges(SPANS_MAX + 1, **prints(SPANS_MAX + 1))]),
    "ids count for four": (
        "repair.overrun",
        [ranges(SPANS_MAX // 2, kinds=b"\x02" * (SPANS_MAX // 2), counts=[0] * (SPANS_MAX // 2))],
    ),
    "many empty requests": (
        "repair.overrun",
        [opened(), *[raw(number=i, id_bytes=3) for i in range(2, SPANS_MAX + 2)]],
    ),
    "no count": ("repair.malformed", [ranges(kinds=b"\x01", prints=bytes(6))]),
    "a count too many": ("repair.malformed", [ranges(kinds=b"\x01", counts=[1, 1], prints=bytes(6))]),
    "no print": ("repair.malformed", [ranges(kinds=b"\x01", counts=[1])]),
    "a print of 7 bytes": ("repair.malformed", [ranges(kinds=b"\x01", counts=[1], prints=bytes(7))]),
    "prints for nobody": ("repair.malformed", [ranges(kinds=b"\x00", prints=bytes(6))]),
    "too many ids": (
        "repair.too-many-items",
        [ranges(kinds=b"\x02", counts=[IDS_MAX + 1], ids=bytes(3 * IDS_MAX + 3))],
    ),
    "a huge number of ids": ("repair.too-many-items", [ranges(kinds=b"\x02", counts=[2**63])]),
    "ids that are not there": ("repair.malformed", [ranges(kinds=b"\x02", counts=[9], ids=bytes(3))]),
    "half an id": ("repair.malformed", [ranges(kinds=b"\x02", counts=[1], ids=bytes(4))]),
    "ids left over": ("repair.malformed", [ranges(kinds=b"\x02", counts=[1], ids=bytes(6))]),
    "names that are not there": ("repair.malformed", [ranges(kinds=b"\x04", counts=[2], names=bytes(3))]),
    "names left over": ("repair.malformed", [ranges(kinds=b"\x04", counts=[1], names=bytes(4))]),
    "states that are not there": (
        "repair.malformed",
        [ranges(kinds=b"\x03", counts=[0, 2], names=bytes(6), states=[1])],
    ),
    "states left over": (
        "repair.malformed",
        [ranges(kinds=b"\x03", counts=[0, 1], names=bytes(3), states=[1, 1])],
    ),
    "a state that is no number": (
        "repair.malformed",
        [ranges(kinds=b"\x03", counts=[0, 1], names=bytes(3), states=[NAN])],
    ),
    "much talk in one frame": ("repair.too-big", [opened(prints=bytes(TALK_BYTES_MAX))]),
    "much beside the texts of cells": (
        "repair.too-big",
        [opened(cells=graph_pb2.Cells(links=[b"x" * 2_000_000]).SerializeToString())],
    ),
    "a million empty names": (
        "repair.too-big",
        [opened(cells=graph_pb2.Cells(texts=[b""] * 1_000_000).SerializeToString())],
    ),
    "large and not protobuf": ("repair.malformed", [b"\xff" * 2 * TALK_BYTES_MAX]),
    "large and half a field": ("repair.malformed", [b"\x62\xff\xff\x7f" + bytes(2 * TALK_BYTES_MAX)]),
    "not zstd": ("native.zstd-header", [raw(zipped=b"garbage garbage", zipped_bytes=20)]),
    "a zstd bomb": ("native.zstd-size", [raw(zipped=squeezed(bytes(2**20)), zipped_bytes=100)]),
    "a zstd bomb that says so": (
        "native.zstd-too-big",
        [raw(zipped=squeezed(bytes(100)), zipped_bytes=FRAME_BYTES_MAX + 1)],
    ),
    "less than was said": ("native.zstd-size", [raw(zipped=squeezed(opened()), zipped_bytes=1000)]),
    "compressed twice": (
        "repair.malformed",
        [
            raw(
                zipped=squeezed(raw(zipped=b"x", zipped_bytes=1)),
                zipped_bytes=len(raw(zipped=b"x", zipped_bytes=1)),
            )
        ],
    ),
    "cells that are none": ("repair.malformed", [opened(cells=b"\xff\xff\xff")]),
    "columns that do not fit": (
        "native.bad-columns",
        [opened(cells=graph_pb2.Cells(kinds=b"\0").SerializeToString())],
    ),
    "cells in a dry run": (
        "repair.unasked",
        [raw(number=1, id_bytes=3, opening=repair_pb2.Opening(salt=SALT, dry_run=True)), raw(cells=cells(1))],
    ),
    "more cells than there is room for": (
        "repair.overrun",
        [opened(), *[raw(cells=cells(4000))] * 2],
    ),
    "more batches than there is room for": (
        "repair.overrun",
        [opened(), *[raw(cells=cells(1))] * (CREDIT_BATCHES + 1)],
    ),
    "more bytes than there is room for": (
        "repair.overrun",
        [opened(), *[raw(cells=cells(1, "x" * 1_500_000))] * 2],
    ),
    "merged what was not sent": ("repair.bad-ack", [opened(merged=1)]),
}


@pytest.mark.parametrize("name", TO_RESPONDER)
def test_a_lying_opener_gets_its_code(name: str) -> None:
    code, frames = TO_RESPONDER[name]
    side = Responder(SMALL)
    with pytest.raises(Violation) as error:
        for data in frames:
            side.receive(data)
    assert error.value.code == code
    assert side.cargo.sent == 0


def test_an_opener_may_not_change_its_range_nor_open_for_ever() -> None:
    source = Cells(STORED)
    for second, code in (
        (repair_pb2.Opening(salt=SALT, low=b"s\xff"), "repair.bad-opening"),
        (repair_pb2.Opening(salt=SALT, dry_run=True), "repair.bad-opening"),
        (OPENING, "repair.endless"),
    ):
        side = Responder(SMALL)
        with pytest.raises(Violation) as error:
            for number in range(1, 100):
                opening = OPENING if number == 1 else second
                side.receive(raw(number=number, id_bytes=3, opening=opening))
                side.work(source)
        assert error.value.code == code


def test_questions_without_end_are_too_much_talk() -> None:
    side, source = Responder(SMALL), Cells(STORED)
    side.receive(opened())
    side.work(source)
    asked = source.asked
    with pytest.raises(Violation) as error:
        for number in range(2, 10**6):
            side.receive(
                raw(
                    number=number,
                    id_bytes=3,
                    bounds=join_bounds([flat(at(i)) for i in range(101)]),
                    **prints(100),
                )
            )
            while side.busy:
                side.work(source)
            side.take_output()
    assert error.value.code == "repair.talk"
    assert source.asked - asked < 200_000


def test_who_takes_the_same_cells_again_and_again_is_ended() -> None:
    side, source = Responder(RepairConfig(spare_cells=5_000)), Cells(STORED)
    codec, far = FrameCodec(), FrameCodec()
    side.receive(codec.encode(Frame(1, opening=Opening(SALT, None, None, False), id_bytes=3)))
    number, got = 1, 0
    with pytest.raises(Violation) as error:
        while number < 10**5:
            number += 1
            side.receive(codec.encode(Frame(number, spans=[Ids(at(0), at(250), ())], id_bytes=3)))
            side.work(source)
            for data in side.take_output():
                frame = far.decode(data)
                got += len(frame.cells)
                if frame.cells:
                    side.receive(codec.encode(Frame(merged=1)))
    assert error.value.code == "repair.greedy"
    assert got <= 5_000 + 2 * len(STORED)


# Against the side that opened


class Liar:
    """Answers an initiator however it likes, in well-formed frames."""

    def __init__(self, answer: Callable[[Span], Sequence[Span]], source: Cells, **settings: Any) -> None:
        self.answer = answer
        self.id_bytes = 3
        self.config = RepairConfig(**{"talk_floor_bytes": 64 * 1024, "talk_cell_bytes": 64, **settings})
        self.side = Initiator(SALT, config=self.config)
        self.source = source
        self.codec = FrameCodec()
        self.frames = 0

    def run(self, frames_max: int = 20_000) -> None:
        """Until the session is over. Raises what the initiator raises."""
        while not self.side.done:
            while self.side.busy:
                self.side.work(self.source)
            for data in self.side.take_output():
                self.frames += 1
                assert self.frames < frames_max, "this goes on for ever"
                for reply in self.reply(self.codec.decode(data)):
                    self.side.receive(self.codec.encode(reply))

    def reply(self, frame: Frame) -> Iterator[Frame]:
        if frame.cells:
            yield Frame(merged=1)
        if frame.number:
            self.id_bytes = frame.id_bytes
            said = [answer for span in frame.spans for answer in self.answer(span)]
            yield Frame(frame.number, True, None, [self.fitted(span) for span in said], frame.id_bytes)

    def fitted(self, span: Span) -> Span:
        """With ids as long as they were asked for."""
        if isinstance(span, Ids | Take):
            return span._replace(ids=[id.ljust(self.id_bytes, b"x")[: self.id_bytes] for id in span.ids])
        return span


def lies(span: Span) -> list[Span]:
    """It always differs."""
    return [Print(span.low, span.high, 10**6, b"liar--")]


def lies_in_parts(span: Span) -> list[Span]:
    """It differs in every part, however small."""
    low = (b"", b"") if span.low is None else span.low
    middle = (low[0] + b"\x01", b"")
    if span.high is not None and middle >= span.high:
        return lies(span)
    return [
        Print(span.low, middle, 2**60, b"liar--"),
        Print(middle, span.high, 2**60, b"liar--"),
    ]


def lies_about_ids(span: Span) -> list[Span]:
    """It says that it has other cells, and never sends any."""
    if isinstance(span, Print | Ids):
        return [Ids(span.low, span.high, [bytes([i, 7, 7]) for i in range(200)])]
    return []


def lies_about_offers(span: Span) -> list[Span]:
    """It offers cells and never sends any."""
    if isinstance(span, Give):
        return []
    return [Take(span.low, span.high, [], [(bytes([i, 7, 7]), NOW) for i in range(200)])]


@pytest.mark.parametrize(
    ("answer", "code"),
    [(lies, "repair.endless"), (lies_in_parts, "repair.endless")],
)
def test_who_never_comes_to_an_end_is_ended(answer, code) -> None:
    for count in (0, 3, 2_000):
        liar = Liar(answer, Cells(STORED[:count]), talk_floor_bytes=10**9)
        with pytest.raises(Violation) as error:
            liar.run()
        assert error.value.code == code


@pytest.mark.parametrize("answer", [lies, lies_in_parts])
def test_and_so_is_who_talks_too_much_about_it(answer) -> None:
    liar = Liar(answer, Cells(STORED), depth_max=10**6)
    with pytest.raises(Violation) as error:
        liar.run()
    assert error.value.code == "repair.talk"


@pytest.mark.parametrize("answer", [lies_about_ids, lies_about_offers])
def test_cells_that_never_come_are_asked_for_a_few_times_and_then_no_more(answer) -> None:
    for count in (0, 3, 2_000):
        liar = Liar(answer, Cells(STORED[:count]), talk_floor_bytes=10**9)
        liar.run()
        summary = liar.side.summary(1.0)
        assert not summary.equal
        assert summary.received == 0
        assert summary.passes <= liar.config.passes_max


def test_a_peer_that_says_it_is_empty_gets_the_store_once_per_pass_and_no_more() -> None:
    liar = Liar(lambda span: [Ids(span.low, span.high, ())], Cells(STORED), talk_floor_bytes=10**9)
    liar.run()
    summary = liar.side.summary(1.0)
    assert not summary.equal
    assert summary.sent <= liar.config.passes_max * len(STORED)


FROM_RESPONDER: dict[str, tuple[str, Callable[[Frame], list[Frame]]]] = {
    "an opening": ("repair.bad-opening", lambda asked: [Frame(1, True, Opening(SALT, None, None, False))]),
    "ids of another length": (
        "repair.malformed",
        lambda asked: [Frame(1, True, None, [Ids(at(1), at(2), [b"four"])], 4)],
    ),
    "another number": ("repair.bad-number", lambda asked: [Frame(2, True)]),
    "no number": ("repair.bad-number", lambda asked: [Frame(0, True)]),
    "twice": ("repair.bad-number", lambda asked: [Frame(1, True), Frame(1, True)]),
    "too many parts": (
        "repair.too-many-ranges",
        lambda asked: [Frame(1, True, None, [Ids(at(i), at(i + 1), ()) for i in range(PARTS_MAX + 1)], 3)],
    ),
    "too many parts in two frames": (
        "repair.too-many-ranges",
        lambda asked: [
            Frame(1, False, None, [Ids(at(i), at(i + 1), ()) for i in range(PARTS_MAX)], 3),
            Frame(1, True, None, [Ids(at(90), at(91), ())], 3),
        ],
    ),
    "merged what was not sent": ("repair.bad-ack", lambda asked: [Frame(merged=1)]),
    "more cells than there is room for": (
        "repair.overrun",
        lambda asked: [Frame(cells=[Cell(f"n{i}", "k", 1, NOW) for i in range(3000)])] * 2,
    ),
    "a refusal": ("repair.busy", lambda asked: [Frame(refusal="repair.busy")]),
    "a refusal that is no code": ("repair.refused", lambda asked: [Frame(refusal="<b>\n you lose")]),
}


@pytest.mark.parametrize("name", FROM_RESPONDER)
def test_a_lying_responder_gets_its_code(name: str) -> None:
    code, replies = FROM_RESPONDER[name]
    side, codec = Initiator(SALT, config=SMALL), FrameCodec()
    side.work(Cells(STORED))
    (asked,) = side.take_output()
    with pytest.raises((Violation, Denied)) as error:
        for frame in replies(codec.decode(asked)):
            side.receive(codec.encode(frame))
    assert error.value.code == code


def test_an_answer_about_a_range_that_was_not_asked_about_is_refused() -> None:
    side, codec = Initiator(SALT, config=SMALL), FrameCodec()
    source = Cells(STORED)
    side.work(source)
    (asked,) = side.take_output()
    codec.decode(asked)
    side.receive(codec.encode(Frame(1, True, None, [Print(at(0), at(500), 1, b"differs"[:6])], 3)))
    while side.busy:
        side.work(source)
    (asked,) = side.take_output()
    assert codec.decode(asked).spans[-1].high == at(500)
    with pytest.raises(Violation) as error:
        side.receive(codec.encode(Frame(2, True, None, [Print(at(400), at(600), 1, b"differs"[:6])], 3)))
    assert error.value.code == "repair.bad-bounds"


places = st.integers(0, 2_100).map(at)


@st.composite
def any_answers(draw: st.DrawFn) -> Callable[[Span], list[Span]]:
    rng = random.Random(draw(st.integers(0, 2**32)))

    def answer(span: Span) -> list[Span]:
        bounds = sorted({at(rng.randrange(2_100)) for _ in range(rng.randrange(5))})
        inside = [
            bound
            for bound in bounds
            if (span.low is None or span.low < bound) and (span.high is None or bound < span.high)
        ]
        ends = [span.low, *inside, span.high]
        out: list[Span] = []
        for low, high in pairwise(ends):
            kind = rng.randrange(6)
            ids = [rng.randbytes(3) for _ in range(rng.choice([0, 1, 3, 100]))]
            if kind == 0:
                out.append(Print(low, high, rng.randrange(2**40), rng.randbytes(6)))
            elif kind == 1:
                out.append(Ids(low, high, ids))
            elif kind == 2:
                out.append(Take(low, high, ids, [(name, NOW + rng.randrange(-9, 9)) for name in ids]))
            elif kind == 3:
                out.append(Give(low, high, [Salt(SALT).name(at(rng.randrange(2_000)))]))
        return out

    return answer


@settings(max_examples=40, deadline=None)
@given(any_answers())
def test_whatever_a_peer_answers_the_session_ends(answer) -> None:
    source = Cells(STORED)
    before = dict(source.graph)
    liar = Liar(lambda span: [one for one in answer(span) if one.low != one.high], source)
    try:
        liar.run()
    except AirError as error:
        assert error.code.startswith("repair.")
    assert source.graph == before
