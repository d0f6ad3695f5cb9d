"""Noise without an event loop: every bit counts, any chunking is the same, and memory is bounded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.clock import Now
from air.base.errors import AirError, Denied, Misuse, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import KeyType
from air.security.noise.core import Handshake, StaticKey
from air.security.noise.frames import PLAINTEXT_BYTES_MAX, Opener, Sealer
from air.security.noise.payload import MUXERS_MAX, Credential, encode_muxers, verify_payload
from air.security.noise.session import Authenticated, NoiseConfig, NoiseCore, Stage

NOW = Now(0.0, 0.0)
ANN, BEN = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
ANN_STATIC, BEN_STATIC = StaticKey(b"\x11" * 32), StaticKey(b"\x12" * 32)
ANN_PROOF, BEN_PROOF = Credential(ANN, ANN_STATIC.public), Credential(BEN, BEN_STATIC.public)
YAMUX = "/yamux/1.0.0"


def ann(expected: PeerId | None = None, muxers: Sequence[str] = (), **more: bytes) -> NoiseCore:
    """The dialer, with all secrets fixed."""
    more.setdefault("ephemeral", b"\x21" * 32)
    return NoiseCore(
        ANN_STATIC,
        ANN_PROOF,
        dialer=True,
        config=NoiseConfig(),
        now=NOW,
        expected=expected,
        muxers=muxers,
        **more,  # type: ignore[arg-type]
    )


def ben(expected: PeerId | None = None, muxers: Sequence[str] = (), **more: bytes) -> NoiseCore:
    """The listener, with all secrets fixed."""
    more.setdefault("ephemeral", b"\x22" * 32)
    return NoiseCore(
        BEN_STATIC,
        BEN_PROOF,
        dialer=False,
        config=NoiseConfig(),
        now=NOW,
        expected=expected,
        muxers=muxers,
        **more,  # type: ignore[arg-type]
    )


def output(core: NoiseCore) -> bytes:
    return b"".join(core.take_output())


def joined(dialer: NoiseCore, listener: NoiseCore) -> tuple[Authenticated, Authenticated]:
    """Run the handshake; what each side has learnt."""
    listener.receive(output(dialer), NOW)
    (seen,) = dialer.receive(output(listener), NOW)
    (known,) = listener.receive(output(dialer), NOW)
    assert isinstance(seen, Authenticated)
    assert isinstance(known, Authenticated)
    return seen, known


def refused(core: NoiseCore, *chunks: bytes) -> str:
    """The code that ends the handshake. Afterwards nothing is sent, known or taken."""
    with pytest.raises(AirError) as error:
        for chunk in chunks:
            assert not core.receive(chunk, NOW)
        core.receive_eof(NOW)
    assert core.stage is Stage.FAILED
    assert core.take_output() == []
    assert core.deadline is None
    for use in (lambda: core.receive(b"x", NOW), core.split, lambda: core.send([b"x"])):
        with pytest.raises(Misuse):
            use()
    return error.value.code


def recording() -> tuple[bytes, bytes, bytes]:
    dialer, listener = ann(), ben()
    first = output(dialer)
    listener.receive(first, NOW)
    second = output(listener)
    dialer.receive(second, NOW)
    return first, second, output(dialer)


FIRST, SECOND, THIRD = recording()


def flips(message: bytes) -> Iterator[bytes]:
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_a_handshake_with_known_secrets_gives_the_known_bytes() -> None:
    assert FIRST.hex() == "00207d34a4815fa6b982535e60af3bd9b49556816080f1641ff81d2b7c8ae8268a44"
    assert (len(FIRST), len(SECOND), len(THIRD)) == (34, 202, 170)
    dialer, listener = ann(), ben()
    assert (dialer.stage, listener.stage) == (Stage.CHALLENGE, Stage.CHALLENGE)
    listener.receive(FIRST, NOW)
    assert listener.stage is Stage.RESPONSE
    assert dialer.receive(SECOND, NOW) == [Authenticated(BEN.peer_id, BEN.public_key, None)]
    assert listener.receive(THIRD, NOW) == [Authenticated(ANN.peer_id, ANN.public_key, None)]
    assert dialer.stage is listener.stage is Stage.SUCCESS
    assert dialer.handshake_hash == listener.handshake_hash
    assert dialer.handshake_hash is not None
    assert dialer.handshake_hash.hex() == "4b2f440e888848500faced176ded98e70569e245c217a3f22b6c190e9f4dc241"
    dialer.take_output()
    dialer.send([b"hello"])
    listener.send([b"hello"])
    assert output(dialer).hex() == "00156fb01eae16a96b9243b416088f89f7d16f524e2920"
    listener.take_output()


def test_no_bit_of_the_first_message_can_be_changed() -> None:
    for changed in flips(FIRST):
        listener = ben()
        try:
            listener.receive(changed, NOW)
        except Violation as error:
            assert error.code == "noise.handshake"
            assert listener.stage is Stage.FAILED
            continue
        # Another key is as good as the first, to who has seen neither: the dialer notices.
        dialer = ann()
        dialer.take_output()
        assert refused(dialer, output(listener)) == "noise.handshake"


def test_no_bit_of_the_second_message_can_be_changed() -> None:
    for changed in flips(SECOND):
        dialer = ann()
        dialer.take_output()
        assert refused(dialer, changed) == "noise.handshake"


def test_no_bit_of_the_third_message_can_be_changed() -> None:
    for changed in flips(THIRD):
        listener = ben()
        listener.receive(FIRST, NOW)
        listener.take_output()
        assert refused(listener, changed) == "noise.handshake"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\0\0", id="no body"),
        pytest.param(b"\0\x1f", id="too short for a key"),
        pytest.param(b"\0\x21", id="clear text behind the key"),
        pytest.param(b"\xff\xff", id="longest"),
        pytest.param(b"\0\x20" + bytes(31), id="cut short"),
        pytest.param(b"\0", id="half a length"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_bad_first_message_is_refused_by_its_length(sent: bytes) -> None:
    assert refused(ben(), sent) == "noise.handshake"


LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:6])
def test_a_point_that_makes_every_secret_zero_is_refused(point: bytes) -> None:
    assert refused(ben(), b"\0\x20" + point) == "noise.handshake"


@pytest.mark.parametrize("size", [0, 95, 8193, 65535])
def test_a_second_message_of_no_possible_size_is_refused_by_its_length(size: int) -> None:
    dialer = ann()
    dialer.take_output()
    assert refused(dialer, size.to_bytes(2, "big")) == "noise.handshake"


@pytest.mark.parametrize("size", [0, 63, 8193, 65535])
def test_a_third_message_of_no_possible_size_is_refused_by_its_length(size: int) -> None:
    listener = ben()
    listener.receive(FIRST, NOW)
    listener.take_output()
    assert refused(listener, size.to_bytes(2, "big")) == "noise.handshake"


def test_only_the_expected_peer_is_accepted_and_gets_no_proof_of_ours() -> None:
    dialer = ann(expected=ANN.peer_id)
    dialer.take_output()
    with pytest.raises(Denied) as error:
        dialer.receive(SECOND, NOW)
    assert error.value.code == "security.wrong-peer"
    assert dialer.take_output() == []
    assert dialer.stage is Stage.FAILED
    seen, known = joined(ann(expected=BEN.peer_id), ben(expected=ANN.peer_id))
    assert (seen.peer, known.peer) == (BEN.peer_id, ANN.peer_id)


@pytest.mark.parametrize("type", list(KeyType))
def test_every_kind_of_identity_can_prove_itself(type: KeyType) -> None:
    identity, static = Identity.generate(type), StaticKey(b"\x13" * 32)
    listener = NoiseCore(
        static, Credential(identity, static.public), dialer=False, config=NoiseConfig(), now=NOW
    )
    seen, _ = joined(ann(expected=identity.peer_id), listener)
    assert (seen.peer, seen.key) == (identity.peer_id, identity.public_key)


def responder(payload: bytes) -> bytes:
    """A second message with any payload, for a dialer with known secrets."""
    hand = Handshake(BEN_STATIC, dialer=False)
    hand.read(FIRST[2:])
    message = hand.write(payload)
    return len(message).to_bytes(2, "big") + message


BAD_PROOFS: list[tuple[str, bytes]] = [
    ("noise.payload", b""),
    ("noise.payload", b"\x0a\x24"),
    ("noise.payload", BEN_PROOF.payload[:38]),
    ("noise.payload", BEN_PROOF.payload[38:]),
    ("noise.bad-key", b"\x0a\x20" + BEN.public_key.data + BEN_PROOF.payload[38:]),
    ("noise.bad-key", b"\x0a\x24\x12\x20" + BEN.public_key.data + b"\x08\x01" + BEN_PROOF.payload[38:]),
    ("noise.bad-signature", ANN_PROOF.payload),
    ("noise.bad-signature", BEN_PROOF.payload[:-1] + bytes([BEN_PROOF.payload[-1] ^ 1])),
    ("noise.bad-signature", ANN_PROOF.payload[:38] + BEN_PROOF.payload[38:]),
    ("noise.bad-signature", Credential(BEN, ANN_STATIC.public).payload),
]


@pytest.mark.parametrize(("code", "payload"), BAD_PROOFS)
def test_a_peer_without_a_valid_proof_is_refused(code: str, payload: bytes) -> None:
    dialer = ann()
    dialer.take_output()
    assert refused(dialer, responder(payload)) == code


def test_unknown_fields_are_skipped() -> None:
    dialer = ann()
    dialer.take_output()
    payload = BEN_PROOF.payload + b"\x1a\x04data" + b"\x22\x06\x1a\x04data"
    assert dialer.receive(responder(payload), NOW) == [Authenticated(BEN.peer_id, BEN.public_key, None)]


MPLEX = "/mplex/6.7.0"


@pytest.mark.parametrize(
    ("dialers", "listeners", "chosen"),
    [
        ([YAMUX], [YAMUX], YAMUX),
        ([], [YAMUX], None),
        ([YAMUX], [], None),
        ([MPLEX], [YAMUX], None),
        ([MPLEX, YAMUX], [YAMUX, MPLEX], YAMUX),
        ([], [], None),
    ],
)
def test_both_sides_come_to_the_same_muxer(
    dialers: list[str], listeners: list[str], chosen: str | None
) -> None:
    seen, known = joined(ann(muxers=dialers), ben(muxers=listeners))
    assert seen.muxer == known.muxer == chosen


def test_a_list_of_muxers_is_read_within_reason() -> None:
    proof = verify_payload(BEN_PROOF.payload + encode_muxers([YAMUX, MPLEX]), BEN_STATIC.public)
    assert proof.muxers == (YAMUX, MPLEX)
    many = BEN_PROOF.payload + encode_muxers([f"/m/{n}" for n in range(MUXERS_MAX + 1)])
    assert verify_payload(many, BEN_STATIC.public).muxers is None
    odd = BEN_PROOF.payload + b"\x22\x04\x12\x02\xff\xfe"
    assert verify_payload(odd, BEN_STATIC.public).muxers == ("\ufffd\ufffd",)


def test_another_prologue_is_another_protocol() -> None:
    listener, dialer = ben(prologue=b"one"), ann(prologue=b"two")
    listener.receive(output(dialer), NOW)
    assert refused(dialer, output(listener)) == "noise.handshake"


def test_a_handshake_that_failed_writes_and_reads_no_more() -> None:
    hand = Handshake(ANN_STATIC, dialer=True)
    hand.write()
    with pytest.raises(Violation):
        hand.read(bytes(200))
    for use in (hand.write, hand.split, lambda: hand.read(SECOND[2:])):
        with pytest.raises(Misuse):
            use()
    assert not hand.done


def test_the_time_for_the_handshake_is_limited() -> None:
    listener = ben()
    assert listener.deadline == 10.0
    assert listener.tick(Now(9.0, 0.0)) == ()
    with pytest.raises(Violation) as error:
        listener.tick(Now(10.0, 0.0))
    assert error.value.code == "noise.timeout"
    assert listener.stage is Stage.FAILED


def test_data_may_come_right_behind_the_last_message() -> None:
    dialer, listener = ann(), ben()
    listener.receive(output(dialer), NOW)
    dialer.receive(output(listener), NOW)
    dialer.send([b"early"])
    who, data = listener.receive(output(dialer), NOW)
    assert isinstance(who, Authenticated)
    assert data == b"early"
    with pytest.raises(Misuse):
        ben().send([b"before anybody is known"])


def test_nothing_at_all_may_arrive_inside_a_frame() -> None:
    sealer, opener = pair()
    frame = b"".join(sealer.seal(b"word"))
    got = [opener.receive(part) for part in (b"", frame[:1], b"", frame[1:5], b"", frame[5:])]
    assert got == [[], [], [], [], [], [b"word"]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(-1, 400), st.data())
def test_events_do_not_depend_on_how_bytes_arrive(
    sent: list[bytes], spoilt: int, data: st.DataObject
) -> None:
    dialer = ann()
    dialer.take_output()
    dialer.receive(SECOND, NOW)
    third = output(dialer)
    for piece in sent:
        dialer.send([piece])
    wire = bytearray(FIRST + third + output(dialer))
    if 0 <= spoilt < len(wire):
        wire[spoilt] ^= 0x10
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=10)))

    def play(chunks: Sequence[bytes]) -> tuple[object, ...]:
        core, seen, got = ben(), [], b""
        try:
            for chunk in chunks:
                for event in core.receive(chunk, NOW):
                    if isinstance(event, bytes):
                        got += event
                    else:
                        seen.append(event)
            core.receive_eof(NOW)
        except AirError as error:
            return seen, got, error.code
        return seen, got, None

    pieces = [bytes(wire[a:b]) for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    whole = play([bytes(wire)])
    assert play(pieces) == whole
    assert play([wire[i : i + 1] for i in range(len(wire))]) == whole
    if spoilt < 0:
        assert whole[1:] == (b"".join(sent), None)


def sealed(sealer: Sealer, *contents: bytes) -> bytes:
    """One run of frames for each."""
    return b"".join(part for data in contents for part in sealer.seal(data))


def pair() -> tuple[Sealer, Opener]:
    return Sealer(b"k" * 32), Opener(b"k" * 32)


@given(st.lists(st.integers(0, 200_000), max_size=4), st.integers(1, 70_000))
@settings(max_examples=30, deadline=None)
def test_pieces_of_any_size_come_through(sizes: list[int], step: int) -> None:
    source = random.Random(step)
    pieces = [source.randbytes(size) for size in sizes]
    sealer, opener = pair()
    wire = b"".join([*sealer.seal_many(pieces), *sealer.seal_many(map(memoryview, pieces))])
    at = 0
    while at < len(wire):
        size = wire[at] << 8 | wire[at + 1]
        assert 17 <= size <= 65535
        at += 2 + size
    got = b"".join(part for at in range(0, len(wire), step) for part in opener.receive(wire[at : at + step]))
    assert got == b"".join(pieces) * 2
    opener.receive_eof()


def test_a_frame_is_filled_before_the_next_one_begins() -> None:
    sealer, opener = pair()
    for size, frames in ((1, 1), (PLAINTEXT_BYTES_MAX, 1), (PLAINTEXT_BYTES_MAX + 1, 2)):
        wire = sealed(sealer, bytes(size))
        assert len(wire) == size + 18 * frames
        assert [len(part) for part in opener.receive(wire)] == [min(size, PLAINTEXT_BYTES_MAX), 1][:frames]


def test_an_empty_frame_is_legal_and_says_nothing() -> None:
    sealer, opener = pair()
    wire = sealed(sealer, b"", b"x")
    assert len(wire) == 18 + 19
    assert opener.receive(wire) == [b"x"]


BAD_FRAMES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("length 0", lambda good: b"\0\0" + good),
    ("shorter than a tag", lambda good: b"\0\x0f" + bytes(15)),
    ("shorter than a tag, by its length alone", lambda good: b"\0\x0f"),
    ("tag of zeros", lambda good: good[:-16] + bytes(16)),
    ("again", lambda good: good + good),
    ("out of order", lambda good: good[19:]),
]


@pytest.mark.parametrize(("name", "spoil"), BAD_FRAMES, ids=[name for name, _ in BAD_FRAMES])
def test_a_bad_frame_ends_the_connection(name: str, spoil: Callable[[bytes], bytes]) -> None:
    for step in (1, 7, 1000):
        sealer, opener = pair()
        wire = spoil(sealed(sealer, b"x", b"y"))
        got = []
        with pytest.raises(Violation) as error:
            for at in range(0, len(wire), step):
                got += opener.receive(wire[at : at + step])
            opener.receive(b"")
        assert error.value.code == "noise.frame"
        assert error.value.fatal
        assert b"".join(got) in (b"", b"x", b"xy")
        with pytest.raises(Violation):
            opener.receive_eof()


def test_an_end_inside_a_frame_is_an_error_and_between_frames_an_end() -> None:
    for cut in (1, 2, 10, 18):
        sealer, opener = pair()
        opener.receive(sealed(sealer, b"x")[:cut])
        with pytest.raises(Violation) as error:
            opener.receive_eof()
        assert error.value.code == "noise.truncated"
    sealer, opener = pair()
    opener.receive(sealed(sealer, b"x"))
    opener.receive_eof()


def test_an_incomplete_frame_is_all_that_is_kept() -> None:
    sealer, opener = pair()
    wire = sealed(sealer, bytes(PLAINTEXT_BYTES_MAX)) * 3
    for at in range(0, len(wire), 1000):
        if opener.error is None:
            opener.receive(wire[at : at + 1000])
            assert len(opener._tail) <= 65537
    listener = ben()
    listener.receive(FIRST, NOW)
    listener.receive(b"\x20\x00" + bytes(8191), NOW)
    assert len(listener._buffer) <= 8194
    with pytest.raises(Violation):
        listener.receive(b"x", NOW)
    assert len(listener._buffer) == 0


def test_nonces_end_before_the_reserved_one() -> None:
    last = Sealer(b"k" * 32, 2**64 - 3)
    sealed(last, b"x")
    with pytest.raises(Misuse):
        sealed(last, b"x")
