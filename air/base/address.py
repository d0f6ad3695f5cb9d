"""Multiaddr: addresses that say how to be read, such as ``/ip4/127.0.0.1/tcp/4001/p2p/12D3Koo…``. (core)

The ``multiaddr`` library knows the protocols and turns one value to bytes and back. What it is lenient
about is checked here: lengths in binary addresses, values whose spelling does not come back, empty
components. Peer ids and socket paths are read here, because the library reads them otherwise than
go-libp2p does.

Source: multiformats multiaddr.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from multiaddr.codecs import CodecBase, codec_by_name  # type: ignore[import-untyped]
from multiaddr.exceptions import Error as MultiaddrError  # type: ignore[import-untyped]
from multiaddr.protocols import REGISTRY  # type: ignore[import-untyped]

from air.base.errors import Violation
from air.base.peer_id import PeerId
from air.base.varint import encode_varint, take_varint

__all__ = ["ADDRESS_BYTES_MAX", "Multiaddr", "Part", "read_addresses"]

ADDRESS_BYTES_MAX: Final = 1024
"""A longer address is refused, as bytes and as text. Real ones have about a hundred bytes."""

_ALIASES: Final = {"ipfs": "p2p"}


class Part(NamedTuple):
    """One step of an address."""

    name: str
    value: str
    """Empty when the protocol has no value."""


class _Protocol(NamedTuple):
    name: str
    code: bytes
    codec: CodecBase | None
    """None for a protocol without a value."""
    size: int
    """Bytes of the value; -1 when a length stands before it."""


class Multiaddr:
    """An address. Immutable; equal addresses are equal objects, and sort by their text."""

    __slots__ = ("_bytes", "_text", "parts")

    parts: tuple[Part, ...]
    _bytes: bytes
    _text: str

    def __init__(self, text: str) -> None:
        """Read the text form. Raises Violation ``address.bad-text`` or ``address.unknown-protocol``."""
        if len(text) > ADDRESS_BYTES_MAX:
            raise Violation(f"an address above {ADDRESS_BYTES_MAX} characters", code="address.too-long")
        words = text.split("/")
        if words[-1] == "" and len(words) > 2:
            words.pop()
        if words[0] or len(words) < 2:
            raise Violation(f"{text!r} does not begin with /", code="address.bad-text")
        parts, pieces, index = [], [], 1
        while index < len(words):
            protocol = _by_name(words[index])
            index += 1
            pieces.append(protocol.code)
            value = ""
            if protocol.codec is not None:
                # A socket path takes the rest of the text: nothing can follow it.
                value = (
                    "/" + "/".join(words[index:])
                    if protocol.name == "unix"
                    else "".join(words[index : index + 1])
                )
                index = len(words) if protocol.name == "unix" else index + 1
                raw = _to_bytes(protocol, value)
                value = _to_text(protocol, raw)
                if protocol.size < 0:
                    pieces.append(encode_varint(len(raw)))
                pieces.append(raw)
            parts.append(Part(protocol.name, value))
        self._make(tuple(parts), b"".join(pieces))

    @classmethod
    def from_bytes(cls, data: bytes) -> Multiaddr:
        """Read the binary form.

        Raises Violation ``address.bad-bytes``, ``address.unknown-protocol`` or ``address.too-long``.
        """
        if not 0 < len(data) <= ADDRESS_BYTES_MAX:
            raise Violation(
                f"an address of {len(data)} bytes", code="address.too-long" if data else "address.bad-bytes"
            )
        parts, index, end = [], 0, len(data)
        while index < end:
            number, index = _take(data, index, 1 << 20)
            protocol = _by_code(number)
            value = ""
            if protocol.codec is not None:
                size = protocol.size
                if size < 0:
                    size, index = _take(data, index, ADDRESS_BYTES_MAX)
                raw = bytes(data[index : index + size])
                index += size
                if not size or index > end:
                    raise Violation(f"/{protocol.name} is cut short", code="address.bad-bytes")
                value = _to_text(protocol, raw)
                # The text of a socket path takes the rest, so whatever follows it could not be written.
                if _to_bytes(protocol, value) != raw or (protocol.name == "unix" and index < end):
                    raise Violation(
                        f"/{protocol.name} with a value in no usual spelling", code="address.bad-bytes"
                    )
            parts.append(Part(protocol.name, value))
        made = cls.__new__(cls)
        made._make(tuple(parts), bytes(data))
        return made

    def _make(self, parts: tuple[Part, ...], data: bytes) -> None:
        if len(data) > ADDRESS_BYTES_MAX:
            raise Violation(f"an address of {len(data)} bytes", code="address.too-long")
        self.parts, self._bytes = parts, data
        self._text = _spell(parts)

    def to_bytes(self) -> bytes:
        """The binary form, as it goes over the wire."""
        return self._bytes

    def get(self, name: str) -> str | None:
        """The value of the first part of this name; None when there is no such part."""
        for part in self.parts:
            if part.name == name:
                return part.value
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The protocols in order, such as ``("ip4", "tcp", "ws")``."""
        return tuple(part.name for part in self.parts)

    @property
    def peer(self) -> PeerId | None:
        """The peer that answers at this address, if the address ends by naming one."""
        last = self.parts[-1]
        return PeerId(last.value) if last.name == "p2p" else None

    @property
    def bare(self) -> Multiaddr | None:
        """The address without the peer at its end; None when nothing else is in it."""
        if self.parts[-1].name != "p2p":
            return self
        return Multiaddr(_spell(self.parts[:-1])) if len(self.parts) > 1 else None

    def at(self, peer: PeerId) -> Multiaddr:
        """This address with ``peer`` at its end.

        Raises Violation ``address.other-peer`` when it ends in another one already.
        """
        known = self.peer
        if known == peer:
            return self
        if known is not None:
            raise Violation(f"{self} is the address of another peer", code="address.other-peer")
        return self / f"/p2p/{peer}"

    def __truediv__(self, more: str | Multiaddr) -> Multiaddr:
        """Both addresses, one inside the other: ``Multiaddr("/ip4/127.0.0.1") / "/tcp/80"``."""
        return Multiaddr(f"{self}{more}")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Multiaddr({self._text})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Multiaddr) and self._bytes == other._bytes

    def __lt__(self, other: Multiaddr) -> bool:
        return self._text < other._text

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __reduce__(self) -> tuple[type[Multiaddr], tuple[str]]:
        return Multiaddr, (self._text,)


def read_addresses(items: Iterable[bytes], limit: int) -> list[Multiaddr]:
    """The readable ones among the addresses of a message, without repetitions, at most ``limit``.

    One address of an unknown kind must not hide the others (libp2p addressing).
    """
    found: dict[Multiaddr, None] = {}
    for item in items:
        if len(found) >= limit:
            break
        try:
            found.setdefault(Multiaddr.from_bytes(item))
        except Violation:
            continue
    return list(found)


def _spell(parts: Iterable[Part]) -> str:
    # The path of a socket brings its own slash.
    return "".join(
        f"/{name}{value}" if not value or name == "unix" else f"/{name}/{value}" for name, value in parts
    )


def _take(data: bytes, index: int, limit: int) -> tuple[int, int]:
    try:
        taken = take_varint(data, index, limit=limit)
    except Violation as error:
        raise Violation(f"an address with {error.message}", code="address.bad-bytes") from None
    if taken is None:
        raise Violation("an address that ends inside a number", code="address.bad-bytes")
    return taken[0], index + taken[1]


@lru_cache(256)
def _by_name(name: str) -> _Protocol:
    try:
        return _protocol(REGISTRY.find_by_name(_ALIASES.get(name, name)))
    except MultiaddrError:
        raise Violation(
            f"no address protocol is called {name[:64]!r}", code="address.unknown-protocol"
        ) from None


@lru_cache(256)
def _by_code(code: int) -> _Protocol:
    try:
        return _protocol(REGISTRY.find_by_code(code))
    except MultiaddrError:
        raise Violation(
            f"no address protocol has the number {code}", code="address.unknown-protocol"
        ) from None


def _protocol(found: object) -> _Protocol:
    name, code, kind = found.name, found.code, found.codec  # type: ignore[attr-defined]
    codec = None if kind is None else codec_by_name(kind)
    size = 0 if codec is None else codec.SIZE // 8 if codec.SIZE > 0 else -1
    return _Protocol(name, encode_varint(code), codec, size)


def _to_bytes(protocol: _Protocol, value: str) -> bytes:
    assert protocol.codec is not None
    name = protocol.name
    try:
        if name == "p2p":
            return PeerId(value).multihash
        if name == "unix":
            if not value.startswith("/") or value.endswith("/"):
                raise ValueError("no path")
            return value.encode()
        if not value or (name != "ip6zone" and protocol.size > 0 and not value.isascii()):
            raise ValueError("no value")
        if name in _NUMBERS and not value.isdigit():
            raise ValueError("not a number")
        raw: bytes = protocol.codec.to_bytes(_Named(name), value)
    except Exception as error:
        # Broad on purpose: each codec lets through whatever the package below it raises.
        raise Violation(f"/{name}/{value[:128]}: {error}", code="address.bad-text") from None
    if not raw or (protocol.size >= 0 and len(raw) != protocol.size):
        raise Violation(f"/{name}/{value[:128]}: {len(raw)} bytes", code="address.bad-text")
    return raw


def _to_text(protocol: _Protocol, raw: bytes) -> str:
    assert protocol.codec is not None
    name = protocol.name
    try:
        if name == "p2p":
            return PeerId.from_bytes(raw)
        if name == "unix":
            return raw.decode()
        text: str = protocol.codec.to_string(_Named(name), raw)
    except Exception as error:
        raise Violation(f"/{name}: {error}", code="address.bad-bytes") from None
    if not text or "/" in text:
        raise Violation(f"/{name} with a value that cannot be written", code="address.bad-bytes")
    return text


_NUMBERS: Final = frozenset({"tcp", "udp", "dccp", "sctp", "ipcidr", "memory"})


class _Named(NamedTuple):
    """What the library's codecs want to know of a protocol: its name, for their messages."""

    name: str
