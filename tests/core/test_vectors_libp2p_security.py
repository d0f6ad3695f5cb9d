"""Recorded and generated vectors of the layers up to the secured connection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.errors import AirError, ConfigError, Denied, Misuse, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey
from air.base.varint import decode_varint, encode_varint, take_varint
from air.codec.envelope import open_envelope, open_peer_record, open_voucher, seal_peer_record
from air.negotiate.multistream import Dialer, Listener, MultistreamConfig, encode_message
from air.pb import keys_pb2
from air.security.noise.core import PROTOCOL_NAME, Handshake, StaticKey
from air.security.noise.frames import Opener, Sealer
from air.security.noise.payload import Credential, encode_muxers, verify_payload
from air.security.noise.session import Authenticated, NoiseConfig, NoiseCore
from air.security.psk import PnetCore, PreSharedKey
from air.security.tls.certificate import judge_certificate
from tests.vector_files import load

pytestmark = pytest.mark.vectors

NOW = Now(0.0, 0.0)
TODAY = Now(0.0, 1.75e12)


def cases(name: str, *kinds: str) -> Iterator[Any]:
    found = [case for case in load(f"libp2p/{name}.json")["cases"] if case["kind"] in kinds]
    assert found
    yield from found


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_varints() -> None:
    for case in cases("varint", "valid"):
        assert encode_varint(int(case["value"])) == raw(case["hex"]), case["id"]
        assert decode_varint(raw(case["hex"])) == int(case["value"]), case["id"]
    for case in cases("varint", "prefix"):
        assert take_varint(raw(case["hex"])) == (int(case["value"]), case["consumed"]), case["id"]
    for case in cases("varint", "reject"):
        with pytest.raises(Violation):
            decode_varint(raw(case["hex"]))
            pytest.fail(case["id"])


def test_keys_of_every_kind_and_the_names_made_of_them() -> None:
    kinds = set()
    for case in cases("peer_ids", "key"):
        identity = Identity.from_bytes(raw(case["private_key_pb"]))
        key, peer = identity.public_key, identity.peer_id
        kinds.add(key.type.name)
        assert key.type.name.lower() == case["key_type"].lower(), case["id"]
        assert key.to_bytes() == raw(case["public_key_pb"]), case["id"]
        assert keys_pb2.PublicKey(type=int(key.type), data=key.data).SerializeToString() == key.to_bytes()
        assert PublicKey.from_bytes(key.to_bytes()) == key, case["id"]
        assert (peer, peer.multihash) == (case["peer_id"], raw(case["multihash"])), case["id"]
        assert hashlib.sha256(peer.multihash).hexdigest() == case["kad_id_sha256"], case["id"]
        assert identity.to_bytes() == raw(case["private_key_pb"]), case["id"]
        for text in (case["peer_id"], case["cid_base32"], case["cid_base36"]):
            assert PeerId(text) == peer, case["id"]
        message, signature = raw(case["message"]), raw(case["signature"])
        assert key.verify(message, signature), case["id"]
        assert not key.verify(message + b"!", signature), case["id"]
        assert key.verify(message, identity.sign(message)), case["id"]
        if case["signature_deterministic"]:
            assert identity.sign(message) == signature, case["id"]
        assert (peer.public_key == key) is (key.type.name in ("ED25519", "SECP256K1")), case["id"]
    assert kinds == {"ED25519", "SECP256K1", "RSA", "ECDSA"}


def test_spellings_of_peer_ids() -> None:
    for case in cases("peer_ids", "parse"):
        peer = PeerId(case["string"])
        assert (peer, peer.multihash) == (case["canonical"], raw(case["multihash"])), case["id"]
    for case in cases("peer_ids", "reject-string"):
        with pytest.raises(Violation):
            PeerId(case["string"])
            pytest.fail(case["id"])
    for case in cases("peer_ids", "reject-id-bytes"):
        with pytest.raises(Violation):
            PeerId.from_bytes(raw(case["hex"]))
            pytest.fail(case["id"])


def test_keys_that_are_none_and_ids_of_other_keys() -> None:
    for case in cases("peer_ids", "reject-public-key"):
        with pytest.raises(Violation):
            PublicKey.from_bytes(raw(case["hex"]))
            pytest.fail(case["id"])
    for case in cases("peer_ids", "mismatch"):
        peer = PeerId.from_bytes(raw(case["hex"]))
        assert not peer.matches(PublicKey.from_bytes(raw(case["public_key_pb"]))), case["id"]


def test_addresses() -> None:
    for case in cases("multiaddr", "valid"):
        address = Multiaddr(case["string"])
        assert address.to_bytes() == raw(case["hex"]), case["id"]
        assert str(Multiaddr.from_bytes(raw(case["hex"]))) == str(address) == case["canonical"], case["id"]
        parts = [(part["name"], part["value"] or "") for part in case["components"]]
        assert list(address.parts) == parts, case["id"]
    for case in cases("multiaddr", "disputed"):
        address = Multiaddr(case["string"])
        assert address.to_bytes() == raw(case["expected_hex"]), case["id"]
        assert str(Multiaddr.from_bytes(address.to_bytes())) == case["expected_string"], case["id"]


def test_addresses_that_are_none() -> None:
    for case in cases("multiaddr", "reject-string"):
        with pytest.raises(Violation):
            Multiaddr(case["string"])
            pytest.fail(case["id"])
    for case in cases("multiaddr", "reject-bytes"):
        with pytest.raises(Violation):
            Multiaddr.from_bytes(raw(case["hex"]))
            pytest.fail(case["id"])


def test_multistream_messages_and_lists() -> None:
    config = MultistreamConfig()
    for case in cases("multistream", "message"):
        assert encode_message(case["text"]) == raw(case["hex"]), case["id"]
    for case in cases("multistream", "ls-response"):
        listener = Listener(case["protocols"], config, NOW)
        listener.receive(encode_message("/multistream/1.0.0") + encode_message("ls"), NOW)
        assert b"".join(listener.take_output())[20:] == raw(case["hex"]), case["id"]
        dialer = Dialer((), config, NOW)
        (listed,) = dialer.receive(encode_message("/multistream/1.0.0") + raw(case["hex"]), NOW)
        assert listed == (tuple(case["protocols"]),), case["id"]


def test_multistream_exchanges() -> None:
    for case in cases("multistream", "negotiation"):
        dialer = Dialer(case["dialer_proposes"], MultistreamConfig(), NOW)
        listener = Listener(case["listener_supports"], MultistreamConfig(), NOW)
        sent = {"dialer": b"", "listener": b""}
        refused = False
        while not refused and (out := b"".join(dialer.take_output())):
            sent["dialer"] += out
            listener.receive(out, NOW)
            reply = b"".join(listener.take_output())
            sent["listener"] += reply
            try:
                dialer.receive(reply, NOW)
            except Denied:
                refused = True
        for side, got in sent.items():
            assert got == b"".join(raw(step["hex"]) for step in case["steps"] if step["by"] == side), case[
                "id"
            ]
        assert dialer.agreed == listener.agreed == case["selected"], case["id"]
        assert refused is (case["selected"] is None), case["id"]


def handshakes(case: Any) -> tuple[Handshake, Handshake]:
    assert case["protocol_name"].encode() == PROTOCOL_NAME
    prologue = raw(case.get("init_prologue", case.get("prologue", "")))
    return (
        Handshake(
            StaticKey(raw(case["init_static"])),
            dialer=True,
            prologue=prologue,
            ephemeral=raw(case["init_ephemeral"]),
        ),
        Handshake(
            StaticKey(raw(case["resp_static"])),
            dialer=False,
            prologue=prologue,
            ephemeral=raw(case["resp_ephemeral"]),
        ),
    )


def test_noise_handshakes_come_out_bit_for_bit() -> None:
    for case in cases("noise_xx", "handshake"):
        sides = handshakes(case)
        for turn, message in enumerate(case["messages"][:3]):
            written = sides[turn % 2].write(raw(message["payload"]))
            assert written == raw(message["ciphertext"]), case["id"]
            assert sides[1 - turn % 2].read(written) == raw(message["payload"]), case["id"]
        ends = [side.split() for side in sides]
        assert ends[0][2] == ends[1][2] == raw(case["handshake_hash"]), case["id"]
        sealers, openers = [Sealer(end[0]) for end in ends], [Opener(end[1]) for end in ends]
        for turn, message in enumerate(case["messages"][3:], 3):
            (frame,) = sealers[turn % 2].seal(raw(message["payload"]))
            assert frame[2:] == raw(message["ciphertext"]), case["id"]
            opened = openers[1 - turn % 2].receive(frame)
            assert b"".join(opened) == raw(message["payload"]), case["id"]


def test_noise_handshakes_notice_what_was_changed() -> None:
    for case in cases("noise_xx", "tampered"):
        sides, bad, changed = handshakes(case), case["tampered_message"], raw(case["tampered_ciphertext"])
        failed = None
        for turn, message in enumerate(case["messages"][:3]):
            written, reader = sides[turn % 2].write(raw(message["payload"])), sides[1 - turn % 2]
            try:
                reader.read(changed if turn == bad else written)
            except Violation as error:
                assert error.code == "noise.handshake", case["id"]
                failed = turn
                for use in (reader.split, reader.write, lambda it=reader, got=changed: it.read(got)):
                    with pytest.raises(Misuse):
                        use()
                break
        if bad < 3:
            # The first message is one public key as good as another: its loss shows in the second.
            assert failed is not None, case["id"]
            assert failed == bad or not case["reader_fails"], case["id"]
            continue
        assert failed is None, case["id"]
        opener = Opener(sides[0 if case["reader"] == "initiator" else 1].split()[1])
        for turn in range(3, bad):
            # Only the writer's own messages reach this reader.
            if (turn % 2 == 0) is (case["reader"] == "responder"):
                opener.receive(frame_of(raw(case["messages"][turn]["ciphertext"])))
        assert opener.receive(frame_of(changed)) == [], case["id"]
        assert getattr(opener.error, "code", None) == "noise.frame", case["id"]
        with pytest.raises(Violation):
            opener.receive(b"")


def frame_of(ciphertext: bytes) -> bytes:
    return len(ciphertext).to_bytes(2, "big") + ciphertext


def test_noise_payloads_prove_an_identity_or_end_the_connection() -> None:
    for case in cases("noise_payload", "payload"):
        static = raw(case["noise_static_public"])
        if not case["valid"]:
            with pytest.raises(Violation) as refused:
                verify_payload(raw(case["payload"]), static)
            assert refused.value.code in ("noise.payload", "noise.bad-key", "noise.bad-signature"), case["id"]
            continue
        proof = verify_payload(raw(case["payload"]), static)
        assert proof.peer == case["peer_id"], case["id"]
        assert proof.key.to_bytes() == raw(case["identity_public_key_pb"]), case["id"]
        muxers = case.get("stream_muxers")
        assert proof.muxers == (tuple(muxers) if muxers else None), case["id"]
        if "identity_private_key_pb" in case and not case.get("webtransport_certhashes"):
            identity = Identity.from_bytes(raw(case["identity_private_key_pb"]))
            made = Credential(identity, static).payload + encode_muxers(muxers or ())
            assert verify_payload(made, static) == proof, case["id"]


def test_whole_libp2p_handshakes() -> None:
    replayed = 0
    for case in cases("noise_libp2p_handshake", "libp2p-handshake"):
        sides = handshakes(case)
        payloads = [raw(message["payload"]) for message in case["messages"]]
        for turn, message in enumerate(case["messages"]):
            written = sides[turn % 2].write(payloads[turn])
            assert frame_of(written) == raw(message["frame"]), case["id"]
            assert sides[1 - turn % 2].read(written) == payloads[turn], case["id"]
        for side, payload, peer in ((0, payloads[1], "resp_peer_id"), (1, payloads[2], "init_peer_id")):
            remote = sides[side].remote_static
            assert remote is not None
            assert verify_payload(payload, remote).peer == case[peer], case["id"]
        ends = [side.split() for side in sides]
        assert ends[0][2] == ends[1][2] == raw(case["handshake_hash"]), case["id"]
        sealers = {"initiator": Sealer(ends[0][0]), "responder": Sealer(ends[1][0])}
        for message in case["transport"]:
            frame = b"".join(sealers[message["from"]].seal(raw(message["plaintext"])))
            assert frame == raw(message["frame"]), case["id"]
        replayed += replay(case, payloads)
    assert replayed


def replay(case: Any, payloads: list[bytes]) -> bool:
    """Run the whole core against the recording, where our own payloads come out as recorded."""
    made = []
    for side in ("init", "resp"):
        identity = Identity.from_bytes(raw(case[f"{side}_identity_private_pb"]))
        static = StaticKey(raw(case[f"{side}_static"]))
        made.append((static, Credential(identity, static.public), tuple(case[f"{side}_stream_muxers"] or ())))
    if [
        made[1][1].payload + encode_muxers(made[1][2]),
        made[0][1].payload + encode_muxers(made[0][2]),
    ] != payloads[1:]:
        return False
    if made[0][2] != made[1][2] or len(made[0][2]) > 1:
        return False
    dialer, listener = (
        NoiseCore(
            static,
            credential,
            dialer=side == "init",
            config=NoiseConfig(),
            now=NOW,
            muxers=muxers,
            prologue=raw(case["prologue"]),
            ephemeral=raw(case[f"{side}_ephemeral"]),
            expected=PeerId(case["resp_peer_id" if side == "init" else "init_peer_id"]),
        )
        for side, (static, credential, muxers) in zip(("init", "resp"), made, strict=True)
    )
    frames = [raw(message["frame"]) for message in case["messages"]]
    assert b"".join(dialer.take_output()) == frames[0]
    assert listener.receive(frames[0], NOW) == ()
    assert b"".join(listener.take_output()) == frames[1]
    muxer = made[0][2][0] if made[0][2] else None
    (who,) = dialer.receive(frames[1], NOW)
    assert isinstance(who, Authenticated)
    assert (who.peer, who.muxer) == (case["resp_peer_id"], muxer)
    assert b"".join(dialer.take_output()) == frames[2]
    data = [raw(message["frame"]) for message in case["transport"] if message["from"] == "initiator"]
    who, *got = listener.receive(frames[2] + b"".join(data), NOW)
    assert isinstance(who, Authenticated)
    assert (who.peer, who.muxer) == (case["init_peer_id"], muxer)
    plain = [raw(message["plaintext"]) for message in case["transport"] if message["from"] == "initiator"]
    assert got == [text for text in plain if text]
    assert dialer.handshake_hash == listener.handshake_hash == raw(case["handshake_hash"])
    return True


def test_private_networks() -> None:
    for case in cases("pnet", "stream"):
        key = PreSharedKey.parse(case["key_file"].encode())
        assert key.secret == raw(case["psk"]), case["id"]
        core, plain = PnetCore(key, raw(case["nonce"])), raw(case["plaintext"])
        step = case["written_in_chunks_of"] or len(plain)
        wire = b"".join(core.seal(plain[at : at + step]) for at in range(0, len(plain), step))
        assert wire == raw(case["wire"]), case["id"]
        reader = PnetCore(key, bytes(24))
        assert b"".join(reader.receive(wire[at : at + 7]) for at in range(0, len(wire), 7)) == plain, case[
            "id"
        ]
    for case in cases("pnet", "bad-key-file"):
        with pytest.raises(ConfigError) as refused:
            PreSharedKey.parse(case["key_file"].encode())
        assert refused.value.code == "pnet.bad-key", case["id"]


def test_signed_peer_records() -> None:
    for case in cases("signed_envelopes", "peer-record"):
        data = raw(case["envelope"])
        if not case["valid"]:
            with pytest.raises(AirError):
                open_envelope(data, case["domain"])
                open_peer_record(data)
                pytest.fail(case["id"])
            continue
        record = open_peer_record(data)
        assert (record.peer, str(record.seq)) == (case["peer_id"], str(case["seq"])), case["id"]
        assert list(map(str, record.addresses)) == case["addrs"], case["id"]
        identity = Identity.from_bytes(raw(case["private_key_pb"]))
        again = seal_peer_record(identity, record.seq, record.addresses)
        assert open_peer_record(again) == record, case["id"]
        if identity.public_key.type.name == "ED25519" and record.seq:
            assert again == data, case["id"]


def test_vouchers_of_relays() -> None:
    for case in cases("signed_envelopes", "reservation-voucher"):
        if not case["valid"]:
            with pytest.raises(Violation):
                open_voucher(raw(case["envelope"]))
            continue
        voucher = open_voucher(raw(case["envelope"]))
        assert voucher == (case["relay"], case["peer"], case["expiration"]), case["id"]


def test_tls_certificates() -> None:
    for case in cases("tls_certificate", "certificate"):
        if case["valid"]:
            owner = judge_certificate(raw(case["der"]), TODAY)
            assert owner.peer == case["peer_id"], case["id"]
            assert owner.key.type.name.lower() == case["identity_key_type"].lower(), case["id"]
            continue
        with pytest.raises(Violation) as refused:
            judge_certificate(raw(case["der"]), TODAY)
        assert refused.value.code.startswith("tls."), case["id"]
