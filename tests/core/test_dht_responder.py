"""What a server of the DHT answers, and what it refuses."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.address import Multiaddr
from air.base.clock import ManualClock
from air.base.errors import Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.message import Contact, Kind, Message, Record
from air.dht.records import ProviderStore, RecordStore
from air.dht.responder import Responder
from air.dht.table import RoutingTable
from air.dht.values import Anything, Namespaces, PublicKeys

OWN, ASKER, OTHER, GUEST, *SERVERS = (Identity(bytes([n]) * 32).peer_id for n in range(1, 17))
CONFIG = KadConfig(k=4)
KEY = b"/any/key"
HASH = b"\x12\x20" + bytes(32)
EACH = tuple(kind for kind in Kind if kind is not Kind.PING)
ASKING = (Kind.FIND_NODE, Kind.GET_VALUE, Kind.GET_PROVIDERS)


@lru_cache
def home(number: int) -> tuple[Multiaddr, ...]:
    return (Multiaddr(f"/ip4/10.0.0.{number}/tcp/4001"),)


class Fading(Anything):
    """Anything that is not ``bad`` by now."""

    bad: bytes | None = None

    def validate(self, key: bytes, value: bytes) -> None:
        if value == self.bad:
            raise Violation("its time has come", code="kad.bad-value")


class Setting:
    """A responder whose table holds the asker and the servers, all with addresses."""

    def __init__(self, config: KadConfig = CONFIG) -> None:
        self.clock, self.rules = ManualClock(), Fading()
        self.book = {peer: home(n) for n, peer in enumerate((OWN, ASKER, OTHER, *SERVERS), 1)}
        namespaces = Namespaces({"any": self.rules, "pk": PublicKeys()})
        self.table = RoutingTable(OWN, KadConfig())
        for peer in (ASKER, *SERVERS):
            assert self.table.add(peer, self.book[peer], self.clock.now())
        self.records = RecordStore(OWN, config, namespaces)
        self.providers = ProviderStore(OWN, config)
        self.responder = Responder(
            OWN,
            self.table,
            self.records,
            self.providers,
            lambda peer: self.book.get(peer, ()),
            config,
        )

    def answer(self, message: Message, sender: PeerId = ASKER) -> Message | None:
        return self.responder.answer(message, sender, self.clock.now())

    def ask(self, kind: Kind, key: bytes, sender: PeerId = ASKER) -> Message:
        answer = self.answer(Message(kind, key), sender)
        assert answer is not None
        assert answer.kind is kind
        return answer

    def put(self, key: bytes, value: bytes) -> Message | None:
        return self.answer(Message(Kind.PUT_VALUE, key, Record(key, value)))

    def refusal(self, message: Message) -> str:
        with pytest.raises(Violation) as caught:
            self.answer(message)
        return caught.value.code


def names(contacts: tuple[Contact, ...]) -> list[PeerId]:
    return [one.peer for one in contacts]


def nearest(key: bytes, peers: list[PeerId] = SERVERS) -> list[PeerId]:
    return sorted(peers, key=lambda peer: place(peer.multihash) ^ place(key))


# Closer peers


@pytest.mark.parametrize("kind", ASKING)
def test_a_question_is_answered_with_the_closest_peers_and_where_they_are(kind: Kind) -> None:
    setting = Setting()
    for key in (KEY, HASH, b"x", GUEST.multihash):
        answer = setting.ask(kind, key)
        assert names(answer.closer) == nearest(key)[: CONFIG.k]
        assert all(one.addresses == setting.book[one.peer] for one in answer.closer)
        assert answer.key == (b"" if kind is Kind.FIND_NODE else key), "go does not repeat what was searched"


@pytest.mark.parametrize("kind", ASKING)
def test_nobody_is_told_of_himself_nor_of_this_peer(kind: Kind) -> None:
    setting = Setting(KadConfig(k=20))
    for sender in (ASKER, SERVERS[0]):
        for key in (sender.multihash, KEY):
            told = names(setting.ask(kind, key, sender).closer)
            assert set(told) == {ASKER, *SERVERS} - {sender}


@pytest.mark.parametrize("kind", ASKING)
def test_peers_without_addresses_leave_their_room_to_others(kind: Kind) -> None:
    setting = Setting()
    order = nearest(KEY)
    for peer in order[:7]:
        setting.book[peer] = ()
    assert names(setting.ask(kind, KEY).closer) == order[7 : 7 + CONFIG.k]
    for peer in order[8:]:
        setting.book[peer] = ()
    assert names(setting.ask(kind, KEY).closer) == [order[7]]


def test_a_peer_is_told_with_a_bounded_number_of_addresses() -> None:
    setting = Setting()
    many = tuple(Multiaddr(f"/ip4/10.0.1.{n}/tcp/1") for n in range(40))
    setting.book[OTHER] = many
    assert setting.ask(Kind.FIND_NODE, OTHER.multihash).closer[0].addresses == many[: CONFIG.addresses_max]


def test_the_wanted_peer_comes_first_though_it_is_not_in_the_table() -> None:
    setting = Setting()
    told = setting.ask(Kind.FIND_NODE, OTHER.multihash).closer
    assert told[0] == Contact(OTHER, setting.book[OTHER])
    assert names(told[1:]) == nearest(OTHER.multihash)[: CONFIG.k - 1]


def test_a_wanted_peer_of_the_table_is_told_once() -> None:
    told = names(Setting().ask(Kind.FIND_NODE, SERVERS[5].multihash).closer)
    assert told == nearest(SERVERS[5].multihash)[: CONFIG.k]
    assert told[0] == SERVERS[5]


def test_a_wanted_peer_of_which_nothing_is_known_is_not_told() -> None:
    assert GUEST not in names(Setting().ask(Kind.FIND_NODE, GUEST.multihash).closer)


def test_whoever_asks_for_this_peer_itself_gets_its_addresses() -> None:
    setting = Setting()
    told = setting.ask(Kind.FIND_NODE, OWN.multihash).closer
    assert told[0] == Contact(OWN, setting.book[OWN])
    assert names(told[1:]) == nearest(OWN.multihash)[: CONFIG.k - 1]
    setting.book[OWN] = ()
    assert OWN not in names(setting.ask(Kind.FIND_NODE, OWN.multihash).closer)


def test_only_the_search_for_a_peer_puts_it_first() -> None:
    setting = Setting()
    for kind in (Kind.GET_VALUE, Kind.GET_PROVIDERS):
        for peer in (OWN, OTHER):
            assert peer not in names(setting.ask(kind, peer.multihash).closer)


def test_a_peer_with_an_empty_table_still_answers() -> None:
    setting = Setting()
    for peer in setting.table.peers:
        setting.table.remove(peer)
    for kind in ASKING:
        assert setting.ask(kind, KEY).closer == ()


# Values


def test_a_value_that_was_put_is_told_with_closer_peers() -> None:
    setting = Setting()
    setting.put(KEY, b"v")
    answer = setting.ask(Kind.GET_VALUE, KEY, OTHER)
    assert answer.key == KEY
    assert answer.record is not None
    assert (answer.record.key, answer.record.value) == (KEY, b"v")
    assert answer.record.received
    assert len(answer.closer) == CONFIG.k


def test_a_put_is_answered_with_what_was_put_whole_and_without_peers() -> None:
    record = Record(KEY, b"v", "2020-01-01T00:00:00Z")
    peers = (Contact(OTHER, home(9)),)
    message = Message(Kind.PUT_VALUE, KEY, record, closer=peers, providers=peers)
    assert Setting().answer(message) == Message(Kind.PUT_VALUE, KEY, record)


def test_a_worse_value_is_acknowledged_and_the_better_one_stays() -> None:
    setting = Setting()
    setting.put(KEY, b"2")
    assert setting.put(KEY, b"1") == Message(Kind.PUT_VALUE, KEY, Record(KEY, b"1"))
    record = setting.ask(Kind.GET_VALUE, KEY).record
    assert record is not None
    assert record.value == b"2"


@pytest.mark.parametrize("key", [b"/none/x", b"x", b"/any/", b"/any/else"])
def test_a_question_for_what_cannot_be_held_is_answered_without_a_record(key: bytes) -> None:
    answer = Setting().ask(Kind.GET_VALUE, key)
    assert answer.record is None
    assert names(answer.closer) == nearest(key)[: CONFIG.k]


def test_a_value_that_is_not_valid_any_more_is_not_told_nor_kept() -> None:
    setting = Setting()
    setting.put(KEY, b"v")
    setting.rules.bad = b"v"
    assert setting.ask(Kind.GET_VALUE, KEY).record is None
    assert len(setting.records) == 0


def test_an_expired_value_is_not_told() -> None:
    setting = Setting()
    setting.put(KEY, b"v")
    setting.clock.advance(CONFIG.record_seconds)
    assert setting.ask(Kind.GET_VALUE, KEY).record is None


# Providers


def test_a_provider_is_told_by_its_own_word_with_closer_peers() -> None:
    setting = Setting()
    word = Contact(OTHER, home(77))
    assert setting.answer(Message(Kind.ADD_PROVIDER, HASH, providers=(word,)), OTHER) is None
    answer = setting.ask(Kind.GET_PROVIDERS, HASH)
    assert answer == Message(Kind.GET_PROVIDERS, HASH, closer=answer.closer, providers=(word,))
    assert len(answer.closer) == CONFIG.k


def test_nobody_can_name_another_as_a_provider() -> None:
    setting = Setting()
    others = tuple(Contact(peer, home(9)) for peer in (OWN, OTHER, *SERVERS))
    assert setting.answer(Message(Kind.ADD_PROVIDER, HASH, providers=others)) is None
    assert setting.ask(Kind.GET_PROVIDERS, HASH).providers == ()
    assert len(setting.providers) == 0
    setting.answer(Message(Kind.ADD_PROVIDER, HASH, providers=(*others, Contact(ASKER, home(9)))))
    assert names(setting.ask(Kind.GET_PROVIDERS, HASH).providers) == [ASKER]


def test_a_provider_without_addresses_is_not_taken_and_gets_no_answer() -> None:
    setting = Setting()
    assert setting.answer(Message(Kind.ADD_PROVIDER, HASH, providers=(Contact(ASKER),))) is None
    assert setting.answer(Message(Kind.ADD_PROVIDER, HASH)) is None
    assert len(setting.providers) == 0


def test_a_provider_whose_addresses_have_ended_is_told_with_those_known_now() -> None:
    setting = Setting()
    for peer in (OTHER, GUEST):
        setting.answer(Message(Kind.ADD_PROVIDER, HASH, providers=(Contact(peer, home(77)),)), peer)
    setting.clock.advance(CONFIG.provider_address_seconds)
    told = setting.ask(Kind.GET_PROVIDERS, HASH).providers
    assert told == (Contact(GUEST), Contact(OTHER, setting.book[OTHER]))


def test_what_this_peer_provides_itself_is_told_with_its_addresses_of_now() -> None:
    setting = Setting()
    setting.providers.add(HASH, Contact(OWN), setting.clock.now())
    for number in (50, 51):
        setting.book[OWN] = home(number)
        assert setting.ask(Kind.GET_PROVIDERS, HASH).providers == (Contact(OWN, home(number)),)


def test_a_provider_key_need_not_be_a_multihash() -> None:
    setting = Setting()
    key = b"x" * CONFIG.provider_key_bytes_max
    setting.answer(Message(Kind.ADD_PROVIDER, key, providers=(Contact(ASKER, home(1)),)))
    assert names(setting.ask(Kind.GET_PROVIDERS, key).providers) == [ASKER]


# The rest


def test_a_ping_is_answered_with_itself() -> None:
    for message in (Message(Kind.PING), Message(Kind.PING, b"k", Record(b"k", b"v"))):
        assert Setting().answer(message) == message


@pytest.mark.parametrize("kind", EACH)
def test_an_empty_key_is_refused(kind: Kind) -> None:
    message = Message(kind, b"", Record(b"", b"v"), providers=(Contact(ASKER, home(1)),))
    assert Setting().refusal(message) == "kad.no-key"


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (Kind.GET_VALUE, CONFIG.record_key_bytes_max),
        (Kind.PUT_VALUE, CONFIG.record_key_bytes_max),
        (Kind.GET_PROVIDERS, CONFIG.provider_key_bytes_max),
        (Kind.ADD_PROVIDER, CONFIG.provider_key_bytes_max),
    ],
)
def test_a_key_too_long_is_refused(kind: Kind, limit: int) -> None:
    for size in (limit, limit + 1):
        key = b"/any/" + b"x" * (size - 5)
        message = Message(kind, key, Record(key, b"v") if kind is Kind.PUT_VALUE else None)
        if size == limit:
            Setting().answer(message)
        else:
            assert Setting().refusal(message) == "kad.key-too-long"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message(Kind.PUT_VALUE, KEY), "kad.no-record"),
        (Message(Kind.PUT_VALUE, KEY, Record(b"/any/other", b"v")), "kad.wrong-key"),
        (Message(Kind.PUT_VALUE, KEY, Record(b"", b"v")), "kad.wrong-key"),
        (Message(Kind.PUT_VALUE, b"/none/x", Record(b"/none/x", b"v")), "kad.no-validator"),
        (Message(Kind.PUT_VALUE, b"x", Record(b"x", b"v")), "kad.bad-key"),
        (Message(Kind.PUT_VALUE, b"/pk/x", Record(b"/pk/x", b"v")), "kad.bad-value"),
        (Message(Kind.PUT_VALUE, KEY, Record(KEY, bytes(CONFIG.value_bytes_max + 1))), "kad.value-too-big"),
    ],
)
def test_a_put_that_breaks_a_rule_is_refused_and_nothing_kept(message: Message, code: str) -> None:
    setting = Setting()
    assert setting.refusal(message) == code
    assert len(setting.records) == 0


# Laws

KEYS = [*(b"/any/%d" % n for n in range(5)), b"/none/x", b"", b"/any/" + bytes(30), OTHER.multihash]
SENDERS = [ASKER, OTHER, GUEST, SERVERS[0]]
SMALL = KadConfig(
    k=3,
    records_max=2,
    record_seconds=4.0,
    value_bytes_max=2,
    record_key_bytes_max=20,
    provider_keys_max=2,
    providers_max=2,
    provider_seconds=4.0,
    provider_address_seconds=2.0,
    provider_key_bytes_max=20,
)


CONTACTS = [Contact(peer, where) for peer in (*SENDERS, OWN) for where in ((), home(1))]
RECORDS = st.builds(Record, st.sampled_from(KEYS), st.binary(max_size=3))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    key = draw(st.sampled_from(KEYS))
    record = draw(st.none() | RECORDS)
    if record is not None and draw(st.integers(0, 4)):
        record = Record(key, record.value)
    providers = draw(st.lists(st.sampled_from(CONTACTS), max_size=3))
    return Message(draw(st.sampled_from(Kind)), key, record, tuple(providers), tuple(providers))


@given(st.lists(st.tuples(messages(), st.sampled_from(SENDERS), st.sampled_from([0.0, 0.5, 1.5, 3.0]))))
def test_no_messages_make_the_stores_grow_or_bring_out_what_has_expired(
    steps: list[tuple[Message, PeerId, float]],
) -> None:
    setting = Setting(SMALL)
    puts: dict[tuple[bytes, bytes], float] = {}
    adds: dict[tuple[bytes, PeerId], float] = {}
    for message, sender, seconds in steps:
        now = setting.clock.advance(seconds).monotonic
        try:
            answer = setting.answer(message, sender)
        except Violation as error:
            assert error.code.startswith("kad.")
            answer = None
        else:
            assert (answer is None) == (message.kind is Kind.ADD_PROVIDER)
            if message.kind is Kind.PUT_VALUE and message.record is not None:
                puts[message.key, message.record.value] = now
            if message.kind is Kind.ADD_PROVIDER:
                adds[message.key, sender] = now
        assert len(setting.records) <= SMALL.records_max
        assert len(setting.providers) <= SMALL.provider_keys_max
        if answer is None or message.kind is Kind.PING:
            continue
        assert len(answer.closer) <= SMALL.k
        assert sender not in names(answer.closer)
        assert all(one.addresses for one in answer.closer)
        if answer.record is not None and message.kind is Kind.GET_VALUE:
            assert puts[message.key, answer.record.value] + SMALL.record_seconds > now
        assert len(answer.providers) <= SMALL.providers_max
        for one in answer.providers:
            assert adds[message.key, one.peer] + SMALL.provider_seconds > now


@given(st.lists(st.tuples(st.sampled_from(KEYS[:5]), st.binary(max_size=2))), st.data())
def test_servers_that_were_sent_the_same_puts_in_any_order_tell_the_same(
    puts: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    told = []
    for _ in range(2):
        setting = Setting()
        for key, value in data.draw(st.permutations(puts)):
            setting.put(key, value)
        told.append([setting.ask(Kind.GET_VALUE, key).record for key in KEYS[:5]])
    assert told[0] == told[1]
    assert {one.key for one in told[0] if one is not None} == {key for key, _ in puts}
