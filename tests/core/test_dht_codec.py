"""Messages of the DHT: those that other implementations wrote, and what bad ones are refused with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.address import Multiaddr
from air.base.errors import LimitReached, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.dht.codec import CONTACTS_MAX, decode, encode
from air.dht.config import KadConfig
from air.dht.key import place, preimage, shared_bits
from air.dht.message import Contact, Kind, Link, Message, Record
from air.pb import kad_pb2 as pb
from tests.vector_files import load

CONFIG = KadConfig()
CASES = load("libp2p/kad_messages.json")["cases"]
KEYSPACE = load("libp2p/kad_keyspace.json")["cases"]
PEERS = [Identity(bytes([number]) * 32).peer_id for number in range(1, 40)]


def of_kind(cases: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [case for case in cases if case["kind"] == kind]


def case_id(case: dict[str, Any]) -> str:
    return str(case["id"])


def told(contact: Contact) -> tuple[str, list[str]]:
    return contact.peer.multihash.hex(), [str(address) for address in contact.addresses]


@pytest.mark.vectors
@pytest.mark.parametrize("case", of_kind(CASES, "message"), ids=case_id)
def test_recorded_messages_are_read(case: dict[str, Any]) -> None:
    fields, read = case["fields"], decode(bytes.fromhex(case["hex"]), CONFIG)
    assert read.kind == fields["type"]
    assert read.key.hex() == fields.get("key", "")
    record = fields.get("record")
    if record is None:
        assert read.record is None
    else:
        assert read.record is not None
        assert (read.record.key.hex(), read.record.value.hex()) == (record["key"], record["value"])
        # Some write nanoseconds, and the vectors tell milliseconds.
        assert read.record.received.rstrip("0Z") == record.get("timeReceived", "").rstrip("0Z")
    for name, contacts in (("closerPeers", read.closer), ("providerPeers", read.providers)):
        assert [told(contact) for contact in contacts] == [
            (peer["id"], peer["addrs"]) for peer in fields.get(name, [])
        ]
    # What is read is written so that it reads the same.
    assert decode(encode(read, CONFIG), CONFIG) == read


@pytest.mark.vectors
@pytest.mark.parametrize("case", of_kind(CASES, "reject"), ids=case_id)
def test_recorded_nonsense_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Violation) as caught:
        decode(bytes.fromhex(case["hex"]), CONFIG)
    assert caught.value.code == "kad.malformed"


@pytest.mark.vectors
@pytest.mark.parametrize("case", of_kind(KEYSPACE, "distance"), ids=case_id)
def test_places_and_distances_are_those_of_others(case: dict[str, Any]) -> None:
    a, b = place(PeerId(case["a"]).multihash), place(PeerId(case["b"]).multihash)
    assert (f"{a:064x}", f"{b:064x}", f"{a ^ b:064x}") == (case["key_a"], case["key_b"], case["xor"])
    assert shared_bits(a, b) == case["common_prefix_bits"]


@pytest.mark.vectors
@pytest.mark.parametrize("case", of_kind(KEYSPACE, "closest"), ids=case_id)
def test_the_order_by_distance_is_that_of_others(case: dict[str, Any]) -> None:
    target = place(bytes.fromhex(case["target"]))
    assert f"{target:064x}" == case["key"]
    candidates = [PeerId(text) for text in case["candidates"]]
    ordered = sorted(candidates, key=lambda peer: place(peer.multihash) ^ target)
    assert ordered[:20] == case["closest_20"]


def test_a_place_shares_all_bits_with_itself_and_a_name_is_found_for_each_bucket() -> None:
    own = place(PEERS[0].multihash)
    assert shared_bits(own, own) == 256
    names = (number.to_bytes(4, "big") for number in range(2**32))
    for bits in range(8):
        assert shared_bits(place(preimage(own, bits, lambda: next(names))), own) == bits


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Violation) as caught:
        decode(pb.KadMessage(type=6).SerializeToString(), CONFIG)
    assert caught.value.code == "kad.unknown-type"


def test_contacts_and_addresses_that_cannot_be_read_are_left_out() -> None:
    good, other = PEERS[:2]
    here = Multiaddr("/ip4/127.0.0.1/tcp/1")
    data = pb.KadMessage(
        type=4,
        closer_peers=[
            pb.KadPeer(id=b"nobody", addrs=[here.to_bytes()]),
            pb.KadPeer(
                id=good.multihash,
                addrs=[
                    b"\xff\xff",
                    here.to_bytes(),
                    Multiaddr(f"/ip4/127.0.0.1/tcp/2/p2p/{good}").to_bytes(),
                    Multiaddr(f"/ip4/127.0.0.1/tcp/3/p2p/{other}").to_bytes(),
                ],
                connection=77,
            ),
            pb.KadPeer(id=good.multihash),
        ],
    ).SerializeToString()
    assert decode(data, CONFIG).closer == (
        Contact(good, (here, Multiaddr("/ip4/127.0.0.1/tcp/2")), Link.NOT_CONNECTED),
    )


def test_a_list_without_end_is_looked_at_only_so_far() -> None:
    peers = [pb.KadPeer(id=b"nobody")] * CONTACTS_MAX + [pb.KadPeer(id=PEERS[0].multihash)]
    assert decode(pb.KadMessage(type=4, closer_peers=peers).SerializeToString(), CONFIG).closer == ()


def test_what_is_too_much_for_one_message_loses_its_furthest_contacts() -> None:
    many = tuple(Multiaddr(f"/dns4/{'x' * 60}.example/tcp/{port}") for port in range(1, 41))
    contacts = tuple(Contact(peer, many) for peer in PEERS)
    data = encode(Message(Kind.GET_PROVIDERS, b"k", closer=contacts, providers=contacts[:3]), CONFIG)
    read = decode(data, CONFIG)
    assert CONFIG.send_bytes_max - 2000 < len(data) <= CONFIG.send_bytes_max
    assert [one.peer for one in read.providers] == PEERS[:3]
    assert 0 < len(read.closer) < len(PEERS)
    assert [one.peer for one in read.closer] == PEERS[: len(read.closer)]
    assert all(len(one.addresses) == CONFIG.addresses_max for one in read.closer)


def test_a_record_that_no_message_can_hold_is_refused_before_it_is_sent() -> None:
    with pytest.raises(LimitReached) as caught:
        encode(Message(Kind.PUT_VALUE, b"k", Record(b"k", bytes(20_000))), CONFIG)
    assert caught.value.code == "kad.too-big"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_violation(data: bytes) -> None:
    try:
        read = decode(data, CONFIG)
    except Violation as error:
        assert error.code in ("kad.malformed", "kad.unknown-type")
    else:
        assert decode(encode(read, CONFIG), CONFIG) == read


@given(
    st.sampled_from(Kind),
    st.binary(max_size=80),
    st.none() | st.builds(Record, st.binary(max_size=50), st.binary(max_size=300), st.text(max_size=16)),
    st.lists(st.sampled_from(PEERS), max_size=20, unique=True),
)
def test_a_message_reads_as_it_was_written(
    kind: Kind, key: bytes, record: Record | None, peers: list[PeerId]
) -> None:
    contacts = tuple(Contact(peer, (Multiaddr("/ip4/10.0.0.1/tcp/9"),), Link.CONNECTED) for peer in peers)
    message = Message(kind, key, record, closer=contacts, providers=contacts[:2])
    assert decode(encode(message, CONFIG), CONFIG) == message


def test_of_many_addresses_only_so_many_are_looked_at() -> None:
    message = pb.KadMessage(type=Kind.FIND_NODE, key=b"k")
    good = Multiaddr("/ip4/8.8.8.8/tcp/1")
    for one, bad in zip(PEERS[:4], (1000, 23, 0, 0), strict=True):
        message.closer_peers.add(id=one.multihash, addrs=[b""] * bad + [good.to_bytes()])
    read = decode(message.SerializeToString(), CONFIG)
    assert [one.addresses for one in read.closer] == [(good,), (), (), ()]


def test_of_a_question_only_the_providers_that_it_tells_are_read() -> None:
    named = (Contact(PEERS[0], (Multiaddr("/ip4/8.8.8.8/tcp/1"),)),)
    for kind in Kind:
        data = encode(Message(kind, b"k", closer=named, providers=named), CONFIG)
        read = decode(data, CONFIG, question=True)
        assert read.closer == ()
        assert read.providers == (named if kind is Kind.ADD_PROVIDER else ())
