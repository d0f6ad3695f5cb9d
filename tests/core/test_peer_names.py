"""Peer ids, keys and addresses beyond the recorded vectors."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.address import ADDRESS_BYTES_MAX, Multiaddr, read_addresses
from air.base.base58 import base58, unbase, unbase58
from air.base.errors import AirError, ConfigError, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.private_key import PrivateKey
from air.base.public_key import KeyType, PublicKey
from air.codec.envelope import open_envelope, seal_envelope
from air.pb import keys_pb2

PEER = Identity(b"\x01" * 32).peer_id


@given(st.binary(max_size=60))
def test_base58_comes_back(data: bytes) -> None:
    assert unbase58(base58(data)) == data
    assert unbase("z" + base58(data)) == data


def test_base58_keeps_leading_zeros() -> None:
    assert base58(b"") == ""
    assert base58(b"\0\0\x01") == "112"
    assert base58(b"Hello World!") == "2NEpo7TZRRrLZSi2U"


@pytest.mark.parametrize(
    "text", ["f0aff", "F0AFF", "bbl7q", "BBL7Q", "k17bz", "zebR", "mCv8", "MCv8=", "uCv8", "UCv8="]
)
def test_bases(text: str) -> None:
    assert unbase(text) in (b"\x0a\xff", unbase(text))
    if text[0] in "fFbBmMuU":
        assert unbase(text) == b"\x0a\xff"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "f0af",
        "f0AFF",
        "F0aff",
        "bbl7r",
        "bBL7Q",
        "b1",
        "z0",
        "zO",
        "k-",
        "mCv9",
        "MCv8",
        "z" + "1" * 300,
    ],
)
def test_what_is_no_text_in_its_base(text: str) -> None:
    with pytest.raises(Violation) as refused:
        unbase(text)
    assert refused.value.code == "base.bad-text"


def test_a_peer_id_is_text_and_bytes_at_once() -> None:
    assert PEER == "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    assert PeerId(PEER) is PEER
    assert PeerId.from_bytes(PEER.multihash) == PEER
    assert {PEER: 1}[str(PEER)] == 1
    assert repr(PEER) == f"PeerId({PEER})"
    again = pickle.loads(pickle.dumps(PEER))
    assert (again, again.multihash) == (PEER, PEER.multihash)
    key = PEER.public_key
    assert key is not None
    assert PEER.matches(key)


@given(st.binary(max_size=50))
def test_any_bytes_are_a_peer_id_or_refused(data: bytes) -> None:
    for start in (b"", b"\x12\x20", b"\x00\x24\x08\x01\x12\x20", b"\x00"):
        try:
            peer = PeerId.from_bytes(start + data)
        except Violation as error:
            assert error.code == "peer-id.bad-bytes"
        else:
            assert peer.multihash == start + data


@pytest.mark.parametrize("type", list(KeyType))
def test_keys_are_written_as_the_schema_says_and_come_back(type: KeyType) -> None:
    key = PrivateKey.generate(type)
    message = keys_pb2.PrivateKey.FromString(key.to_bytes())
    assert message.type == type
    assert message.SerializeToString() == key.to_bytes()
    again = PrivateKey.from_bytes(key.to_bytes())
    assert again.public == key.public
    assert hash(again.public) == hash(key.public)
    assert key.public.verify(b"text", again.sign(b"text"))
    assert not key.public.verify(b"text", b"")
    assert not key.public.verify(b"text", bytes(64))
    if type is not KeyType.RSA:
        assert key.sign(b"text") == again.sign(b"text")
    for shown in (repr(key), repr(key.public)):
        assert type.name in shown
        assert message.data.hex() not in shown


def test_old_forms_of_ed25519_keys_are_read_when_they_agree_with_themselves() -> None:
    seed, public = b"\x01" * 32, Identity(b"\x01" * 32).public_key.data
    for data in (seed, seed + public, seed + public + public):
        identity = Identity.from_bytes(b"\x08\x01\x12" + bytes([len(data)]) + data)
        assert identity.peer_id == PEER
        assert len(identity.to_bytes()) == 68
    for data in (seed + seed, seed + public + seed, seed[:31]):
        with pytest.raises(ConfigError) as refused:
            Identity.from_bytes(b"\x08\x01\x12" + bytes([len(data)]) + data)
        assert refused.value.code == "identity.bad-key"


def test_keys_of_another_type_than_they_say_are_refused() -> None:
    rsa, ecdsa = PrivateKey.generate(KeyType.RSA), PrivateKey.generate(KeyType.ECDSA)
    for message in (rsa.to_bytes(), ecdsa.to_bytes()):
        with pytest.raises(ConfigError):
            PrivateKey.from_bytes(bytes([8, 3 if message[1] == 0 else 0]) + message[2:])
    for message in (rsa.public.to_bytes(), ecdsa.public.to_bytes()):
        with pytest.raises(Violation) as refused:
            PublicKey.from_bytes(bytes([8, 3 if message[1] == 0 else 0]) + message[2:])
        assert refused.value.code == "key.bad-public"
        with pytest.raises(Violation):
            PublicKey.from_bytes(message + b"\0")


def test_rsa_keys_that_are_too_short_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    short = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(Violation) as refused:
        PublicKey(KeyType.RSA, short.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert refused.value.code == "key.bad-public"


@pytest.mark.parametrize(("exponent", "fits"), [(65537, True), (2**31 - 1, True), (2**31 + 1, False)])
def test_rsa_exponents_that_make_checking_slow_are_refused(exponent: int, fits: bool) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = rsa.RSAPublicNumbers(exponent, 2**2047 + 1).public_key()
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if fits:
        assert PublicKey(KeyType.RSA, data).data == data
    else:
        with pytest.raises(Violation) as refused:
            PublicKey(KeyType.RSA, data)
        assert refused.value.code == "key.bad-public"


@given(st.binary(max_size=80))
def test_any_bytes_are_an_address_or_refused(data: bytes) -> None:
    try:
        address = Multiaddr.from_bytes(data)
    except Violation as error:
        assert error.code.startswith("address.")
    else:
        assert address.to_bytes() == data
        assert Multiaddr(str(address)) == address


@given(st.text(alphabet="/ip4tcp6dnsws1270.:x ", max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Multiaddr("/" + text)
    except Violation as error:
        assert error.code.startswith("address.")
    else:
        assert Multiaddr.from_bytes(address.to_bytes()) == Multiaddr(str(address)) == address


def test_parts_of_an_address() -> None:
    address = Multiaddr(f"/ip4/127.0.0.1/tcp/4001/ws/p2p/{PEER}")
    assert address.names == ("ip4", "tcp", "ws", "p2p")
    assert (address.get("tcp"), address.get("ws"), address.get("udp")) == ("4001", "", None)
    assert address.peer == PEER
    bare = address.bare
    assert str(bare) == "/ip4/127.0.0.1/tcp/4001/ws"
    assert bare is not None
    assert bare.peer is None
    assert bare.bare is bare
    assert bare.at(PEER) == address == address.at(PEER)
    assert Multiaddr(f"/p2p/{PEER}").bare is None
    assert bare / "/tls" == Multiaddr("/ip4/127.0.0.1/tcp/4001/ws/tls")
    with pytest.raises(Violation) as refused:
        address.at(Identity(b"\x02" * 32).peer_id)
    assert refused.value.code == "address.other-peer"
    assert pickle.loads(pickle.dumps(address)) == address
    assert sorted([Multiaddr("/tcp/2"), Multiaddr("/tcp/1")])[0] == Multiaddr("/tcp/1")
    relayed = Multiaddr(f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit")
    assert relayed.peer is None


@pytest.mark.parametrize(
    "text",
    ["/tcp/8_0", "/tcp/+80", "/tcp/65536", "/tcp/\u0664\u0660", "/ip4/127.1", "/tcp//1", "/dns4//tcp/1",
     "/ip4=1.2.3.4", "/memory/-1", "/memory/18446744073709551616", "/unix", "/unix/", "/certhash/u", "/ws/x"],
)  # fmt: skip
def test_lenient_spellings_are_refused(text: str) -> None:
    with pytest.raises(Violation):
        Multiaddr(text)


@pytest.mark.parametrize("rest", [b"\x03tmp", b"\x05/tmp/", b"\x01/", b"\x04/tmp\xa2\x02"])
def test_a_socket_path_that_no_text_means_is_refused(rest: bytes) -> None:
    with pytest.raises(Violation):
        Multiaddr.from_bytes(b"\x90\x03" + rest)
    assert str(Multiaddr.from_bytes(b"\x90\x03\x04/tmp")) == "/unix/tmp"


def test_addresses_have_a_longest_form() -> None:
    name = "a" * 60 + "."
    longest = "/dns4/" + name * 4 + "com"
    assert Multiaddr(longest).get("dns4") == name * 4 + "com"
    for make in (lambda: Multiaddr("/ws" * 400), lambda: Multiaddr.from_bytes(b"\xdd\x03" * 600)):
        with pytest.raises(Violation) as refused:
            make()
        assert refused.value.code == "address.too-long"
    assert len(Multiaddr("/ws" * 300).to_bytes()) < ADDRESS_BYTES_MAX


def test_a_message_keeps_its_readable_addresses() -> None:
    good, other = Multiaddr("/ip4/1.2.3.4/tcp/1").to_bytes(), Multiaddr("/tcp/2").to_bytes()
    found = read_addresses([b"", good, b"\xff\x7f", good, good[:-1], other], 10)
    assert list(map(str, found)) == ["/ip4/1.2.3.4/tcp/1", "/tcp/2"]
    assert len(read_addresses([good, other], 1)) == 1


def test_an_envelope_is_good_for_its_purpose_only() -> None:
    identity = Identity.generate(KeyType.SECP256K1)
    sealed = seal_envelope(identity, "purpose", b"\x01", b"content")
    assert open_envelope(sealed, "purpose") == (identity.public_key, b"\x01", b"content")
    for data, purpose in (
        (sealed, "other"),
        (sealed[:-1], "purpose"),
        (bytes(70_000), "purpose"),
        (b"", "purpose"),
    ):
        with pytest.raises(AirError):
            open_envelope(data, purpose)
