"""Hundreds of ways to be wrong, over real sockets: each has its code and costs nobody else."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.hostile.attack import frame
from tests.hostile.daemons import Daemon, running
from tests.hostile.malformed import FRAMES, MESSAGES, REQUESTS, node, put, raw_put
from tests.hostile.peer import Peer

pytestmark = pytest.mark.hostile

_COUNT = itertools.count()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("malformed"), "[gun]", "handshake_seconds = 1.0") as daemon:
        yield daemon
        assert daemon.alive
        errors = [
            line for line in daemon.log.read_text().splitlines() if "Traceback" in line or "ERROR" in line
        ]
        assert errors == []


@pytest.fixture(scope="module")
def honest(daemon: Daemon) -> Iterator[Peer]:
    with Peer(daemon.port) as peer:
        yield peer


def serves(honest: Peer) -> None:
    """The daemon does its work for a connection that was there all the time."""
    id = f"h{next(_COUNT)}"
    honest.heard.clear()
    assert honest.put("honest", {"k": id}, time.time() * 1000 - 1000, id).get("ok"), honest.heard


def test_there_are_hundreds_of_them() -> None:
    assert len(MESSAGES) + len(FRAMES) + len(REQUESTS) >= 300


@pytest.mark.parametrize(("code", "text"), [pytest.param(c, t, id=name) for c, name, t in MESSAGES])
def test_a_malformed_message_is_told_its_code_and_the_connection_goes_on(
    daemon: Daemon, honest: Peer, code: str, text: bytes
) -> None:
    with Peer(daemon.port) as peer:
        peer.send(frame(text))
        peer.until_done()
        assert peer.codes == [code]
        assert peer.put("after", {"k": 1}, 1, "after")["ok"]
    serves(honest)


@pytest.mark.parametrize(("close", "data"), [pytest.param(c, d, id=name) for c, name, d in FRAMES])
def test_a_malformed_frame_closes_the_connection_with_its_code(
    daemon: Daemon, honest: Peer, close: int, data: bytes
) -> None:
    with Peer(daemon.port) as peer:
        peer.send(data)
        while peer.listen():
            pass
        assert peer.close is not None
        assert peer.close[0] == close
    serves(honest)


@pytest.mark.parametrize(("status", "data"), [pytest.param(s, d, id=name) for s, name, d in REQUESTS])
def test_a_malformed_request_is_answered_with_its_status(
    daemon: Daemon, honest: Peer, status: int, data: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=5) as sock:
        sock.sendall(data)
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
    assert answer.split(b" ", 2)[:2] == [b"HTTP/1.1", str(status).encode()]
    assert b"permessage" not in answer
    serves(honest)


def test_what_never_becomes_a_request_ends_at_the_deadline(daemon: Daemon, honest: Peer) -> None:
    began, socks = time.monotonic(), []
    for data in (b"", b"G", b"GET /gun HTTP/1.1\r\n", b"\x16\x03\x01", frame(b"{}")):
        sock = socket.create_connection(("127.0.0.1", daemon.port), timeout=5)
        sock.sendall(data)
        socks.append(sock)
    for sock in socks:
        with sock:
            assert sock.recv(100) == b""
            assert 0.9 < time.monotonic() - began < 4
    serves(honest)


@pytest.mark.parametrize("end", ["shutdown", "reset"])
@pytest.mark.parametrize(
    "part", [b"\x81", frame(b"{}")[:5], b"\x81\xff" + (1 << 20).to_bytes(8, "big") + b"\0" * 100]
)
def test_a_connection_that_ends_within_a_frame_harms_nobody(
    daemon: Daemon, honest: Peer, part: bytes, end: str
) -> None:
    with Peer(daemon.port) as peer:
        peer.send(part)
        if end == "reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            peer.sock.shutdown(socket.SHUT_WR)
    serves(honest)


ODD_BUT_RIGHT = {
    "duplicate keys": raw_put().replace(b'"k":1}', b'"k":1}', 1)[:-3] + b',"k":2}}}',
    "duplicate nodes": b'{"#":"m","put":{"s":5,"s":{"_":{"#":"s",">":{"k":1}},"k":2}}}',
    "duplicate ids": b'{"#":"x","#":"m","put":{"s":{"_":{"#":"s",">":{"k":1}},"k":2}}}',
    "half a pair": raw_put(value='"\\ud800"'),
    "the wrong half first": raw_put(value='"\\udc00\\ud800"'),
    "key constructor": put({"s": node({"constructor": 1, "toString": 2, "hasOwnProperty": 3})}),
    "key length": put({"length": node({"length": 1, "at": 2}, soul="length")}),
    "NUL in names": put({"s\0": node({"k\0": "v\0"}, soul="s\0")}),
    "a huge number": raw_put(value="1e308"),
    "a tiny number": raw_put(value="5e-324"),
    "minus zero": raw_put(value="-0.0"),
    "a long number": raw_put(value="1" + "0" * 300),
    "a long fraction": raw_put(value="0." + "1" * 10_000),
    "unknown fields": b'{"#":"m","put":{"s":{"_":{"#":"s",">":{"k":1}},"k":2}},"__proto__":{},"x":[[[]]]}',
    "unknown fields nested deeply": b'{"#":"m","put":{"s":{"_":{"#":"s",">":{"k":1}},"k":2}},"x":'
    + b"[" * 900
    + b"]" * 900
    + b"}",
    "a negative state": raw_put(state="-1e15"),
    "a state with a fraction": raw_put(state="1.25"),
    "a key of 8,192": put({"s": node({"k" * 8_192: 1})}),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in ODD_BUT_RIGHT.items()])
def test_what_is_only_odd_is_taken(daemon: Daemon, honest: Peer, text: bytes) -> None:
    with Peer(daemon.port) as peer:
        peer.send(frame(text))
        assert peer.answer("m").get("ok"), peer.heard
    serves(honest)


@pytest.mark.parametrize(
    "text",
    [
        b'{"#":"m","@":"x","err":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"dam":"!","err":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"dam":"?","pid":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"#":"m","@":"x","put":{},"%":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"#":"m","get":{"#":"s"},"##":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"#":"m","get":{"#":"s","%":' + b"[" * 900 + b"]" * 900 + b"}}",
        b"["
        + b",".join(b'{"#":%d,"get":{"#":"\\ud800"}}' % (n * (2**61 - 1)) for n in range(1, 15_001))
        + b"]",
    ],
    ids=["error", "error of the mesh", "peer id", "part", "hash", "budget", "15,000 ids of one hash"],
)
def test_what_nobody_prints_breaks_nothing(daemon: Daemon, honest: Peer, text: bytes) -> None:
    with Peer(daemon.port) as peer:
        began = time.monotonic()
        peer.send(frame(text))
        peer.until_done()
        assert time.monotonic() - began < 4
    serves(honest)


def test_half_pairs_and_numbers_without_end_never_reach_others_as_broken_json(daemon: Daemon) -> None:
    with Peer(daemon.port) as reader, Peer(daemon.port) as writer:
        reader.say({"#": "g", "get": {"#": "pairs"}})
        reader.answer("g")
        for state, value, extra in ((7, "\\ud800", "1e999"), (8, "\\udfff", "1e308")):
            text = raw_put(value=f'"{value}"', state=str(state), soul='"pairs"')
            writer.send(frame(text[:-1] + f',"x":{extra}}}'.encode()))
        assert writer.answer("m")["ok"]
        reader.until_done()  # reads every frame with a JSON parser of its own
        assert any("udfff" in json.dumps(message.get("put")) for message in reader.heard)
        assert not any("d800" in json.dumps(message.get("put")) for message in reader.heard)
