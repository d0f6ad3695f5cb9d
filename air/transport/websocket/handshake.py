"""The opening of a WebSocket, both roles: HTTP heads in, answers out. (core)

The head is cut off here and handed to the library in one piece. So the limit on its size is ours, bytes that
a hasty peer sends after it wait until the upgrade is decided, and the library's handshake objects (headers,
request, generator frames: some KiB) are dropped when the connection begins instead of living as long.
"""

from __future__ import annotations

import logging
from email.utils import formatdate
from sys import intern
from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.exceptions import (
    HeaderLineTooLong,
    InvalidURI,
    RequestLineTooLong,
    TooManyHeaders,
)
from websockets.http11 import Request as WireRequest
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI, parse_uri

from air.base.clock import Now
from air.base.errors import ConfigError
from air.transport.http import Request, plain, response_head
from air.transport.websocket.config import WebSocketConfig

__all__ = ["LOG", "ClientHandshake", "Refusal", "ServerHandshake", "http_date", "parse_url"]

# The library logs every connection, and every frame once debugging is on. Ours are counted instead.
LOG = logging.getLogger("air.transport.websocket.wire")
LOG.setLevel(logging.ERROR)

Buffer = bytes | bytearray | memoryview

_END = b"\r\n\r\n"
_ANSWERED = frozenset({b"GET", b"HEAD"})


class Refusal(NamedTuple):
    """The handshake failed."""

    code: str
    reason: str
    output: bytes = b""
    """What the peer is told."""


class _Head:
    """Collects bytes up to the empty line; what follows it is ``rest``."""

    __slots__ = ("_head", "_limit", "_searched", "rest")

    def __init__(self, limit: int) -> None:
        self._head = bytearray()
        self._limit = limit
        self._searched = 0
        self.rest = b""

    def receive(self, data: Buffer) -> bytes | Refusal | None:
        """The complete head, None while it is not complete, a Refusal without output when it is too long."""
        head = self._head
        head += data
        end = head.find(_END, self._searched)
        if end < 0 or end + len(_END) > self._limit:
            # Judged by the bytes up to the limit only, so that it does not matter how they arrive.
            if len(head) >= self._limit:
                return Refusal("http.too-big", f"no complete head within {self._limit} bytes")
            self._searched = max(0, len(head) - len(_END) + 1)
            return None
        end += len(_END)
        complete, self.rest = bytes(head[:end]), bytes(head[end:])
        self._head = bytearray()
        return complete


class ServerHandshake:
    """Reads one request and answers it with an upgrade, or not."""

    __slots__ = ("_asked", "_config", "_head", "_library")

    def __init__(self, config: WebSocketConfig) -> None:
        self._config = config
        self._head = _Head(config.header_bytes_max)
        self._library = ServerProtocol(max_size=config.frame_bytes_max, logger=LOG)
        self._asked: tuple[Request, WireRequest] | None = None

    @property
    def rest(self) -> bytes:
        """Bytes that came after the head."""
        return self._head.rest

    def receive(self, data: Buffer, now: Now) -> Request | Refusal | None:
        """The request, None while it is not complete, or a refusal with the answer to write."""
        head = self._head.receive(data)
        if head is None:
            return None
        if isinstance(head, Refusal):
            return _refuse(now, 431, head.code, head.reason)
        method = head.partition(b" ")[0]
        if method.isalpha() and method not in _ANSWERED:
            # Before the library sees it: it takes no request with a body, and would call this one malformed.
            return _refuse(
                now, 405, "http.method", f"method {method.decode('ascii')}", {"Allow": "GET, HEAD"}
            )
        self._library.receive_data(head)
        for wire in self._library.events_received():
            if isinstance(wire, WireRequest):
                if wire.method.encode() not in _ANSWERED:
                    return _refuse(now, 400, "http.malformed", "method")
                request = _translate(wire)
                self._asked = (request, wire)
                return request
        return self._malformed(now)

    def accept(self, now: Now) -> bytes | Refusal:
        """The answer that turns the connection into a WebSocket, or why it does not become one."""
        assert self._asked is not None
        request, wire = self._asked
        if request.route not in self._config.paths:
            return _refuse(now, 400, "ws.path", f"no WebSocket at {request.route}")
        origins = self._config.origins
        if origins is not None and request.origin is not None and request.origin not in origins:
            return _refuse(now, 403, "ws.origin", f"origin {request.origin}")
        # No extension is configured, so none is accepted: a compressed message of 32 KiB can be 32 MiB long.
        response = self._library.accept(wire)
        if response.status_code == 101:
            # The library dates it by a clock of its own; a 101 needs no date (RFC 9110, 6.6.1).
            del response.headers["Date"]
            return response.serialize()
        headers = {name: response.headers[name] for name in ("Allow", "Upgrade") if name in response.headers}
        return _refuse(now, response.status_code, "ws.handshake", str(self._library.handshake_exc), headers)

    def _malformed(self, now: Now) -> Refusal:
        error = self._library.handshake_exc
        if isinstance(error, RequestLineTooLong):
            return _refuse(now, 414, "http.too-big", "request line too long")
        if isinstance(error, HeaderLineTooLong | TooManyHeaders):
            return _refuse(now, 431, "http.too-big", str(error))
        cause = error.__cause__ if error is not None else None
        return _refuse(now, 400, "http.malformed", str(cause or error))


class ClientHandshake:
    """Asks for an upgrade and checks the answer."""

    __slots__ = ("_head", "_library", "output")

    def __init__(self, url: str, config: WebSocketConfig) -> None:
        self._head = _Head(config.header_bytes_max)
        self._library = ClientProtocol(parse_url(url), max_size=config.frame_bytes_max, logger=LOG)
        self._library.send_request(self._library.connect())
        self.output = self._library.data_to_send()

    @property
    def rest(self) -> bytes:
        """Bytes that came after the head."""
        return self._head.rest

    def receive(self, data: Buffer) -> bool | Refusal:
        """True when the connection is open, False while the answer is not complete."""
        head = self._head.receive(data)
        if head is None:
            return False
        if isinstance(head, Refusal):
            return head
        status = head.split(b"\r\n", 1)[0].split(b" ", 2)[1:2]
        if status != [b"101"]:
            # Not shown to the library, which would wait for a body that nobody reads.
            told = status[0].decode("latin-1") if status else "no status"
            return Refusal("ws.refused", f"the server answered {told[:20]}")
        self._library.receive_data(head)
        if self._library.state is State.OPEN:
            return True
        error = self._library.handshake_exc
        cause = error.__cause__ if error is not None else None
        return Refusal("ws.handshake", str(cause or error)[:200])


def parse_url(url: str) -> WebSocketURI:
    """Where to connect. ``http`` and ``https`` mean ``ws`` and ``wss``: GUN apps name their relays that way.

    Raises ConfigError with code ``ws.bad-url``.
    """
    scheme, colon, rest = url.partition("://")
    spelled = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme.lower()) + colon + rest
    try:
        return parse_uri(spelled)
    except (InvalidURI, ValueError) as error:
        raise ConfigError(f"{url!r} is no address of a WebSocket: {error}", code="ws.bad-url") from error


def http_date(now: Now) -> str:
    """The time as HTTP spells it."""
    return formatdate(now.wall / 1000.0, usegmt=True)


def _refuse(now: Now, status: int, code: str, reason: str, headers: dict[str, str] | None = None) -> Refusal:
    # The reason quotes the peer, who may have sent anything; he is told the code alone.
    answer = plain(status, code, headers)
    assert isinstance(answer.body, bytes)
    return Refusal(code, reason[:200], response_head(answer, http_date(now), chunked=False) + answer.body)


def _translate(wire: WireRequest) -> Request:
    headers: dict[str, str] = {}
    for name, value in wire.headers.raw_items():
        # The names are few and the connections many, and each keeps its headers.
        name = intern(name.lower())
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    upgrade = (
        wire.method == "GET" and "upgrade" in tokens and "websocket" in headers.get("upgrade", "").lower()
    )
    return Request(wire.method, wire.path, headers, upgrade, wire.protocol)
