"""Transcripts of the native wire, read with nothing but protobuf and zstd, and by our own links."""

from __future__ import annotations

import json
import struct
from itertools import accumulate
from typing import Any

import pytest
import zstandard

from air.base.clock import ManualClock
from air.base.entropy import IdSource, SeededEntropy
from air.base.errors import Violation
from air.codec.zstd import Expander, ZstdConfig
from air.pb import graph_pb2 as pb
from air.sync.native.limits import NativeConfig, NativeLimits
from air.sync.native.link import NativeLink
from air.sync.native.rates import Rates
from air.sync.native.reader import decode
from tests.native_transcripts import DIALER, LISTENER, TRANSCRIPTS, meaning
from tests.vector_files import folder

pytestmark = pytest.mark.vectors


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder() / "native" / f"{name}.jsonl").read_text().splitlines()]


PEERS, CLIENT, MALFORMED = lines("peers"), lines("client"), lines("malformed")


# -- a second implementation, in sixty lines -------------------------------------


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) <= 2**53 else value


def spread(items: Any, runs: Any) -> list[Any]:
    assert len(items) == len(runs)
    return [item for item, run in zip(items, runs, strict=True) for _ in range(run)]


def read_cells(raw: pb.Cells) -> list[list[Any]]:
    souls = spread([text(soul) for soul in raw.souls], raw.soul_runs)
    bits = [one & (2**64 - 1) for one in accumulate(raw.states)]
    states = spread([number(struct.unpack("<d", struct.pack("<Q", one))[0]) for one in bits], raw.state_runs)
    columns = {
        3: list(raw.wholes),
        4: [number(one) for one in raw.doubles],
        5: [text(one) for one in raw.texts],
        6: [{"#": text(one)} for one in raw.links],
    }
    values = [{0: None, 1: False, 2: True}[k] if k < 3 else columns[k].pop(0) for k in raw.kinds]
    assert not any(columns.values())
    keys = [text(raw.keys[index]) for index in raw.key_of]
    return [list(cell) for cell in zip(souls, keys, values, states, strict=True)]


def read_marks(raw: pb.Cells) -> Any:
    if not raw.marks:
        return None
    names = [text(raw.writers[index]) for index in raw.dot_writers]
    dots = [list(dot) for dot in zip(names, raw.dot_sequences, strict=True)]
    table = [[dots.pop(0) for _ in range(size)] for size in raw.mark_dots]
    return spread([table[index] for index in raw.marks], raw.mark_runs)


def read_id(raw: pb.Id) -> Any:
    kind = raw.WhichOneof("kind")
    return text(raw.text) if kind == "text" else getattr(raw, str(kind))


def read_frame(data: bytes, zstd: Any) -> dict[str, Any]:
    frame = pb.Frame.FromString(data)
    if frame.HasField("zipped"):
        data = zstd.decompress(frame.zipped.data)
        assert len(data) == frame.zipped.size
        frame = pb.Frame.FromString(data)
    kind = str(frame.WhichOneof("body"))
    body = getattr(frame, kind)
    out: dict[str, Any] = {"kind": kind}
    if kind == "hello":
        names = "version everything cells_max bytes_max credit_cells credit_bytes silent_ms relays"
        out |= {name: getattr(body, name) for name in names.split()}
        out |= {"peer": text(body.peer), "agent": text(body.agent)}
    elif kind == "put":
        cells = read_cells(body.cells)
        out |= {"batch": body.batch, "floor": body.floor, "cells": cells, "marks": read_marks(body.cells)}
        out["cost"] = [len(cells), len(data)]
    elif kind == "answer":
        cells = read_cells(body.cells)
        out |= {"re": read_id(body.re), "cells": cells, "more": body.more}
        out |= {"error": text(body.error) or None, "cost": [len(cells), len(data) if cells else 0]}
    elif kind == "ack":
        out |= {"batches": list(body.batches), "error": text(body.error) or None}
    elif kind == "credit":
        out |= {"cells": body.cells, "bytes": body.bytes}
    elif kind == "bye":
        out |= {"code": text(body.code), "text": text(body.text)}
    elif kind == "get":
        out["id"] = read_id(body.id)
        out[str(body.WhichOneof("what"))] = text(getattr(body, str(body.WhichOneof("what"))))
        if body.HasField("lex"):
            names = "budget reverse" if body.HasField("prefix") else "exact prefix start end reverse budget"
            out["lex"] = {name: read_lex(body.lex, name) for name in names.split()}
    else:
        out["wishes"] = [
            {str(one.WhichOneof("what")): text(getattr(one, str(one.WhichOneof("what"))))}
            | ({"key": text(one.key)} if one.HasField("key") else {})
            for one in body.wishes
        ]
    return out


def read_lex(lex: pb.Lex, name: str) -> Any:
    if name in ("exact", "start", "end", "budget") and not lex.HasField(name):
        return None
    value = getattr(lex, name)
    return text(value) if isinstance(value, bytes) else value


def unframed(data: bytes) -> bytes:
    size = shift = at = 0
    while True:
        size |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            break
    assert len(data) == at + size
    return data[at:]


# -- the tests --------------------------------------------------------------------


@pytest.mark.parametrize("transcript", [PEERS, CLIENT], ids=["peers", "client"])
def test_a_transcript_can_be_read_with_protobuf_and_zstd_alone(transcript: list[dict[str, Any]]) -> None:
    zstd = {side: zstandard.ZstdDecompressor().decompressobj() for side in ("dialer", "listener")}
    for line in transcript:
        assert read_frame(unframed(bytes.fromhex(line["hex"])), zstd[line["from"]]) == line["means"]


@pytest.mark.parametrize("transcript", [PEERS, CLIENT], ids=["peers", "client"])
def test_credit_and_acks_of_a_transcript_add_up(transcript: list[dict[str, Any]]) -> None:
    other = {"dialer": "listener", "listener": "dialer"}
    balance: dict[str, list[int]] = {}
    batches = {"dialer": 0, "listener": 0}
    for line in transcript:
        side, means = line["from"], line["means"]
        if means["kind"] == "hello":
            balance[other[side]] = [means["credit_cells"], means["credit_bytes"]]
        elif means["kind"] == "credit":
            balance[other[side]][0] += means["cells"]
            balance[other[side]][1] += means["bytes"]
        elif means["kind"] == "ack":
            assert all(0 < one <= batches[other[side]] for one in means["batches"])
        elif means["kind"] in ("put", "answer"):
            assert min(balance[side]) > 0
            balance[side] = [have - cost for have, cost in zip(balance[side], means["cost"], strict=True)]
            if means["kind"] == "put":
                batches[side] += 1
                assert means["batch"] == batches[side]


@pytest.mark.parametrize(("name", "recorded"), [("peers", PEERS), ("client", CLIENT)])
def test_our_links_still_say_what_is_recorded(name: str, recorded: list[dict[str, Any]]) -> None:
    again = json.loads(json.dumps(TRANSCRIPTS[name]()))
    assert [(line["from"], line["means"]) for line in again] == [
        (line["from"], line["means"]) for line in recorded
    ]
    for one, other in zip(again, recorded, strict=True):
        # Another version of zstd may find other bytes for the same.
        if not pb.Frame.FromString(unframed(bytes.fromhex(one["hex"]))).HasField("zipped"):
            assert one["hex"] == other["hex"]


@pytest.mark.parametrize("transcript", [PEERS, CLIENT], ids=["peers", "client"])
def test_our_reader_understands_what_is_recorded(transcript: list[dict[str, Any]]) -> None:
    expanders = {side: Expander(ZstdConfig()) for side in ("dialer", "listener")}
    for line in transcript:
        frame = decode(unframed(bytes.fromhex(line["hex"])), expanders[line["from"]], NativeLimits())
        assert json.loads(json.dumps(meaning(frame))) == line["means"]


def test_the_malformed_ones_have_the_code_that_is_recorded() -> None:
    assert len(MALFORMED) >= 250
    clock, config = ManualClock(), NativeConfig()
    for line in MALFORMED:
        link = NativeLink(
            own=LISTENER,
            expected=DIALER,
            outbound=False,
            ids=IdSource(SeededEntropy(1)),
            config=config,
            rates=Rates(config.rates),
            now=clock.now(),
        )
        with pytest.raises(Violation) as caught:
            list(link.receive(bytes.fromhex(line["hex"]), clock.now()))
        assert caught.value.code == line["code"], line["name"]
