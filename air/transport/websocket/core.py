"""A WebSocket, both roles, as bytes in and events out. (core)

The `websockets` library frames, masks and checks; this module adds the lifetime: handshake, pings, death,
goodbye. The key and the masks of a client come from the library's own randomness, which cannot be handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig
from websockets.frames import EXTERNAL_CLOSE_CODES, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from air.base.clock import Now
from air.base.errors import Closed, Misuse, Reset
from air.transport.http import HttpResponse, Request, chunk, last_chunk, response_head
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.handshake import LOG, ClientHandshake, Refusal, ServerHandshake, http_date

__all__ = ["Ended", "Event", "Opened", "Text", "WebSocketCore"]

ABNORMAL = 1006
"""The close code of a connection that ended without one (RFC 6455, 7.1.5)."""

_CONT, _TEXT, _BINARY = Opcode.CONT, Opcode.TEXT, Opcode.BINARY
# 0x81: final fragment, text. Lengths below 126 are the second byte (RFC 6455, 5.2).
_SHORT_HEADS = tuple(bytes((0x81, size)) for size in range(126))


class Opened(NamedTuple):
    """The handshake is done; text may flow."""


class Text(NamedTuple):
    """One complete text message. The bytes are UTF-8 as far as the peer kept its word: nobody looked."""

    data: bytes


class Ended(NamedTuple):
    """The last event. ``code`` is Air's stable text, ``close_code`` the number of RFC 6455, 7.4."""

    code: str
    close_code: int
    reason: str


Event = Request | Opened | Text | Ended


class _Phase(Enum):
    HANDSHAKE = auto()
    ASKED = auto()
    """A request waits for ``accept`` or ``respond``."""
    ANSWERING = auto()
    """A plain HTTP answer is being written."""
    OPEN = auto()
    CLOSING = auto()
    """Our close frame is out, the peer's is not in."""
    ENDED = auto()


class WebSocketCore:
    """One connection. Violations of the peer are an ``Ended`` event rather than an exception, because valid
    messages may stand before them in the same bytes, and the close frame that names them is output."""

    __slots__ = (
        "_chunked",
        "_client",
        "_closing_bytes",
        "_config",
        "_due",
        "_handshake",
        "_heard",
        "_idle",
        "_idle_since",
        "_out",
        "_part_is_text",
        "_parts",
        "_phase",
        "_protocol",
        "binary_dropped",
        "done",
        "ended",
    )

    def __init__(self, config: WebSocketConfig, now: Now, *, url: str | None = None) -> None:
        """A server, or with ``url`` a client of it. Raises ConfigError when that is no WebSocket address."""
        self._config = config
        self._client = url is not None
        self._phase = _Phase.HANDSHAKE
        self._due = now.monotonic + config.handshake_seconds
        self._heard = now.monotonic
        self._protocol: Protocol | None = None
        self._parts: list[bytes] | None = None
        self._part_is_text = False
        self._chunked = False
        self._closing_bytes = self._idle = 0
        self._idle_since = now.monotonic
        self._out: list[bytes] = []
        self.binary_dropped = 0
        """Binary messages that were ignored, as GUN ignores them (gun-wire 1.1)."""
        self.ended: Ended | None = None
        """The event that ended the connection, once it has been."""
        self.done = False
        """Nothing more is worth waiting for: both sides said goodbye, or the stream is at its end."""
        self._handshake: ServerHandshake | ClientHandshake | None
        if url is None:
            self._handshake = ServerHandshake(config)
        else:
            self._handshake = client = ClientHandshake(url, config)
            self._out += client.output

    # What came

    def receive(self, data: bytes | bytearray, now: Now, /) -> list[Event]:
        """Take bytes of the peer, return all that they complete."""
        self._heard = now.monotonic
        phase = self._phase
        if phase is _Phase.OPEN:
            self._due = now.monotonic + self._config.ping_seconds
            return self._frames(data)
        if phase is _Phase.CLOSING:
            self._closing_bytes += len(data)
            if self._closing_bytes > self._config.close_reads * self._config.receive_bytes:
                return [self._end("ws.close-slow", ABNORMAL, "the peer goes on after our goodbye")]
            return self._frames(data)
        if phase is _Phase.HANDSHAKE:
            return self._shake_hands(data, now)
        return []

    def receive_eof(self, now: Now, /) -> list[Event]:
        """Take the end of the stream, orderly or not."""
        self.done = True
        if self._phase is _Phase.ENDED:
            return []
        if self._phase is _Phase.CLOSING:
            return [self._end("link.closed", ABNORMAL, "the peer left without a goodbye of its own")]
        return [self._end("link.reset", ABNORMAL, "the stream ended without a goodbye")]

    @property
    def deadline(self) -> float | None:
        """Monotonic time of the next ``tick``."""
        return None if self._due == math.inf else self._due

    def overdue(self, now: Now, /) -> bool:
        """Whether the deadline has passed."""
        return now.monotonic >= self._due

    def tick(self, now: Now, /) -> list[Event]:
        """Do what the deadline asks for: ping, or give up."""
        if now.monotonic < self._due:
            return []
        config = self._config
        if self._phase is _Phase.OPEN:
            assert self._protocol is not None
            if now.monotonic - self._heard >= config.dead_seconds:
                self.done = True
                return [self._end("ws.dead", ABNORMAL, f"nothing heard for {config.dead_seconds} seconds")]
            self._protocol.send_ping(b"")
            self._out += self._protocol.data_to_send()
            self._due = min(now.monotonic + config.ping_seconds, self._heard + config.dead_seconds)
            return []
        self.done = True
        if self._phase is _Phase.HANDSHAKE:
            return [self._end("ws.handshake-slow", ABNORMAL, "the handshake took too long")]
        return [self._end("ws.close-slow", ABNORMAL, "the peer did not answer our goodbye")]

    # What goes

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def pending_bytes(self) -> int:
        """Length of the output that waits."""
        return sum(map(len, self._out))

    def take_output(self) -> list[bytes]:
        """Bytes to write, in order, to be joined by whoever writes them."""
        output, self._out = self._out, []
        return output

    def accept(self, now: Now, /) -> list[Event]:
        """Server: complete the upgrade that was asked for, unless path, origin or request forbid it."""
        if self._phase is not _Phase.ASKED:
            raise Misuse("there is no request to accept")
        assert isinstance(self._handshake, ServerHandshake)
        answer = self._handshake.accept(now)
        if isinstance(answer, Refusal):
            return [self._refuse(answer)]
        self._out.append(answer)
        return self._open(now, self._handshake.rest)

    def respond(self, request: Request, response: HttpResponse, now: Now, /) -> None:
        """Server: answer without an upgrade. A body in pieces follows with ``body`` and ``body_end``."""
        if self._phase is not _Phase.ASKED:
            raise Misuse("there is no request to answer")
        whole = isinstance(response.body, bytes)
        sized = whole or any(name.lower() == "content-length" for name in response.headers)
        chunked = not sized and request.protocol == "HTTP/1.1"
        self._out.append(response_head(response, http_date(now), chunked=chunked))
        self._phase, self._due, self._handshake = _Phase.ANSWERING, math.inf, None
        self._chunked = chunked
        # A HEAD is answered by the head alone.
        if request.method == "HEAD":
            self._finish_answer()
        elif isinstance(response.body, bytes):
            if response.body:
                self._out.append(response.body)
            self._finish_answer()

    def body(self, data: bytes) -> None:
        """Server: the next piece of the answer."""
        if self._phase is not _Phase.ANSWERING:
            raise Misuse("no answer is being written")
        if data:
            self._out.append(chunk(data) if self._chunked else data)

    def body_end(self) -> None:
        """Server: the answer is complete."""
        if self._phase is _Phase.ANSWERING:
            if self._chunked:
                self._out.append(last_chunk())
            self._finish_answer()

    @property
    def answering(self) -> bool:
        """Whether pieces of an HTTP answer are still expected."""
        return self._phase is _Phase.ANSWERING

    def send(self, messages: Iterable[bytes]) -> None:
        """Queue text messages. Raises Closed when the connection does not take any (more)."""
        if self._phase is not _Phase.OPEN:
            raise self.error() if self.ended is not None else Closed("the connection is not open")
        assert self._protocol is not None
        out = self._out
        if self._client:
            for message in messages:
                self._protocol.send_text(message)
            out += self._protocol.data_to_send()
            return
        # A server does not mask, so a frame is a head of 2, 4 or 10 bytes and the message as it is: written
        # here without a copy, at a fraction of what the library takes.
        append = out.append
        for message in messages:
            size = len(message)
            if size < 126:
                append(_SHORT_HEADS[size])
            elif size < 65536:
                append(b"\x81\x7e" + size.to_bytes(2, "big"))
            else:
                append(b"\x81\x7f" + size.to_bytes(8, "big"))
            append(message)

    def close(self, close_code: int, reason: str, now: Now, /) -> None:
        """Say goodbye; the peer has ``close_seconds`` to answer. A connection that is not open just ends."""
        if self._phase is _Phase.OPEN:
            assert self._protocol is not None
            if close_code not in EXTERNAL_CLOSE_CODES and not 3000 <= close_code < 5000:
                raise Misuse(f"{close_code} is no close code to send", code="ws.bad-close-code")
            # A close frame holds 125 bytes, 2 of them the code.
            self._protocol.send_close(close_code, reason.encode()[:123].decode(errors="ignore"))
            self._out += self._protocol.data_to_send()
            self._phase, self._due = _Phase.CLOSING, now.monotonic + self._config.close_seconds
        elif self._phase is not _Phase.CLOSING and self.ended is None:
            self._end("link.closed", ABNORMAL, "closed before it was open")

    def abort(self, code: str, reason: str) -> None:
        """The stream is being cut on this side."""
        self.done = True
        self._out = []
        if self.ended is None:
            self._end(code, ABNORMAL, reason)

    def error(self) -> Closed:
        """The exception that tells a caller how the connection ended: Reset unless it was in good order."""
        if self.ended is None:
            raise Misuse("the connection has not ended")
        code, close_code, reason = self.ended
        kind = Closed if code == "link.closed" else Reset
        return kind(f"{reason or 'closed'} ({close_code})", code=code)

    # Inside

    def _shake_hands(self, data: bytes | bytearray, now: Now) -> list[Event]:
        if isinstance(self._handshake, ServerHandshake):
            asked = self._handshake.receive(data, now)
            if asked is None:
                return []
            if isinstance(asked, Refusal):
                return [self._refuse(asked)]
            self._phase, self._due = _Phase.ASKED, math.inf
            return [asked]
        assert self._handshake is not None
        opened = self._handshake.receive(data)
        if isinstance(opened, Refusal):
            return [self._refuse(opened)]
        return self._open(now, self._handshake.rest) if opened else []

    def _open(self, now: Now, rest: bytes) -> list[Event]:
        self._handshake = None
        self._phase, self._due = _Phase.OPEN, now.monotonic + self._config.ping_seconds
        self._heard = now.monotonic
        side = Side.CLIENT if self._client else Side.SERVER
        self._protocol = Protocol(side, state=State.OPEN, max_size=self._config.frame_bytes_max, logger=LOG)
        return [Opened(), *(self._frames(rest) if rest else ())]

    def _frames(self, data: bytes | bytearray) -> list[Event]:
        protocol = self._protocol
        assert protocol is not None
        protocol.receive_data(data)
        events: list[Event] = []
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)  # An open connection yields nothing else.
            opcode = frame.opcode
            if opcode is _TEXT and frame.fin:
                events.append(Text(bytes(frame.data)))
                continue
            size = len(frame.data)
            if opcode is _BINARY or (opcode is _CONT and not self._part_is_text):
                self._idle += 1 + (size >> 10)
            elif opcode is not _TEXT or size < 1024:
                self._idle += 1 if size < 1024 else 0
            if self._idle > self._config.idle_frames_max and self._is_flood(protocol, events):
                break
            if opcode is _TEXT or opcode is _BINARY or opcode is _CONT:
                message = self._fragment(opcode, bytes(frame.data), frame.fin)
                if message is not None:
                    events.append(Text(message))
                if self._parts is not None and len(self._parts) > self._config.fragments_max:
                    limit = self._config.fragments_max
                    protocol.fail(1008, "ws.too-many-fragments")
                    events.append(self._end("ws.too-many-fragments", 1008, f"more than {limit} fragments"))
                    break
        if self.ended is None:
            events += self._check(protocol)
        self._out += filter(None, protocol.data_to_send())
        return events

    def _is_flood(self, protocol: Protocol, events: list[Event]) -> bool:
        """Too many frames without use; unless the time to count them in has long been over."""
        if self._heard - self._idle_since >= self._config.idle_seconds:
            self._idle, self._idle_since = 0, self._heard
            return False
        protocol.fail(1008, "ws.idle-flood")
        events.append(self._end("ws.idle-flood", 1008, "too many frames without use"))
        return True

    def _fragment(self, opcode: Opcode, data: bytes, fin: bool) -> bytes | None:
        if opcode is not _CONT:
            self._part_is_text = opcode is _TEXT
            self._parts = []
        assert self._parts is not None
        # Of a binary message only the number of fragments is kept.
        self._parts.append(data if self._part_is_text else b"")
        if not fin:
            return None
        parts, self._parts = self._parts, None
        if self._part_is_text:
            return b"".join(parts)
        self.binary_dropped += 1
        return None

    def _check(self, protocol: Protocol) -> list[Event]:
        """What the library made of the bytes besides messages."""
        fault = protocol.parser_exc
        if fault is not None:
            if isinstance(fault, PayloadTooBig):
                return [self._end("ws.too-big", 1009, f"longer than {self._config.frame_bytes_max} bytes")]
            if isinstance(fault, UnicodeDecodeError):
                return [self._end("ws.bad-text", 1007, "the reason of a close frame is not UTF-8")]
            return [self._end("ws.protocol", 1002, str(fault))]
        farewell = protocol.close_rcvd
        if farewell is None:
            return []
        # The server closes the stream first (RFC 6455, 7.1.1); a client awaits that.
        self.done = not self._client
        return [self._end("link.closed", int(farewell.code), farewell.reason)]

    def _refuse(self, refusal: Refusal) -> Ended:
        if refusal.output:
            self._out.append(refusal.output)
        return self._end(refusal.code, ABNORMAL, refusal.reason)

    def _finish_answer(self) -> None:
        self._end("link.closed", ABNORMAL, "answered without a WebSocket")

    def _end(self, code: str, close_code: int, reason: str) -> Ended:
        self._phase, self._due = _Phase.ENDED, math.inf
        self._handshake, self._parts = None, None
        self.ended = ended = Ended(code, close_code, reason)
        return ended
