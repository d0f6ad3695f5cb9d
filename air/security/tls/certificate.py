"""Certificates of libp2p's TLS: made, and judged. (core)

The key of the certificate is made for the connection; the identity signs that key in an extension. Names,
chains and authorities mean nothing.

Source: libp2p tls, peer authentication.
"""

from __future__ import annotations

import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from air.base.clock import Now
from air.base.errors import Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey

__all__ = ["CERTIFICATE_BYTES_MAX", "Owner", "judge_certificate", "make_certificate"]

CERTIFICATE_BYTES_MAX: Final = 16 * 1024
"""A certificate longer than this is refused unread; an RSA identity with 8192 bits needs about 3000."""

_EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_PREFIX: Final = b"libp2p-tls-handshake:"
_KNOWN: Final = frozenset(
    {
        _EXTENSION,
        x509.oid.ExtensionOID.BASIC_CONSTRAINTS,
        x509.oid.ExtensionOID.KEY_USAGE,
        x509.oid.ExtensionOID.EXTENDED_KEY_USAGE,
    }
)
"""Extensions that may be critical: ours, and those that restrict uses we do not make."""

_YEAR: Final = datetime.timedelta(days=365)


class Owner(NamedTuple):
    """Whose certificate it is."""

    peer: PeerId
    key: PublicKey


def make_certificate(identity: Identity, key: EllipticCurvePrivateKey, serial: int, now: Now) -> bytes:
    """A certificate for ``key``, in DER, by which ``identity`` can be known. Valid for about a century."""
    today = datetime.datetime.fromtimestamp(now.wall / 1000.0, datetime.UTC).replace(microsecond=0)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    content = _octets(identity.public_key.to_bytes()) + _octets(identity.sign(_PREFIX + spki))
    name = x509.Name([x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, str(serial))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        # Clocks differ, and nobody must be locked out by a few minutes.
        .not_valid_before(today - datetime.timedelta(hours=1))
        .not_valid_after(today + 100 * _YEAR)
        .add_extension(
            x509.UnrecognizedExtension(_EXTENSION, b"\x30" + _length(content) + content), critical=False
        )
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def judge_certificate(data: bytes, now: Now) -> Owner:
    """Whose certificate this is.

    Raises Violation ``tls.bad-certificate``, ``tls.expired`` (also when not valid yet), ``tls.bad-key`` or
    ``tls.bad-signature``.
    """
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise _bad(f"a certificate of {len(data)} bytes")
    try:
        certificate = x509.load_der_x509_certificate(data)
        before, after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        extensions = list(certificate.extensions)
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature:
        raise _bad("a certificate that its own key did not sign") from None
    except Exception as error:
        # Broad on purpose: odd versions, names and features come as exceptions of many kinds, KeyError too.
        raise _bad(f"a certificate that cannot be read: {error}") from None
    if not before.timestamp() * 1000.0 <= now.wall <= after.timestamp() * 1000.0:
        raise Violation("a certificate out of its time", code="tls.expired", fatal=True)
    content: bytes | None = None
    for extension in extensions:
        if extension.critical and extension.oid not in _KNOWN:
            raise _bad(f"an unknown critical extension {extension.oid.dotted_string}")
        if extension.oid == _EXTENSION and isinstance(extension.value, x509.UnrecognizedExtension):
            content = extension.value.value
    if content is None:
        raise _bad("a certificate that names no peer")
    message, signature = _two_octets(content)
    try:
        key = PublicKey.from_bytes(message)
    except Violation as error:
        raise Violation(error.message, code="tls.bad-key", fatal=True) from None
    if not key.verify(_PREFIX + spki, signature):
        raise Violation(
            "the identity did not sign this certificate's key", code="tls.bad-signature", fatal=True
        )
    return Owner(PeerId.of(key), key)


def _bad(why: str) -> Violation:
    return Violation(why, code="tls.bad-certificate", fatal=True)


def _octets(data: bytes) -> bytes:
    return b"\x04" + _length(data) + data


def _length(data: bytes) -> bytes:
    size = len(data)
    if size < 128:
        return bytes((size,))
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((128 + len(digits),)) + digits


def _two_octets(data: bytes) -> tuple[bytes, bytes]:
    """SEQUENCE { OCTET STRING, OCTET STRING } in DER, nothing before or behind."""
    body, rest = _take(data, 0x30)
    first, second = _take(body, 0x04)
    last, more = _take(second, 0x04)
    if rest or more:
        raise _bad("bytes behind the name in a certificate")
    return first, last


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the value at the start of ``data``, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise _bad("a name in a certificate that cannot be read")
    size, start = data[1], 2
    if size > 128:
        start = 2 + size - 128
        digits = data[2:start]
        size = int.from_bytes(digits, "big")
        if start > 4 or len(digits) != start - 2 or _length(bytes(size))[1:] != digits:
            raise _bad("a length in a certificate in no usual spelling")
    if size == 128 or len(data) < start + size:
        raise _bad("a name in a certificate that is cut short")
    return data[start : start + size], data[start + size :]
