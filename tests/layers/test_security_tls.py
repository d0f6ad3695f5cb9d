"""TLS: what a peer may not do. What every security does is in test_security_noise.py."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from air.base.clock import Now, SystemClock
from air.base.env import Env
from air.base.errors import AirError, Closed, Misuse, Violation
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
