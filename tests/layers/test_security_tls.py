"""TLS: what a peer may not do. What every security does is in test_security_noise.py."""

from __future__ import annotations

import contextlib
import datetime
import hmac
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL, crypto

from air.base.clock import Now, SystemClock
from air.base.env import Env
from air.base.errors import AirError, Closed, Misuse, Reset, Violation
from air.base.keys import Identity
from air.security.tls import Tls, TlsConfig
from air.security.tls.certificate import judge_certificate, make_certificate
from air.security.tls.core import Authenticated, TlsCore
from air.security.tls.secure import _context
from air.transport.memory import memory_pair

ENV = Env()
NOW = SystemClock().now()
ANN, BEN = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
KEY = ec.generate_private_key(ec.SECP256R1())
YAMUX = "/yamux/1.0.0"


def context(
    identity: Identity = BEN, *muxers: str, change: Callable[[SSL.Context], Any] | None = None
) -> SSL.Context:
    made = _context(KEY, make_certificate(identity, KEY, 7, NOW), muxers)
    if change is not None:
        change(made)
    return made


def run(dialer: TlsCore, listener: TlsCore, chunk: int = 100_000) -> tuple[list[Any], list[Any]]:
    """Carry bytes both ways, ``chunk`` at a time, until nothing moves; what each side has seen."""
    seen: tuple[list[Any], list[Any]] = ([], [])
    moved = True
    while moved:
        moved = False
        for side, (source, target) in enumerate(((listener, dialer), (dialer, listener))):
            data = b"".join(source.take_output())
            for at in range(0, len(data), chunk):
                moved = True
                try:
                    seen[side].extend(target.receive(data[at : at + chunk], NOW))
                except AirError as error:
                    seen[side].append(error.code)
    return seen


def pair(one: SSL.Context, other: SSL.Context) -> tuple[TlsCore, TlsCore]:
    return (
        TlsCore(one, dialer=True, now=NOW, seconds=10.0),
        TlsCore(other, dialer=False, now=NOW, seconds=10.0),
    )


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_any_chunking_is_the_same(chunk: int) -> None:
    dialer, listener = pair(context(ANN, YAMUX), context(BEN, "/mplex/6.7.0", YAMUX))
    seen = run(dialer, listener, chunk)
    assert seen[0] == [Authenticated(BEN.peer_id, BEN.public_key, YAMUX)]
    assert seen[1] == [Authenticated(ANN.peer_id, ANN.public_key, YAMUX)]
    dialer.send([b"x" * 50_000, b"", b"y"])
    got = run(dialer, listener, chunk)[1]
    assert b"".join(got) == b"x" * 50_000 + b"y"
    assert dialer.deadline is listener.deadline is None


def test_what_every_peer_must_do() -> None:
    codes = {}
    for name, change in {
        "old": lambda it: (
            it.set_min_proto_version(SSL.TLS1_2_VERSION),
            it.set_max_proto_version(SSL.TLS1_2_VERSION),
        ),
        "alpn": lambda it: it.set_alpn_protos([b"h2"]),
    }.items():
        dialer, listener = pair(context(ANN, change=change), context())
        codes[name] = run(dialer, listener)[1]
    assert codes == {"old": ["tls.handshake"], "alpn": ["tls.handshake"]}
    # A client without a certificate.
    bare = SSL.Context(SSL.TLS_METHOD)
    bare.set_alpn_protos([b"libp2p"])
    dialer, listener = pair(bare, context())
    assert run(dialer, listener)[1] == ["tls.handshake"]
    # A client that does not name a protocol, and a server that does not choose one.
    silent = SSL.Context(SSL.TLS_METHOD)
    silent.use_certificate(x509.load_der_x509_certificate(make_certificate(ANN, KEY, 7, NOW)))
    silent.use_privatekey(KEY)
    assert run(*pair(silent, context()))[0] == ["tls.no-alpn"]
    raw, (_, listener) = SSL.Connection(silent, None), pair(silent, context())
    raw.set_connect_state()
    with pytest.raises(Violation) as refused:
        for _ in range(2):
            with contextlib.suppress(SSL.WantReadError):
                raw.do_handshake()
            listener.receive(raw.bio_read(100_000), NOW)
            for data in listener.take_output():
                raw.bio_write(data)
    assert refused.value.code == "tls.no-alpn"


def certificate(*, critical: bool | None = None, years: int = 1, signer: Identity = BEN) -> bytes:
    """A certificate with one thing wrong."""
    builder = x509.load_der_x509_certificate(make_certificate(signer, KEY, 7, NOW))
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(builder.subject)
        .issuer_name(builder.issuer)
        .public_key(KEY.public_key())
        .serial_number(9)
        .not_valid_before(today - datetime.timedelta(days=1000))
        .not_valid_after(today + datetime.timedelta(days=365 * years))
    )
    if critical is None:
        made = made.add_extension(builder.extensions[0].value, critical=True)
    else:
        odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.53594.9.9"), b"")
        made = made.add_extension(odd, critical=critical)
    return made.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("code", "der"),
    [
        ("tls.expired", certificate(years=-1)),
        ("tls.bad-certificate", certificate(critical=True)),
        ("tls.bad-certificate", certificate(critical=False)),
        ("tls.bad-certificate", b""),
        ("tls.bad-certificate", bytes(20_000)),
    ],
)
def test_certificates_that_name_nobody(code: str, der: bytes) -> None:
    with pytest.raises(Violation) as refused:
        judge_certificate(der, NOW)
    assert refused.value.code == code


def test_a_bad_certificate_ends_the_handshake_before_anything_is_sent() -> None:
    good = judge_certificate(certificate(), NOW)
    assert good.peer == BEN.peer_id
    bad = _context(KEY, certificate(years=-1), ())
    dialer, listener = pair(context(ANN), bad)
    listener.receive(b"".join(dialer.take_output()), NOW)
    with pytest.raises(Violation) as refused:
        dialer.receive(b"".join(listener.take_output()), NOW)
    assert refused.value.code == "tls.expired"
    assert dialer.take_output() == []
    with pytest.raises(Violation):
        dialer.receive(b"x", NOW)
    dialer, listener = pair(bad, context())
    assert run(dialer, listener)[1] == ["tls.expired"]


def test_bits_of_the_extension_cannot_be_changed() -> None:
    der = make_certificate(BEN, KEY, 7, NOW)
    at = der.index(BEN.public_key.data)
    for place in (at - 10, at - 5, at, at + 31, at + 33, at + 40, at + 90):
        changed = bytearray(der)
        changed[place] ^= 1
        with pytest.raises(Violation):
            judge_certificate(bytes(changed), NOW)


def test_garbage_and_forged_records() -> None:
    dialer, listener = pair(context(ANN), context())
    with pytest.raises(Violation) as refused:
        listener.receive(b"GET / HTTP/1.1\r\n\r\n", NOW)
    assert refused.value.code == "tls.handshake"
    dialer, listener = pair(context(ANN), context())
    with pytest.raises(Misuse):
        dialer.send([b"early"])
    run(dialer, listener)
    dialer.send([b"good"])
    forged = b"".join(dialer.take_output()) + b"\x17\x03\x03\x00\x20" + bytes(32)
    assert listener.receive(forged, NOW) == [b"good"]
    assert getattr(listener.error, "code", "") == "tls.record"
    with pytest.raises(Violation):
        listener.receive(b"", NOW)


def signed(change: Callable[[bytes], bytes]) -> bytes:
    """A certificate whose inner part was changed before it was signed."""
    inner = change(x509.load_der_x509_certificate(make_certificate(BEN, KEY, 7, NOW)).tbs_certificate_bytes)
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = b"\0" + KEY.sign(inner, ec.ECDSA(hashes.SHA256()))
    whole = inner + algorithm + bytes((3, len(signature))) + signature
    return b"\x30\x82" + len(whole).to_bytes(2, "big") + whole


def extended(oid: str, value: str) -> bytes:
    """A certificate with one more extension."""
    usual = x509.load_der_x509_certificate(make_certificate(BEN, KEY, 7, NOW))
    more = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), bytes.fromhex(value))
    return (
        x509.CertificateBuilder(usual.issuer, usual.subject, KEY.public_key(), 7)
        .not_valid_before(usual.not_valid_before_utc)
        .not_valid_after(usual.not_valid_after_utc)
        .add_extension(usual.extensions[0].value, critical=False)
        .add_extension(more, critical=False)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


ODD = {
    "a version that does not exist": signed(lambda it: it.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\5")),
    "a month that does not exist": signed(
        lambda it: (at := it.index(b"\x17\x0d")) and it[: at + 4] + b"13" + it[at + 6 :]
    ),
    "an X.400 address": extended("2.5.29.17", "3004a3023000"),
    "a feature of TLS that does not exist": extended("1.3.6.1.5.5.7.1.24", "3003020163"),
}


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL X509 objects:DeprecationWarning")
@pytest.mark.parametrize("der", ODD.values(), ids=ODD)
@pytest.mark.parametrize("dialer", [True, False])
def test_what_only_openssl_can_read_is_a_bad_certificate(der: bytes, dialer: bool) -> None:
    odd = SSL.Context(SSL.TLS_METHOD)
    # Not as a certificate of cryptography, which would refuse it here.
    odd.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    odd.use_privatekey(KEY)
    odd.set_alpn_protos([b"libp2p"])
    odd.set_alpn_select_callback(lambda *_: b"libp2p")
    odd.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    peer = SSL.Connection(odd, None)
    core = TlsCore(context(), dialer=dialer, now=NOW, seconds=10.0)
    (peer.set_accept_state if dialer else peer.set_connect_state)()
    with pytest.raises(Violation) as refused:
        for _ in range(3):
            for data in core.take_output():
                peer.bio_write(data)
            with contextlib.suppress(SSL.WantReadError):
                peer.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                core.receive(peer.bio_read(100_000), NOW)
    assert refused.value.code == "tls.bad-certificate"


@pytest.mark.parametrize("dialer", [True, False])
def test_no_signature_is_checked_for_a_chain(dialer: bool) -> None:
    """OpenSSL would compute each of them, however long the keys are, before we see how many there are."""
    above = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "above")])
    today = datetime.datetime.now(datetime.UTC)
    usual = x509.load_der_x509_certificate(make_certificate(BEN, KEY, 7, NOW))
    leaf, issuer = (
        x509.CertificateBuilder(by, name, KEY.public_key(), 7)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(usual.extensions[0].value, critical=False)
        .sign(KEY, hashes.SHA256())
        for name, by in ((usual.subject, above), (above, above))
    )
    chained = _context(KEY, leaf.public_bytes(serialization.Encoding.DER), ())
    chained.add_extra_chain_cert(issuer)
    sides = (context(ANN), chained) if dialer else (chained, context())
    assert run(*pair(*sides))[0 if dialer else 1] == ["tls.handshake"]


class Keys:
    """The sending direction of a peer that says what OpenSSL would not."""

    def __init__(self, secret: bytes) -> None:
        self.secret, self.count = secret, 0

    def expand(self, label: str, size: int) -> bytes:
        info = size.to_bytes(2, "big") + bytes((6 + len(label),)) + f"tls13 {label}".encode() + b"\0\1"
        return hmac.digest(self.secret, info, "sha384")[:size]

    def record(self, data: bytes, kind: int) -> bytes:
        head = b"\x17\x03\x03" + (len(data) + 17).to_bytes(2, "big")
        nonce = int.from_bytes(self.expand("iv", 12), "big") ^ self.count
        self.count += 1
        cipher = AESGCM(self.expand("key", 32))
        return head + cipher.encrypt(nonce.to_bytes(12, "big"), data + bytes((kind,)), head)

    def update(self) -> bytes:
        """Ask for a change of the other direction's key too."""
        said = self.record(b"\x18\0\0\1\1", 22)
        self.secret, self.count = self.expand("traffic upd", 48), 0
        return said


def hostile() -> tuple[Keys, TlsCore]:
    """A dialler's keys, and the listener that takes it for a peer."""
    lines: list[bytes] = []
    loud = context(ANN, change=lambda it: it.set_keylog_callback(lambda _, line: lines.append(line)))
    dialer, listener = pair(loud, context())
    run(dialer, listener)
    assert dialer._tls.get_cipher_name() == "TLS_AES_256_GCM_SHA384"
    secret = next(line.split()[2] for line in lines if line.startswith(b"CLIENT_TRAFFIC_SECRET_0"))
    return Keys(bytes.fromhex(secret.decode())), listener


def test_a_peer_may_change_its_key_but_not_pile_up_our_answers() -> None:
    keys, core = hostile()
    for _ in range(100):
        assert core.receive(keys.update() + keys.record(b"x", 23), NOW) == [b"x"]
        core.send([b"y"])
        assert core.take_output()
    assert core.error is None
    flood = [keys.update() + keys.record(b"x", 23) for _ in range(100)]
    with pytest.raises(Violation) as refused:
        for one in flood:
            core.receive(one, NOW)
    assert refused.value.code == "tls.record"
    assert sum(map(len, core.take_output())) < 2000


@pytest.mark.parametrize("cause", ["alert", "forged", "end"])
def test_sending_after_the_end_is_a_reset(cause: str) -> None:
    keys, core = hostile()
    if cause == "end":
        core.send_eof()
    else:
        core.receive(keys.record(b"\x02\x28", 21) if cause == "alert" else b"\x17\3\3\0\x20" + bytes(32), NOW)
        assert getattr(core.error, "code", "") == "tls.record"
    with pytest.raises(Reset):
        core.send([b"x"])


def test_a_handshake_has_an_end_in_time_and_bytes() -> None:
    _, listener = pair(context(ANN), context())
    with pytest.raises(Violation) as slow:
        listener.tick(Now(NOW.monotonic + 10.0, NOW.wall))
    assert slow.value.code == "tls.timeout"
    _, listener = pair(context(ANN), context())
    with pytest.raises(Violation) as endless:
        for _ in range(100):
            # A record that announces a handshake message of 16 MiB, as far as it gets.
            listener.receive(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_381), NOW)
    assert endless.value.code == "tls.handshake"
    _, listener = pair(context(ANN), context())
    with pytest.raises(Violation):
        listener.receive_eof(NOW)


@pytest.mark.anyio
async def test_the_muxer_is_chosen_along_with_the_handshake_and_an_end_is_told() -> None:
    one, other = memory_pair()
    tls, ends = Tls(), []

    async def listen() -> None:
        conn = await tls.secure(other, identity=BEN, dialer=False, muxers=[YAMUX], env=ENV)
        assert conn.muxer == YAMUX
        ends.append(await conn.receive())
        with pytest.raises(Closed):
            await conn.receive()
        await conn.send(b"bye")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            conn = await Tls().secure(one, identity=ANN, dialer=True, muxers=[YAMUX, "/other"], env=ENV)
            assert conn.muxer == YAMUX
            await conn.send(b"hello")
            await conn.send_eof()
            assert await conn.receive() == b"bye"
    assert ends == [b"hello"]


@pytest.mark.anyio
async def test_our_end_is_also_the_end_of_the_stream_below() -> None:
    """js- and py-libp2p take no notice of TLS's own goodbye: they would keep us waiting for theirs."""
    one, other = memory_pair()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                conn = await Tls().secure(other, identity=BEN, dialer=False, env=ENV)
                with pytest.raises(Closed):
                    await conn.receive()
                # Not only what TLS says, but what the transport says.
                with pytest.raises(Closed):
                    await other.receive()
                await conn.send(b"still")

            tasks.start_soon(listen)
            conn = await Tls().secure(one, identity=ANN, dialer=True, env=ENV)
            await conn.send_eof()
            assert await conn.receive() == b"still"


@pytest.mark.anyio
async def test_silence_and_a_hangup_end_the_handshake() -> None:
    one, other = memory_pair()
    with pytest.raises(Violation) as late:
        await Tls(TlsConfig(timeout_seconds=0.05)).secure(one, identity=ANN, dialer=True, env=ENV)
    assert late.value.code == "tls.timeout"
    one, other = memory_pair()
    await other.send_eof()
    with pytest.raises(Violation) as gone:
        await Tls().secure(one, identity=ANN, dialer=False, env=ENV)
    assert gone.value.code == "tls.handshake"
