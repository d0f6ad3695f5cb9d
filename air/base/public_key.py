"""Public keys of peers: the four kinds of libp2p, their one spelling, and signatures. (core)

``cryptography`` is imported where it is used: the command-line client passes through the modules of
identities and must not wait 40 ms for a library it never calls.

Source: libp2p peer-ids. A key is hashed into a name, so of each key only one spelling is accepted: type
first, then data, minimal lengths, nothing else.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from air.base.errors import Violation
from air.base.varint import encode_varint, take_varint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    Loaded = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

__all__ = ["PUBLIC_KEY_BYTES_MAX", "RSA_BITS_MAX", "RSA_BITS_MIN", "KeyType", "PublicKey"]

RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
"""go-libp2p accepts keys of these sizes, ends included."""
_RSA_EXPONENT_MAX: Final = 2**31 - 1
"""As in Go. With one as long as a modulus of 3072 bits, a signature would take 7 ms to check, not 0.1."""
PUBLIC_KEY_BYTES_MAX: Final = 2048
"""A key message longer than this is refused unread; RSA with 8192 bits has about 1100 bytes."""


class KeyType(IntEnum):
    """The numbers of the PublicKey message."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3
    """On the curve P-256. Only go and rust know it; js and py refuse such peers."""


class PublicKey:
    """The public half of an identity. Equal keys are equal objects."""

    __slots__ = ("_loaded", "data", "type")

    type: KeyType
    data: bytes
    """Ed25519: 32 bytes; secp256k1: the point, compressed, 33 bytes; ECDSA, RSA: SubjectPublicKeyInfo DER."""

    def __init__(self, type: KeyType, data: bytes) -> None:
        """Raises Violation ``key.bad-public`` when ``data`` is no key of that type in its one spelling."""
        self.type, self.data = type, data
        self._loaded: Loaded | None = None
        if type is KeyType.ED25519:
            # No point is computed here: a key that is none simply never verifies anything.
            if len(data) != 32:
                raise Violation(f"an Ed25519 key has 32 bytes, not {len(data)}", code="key.bad-public")
        else:
            self._loaded = _load(type, data)

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKey:
        """Read a PublicKey message.

        Raises Violation ``key.malformed`` when it is none, or not in its canonical form, and
        ``key.bad-public`` when it holds no usable key.
        """
        if not 4 <= len(data) <= PUBLIC_KEY_BYTES_MAX or data[0] != 0x08 or data[2] != 0x12:
            raise Violation("not a public key message in canonical form", code="key.malformed")
        try:
            kind = KeyType(data[1])
        except ValueError:
            raise Violation(f"a key of unknown type {data[1]}", code="key.malformed") from None
        try:
            taken = take_varint(data, 3, limit=PUBLIC_KEY_BYTES_MAX)
        except Violation as error:
            raise Violation(f"a public key message with {error.message}", code="key.malformed") from None
        if taken is None or 3 + taken[1] + taken[0] != len(data):
            raise Violation("a public key message of the wrong length", code="key.malformed")
        return cls(kind, bytes(data[3 + taken[1] :]))

    def to_bytes(self) -> bytes:
        """The PublicKey message in its canonical form, the one that is hashed into the peer id."""
        return b"\x08" + encode_varint(self.type) + b"\x12" + encode_varint(len(self.data)) + self.data

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the owner of this key signed ``message``."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key: Any = self._loaded
            if key is None:
                key = self._loaded = Ed25519PublicKey.from_public_bytes(self.data)
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            elif isinstance(key, EllipticCurvePublicKey):
                from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
                from cryptography.hazmat.primitives.hashes import SHA256

                key.verify(signature, message, ECDSA(SHA256()))
            else:
                from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
                from cryptography.hazmat.primitives.hashes import SHA256

                key.verify(signature, message, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self.type, self.data) == (other.type, other.data)

    def __hash__(self) -> int:
        return hash((self.type, self.data))

    def __repr__(self) -> str:
        return f"PublicKey({self.type.name}, {self.data[-8:].hex()})"


def _load(type: KeyType, data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    key: Any
    try:
        if type is KeyType.SECP256K1:
            if len(data) != 33 or data[0] not in (2, 3):
                raise ValueError("not a compressed point")
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
        key = load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Violation(f"not a {type.name} key: {error}", code="key.bad-public") from None
    if type is KeyType.ECDSA:
        fits = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    else:
        fits = (
            isinstance(key, rsa.RSAPublicKey)
            and RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX
            and key.public_numbers().e <= _RSA_EXPONENT_MAX
        )
    if not fits:
        raise Violation(f"not a {type.name} key that is in use", code="key.bad-public")
    # DER has one spelling too, but readers of it are lenient and the name is a hash of these bytes.
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != data:
        raise Violation(f"a {type.name} key in an unusual spelling", code="key.bad-public")
    return key
