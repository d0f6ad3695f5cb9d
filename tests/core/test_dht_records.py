"""What a peer of the DHT keeps: which values are valid, which is the best, and what goes when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.address import Multiaddr
from air.base.clock import ManualClock, Now
from air.base.errors import ConfigError, Misuse, Violation
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.base.public_key import KeyType
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.message import Contact, Record
from air.dht.records import ProviderStore, RecordStore
from air.dht.values import Anything, Namespaces, PublicKeys

ANN, BOB, *OTHERS = (Identity(bytes([n]) * 32) for n in range(1, 8))
OWN = ANN.peer_id
PEERS: list[PeerId] = [BOB.peer_id, *(one.peer_id for one in OTHERS)]
HOME = Multiaddr("/ip4/192.0.2.1/tcp/4001")
NAMESPACES = Namespaces({"pk": PublicKeys(), "any": Anything()})
KEYS = [b"/any/%d" % n for n in range(12)]
CONFIG = KadConfig(records_max=4, provider_keys_max=4, providers_max=3)
HOUR = 3600.0
NOW = Now(0.0, 1_700_000_000_123.9)


def store(config: KadConfig = CONFIG, own: PeerId = OWN, namespaces: Namespaces = NAMESPACES) -> RecordStore:
    return RecordStore(own, config, namespaces)


def by_distance(keys: Sequence[bytes], own: PeerId = OWN) -> list[bytes]:
    return sorted(keys, key=lambda key: place(key) ^ place(own.multihash))


def everything(held: RecordStore, now: Now = NOW) -> dict[bytes, bytes]:
    found = {key: one.value for key in KEYS if (one := held.get(key, now)) is not None}
    assert len(found) == len(held)
    return found


def value(held: RecordStore, key: bytes, now: Now) -> bytes | None:
    record = held.get(key, now)
    return None if record is None else record.value


# Values


def test_a_public_key_stands_under_the_name_made_of_it_and_under_no_other() -> None:
    for owner in (BOB, Identity.generate(KeyType.SECP256K1), Identity.generate(KeyType.ECDSA)):
        data = owner.public_key.to_bytes()
        NAMESPACES.validate(b"/pk/" + owner.peer_id.multihash, data)
        for key in (b"/pk/" + OWN.multihash, b"/pk/" + owner.peer_id.encode(), b"/pk/x"):
            with pytest.raises(Violation) as caught:
                NAMESPACES.validate(key, data)
            assert caught.value.code == "kad.bad-value"


@pytest.mark.parametrize("data", [b"", b"\x08\x01\x12\x20", BOB.public_key.to_bytes() + b"\0"])
def test_what_is_no_public_key_stands_under_no_name(data: bytes) -> None:
    with pytest.raises(Violation) as caught:
        NAMESPACES.validate(b"/pk/" + BOB.peer_id.multihash, data)
    assert caught.value.code == "kad.bad-value"


@pytest.mark.parametrize(
    "key", [b"", b"/", b"//", b"any", b"any/x", b"/any", b"/any/", b"//x", b"x/any/x", b"/\xc3\xa4/x"]
)
def test_a_key_is_a_namespace_and_something_in_it(key: bytes) -> None:
    for ask in (
        NAMESPACES.of,
        lambda key: NAMESPACES.validate(key, b""),
        lambda key: store().put(Record(key, b""), NOW),
    ):
        with pytest.raises(Violation) as caught:
            ask(key)
        assert caught.value.code == "kad.bad-key"


def test_what_stands_behind_the_namespace_may_be_any_bytes() -> None:
    for rest in (b"/", b"a/b", b"\0\xff", b"x" * 1000):
        NAMESPACES.validate(b"/any/" + rest, b"")


def test_a_namespace_without_rules_has_no_values() -> None:
    for key in (b"/ipns/x", b"/an/x", b"/anyy/x"):
        with pytest.raises(Violation) as caught:
            NAMESPACES.of(key)
        assert caught.value.code == "kad.no-validator"


@pytest.mark.parametrize("name", ["", "a/b", "/any", "ä"])
def test_a_name_that_no_key_can_have_is_no_namespace(name: str) -> None:
    with pytest.raises(ConfigError):
        Namespaces({name: Anything()})


@given(st.lists(st.binary(max_size=4), min_size=1), st.data())
def test_the_best_value_does_not_depend_on_the_order(values: list[bytes], data: st.DataObject) -> None:
    mixed = data.draw(st.permutations(values))
    best = values[NAMESPACES.best(b"/any/x", values)]
    assert mixed[NAMESPACES.best(b"/any/x", mixed)] == best == max(values)


def test_a_choice_of_nothing_is_misuse() -> None:
    class Lost(Anything):
        def select(self, key: bytes, values: Sequence[bytes]) -> int:
            return len(values)

    with pytest.raises(Misuse):
        NAMESPACES.best(b"/any/x", [])
    with pytest.raises(Misuse):
        Namespaces({"lost": Lost()}).best(b"/lost/x", [b"a"])


# Records


def test_a_value_is_told_until_its_life_ends() -> None:
    clock, held = ManualClock(), store()
    assert held.put(Record(KEYS[0], b"v"), clock.now())
    assert held.get(KEYS[1], clock.now()) is None
    clock.advance(CONFIG.record_seconds - 1)
    assert value(held, KEYS[0], clock.now()) == b"v"
    clock.advance(1)
    assert held.get(KEYS[0], clock.now()) is None


def test_a_value_put_again_lives_on() -> None:
    clock, held = ManualClock(), store()
    held.put(Record(KEYS[0], b"v"), clock.now())
    clock.advance(47 * HOUR)
    assert held.put(Record(KEYS[0], b"v"), clock.now())
    clock.advance(47 * HOUR)
    assert value(held, KEYS[0], clock.now()) == b"v"
    clock.advance(1 * HOUR)
    assert held.get(KEYS[0], clock.now()) is None


def test_a_worse_value_neither_replaces_a_better_one_nor_makes_it_last() -> None:
    clock, held = ManualClock(), store()
    held.put(Record(KEYS[0], b"2"), clock.now())
    clock.advance(47 * HOUR)
    assert not held.put(Record(KEYS[0], b"1"), clock.now())
    assert value(held, KEYS[0], clock.now()) == b"2"
    clock.advance(1 * HOUR)
    assert held.get(KEYS[0], clock.now()) is None
    assert held.put(Record(KEYS[0], b"1"), clock.now())
    assert held.put(Record(KEYS[0], b"3"), clock.now())
    assert value(held, KEYS[0], clock.now()) == b"3"


def test_the_time_a_record_came_is_written_by_whoever_keeps_it() -> None:
    held = store()
    held.put(Record(KEYS[0], b"v", received="1970-01-01T00:00:00Z"), NOW)
    assert held.get(KEYS[0], NOW) == Record(KEYS[0], b"v", "2023-11-14T22:13:20.123Z")
    held.put(Record(KEYS[0], b"v"), Now(1.0, 1_700_000_001_000.0))
    assert held.get(KEYS[0], NOW) == Record(KEYS[0], b"v", "2023-11-14T22:13:21.000Z")


def test_a_wall_clock_that_is_set_changes_no_life() -> None:
    clock, held, providers = ManualClock(), store(), ProviderStore(OWN, CONFIG)
    held.put(Record(KEYS[0], b"v"), clock.now())
    providers.add(b"k", Contact(PEERS[0], (HOME,)), clock.now())
    for years in (50, -100):
        now = clock.jump(years * 365 * 24 * HOUR)
        assert value(held, KEYS[0], now) == b"v"
        assert providers.of(b"k", now) == (Contact(PEERS[0], (HOME,)),)
        assert held.sweep(now) == providers.sweep(now) == 0


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (Record(b"/any/" + bytes(CONFIG.record_key_bytes_max - 4), b""), "kad.key-too-long"),
        (Record(KEYS[0], bytes(CONFIG.value_bytes_max + 1)), "kad.value-too-big"),
        (Record(b"/none/x", b""), "kad.no-validator"),
        (Record(b"x", b""), "kad.bad-key"),
        (Record(b"/pk/x", b""), "kad.bad-value"),
    ],
)
def test_what_is_refused_is_not_kept(record: Record, code: str) -> None:
    held = store()
    with pytest.raises(Violation) as caught:
        held.put(record, NOW)
    assert caught.value.code == code
    assert len(held) == 0


def test_the_longest_key_and_the_largest_value_are_taken() -> None:
    record = Record(b"/any/" + bytes(CONFIG.record_key_bytes_max - 5), bytes(CONFIG.value_bytes_max))
    assert store().put(record, NOW)


def test_without_room_the_furthest_value_goes_which_may_be_the_new_one() -> None:
    near = by_distance(KEYS)
    held = store()
    for key in near[2:6]:
        assert held.put(Record(key, b"v"), NOW)
    assert not held.put(Record(near[6], b"v"), NOW)
    assert set(everything(held)) == set(near[2:6])
    assert held.put(Record(near[0], b"v"), NOW)
    assert set(everything(held)) == {near[0], *near[2:5]}
    assert held.put(Record(near[4], b"w"), NOW), "what is held already needs no room"
    assert not store(KadConfig(records_max=0)).put(Record(near[0], b"v"), NOW)


def test_what_has_expired_goes_before_what_lives() -> None:
    clock, held, near = ManualClock(), store(), by_distance(KEYS)
    held.put(Record(near[0], b"v"), clock.now())
    held.put(Record(near[1], b"v"), clock.now())
    clock.advance(47 * HOUR)
    held.put(Record(near[6], b"v"), clock.now())
    held.put(Record(near[0], b"v"), clock.now())
    clock.advance(1 * HOUR)
    held.put(Record(near[4], b"v"), clock.now())
    assert held.put(Record(near[5], b"v"), clock.now())
    assert set(everything(held, clock.now())) == {near[n] for n in (0, 4, 5, 6)}


def test_a_sweep_forgets_what_has_expired_and_says_how_much() -> None:
    clock, held = ManualClock(), store()
    for key in KEYS[:3]:
        held.put(Record(key, b"v"), clock.now())
        clock.advance(HOUR)
    clock.advance(46 * HOUR - 1)
    assert (held.sweep(clock.now()), len(held)) == (1, 2)
    assert (held.sweep(clock.now()), len(held)) == (0, 2)
    clock.advance(2 * HOUR)
    assert (held.sweep(clock.now()), len(held)) == (2, 0)


def test_a_value_that_was_dropped_takes_no_room() -> None:
    near = by_distance(KEYS)
    held = store()
    for key in near[:4]:
        held.put(Record(key, b"v"), NOW)
    held.drop(near[1])
    held.drop(near[1])
    assert held.get(near[1], NOW) is None
    assert held.put(Record(near[5], b"v"), NOW)
    assert len(held) == 4


def test_a_value_that_is_not_valid_any_more_gives_way_to_any_that_is() -> None:
    class Fading(Anything):
        bad = b""

        def validate(self, key: bytes, value: bytes) -> None:
            if value == self.bad:
                raise Violation(code="kad.bad-value")

    rules = Fading()
    held = store(namespaces=Namespaces({"any": rules}))
    held.put(Record(KEYS[0], b"9"), NOW)
    assert not held.put(Record(KEYS[0], b"1"), NOW)
    rules.bad = b"9"
    assert held.put(Record(KEYS[0], b"1"), NOW)


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.binary(max_size=2))), st.data())
def test_replicas_that_got_the_same_puts_in_any_order_hold_the_same(
    puts: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    roomy = KadConfig(records_max=len(KEYS))
    replicas = [store(roomy), store(roomy, own=PEERS[0]), store(), store()]
    for held in replicas:
        for key, given_value in data.draw(st.permutations(puts)):
            held.put(Record(key, given_value), NOW)
    best = {key: max(v for k, v in puts if k == key) for key, _ in puts}
    nearest = by_distance(list(best))[: CONFIG.records_max]
    for held in replicas[:2]:
        assert everything(held) == best
    for held in replicas[2:]:
        assert everything(held) == {key: best[key] for key in nearest}


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from([b"a", b"b"]), st.sampled_from([0.0, 1.0, 3.0]))
    )
)
def test_no_order_of_puts_and_waits_tells_an_expired_value_or_keeps_too_many(
    steps: list[tuple[bytes, bytes, float]],
) -> None:
    config = KadConfig(records_max=3, record_seconds=4.0)
    clock, held = ManualClock(), store(config)
    put_at: dict[tuple[bytes, bytes], float] = {}
    for key, given_value, seconds in steps:
        now = clock.advance(seconds)
        if held.put(Record(key, given_value), now):
            put_at[key, given_value] = now.monotonic
            assert value(held, key, now) == given_value
        assert len(held) <= config.records_max
        for other in KEYS:
            found = value(held, other, now)
            assert found is None or put_at[other, found] + config.record_seconds > now.monotonic
    now = clock.advance(4.0)
    before = len(held)
    assert (held.sweep(now), len(held)) == (before, 0)


# Providers


def test_providers_are_told_newest_first_and_once_each() -> None:
    clock, held = ManualClock(), ProviderStore(OWN, CONFIG)
    for peer in (PEERS[0], PEERS[1], PEERS[0]):
        clock.advance(1)
        assert held.add(b"k", Contact(peer, (HOME,)), clock.now())
    assert [one.peer for one in held.of(b"k", clock.now())] == [PEERS[0], PEERS[1]]
    assert held.of(b"other", clock.now()) == ()
    assert len(held) == 1


def test_what_a_provider_says_again_replaces_its_addresses_up_to_a_count() -> None:
    held = ProviderStore(OWN, CONFIG)
    many = tuple(Multiaddr(f"/ip4/192.0.2.{n}/tcp/1") for n in range(40))
    held.add(b"k", Contact(PEERS[0], (HOME,)), NOW)
    held.add(b"k", Contact(PEERS[0], many), NOW)
    assert held.of(b"k", NOW) == (Contact(PEERS[0], many[: CONFIG.addresses_max]),)


def test_long_addresses_of_a_provider_are_kept_up_to_a_number_of_bytes() -> None:
    held = ProviderStore(OWN, CONFIG)
    long = tuple(Multiaddr(f"/dns4/{'long.' * 38}{n}.example/tcp/1") for n in range(4))
    held.add(b"k", Contact(PEERS[0], long), NOW)
    assert held.of(b"k", NOW) == (Contact(PEERS[0], long[:2]),)
    assert sum(len(one.to_bytes()) for one in long[:3]) > CONFIG.provider_addresses_bytes_max


def test_the_addresses_of_a_provider_end_before_it_does() -> None:
    clock, held = ManualClock(), ProviderStore(OWN, CONFIG)
    held.add(b"k", Contact(PEERS[0], (HOME,)), clock.now())
    clock.advance(CONFIG.provider_address_seconds - 1)
    assert held.of(b"k", clock.now()) == (Contact(PEERS[0], (HOME,)),)
    clock.advance(1)
    assert held.of(b"k", clock.now()) == (Contact(PEERS[0]),)
    clock.advance(CONFIG.provider_seconds - CONFIG.provider_address_seconds)
    assert held.of(b"k", clock.now()) == ()


def test_beyond_its_count_the_oldest_provider_of_a_key_goes() -> None:
    held = ProviderStore(OWN, CONFIG)
    for peer in (*PEERS[:3], PEERS[0], PEERS[3]):
        held.add(b"k", Contact(peer, (HOME,)), NOW)
    assert [one.peer for one in held.of(b"k", NOW)] == [PEERS[3], PEERS[0], PEERS[2]]


def test_without_room_the_furthest_provided_key_goes_which_may_be_the_new_one() -> None:
    near = by_distance(KEYS)
    held = ProviderStore(OWN, CONFIG)
    for key in near[1:5]:
        assert held.add(key, Contact(PEERS[0], (HOME,)), NOW)
    assert not held.add(near[5], Contact(PEERS[0], (HOME,)), NOW)
    assert held.add(near[0], Contact(PEERS[0], (HOME,)), NOW)
    assert held.add(near[3], Contact(PEERS[1], (HOME,)), NOW)
    assert [len(held.of(key, NOW)) for key in near[:6]] == [1, 1, 1, 2, 0, 0]
    assert len(held) == 4


def test_keys_whose_providers_have_all_expired_make_room() -> None:
    clock, near = ManualClock(), by_distance(KEYS)
    held = ProviderStore(OWN, CONFIG)
    for key in near[:4]:
        held.add(key, Contact(PEERS[0], (HOME,)), clock.now())
    clock.advance(47 * HOUR)
    held.add(near[0], Contact(PEERS[1], (HOME,)), clock.now())
    clock.advance(1 * HOUR)
    assert held.add(near[9], Contact(PEERS[0], (HOME,)), clock.now())
    assert len(held) == 2
    assert [one.peer for one in held.of(near[0], clock.now())] == [PEERS[1]]


def test_a_sweep_forgets_the_expired_providers_of_all_keys_and_says_how_many() -> None:
    clock, held = ManualClock(), ProviderStore(OWN, CONFIG)
    held.add(b"a", Contact(PEERS[0], (HOME,)), clock.now())
    held.add(b"a", Contact(PEERS[1], (HOME,)), clock.now())
    held.add(b"b", Contact(PEERS[0], (HOME,)), clock.now())
    clock.advance(HOUR)
    held.add(b"b", Contact(PEERS[1], (HOME,)), clock.now())
    assert held.sweep(clock.now()) == 0
    clock.advance(47 * HOUR)
    assert (held.sweep(clock.now()), len(held)) == (3, 1)
    clock.advance(HOUR)
    assert (held.sweep(clock.now()), len(held)) == (1, 0)


def test_a_provider_key_too_long_is_not_kept() -> None:
    held = ProviderStore(OWN, CONFIG)
    assert held.add(bytes(CONFIG.provider_key_bytes_max), Contact(PEERS[0], (HOME,)), NOW)
    with pytest.raises(Violation) as caught:
        held.add(bytes(CONFIG.provider_key_bytes_max + 1), Contact(PEERS[0], (HOME,)), NOW)
    assert caught.value.code == "kad.key-too-long"
    assert len(held) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS[:6]), st.sampled_from(PEERS), st.sampled_from([0.0, 1.0, 3.0]), st.booleans()
        )
    )
)
def test_no_order_of_adds_and_waits_tells_an_expired_provider_or_keeps_too_many(
    steps: list[tuple[bytes, PeerId, float, bool]],
) -> None:
    config = KadConfig(
        provider_keys_max=3, providers_max=2, provider_seconds=4.0, provider_address_seconds=2.0
    )
    clock, held = ManualClock(), ProviderStore(OWN, config)
    added: dict[tuple[bytes, PeerId], float] = {}
    for key, peer, seconds, sweep in steps:
        now = clock.advance(seconds)
        if sweep:
            held.sweep(now)
        if held.add(key, Contact(peer, (HOME,)), now):
            added[key, peer] = now.monotonic
            assert held.of(key, now)[0].peer == peer
        assert len(held) <= config.provider_keys_max
        for other in KEYS[:6]:
            found = held.of(other, now)
            assert len(found) <= config.providers_max
            for one in found:
                age = now.monotonic - added[other, one.peer]
                assert age < config.provider_seconds
                assert bool(one.addresses) == (age < config.provider_address_seconds)
    held.sweep(clock.advance(4.0))
    assert len(held) == 0


def test_a_value_that_a_validator_breaks_on_is_not_valid() -> None:
    class Breaks(Anything):
        def validate(self, key: bytes, value: bytes) -> None:
            value.decode("ascii")

    held = store(namespaces=Namespaces({"any": Breaks()}))
    assert held.put(Record(KEYS[0], b"text"), NOW)
    with pytest.raises(Violation) as caught:
        held.put(Record(KEYS[0], b"\xff"), NOW)
    assert caught.value.code == "kad.bad-value"
