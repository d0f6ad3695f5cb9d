"""Private networks: the key file, and the cipher below everything else. (core)

Each side of a connection first sends 24 random bytes and then XORs all that it says with the XSalsa20 stream
of the shared key and those bytes. Nothing is authenticated: a wrong key shows as garbage to the layer above.

Source: libp2p pnet, Private Networks PSK V1; XSalsa20 by D. J. Bernstein, "Extending the Salsa20 nonce".
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Final

from Cryptodome.Cipher import Salsa20

from air.base.errors import ConfigError, Misuse

__all__ = ["NONCE_BYTES", "PnetCore", "PreSharedKey", "XSalsa20"]

NONCE_BYTES: Final = 24
_KEY_BYTES: Final = 32
_HEADER: Final = b"/key/swarm/psk/1.0.0/"


class PreSharedKey:
    """The key that all members of a private network have. It is secret."""

    __slots__ = ("secret",)

    def __init__(self, secret: bytes) -> None:
        """``secret`` has 32 bytes. Raises ConfigError ``pnet.bad-key``."""
        if len(secret) != _KEY_BYTES:
            raise ConfigError(f"a network key has 32 bytes, not {len(secret)}", code="pnet.bad-key")
        self.secret = secret

    @classmethod
    def parse(cls, text: bytes) -> PreSharedKey:
        """Read the content of a key file: a header, the name of an encoding, the key, a line each.

        Raises ConfigError ``pnet.bad-key``.
        """
        head, _, rest = text.partition(b"\n")
        encoding, _, body = rest.partition(b"\n")
        encoding = encoding.rstrip(b"\r")
        try:
            if head.rstrip(b"\r") != _HEADER:
                raise ValueError("the first line is another")
            if encoding == b"/base16/":
                return cls(bytes.fromhex(body.strip().decode("ascii")))
            if encoding == b"/base64/":
                return cls(base64.b64decode(body.strip(), validate=True))
            if encoding == b"/bin/":
                return cls(body)
            raise ValueError("the second line names no known encoding")
        except (ValueError, binascii.Error) as error:
            raise ConfigError(f"not a network key: {error}", code="pnet.bad-key") from None

    def to_text(self) -> bytes:
        """The content of a key file."""
        return _HEADER + b"\n/base16/\n" + self.secret.hex().encode() + b"\n"

    def __repr__(self) -> str:
        return "PreSharedKey(…)"


class XSalsa20:
    """One direction of a stream cipher: call after call continues where the last one ended."""

    __slots__ = ("_cipher",)

    def __init__(self, secret: bytes, nonce: bytes) -> None:
        """``nonce`` has 24 bytes and must never be used twice with one secret."""
        # The library has Salsa20 only: the first 16 bytes of the nonce go into the key.
        self._cipher = Salsa20.new(_hsalsa20(secret, nonce[:16]), nonce[16:])

    def apply(self, data: bytes) -> bytes:
        """Encrypt, or decrypt."""
        return self._cipher.encrypt(data)


class PnetCore:
    """One connection of a private network, both directions."""

    __slots__ = ("_head", "_key", "_nonce", "_receiving", "_sending")

    def __init__(self, key: PreSharedKey, nonce: bytes) -> None:
        """``nonce``: 24 random bytes, new for every connection."""
        if len(nonce) != NONCE_BYTES:
            raise Misuse("a nonce has 24 bytes", code="pnet.bad-nonce")
        self._key = key
        self._nonce = nonce
        self._sending = XSalsa20(key.secret, nonce)
        self._receiving: XSalsa20 | None = None
        self._head = b""

    def seal(self, data: bytes) -> bytes:
        """What to send so that the peer reads ``data``; the first result begins with our nonce."""
        nonce, self._nonce = self._nonce, b""
        return nonce + self._sending.apply(data)

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the peer, return what they say; nothing until its nonce is complete."""
        if self._receiving is None:
            data = self._head + data
            if len(data) < NONCE_BYTES:
                self._head = data
                return b""
            self._receiving = XSalsa20(self._key.secret, data[:NONCE_BYTES])
            self._head, data = b"", data[NONCE_BYTES:]
        return self._receiving.apply(data) if data else b""


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """The key for the other 8 bytes of the nonce: 20 rounds of Salsa20 without the final addition."""
    c, k, n = (
        struct.unpack("<4I", b"expand 32-byte k"),
        struct.unpack("<8I", key),
        struct.unpack("<4I", nonce),
    )
    x = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    for _ in range(10):
        for row in _QUARTERS:
            a, b, d, e = row
            for at, one, two, turn in ((b, a, e, 7), (d, b, a, 9), (e, d, b, 13), (a, e, d, 18)):
                word = (x[one] + x[two]) & 0xFFFFFFFF
                x[at] ^= (word << turn | word >> (32 - turn)) & 0xFFFFFFFF
    return struct.pack("<8I", x[0], x[5], x[10], x[15], *x[6:10])


_QUARTERS: Final = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)
"""Columns, then rows: the places of one double round (Salsa20 specification, section 4 to 6)."""
