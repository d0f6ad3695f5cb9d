"""Noise on the native wire: whatever comes, a link understands it or ends with a code, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import ManualClock
from air.base.errors import Violation
from air.codec.frame import encode_frame
from air.codec.zstd import Squeezer, ZstdConfig
from air.model import Cell
from air.pb import graph_pb2 as pb
from air.sync.native.frames import encode_put, encode_zipped
from air.sync.native.limits import NativeConfig
from air.sync.native.link import NativeLink
from tests.hostile.native_malformed import greeting
from tests.native_links import THEIRS, link
from tests.native_transcripts import DIALER
from tests.vector_files import folder

CLOCK = ManualClock()


def stream(name: str) -> bytes:
    """What the dialer of a transcript said, with our usual name in its hello."""
    lines = [json.loads(line) for line in (folder() / "native" / f"{name}.jsonl").read_text().splitlines()]
    said = b"".join(bytes.fromhex(line["hex"]) for line in lines[1:] if line["from"] == "dialer")
    return greeting(THEIRS) + said.replace(DIALER.encode(), b"x" * len(DIALER))


STREAMS = [stream("peers"), stream("client")]


def hear(data: bytes) -> tuple[NativeLink, str]:
    """A link that hears ``data``, and the code that it ends with or ""."""
    one = link(CLOCK, NativeConfig())
    try:
        for event in one.receive(data, CLOCK.now()):
            assert event is not None
    except Violation as error:
        return one, error.code
    return one, ""


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STREAMS), st.data())
def test_damaged_streams_are_understood_or_refused(whole: bytes, data: st.DataObject) -> None:
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        kind = data.draw(st.sampled_from(["change", "drop", "insert", "repeat"]))
        if kind == "change":
            broken[at] = data.draw(st.integers(0, 255))
        elif kind == "drop":
            del broken[at : at + data.draw(st.integers(1, 5))]
        elif kind == "insert":
            broken[at:at] = data.draw(st.binary(min_size=1, max_size=5))
        else:
            broken[at:at] = broken[at : at + data.draw(st.integers(1, 40))]
        if not broken:
            break
    hear(bytes(broken))


numbers = st.lists(st.one_of(st.integers(0, 8), st.integers(0, 2**32 - 1)), max_size=8)
names = st.lists(
    st.one_of(st.sampled_from([b"a", b"b", b"_", b"", b"\xff"]), st.binary(max_size=4)), max_size=8
)
signed = st.lists(st.one_of(st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1)), max_size=8)
COUNTS = ("soul_runs", "key_of", "state_runs", "mark_dots", "marks", "mark_runs", "dot_writers")
columns = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("souls", "keys", "texts", "links", "writers"), names),
        **dict.fromkeys(COUNTS, numbers),
        **dict.fromkeys(("states", "wholes"), signed),
        "doubles": st.lists(st.floats(), max_size=8),
        "dot_sequences": st.lists(st.integers(0, 2**64 - 1), max_size=8),
        "kinds": st.binary(max_size=8),
    },
)


@settings(max_examples=300, deadline=None)
@given(columns, st.booleans(), st.booleans())
def test_columns_of_noise_are_understood_or_refused(fields: dict[str, Any], repair: bool, zip: bool) -> None:
    frame = pb.Frame.FromString(
        encode_put(1, [Cell("s", key, key, 1) for key in "xyz"], [((THEIRS, 1),)] * 3, 0)
    )
    for name, value in fields.items():
        # Either some columns are changed, or nothing else is there.
        frame.put.cells.ClearField(name)
        if name == "kinds":
            frame.put.cells.kinds = value
        else:
            getattr(frame.put.cells, name).extend(value)
    if not repair:
        for name in set(pb.Cells.DESCRIPTOR.fields_by_name) - set(fields):
            frame.put.cells.ClearField(name)
    plain = frame.SerializeToString()
    if zip:
        plain = encode_zipped(len(plain), Squeezer(ZstdConfig()).squeeze(plain))
    hear(greeting(THEIRS) + encode_frame(plain))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_after_a_hello_is_refused_or_waited_for(noise: bytes) -> None:
    hear(greeting(THEIRS) + noise)
    hear(greeting(THEIRS) + encode_frame(noise))
    hear(greeting(THEIRS) + encode_frame(encode_zipped(len(noise), noise)))


def test_the_undamaged_streams_are_understood_to_their_end() -> None:
    # The acks in them are of batches that this link never sent; up to there all is well.
    for whole in STREAMS:
        assert hear(whole)[1] in ("", "native.ack")
