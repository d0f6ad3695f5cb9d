"""Frames that other implementations sent, and what a strict peer does with odd ones."""

from __future__ import annotations

from typing import Any

import pytest

from air.base.clock import ManualClock
from air.base.errors import Violation
from air.mux.events import Cut, Data, Eof, Opened
from air.mux.mplex.config import MplexConfig
from air.mux.mplex.core import MplexCore
from air.mux.mplex.frame import Flag, take_header
from air.mux.mplex.frame import encode_header as encode_mplex_header
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.core import YamuxCore
from air.mux.yamux.frame import PING, SYN, decode_header, encode_header
from tests.vector_files import load

pytestmark = pytest.mark.vectors

FRAMES = load("libp2p/yamux_frames.json")["cases"]
REACTIONS = load("libp2p/yamux_reactions.json")["cases"]
MPLEX = load("libp2p/mplex_frames.json")["cases"]

OPEN = encode_header(0, 1, SYN, 1, 0)
LARGE = {
    "reaction-window-overrun-256k-plus-1": OPEN + encode_header(0, 0, 0, 1, 262_145) + bytes(262_145),
    "reaction-single-frame-256k": OPEN + encode_header(0, 0, 0, 1, 262_144) + bytes(262_144),
}
"""Inputs that are too large for a file of vectors."""

DEAD = {
    "reaction-ping-syn-and-ack": "yamux.bad-ping",
    "reaction-ping-on-stream-1": "yamux.bad-stream-id",
    "reaction-open-even-id-as-client": "yamux.bad-stream-id",
    "reaction-open-id-zero": "yamux.bad-stream-id",
    "reaction-duplicate-syn": "yamux.duplicate-syn",
    "reaction-bad-type": "yamux.bad-type",
    "reaction-window-overrun-256k-plus-1": "yamux.window-exceeded",
    "reaction-announce-17MiB-frame": "yamux.window-exceeded",
    "reaction-window-overflow-u32": "yamux.window-overflow",
    "reaction-goaway-on-stream": "yamux.bad-stream-id",
}


def case_id(case: dict[str, Any]) -> str:
    return str(case["id"])


def server() -> YamuxCore:
    core = YamuxCore(YamuxConfig(), dialer=False, now=ManualClock().now())
    assert len(core.take_output()) == 1, "the first ping"
    return core


@pytest.mark.parametrize("case", FRAMES, ids=case_id)
def test_recorded_yamux_frames_are_read_and_written_alike(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    header = decode_header(data)
    assert header == (case["version"], case["type"], case["flags"], case["stream_id"], case["length"])
    assert data[12:].hex() == case["payload"]
    assert encode_header(*header) == data[:12]


@pytest.mark.parametrize("case", REACTIONS, ids=case_id)
def test_odd_yamux_input_meets_the_strict_reaction(case: dict[str, Any]) -> None:
    data = LARGE.get(case["id"]) if case["sent"] is None else bytes.fromhex(case["sent"])
    if data is None:
        pytest.skip("the input is not in the file")
    core, now = server(), ManualClock().now()
    events = core.receive(data, now)
    output = b"".join(core.take_output())
    strict = case["strict"] or ""
    if strict.startswith("GoAway 1") or case["id"] in DEAD:
        assert isinstance(core.ended, Violation)
        assert case["id"] not in DEAD or core.ended.code == DEAD[case["id"]]
        assert output.endswith(encode_header(0, 3, 0, 0, 1))
        assert core.receive(OPEN, now) == []
        return
    assert core.ended is None
    pings = [header for header in headers(data) if header[1] == PING and header[2] == SYN]
    for header in pings:
        assert encode_header(0, PING, 2, 0, header[4]) in output
    assert len(output) == 12 * len(pings)
    assert {event.key for event in events if type(event) is Opened} == {
        header[3] for header in headers(data) if header[1] < 2 and header[2] & SYN
    }
    if "end of input" in strict:
        assert type(events[-1]) is Eof
        assert type(events[-2]) is Data
    if case["id"] == "reaction-reset-with-error-code":
        assert [event.error.code for event in events if type(event) is Cut] == ["stream.reset"]
        assert core.streams == 0


def headers(data: bytes) -> list[tuple[int, int, int, int, int]]:
    found, position = [], 0
    while position < len(data):
        header = decode_header(data, position)
        found.append(tuple(header))
        position += 12 + (header.length if header.kind == 0 else 0)
    return found


@pytest.mark.parametrize("case", [case for case in MPLEX if case["kind"] == "valid"], ids=case_id)
def test_recorded_mplex_frames_are_read_and_written_alike(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    taken = take_header(data, 0, 2**20)
    assert taken is not None
    (stream, flag, length), used = taken
    assert (stream, flag, length) == (case["stream_id"], case["flag"], len(data) - used)
    assert data[used:].hex() == case["data"]
    assert Flag(flag).name.replace("_", "") in (
        case["flag_name"].upper(),
        case["flag_name"].upper().replace("STREAM", ""),
    )
    assert encode_mplex_header(stream, flag, length) == data[:used]


@pytest.mark.parametrize("case", [case for case in MPLEX if case["kind"] == "reject"], ids=case_id)
def test_bad_mplex_frames_end_the_connection(case: dict[str, Any]) -> None:
    core = MplexCore(MplexConfig(), now=ManualClock().now())
    assert core.receive(bytes.fromhex(case["hex"]), ManualClock().now()) == []
    assert isinstance(core.ended, Violation)
    assert core.ended.code in ("mplex.too-big", "mplex.bad-header")
