"""A WebSocket that carries bytes: binary messages whose borders mean nothing. (core)

The `websockets` library frames, masks and checks. Sans-I/O as the text core beside it, but without pings of
its own and without waiting for goodbyes: the multiplexer above has both.
"""

from __future__ import annotations

from dataclasses import dataclass

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from air.base.errors import Closed, Reset
from air.transport.websocket.handshake import LOG

__all__ = ["BinaryConfig", "BinaryCore"]

KIB = 1024
_DATA = frozenset({Opcode.BINARY, Opcode.TEXT, Opcode.CONT})


@dataclass(frozen=True, slots=True)
class BinaryConfig:
    frame_bytes_max: int = 1024 * KIB
    """Longest frame taken. A message may have any number of them: each is handed on as it comes."""
    send_bytes: int = 64 * KIB
    """Longest message sent."""
    header_bytes_max: int = 16 * KIB
    """Longest head of a request or answer."""
    handshake_seconds: float = 10.0
    """From the TCP connection to the upgrade, TLS included."""
    answer_seconds: float = 5.0
    """How long the peer may take nothing of our pongs before it is cut (``ws.slow-reader``)."""
    pending_bytes_max: int = 64 * KIB
    """Pongs waiting behind a write; a peer that makes us owe more is cut (``ws.ping-flood``)."""


class BinaryCore:
    """One connection after its handshake, either role."""

    __slots__ = ("_client", "_config", "_out", "_owed", "_protocol", "ended")

    def __init__(self, config: BinaryConfig, *, client: bool) -> None:
        self._config, self._client = config, client
        side = Side.CLIENT if client else Side.SERVER
        limit = (None, config.frame_bytes_max)
        self._protocol = Protocol(side, state=State.OPEN, max_size=limit, logger=LOG)
        self._out: list[bytes] = []
        self._owed = 0
        """Bytes of pongs in the output, as distinct from data."""
        self.ended: Closed | None = None
        """How it ended, as the reader is told: Reset unless it was in good order."""

    def receive(self, data: bytes) -> list[bytes]:
        """Take what arrived, return the payloads in it, none of them empty."""
        if self.ended is not None:
            return []
        protocol = self._protocol
        protocol.receive_data(data)
        pieces = []
        for frame in protocol.events_received():
            # Text is taken too, as js-libp2p does: who speaks libp2p means bytes.
            if isinstance(frame, Frame) and frame.opcode in _DATA and frame.data:
                pieces.append(bytes(frame.data))
        for answer in filter(None, protocol.data_to_send()):
            self._out.append(answer)
            self._owed += len(answer)
        self._check()
        return pieces

    def receive_eof(self) -> None:
        """The stream below has ended."""
        self.abort("the stream ended without a goodbye")

    def abort(self, reason: str, code: str | None = None) -> None:
        """The stream below is good for nothing any more."""
        if self.ended is None:
            self.ended = Reset(reason, code=code)

    def send(self, data: bytes) -> None:
        """Queue ``data``. Raises how the connection ended."""
        if self.ended is not None:
            raise self.error()
        if self._protocol.state is not State.OPEN:
            raise Reset("nothing can follow a goodbye")
        size, most = len(data), self._config.send_bytes
        for start in range(0, size, most):
            piece = data if size <= most else data[start : start + most]
            if self._client:
                self._protocol.send_binary(piece)
                self._out += self._protocol.data_to_send()
            else:
                # A server does not mask: the frame is a head and the data as they are.
                self._out += (_head(len(piece)), piece)

    def error(self) -> Closed:
        """How it ended, fresh: an exception that is raised twice keeps the frames of both alive."""
        assert self.ended is not None
        return type(self.ended)(str(self.ended), code=self.ended.code)

    def finish(self) -> None:
        """Say goodbye: 1000, all is well. What the peer still sends is taken."""
        if self.ended is None and self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._out += filter(None, self._protocol.data_to_send())

    def close(self) -> None:
        """Say goodbye and take nothing more."""
        self.finish()
        self.abort("the connection was closed on this side")

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def take_output(self) -> bytes:
        """Everything queued, joined."""
        out, self._out, self._owed = self._out, [], 0
        return b"".join(out)

    def _check(self) -> None:
        protocol = self._protocol
        fault, farewell = protocol.parser_exc, protocol.close_rcvd
        if fault is not None:
            code = "ws.too-big" if isinstance(fault, PayloadTooBig) else "ws.protocol"
            self.ended = Reset(str(fault) or type(fault).__name__, code=code)
        elif farewell is not None:
            # go-libp2p takes 1000 and 1005 for an orderly end, anything else for an error.
            fine = int(farewell.code) in (1000, 1005)
            self.ended = (
                Closed("the peer said goodbye") if fine else Reset(f"closed with {int(farewell.code)}")
            )
        elif self._owed > self._config.pending_bytes_max:
            self._out.clear()
            self.ended = Reset("the peer sends pings and takes no answers", code="ws.ping-flood")


def _head(size: int) -> bytes:
    if size < 126:
        return bytes((0x82, size))
    if size < 65536:
        return b"\x82\x7e" + size.to_bytes(2, "big")
    return b"\x82\x7f" + size.to_bytes(8, "big")
