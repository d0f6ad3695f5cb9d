"""multistream-select 1.0: how two peers agree on a protocol, both roles. (core)

Each side says ``/multistream/1.0.0`` once. The dialer then proposes protocols, best first; the listener
repeats the one it speaks, or says ``na``. From there on the stream belongs to the protocol, including bytes
that have come already.

Source: libp2p connections, multistream-select.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from air.base.clock import Now
from air.base.errors import Closed, Denied, LimitReached, Misuse, Violation
from air.base.varint import encode_varint, take_varint

__all__ = ["HEADER", "Agreed", "Dialer", "Listed", "Listener", "MultistreamConfig", "encode_message"]

HEADER: Final = "/multistream/1.0.0"


@dataclass(frozen=True, slots=True)
class MultistreamConfig:
    message_bytes_max: int = 1024
    """Longest message with its newline, so a protocol id has at most 1023 bytes. As in go and js."""
    proposals_max: int = 64
    """Proposals, or requests for the list, that a listener answers before it gives up."""
    timeout_seconds: float = 10.0
    """From the first byte we send or wait for until both agree."""
    goodbye_seconds: float = 5.0
    """How long closing a stream waits for the answer to a proposal that was sent with data."""
    list_bytes_max: int = 16 * 1024
    """A list of protocols (``ls``) longer than this is neither sent nor read; it is answered ``na``."""


class Agreed(NamedTuple):
    """Both sides speak ``protocol`` from here on; ``take_rest`` has what the peer has said in it already."""

    protocol: str


class Listed(NamedTuple):
    """What the listener says it speaks."""

    protocols: tuple[str, ...]


Event = Agreed | Listed


def encode_message(text: str) -> bytes:
    """One message: its length, the text, a newline."""
    data = text.encode() + b"\n"
    return encode_varint(len(data)) + data


_HEADER: Final = encode_message(HEADER)
_NA: Final = encode_message("na")
_LS: Final = encode_message("ls")


class _Negotiation(ABC):
    """What both roles share: messages out of bytes, an end, a time limit."""

    __slots__ = ("_buffer", "_config", "_dead", "_greeted", "_out", "agreed", "deadline")

    def __init__(self, config: MultistreamConfig, now: Now) -> None:
        self._config = config
        self._buffer = bytearray()
        self._greeted = False
        self._out: list[bytes] = []
        self._dead = False
        self.agreed: str | None = None
        """The protocol, once both know it."""
        self.deadline: float | None = now.monotonic + config.timeout_seconds
        """When ``tick`` is due, on the monotonic clock; None when there is nothing to wait for."""

    def receive(self, data: bytes, now: Now, /) -> Sequence[Event]:
        """Take bytes of the peer.

        Raises Violation with the codes of this module; the stream is then good for nothing. Raises Denied
        ``multistream.unsupported`` at a dialer when the listener speaks none of its protocols.
        """
        if self._dead:
            raise Misuse("the negotiation has failed before", code="multistream.dead")
        self._buffer += data
        try:
            return self._work()
        except Exception:
            self._fail()
            raise

    def receive_eof(self, now: Now, /) -> Sequence[Event]:
        """The peer ended its side. Violation ``multistream.truncated`` inside a message, else Closed."""
        if self.agreed is not None:
            return ()
        truncated = bool(self._buffer)
        self._fail()
        if truncated:
            raise Violation("the stream ended inside a message", code="multistream.truncated", fatal=True)
        raise Closed("the peer left before a protocol was agreed on", code="multistream.left")

    def tick(self, now: Now, /) -> Sequence[Event]:
        """Raises Violation ``multistream.timeout`` when the time is over."""
        if self.deadline is not None and now.monotonic >= self.deadline:
            self._fail()
            raise Violation("no protocol was agreed on in time", code="multistream.timeout", fatal=True)
        return ()

    def take_output(self) -> list[bytes]:
        """What has to be sent, joined: a peer should find our header and verdict in one read."""
        out, self._out = self._out, []
        return [b"".join(out)] if len(out) > 1 else out

    def take_rest(self) -> bytes:
        """After Agreed: what the peer sent behind its message. It belongs to the protocol."""
        if self.agreed is None:
            raise Misuse("nothing is agreed yet", code="multistream.early")
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _fail(self) -> None:
        self._dead, self.deadline = True, None
        self._buffer.clear()
        self._out.clear()

    def _agree(self, protocol: str) -> Agreed:
        self.agreed, self.deadline = protocol, None
        return Agreed(protocol)

    def _work(self) -> Sequence[Event]:
        events: list[Event] = []
        if not self._greeted:
            # Byte by byte: who speaks something else altogether, HTTP or TLS, need not finish its sentence.
            seen = len(_HEADER)
            if self._buffer[:seen] != _HEADER[: len(self._buffer)]:
                raise Violation(
                    "the first message is not the header", code="multistream.no-header", fatal=True
                )
            if len(self._buffer) < seen:
                return events
            del self._buffer[:seen]
            self._greeted = True
            self._greet()
        while self.agreed is None:
            body = self._take()
            if body is None:
                break
            event = self._message(body)
            if event is not None:
                events.append(event)
        return events

    def _take(self) -> bytes | None:
        """The next whole message with its newline, or None."""
        limit = self._limit()
        try:
            taken = take_varint(self._buffer, 0, limit=limit)
        except Violation as error:
            if error.code == "varint.too-large":
                raise LimitReached(
                    f"a message longer than {limit} bytes", code="multistream.too-long", fatal=True
                ) from None
            raise Violation(error.message, code="multistream.bad-length", fatal=True) from None
        if taken is None:
            return None
        size, used = taken
        if not size:
            raise Violation("an empty message", code="multistream.empty", fatal=True)
        if len(self._buffer) < used + size:
            return None
        body = bytes(self._buffer[used : used + size])
        del self._buffer[: used + size]
        return body

    def _limit(self) -> int:
        return self._config.message_bytes_max

    def _greet(self) -> None:
        return

    @abstractmethod
    def _message(self, body: bytes) -> Event | None:
        """Judge a whole message of the peer, its newline included."""


class Dialer(_Negotiation):
    """The side that opened the stream and has the choice."""

    __slots__ = ("_listing", "_proposals")

    def __init__(self, protocols: Sequence[str], config: MultistreamConfig, now: Now) -> None:
        """``protocols``, the best first. Without any, the listener is asked for its list.

        The header and the first proposal are output at once and together. With a single protocol the caller
        may send its own first bytes right behind them, before the answer is there: a guess that costs a
        round trip less, and the stream if it is wrong.
        """
        super().__init__(config, now)
        for protocol in protocols:
            if not protocol.startswith("/") or "\n" in protocol:
                raise Misuse(f"{protocol!r} is no protocol id", code="multistream.bad-id")
            if len(protocol.encode()) >= config.message_bytes_max:
                raise Misuse(
                    f"a protocol id above {config.message_bytes_max - 1} bytes", code="multistream.bad-id"
                )
        self._proposals = list(reversed(protocols))
        self._listing = not protocols
        self._out += [_HEADER, encode_message(self._proposals[-1]) if protocols else _LS]

    def _limit(self) -> int:
        return (
            self._config.list_bytes_max if self._listing and self._greeted else self._config.message_bytes_max
        )

    def _message(self, body: bytes) -> Event | None:
        if body == b"na\n":
            if self._listing:
                raise Denied("the peer does not tell its protocols", code="multistream.no-list")
            self._proposals.pop()
            if not self._proposals:
                raise Denied("the peer speaks none of these protocols", code="multistream.unsupported")
            self._out.append(encode_message(self._proposals[-1]))
            return None
        if self._listing:
            self.agreed, self.deadline = "", None
            return Listed(_read_list(body, self._config))
        if body != self._proposals[-1].encode() + b"\n":
            raise Violation("an answer to something else", code="multistream.bad-reply", fatal=True)
        return self._agree(self._proposals[-1])


class Listener(_Negotiation):
    """The side that was called."""

    __slots__ = ("_asked", "_protocols", "_speaks")

    def __init__(
        self,
        protocols: Sequence[str],
        config: MultistreamConfig,
        now: Now,
        *,
        speaks: Callable[[str], bool] | None = None,
    ) -> None:
        """``protocols`` is what ``ls`` tells; ``speaks`` decides, by default by looking it up there."""
        super().__init__(config, now)
        self._protocols = protocols
        self._speaks = speaks if speaks is not None else frozenset(protocols).__contains__
        self._asked = 0

    def _greet(self) -> None:
        self._out.append(_HEADER)

    def _message(self, body: bytes) -> Event | None:
        self._asked += 1
        if self._asked > self._config.proposals_max:
            raise LimitReached("more proposals than anybody needs", code="multistream.too-many", fatal=True)
        if body == b"ls\n":
            self._out.append(_write_list(self._protocols, self._config))
            return None
        text = _text(body)
        if text == HEADER:
            raise Violation("a second header", code="multistream.second-header", fatal=True)
        if not text.startswith("/"):
            raise Violation("a proposal that is no protocol id", code="multistream.bad-proposal", fatal=True)
        if self._speaks(text):
            self._out.append(encode_message(text))
            return self._agree(text)
        # Also what /libp2p/simultaneous-connect gets: nobody settles roles here any more.
        self._out.append(_NA)
        return None


def _text(body: bytes) -> str:
    """The text of a message. Raises Violation ``multistream.no-newline``, ``.newline`` or ``.not-utf8``."""
    if body[-1:] != b"\n":
        raise Violation("a message without a newline at its end", code="multistream.no-newline", fatal=True)
    if b"\n" in body[:-1]:
        raise Violation("a newline inside a message", code="multistream.newline", fatal=True)
    try:
        return body[:-1].decode()
    except UnicodeDecodeError:
        raise Violation("a message that is not UTF-8", code="multistream.not-utf8", fatal=True) from None


def _write_list(protocols: Sequence[str], config: MultistreamConfig) -> bytes:
    body = b"".join(map(encode_message, protocols)) + b"\n"
    return encode_varint(len(body)) + body if len(body) <= config.list_bytes_max else _NA


def _read_list(body: bytes, config: MultistreamConfig) -> tuple[str, ...]:
    found, index = [], 0
    if body[-1:] != b"\n":
        raise Violation("a list without a newline at its end", code="multistream.no-newline", fatal=True)
    while index < len(body) - 1:
        try:
            taken = take_varint(body, index, limit=config.message_bytes_max)
        except Violation as error:
            raise Violation(error.message, code="multistream.bad-list", fatal=True) from None
        if taken is None or not taken[0] or index + sum(taken) >= len(body):
            raise Violation("a list that is cut short", code="multistream.bad-list", fatal=True)
        index += taken[1]
        found.append(_text(body[index : index + taken[0]]))
        index += taken[0]
    return tuple(found)
