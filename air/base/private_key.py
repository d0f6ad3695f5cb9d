"""Private keys of the four kinds of libp2p: made, read, written, and signing. (shell)

Source: libp2p peer-ids. Ed25519 is what everybody understands and the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from air.base.errors import ConfigError, Violation
from air.base.public_key import RSA_BITS_MIN, KeyType, PublicKey
from air.base.varint import encode_varint, take_varint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    Loaded = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey

__all__ = ["PRIVATE_KEY_BYTES_MAX", "PrivateKey"]

PRIVATE_KEY_BYTES_MAX = 8192
"""A key message longer than this is no key; RSA with 8192 bits has about 4700 bytes."""

_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class PrivateKey:
    """A key pair. The private half leaves the object only through :meth:`to_bytes`."""

    __slots__ = ("_data", "_loaded", "public")

    public: PublicKey

    def __init__(self, type: KeyType, data: bytes) -> None:
        """``data`` as in the PrivateKey message, the bare 32-byte seed of an Ed25519 key, or PKCS #8 of ECDSA
        and RSA: whatever came in, :meth:`to_bytes` writes the usual form.

        Raises ConfigError ``identity.bad-key``.
        """
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            self._loaded, self.public, self._data = _load(type, data)
        except (ValueError, TypeError, UnsupportedAlgorithm, Violation) as error:
            raise ConfigError(f"not a private {type.name} key: {error}", code="identity.bad-key") from None

    @classmethod
    def generate(cls, type: KeyType = KeyType.ED25519) -> PrivateKey:
        """A new key from the operating system's randomness. An RSA key has 2048 bits and takes a moment."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        made: Any
        if type is KeyType.ED25519:
            return cls(type, ed25519.Ed25519PrivateKey.generate().private_bytes_raw())
        if type is KeyType.SECP256K1:
            number = ec.generate_private_key(ec.SECP256K1()).private_numbers().private_value
            return cls(type, number.to_bytes(32, "big"))
        if type is KeyType.ECDSA:
            made = ec.generate_private_key(ec.SECP256R1())
        else:
            made = rsa.generate_private_key(65537, RSA_BITS_MIN)
        return cls(type, made.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))

    @classmethod
    def from_bytes(cls, data: bytes) -> PrivateKey:
        """Read a PrivateKey message, as go-libp2p, rust-libp2p and js-libp2p keep it.

        Raises ConfigError ``identity.bad-key``.
        """
        if not 4 <= len(data) <= PRIVATE_KEY_BYTES_MAX or data[0] != 0x08 or data[2] != 0x12:
            raise ConfigError("not a libp2p private key", code="identity.bad-key")
        try:
            type = KeyType(data[1])
            taken = take_varint(data, 3, limit=PRIVATE_KEY_BYTES_MAX)
        except (ValueError, Violation):
            taken = None
        if taken is None or 3 + taken[1] + taken[0] != len(data):
            raise ConfigError("not a libp2p private key", code="identity.bad-key")
        return cls(type, data[3 + taken[1] :])

    def to_bytes(self) -> bytes:
        """The PrivateKey message. It is secret."""
        return (
            b"\x08" + encode_varint(self.public.type) + b"\x12" + encode_varint(len(self._data)) + self._data
        )

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message`` in the form libp2p gives the type.

        It depends on nothing but key and message, except where the OpenSSL at hand cannot make ECDSA nonces
        from them (RFC 6979).
        """
        key: Any = self._loaded
        type = self.public.type
        if type is KeyType.ED25519:
            return bytes(key.sign(message))
        from cryptography.hazmat.primitives.hashes import SHA256

        if type is KeyType.RSA:
            from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

            return bytes(key.sign(message, PKCS1v15(), SHA256()))
        return _sign_ecdsa(key, message, low=type is KeyType.SECP256K1)

    def __repr__(self) -> str:
        return f"PrivateKey({self.public!r})"


def _sign_ecdsa(key: EllipticCurvePrivateKey, message: bytes, *, low: bool) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        signature = key.sign(message, ECDSA(SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        signature = key.sign(message, ECDSA(SHA256()))
    if low:
        # Of the two values of s that verify, implementations of secp256k1 make, and some accept, the lower.
        r, s = decode_dss_signature(signature)
        signature = encode_dss_signature(r, min(s, _SECP256K1_ORDER - s))
    return signature


def _load(type: KeyType, data: bytes) -> tuple[Loaded, PublicKey, bytes]:
    """The key, its public half, and its data as the PrivateKey message has them."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_der_private_key,
    )

    if type is KeyType.ED25519:
        if len(data) not in (32, 64, 96):
            raise ValueError(f"{len(data)} bytes")
        seed = ed25519.Ed25519PrivateKey.from_private_bytes(data[:32])
        public = seed.public_key().public_bytes_raw()
        # The oldest form repeats the public half; 32 bytes are the bare seed of RFC 8032.
        if data[32:] not in (b"", public, public + public):
            raise ValueError("the two halves of the key do not belong together")
        return seed, PublicKey(type, public), bytes(data[:32]) + public
    if type is KeyType.SECP256K1:
        if len(data) != 32:
            raise ValueError(f"{len(data)} bytes")
        point = ec.derive_private_key(int.from_bytes(data, "big"), ec.SECP256K1())
        compressed = point.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        return point, PublicKey(type, compressed), bytes(data)
    loaded = load_der_private_key(data, None)
    if not isinstance(loaded, rsa.RSAPrivateKey if type is KeyType.RSA else ec.EllipticCurvePrivateKey):
        raise ValueError("the key is of another type")
    public = loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    usual = loaded.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return loaded, PublicKey(type, public), usual
