"""One hostile peer in a process of its own: ``python -m tests.hostile.attack KIND URL SECONDS``.

Sends as fast as the socket takes it until the relay ends the connection or the time is over, and prints what
became of it as one line of JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

__all__ = ["KINDS", "frame", "upgrade"]

TEXT, BINARY, PING = 0x81, 0x82, 0x89


def frame(payload: bytes, head: int = TEXT) -> bytes:
    """A client's frame; the mask is zero, which leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([head]) + length + b"\0\0\0\0" + payload


def upgrade(host: str, port: int) -> socket.socket:
    """A socket that has become a WebSocket."""
    sock = socket.create_connection((host, port), timeout=10)
    sock.sendall(
        f"GET /gun HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(1)
        assert piece, head
        head += piece
    assert b" 101 " in head.split(b"\r\n")[0], head
    return sock


def _put(id: str, soul: str, fields: dict[str, Any], state: float) -> dict[str, Any]:
    return {"#": id, "put": {soul: {"_": {"#": soul, ">": dict.fromkeys(fields, state)}, **fields}}}


def _arrays(make: Any, each: int) -> Iterator[bytes]:
    for first in count(0, each):
        yield frame(json.dumps([make(first + at) for at in range(each)]).encode())


def _same(data: bytes) -> Iterator[bytes]:
    while True:
        yield data


def _garbage_text() -> Iterator[bytes]:
    junk = os.urandom(48 * 1024).hex().encode()
    return _same(frame(junk) * 4)


def _garbage_json() -> Iterator[bytes]:
    return _same(frame(json.dumps([{"x": "y" * 300, "n": at} for at in range(200)]).encode()) * 2)


def _garbage_frames() -> Iterator[bytes]:
    return _same(frame(b"[" + b"{}," * 20_000 + b"{}]") * 4)


def _large_objects() -> Iterator[bytes]:
    return _same(frame(b'{"x":[' + b"1," * 2_000_000 + b"1]}"))


def _future(ahead_ms: float) -> Iterator[bytes]:
    start, name = time.time() * 1000 + ahead_ms, os.urandom(6).hex()
    return _arrays(lambda at: _put(f"{name}{at}", f"future/{name}/{at}", {"k": "v" * 100}, start + at), 100)


def _replay() -> Iterator[bytes]:
    state, name = time.time() * 1000 - 1000, os.urandom(6).hex()
    puts = [_put(f"{name}{at}", f"replay/{name}/{at}", {"k": "v"}, state) for at in range(100)]
    return _same(frame(json.dumps(puts).encode()) * 4)


def _replay_gets() -> Iterator[bytes]:
    name = os.urandom(6).hex()
    gets = [{"#": f"{name}{at}", "get": {"#": f"replay/{at}"}} for at in range(100)]
    return _same(frame(json.dumps(gets).encode()) * 4)


def _subscribe() -> Iterator[bytes]:
    name = os.urandom(6).hex()
    return _arrays(lambda at: {"#": f"{name}{at}", "get": {"#": f"none/{name}/{at}"}}, 100)


def _ask() -> Iterator[bytes]:
    """First a large node, then the same question for it over and over, under new ids."""
    name, state = os.urandom(6).hex(), time.time() * 1000 - 1000
    yield frame(
        json.dumps(
            _put(f"{name}p", f"large/{name}", {f"k{i}": "v" * 1000 for i in range(200)}, state)
        ).encode()
    )
    yield from _arrays(lambda at: {"#": f"{name}{at}", "get": {"#": f"large/{name}"}}, 10)


def _scan() -> Iterator[bytes]:
    name = os.urandom(6).hex()
    return _arrays(lambda at: {"#": f"{name}{at}", "get": {"#": {"*": ""}, "%": 100_000}}, 100)


KINDS = {
    "garbage-text": _garbage_text,
    "garbage-json": _garbage_json,
    "garbage-empties": _garbage_frames,
    "garbage-large": _large_objects,
    "garbage-raw": lambda: _same(os.urandom(65_536)),
    "garbage-binary": lambda: _same(frame(os.urandom(65_536), BINARY)),
    "empty-frames": lambda: _same(frame(b"[]") * 5_000),
    "pings": lambda: _same(frame(b"", PING) * 5_000),
    "acks": lambda: _same(
        frame(json.dumps([{"@": f"a{at}", "ok": 1, "#": f"b{at}"} for at in range(500)]).encode())
    ),
    "subscribe": _subscribe,
    "unread": _ask,
    "scan": _scan,
    "replay-puts": _replay,
    "replay-gets": _replay_gets,
    "future-years": lambda: _future(1e11),
    "future-hour": lambda: _future(3.6e6),
}


class _Ear:
    """Hears what the relay says, and keeps the codes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.codes = sock, Counter[str]()
        self.close: tuple[int, str] | None = None

    def listen(self) -> None:
        file = self.sock.makefile("rb", buffering=1 << 20)
        try:
            while len(head := file.read(2)) == 2:
                size = head[1] & 0x7F
                if size >= 126:
                    size = int.from_bytes(file.read(2 if size == 126 else 8), "big")
                body = file.read(size)
                if head[0] & 0x0F == 8:
                    self.close = (struct.unpack("!H", body[:2])[0], body[2:].decode())
                elif b'"err"' in body:
                    parsed = json.loads(body)
                    for message in parsed if isinstance(parsed, list) else [parsed]:
                        if "err" in message:
                            self.codes[message["err"].partition(":")[0]] += 1
        except OSError:
            return


def main(kind: str, url: str, seconds: float) -> None:
    host, _, port = url.removeprefix("ws://").removesuffix("/gun").rpartition(":")
    sock = upgrade(host, int(port))
    ear = _Ear(sock)
    reader = threading.Thread(target=ear.listen, daemon=True)
    if kind != "unread":
        reader.start()
    began, sent = time.monotonic(), 0
    sock.settimeout(1.0)
    ended = None
    for data in KINDS[kind]():
        view = memoryview(data)
        while view and ended is None:
            try:
                done = sock.send(view)
                sent += done
                view = view[done:]
            except TimeoutError:
                pass
            except OSError:
                ended = time.monotonic() - began
            if time.monotonic() - began > seconds:
                break
        if ended is not None or view:
            break
    if kind == "unread":
        reader.start()
    reader.join(2)
    print(
        json.dumps(
            {
                "kind": kind,
                "cut_after": ended,
                "close": ear.close,
                "told": ear.codes,
                "sent_bytes": sent,
                "seconds": time.monotonic() - began,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
