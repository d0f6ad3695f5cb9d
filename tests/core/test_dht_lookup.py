"""One search: whom it asks, when it ends, and that it finds the closest peers in whole networks of tables."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.errors import Misuse
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.lookup import Lookup
from air.dht.message import Contact
from air.dht.paths import Paths
from air.dht.table import RoutingTable

Answer: TypeAlias = Callable[[PeerId], Sequence[Contact] | None]
"""What a peer says when it is asked; None when it does not answer."""


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(b"%d" % number).digest())


OWN = peer(0)
TARGET = place(b"target")
CONFIG = KadConfig(k=4, alpha=2, beta=2, asked_max=20)
BY_DISTANCE = sorted((peer(number) for number in range(1, 40)), key=lambda one: place(one.multihash) ^ TARGET)
"""Some peers, the closest to the target first."""

numbers = st.integers(0, 2**32)


def contacts(peers: Sequence[PeerId]) -> list[Contact]:
    return [Contact(one) for one in peers]


def names(found: Sequence[Contact]) -> list[PeerId]:
    return [contact.peer for contact in found]


def ranks(found: Sequence[Contact]) -> list[int]:
    return [BY_DISTANCE.index(contact.peer) for contact in found]


def search(*seeds: int, config: KadConfig = CONFIG, settle: int | None = None) -> Lookup:
    return Lookup(TARGET, OWN, contacts([BY_DISTANCE[rank] for rank in seeds]), config, settle=settle)


def drive(lookup: Lookup, answer: Answer, config: KadConfig, order: int = 0) -> list[PeerId]:
    """Run a search to its end, the answers coming in any order; returns whom it asked."""
    rng = random.Random(order)
    under_way: list[PeerId] = []
    asked: list[PeerId] = []
    while not lookup.done:
        taken = names(lookup.take())
        asked += taken
        under_way += taken
        assert under_way, "it is not done, so something goes on"
        assert len(under_way) <= config.alpha
        assert lookup.asked == len(asked) == len(set(asked)) <= config.asked_max
        one = under_way.pop(rng.randrange(len(under_way)))
        said = answer(one)
        if said is None:
            lookup.failed(one)
        else:
            lookup.answered(one, said)
    assert lookup.take() == []
    return asked


def ended(lookup: Lookup) -> bool:
    """A call, because a type checker takes a property for something that does not change."""
    return lookup.done


# Whom it asks


def test_the_closest_are_asked_first_and_so_many_at_a_time() -> None:
    lookup = search(7, 3, 5, 1)
    assert ranks(lookup.take()) == [1, 3]
    assert lookup.take() == []
    lookup.answered(BY_DISTANCE[3], contacts([BY_DISTANCE[0], BY_DISTANCE[6]]))
    assert ranks(lookup.take()) == [0]
    lookup.failed(BY_DISTANCE[1])
    assert ranks(lookup.take()) == [5]
    assert lookup.asked == 4
    assert not ended(lookup)


def test_nobody_is_asked_who_could_not_be_among_the_closest() -> None:
    lookup = search(0, 1, 2, 3, 4, 5, config=replace(CONFIG, k=3, alpha=6))
    assert ranks(lookup.take()) == [0, 1, 2]
    lookup.answered(BY_DISTANCE[0], [])
    assert lookup.take() == []
    lookup.failed(BY_DISTANCE[1])
    assert ranks(lookup.take()) == [3]


def test_a_search_with_nobody_to_ask_is_done() -> None:
    lookup = Lookup(TARGET, OWN, [Contact(OWN)], CONFIG)
    assert ended(lookup)
    assert lookup.take() == []
    assert lookup.closest == []
    assert lookup.asked == 0


def test_no_more_are_asked_than_it_may() -> None:
    lookup = search(*range(10), config=replace(CONFIG, asked_max=3))
    assert ranks(lookup.take()) == [0, 1]
    lookup.failed(BY_DISTANCE[0])
    assert ranks(lookup.take()) == [2]
    lookup.failed(BY_DISTANCE[1])
    assert lookup.take() == []
    assert not ended(lookup)
    assert lookup.answered(BY_DISTANCE[2], contacts(BY_DISTANCE[3:5])) == []
    assert lookup.asked == 3
    assert ended(lookup)


# When it ends


def test_it_ends_when_the_closest_have_answered_and_named_nobody_closer() -> None:
    lookup = search(0, 1, 2, 3, 4)
    for first, second in ((0, 1), (2, 3)):
        assert not ended(lookup)
        assert ranks(lookup.take()) == [first, second]
        lookup.answered(BY_DISTANCE[first], contacts(BY_DISTANCE[:5]))
        lookup.answered(BY_DISTANCE[second], contacts(BY_DISTANCE[:5]))
    assert ended(lookup)
    assert ranks(lookup.closest) == [0, 1, 2, 3]


def test_who_only_wants_an_answer_settles_for_fewer() -> None:
    lookup = search(0, 1, 2, 3, 4, settle=CONFIG.beta)
    lookup.take()
    lookup.answered(BY_DISTANCE[0], [])
    assert not ended(lookup)
    assert ranks(lookup.take()) == [2], "meanwhile, in case the other does not answer"
    lookup.answered(BY_DISTANCE[2], [])
    assert not ended(lookup)
    lookup.failed(BY_DISTANCE[1])
    assert ended(lookup)
    assert ranks(lookup.closest) == [0, 2]


def test_an_answer_under_way_is_waited_for_only_if_it_matters() -> None:
    lookup = search(1, 2, 3, settle=1)
    lookup.take()
    lookup.answered(BY_DISTANCE[1], [])
    assert ended(lookup)
    lookup.answered(BY_DISTANCE[2], contacts(BY_DISTANCE[:1]))
    assert not ended(lookup), "it came all the same, and names somebody closer"
    assert ranks(lookup.take()) == [0, 3]
    lookup.failed(BY_DISTANCE[0])
    assert ended(lookup)


def test_with_fewer_peers_than_it_wants_it_asks_all() -> None:
    lookup = search(8, 9)
    lookup.take()
    lookup.answered(BY_DISTANCE[8], [])
    assert not ended(lookup)
    lookup.failed(BY_DISTANCE[9])
    assert ended(lookup)
    assert ranks(lookup.closest) == [8]


def test_a_search_that_is_stopped_takes_nobody_and_answers_do_no_harm() -> None:
    lookup = search(2, 3, 4)
    lookup.take()
    lookup.stop()
    assert ended(lookup)
    assert lookup.take() == []
    assert lookup.answered(BY_DISTANCE[2], contacts(BY_DISTANCE[:2])) == []
    lookup.failed(BY_DISTANCE[3])
    assert ended(lookup)
    assert lookup.take() == []
    assert ranks(lookup.closest) == [2]


def test_a_report_about_somebody_who_is_not_under_way_is_misuse() -> None:
    lookup = search(1, 2, 3)
    lookup.take()
    lookup.answered(BY_DISTANCE[1], [])
    for rank in (0, 1, 3):
        with pytest.raises(Misuse) as caught:
            lookup.answered(BY_DISTANCE[rank], [])
        assert caught.value.code == "kad.not-asked"
        with pytest.raises(Misuse):
            lookup.failed(BY_DISTANCE[rank])
    with pytest.raises(Misuse):
        search(1, settle=0)


# What an answer brings


def test_an_answer_brings_those_it_had_not_heard_of() -> None:
    lookup = search(5, 6, 7)
    lookup.take()
    told = contacts([BY_DISTANCE[6], OWN, BY_DISTANCE[9], BY_DISTANCE[9], BY_DISTANCE[1]])
    assert ranks(lookup.answered(BY_DISTANCE[5], told)) == [9]
    assert ranks(lookup.answered(BY_DISTANCE[6], told[2:])) == [1]


def test_of_a_longer_answer_than_anybody_needs_the_beginning_counts() -> None:
    lookup = search(9)
    lookup.take()
    assert ranks(lookup.answered(BY_DISTANCE[9], contacts(BY_DISTANCE[:9]))) == [0, 1, 2, 3]


def test_a_failed_peer_is_not_asked_again_whoever_names_it() -> None:
    lookup = search(0, 1)
    lookup.take()
    lookup.failed(BY_DISTANCE[0])
    assert lookup.answered(BY_DISTANCE[1], contacts(BY_DISTANCE[:1])) == []
    assert ended(lookup)
    assert ranks(lookup.closest) == [1]


def test_the_addresses_that_several_tell_are_joined_up_to_a_number() -> None:
    one, two, three, four = (Multiaddr(f"/ip4/8.8.8.{last}/tcp/1") for last in (1, 2, 3, 4))
    known = BY_DISTANCE[0]
    config = replace(CONFIG, addresses_max=3)
    seeds = [Contact(known, (one,)), *contacts(BY_DISTANCE[1:3]), Contact(known, (two, one))]
    lookup = Lookup(TARGET, OWN, seeds, config)
    assert lookup.take()[0] == Contact(known, (one, two))
    lookup.answered(BY_DISTANCE[1], [Contact(known, (two, three, four))])
    lookup.answered(known, [])
    assert lookup.closest[0] == Contact(known, (one, two, three))
    told = [Contact(BY_DISTANCE[9], (one, two, three, four))]
    assert lookup.answered(lookup.take()[0].peer, told) == [Contact(BY_DISTANCE[9], (one, two, three))]


def test_whoever_speaks_first_and_much_leaves_room_for_the_next() -> None:
    lies = [Multiaddr(f"/ip4/8.8.8.{last}/tcp/1") for last in range(1, 17)]
    truth = Multiaddr("/ip4/9.9.9.9/tcp/1")
    known = Contact(BY_DISTANCE[0], tuple(lies)).joined((truth,), 16)
    assert len(known.addresses) == 16
    for _ in range(2):
        known = known.joined(lies, 16)
    assert truth in known.addresses


# Whole networks


class Network:
    """Peers of which each has a table, filled in an order of its own with all that fit."""

    def __init__(self, count: int, k: int, alpha: int) -> None:
        rng = random.Random(count)
        self.config = KadConfig(k=k, alpha=alpha, asked_max=10 * count)
        self.peers = [peer(rng.getrandbits(64)) for _ in range(count)]
        self.tables: dict[PeerId, RoutingTable] = {}
        for own in self.peers:
            table = self.tables[own] = RoutingTable(own, self.config)
            for other in rng.sample(self.peers, count):
                table.add(other, (), Now(0.0, 0.0))

    def answer(self, one: PeerId, target: int) -> list[Contact]:
        return contacts(self.tables[one].closest(target, self.config.k))

    def voice(self, target: int, dead: Collection[PeerId] = ()) -> Answer:
        return lambda one: None if one in dead else self.answer(one, target)

    def sorted(self, target: int) -> list[PeerId]:
        return sorted(self.peers, key=lambda one: place(one.multihash) ^ target)

    def lookup(self, target: int, seeds: Sequence[PeerId], *, settle: int | None = None) -> Lookup:
        return Lookup(target, OWN, contacts(seeds), self.config, settle=settle)


@lru_cache
def network(size: int) -> Network:
    count, k, alpha = ((1, 3, 2), (5, 8, 3), (40, 2, 1), (120, 4, 5), (200, 8, 3), (300, 20, 5))[size]
    return Network(count, k, alpha)


networks = st.builds(network, st.integers(0, 5))
targets = st.integers(0, 2**256 - 1)


@settings(max_examples=50, deadline=None)
@given(networks, targets, st.data(), numbers)
def test_the_search_finds_exactly_the_closest_of_all_peers(
    net: Network, target: int, data: st.DataObject, order: int
) -> None:
    if data.draw(st.booleans()):
        target = place(data.draw(st.sampled_from(net.peers)).multihash)
    seeds = data.draw(st.lists(st.sampled_from(net.peers), min_size=1, max_size=5))
    lookup = net.lookup(target, seeds)
    drive(lookup, net.voice(target), net.config, order)
    assert names(lookup.closest) == net.sorted(target)[: net.config.k]


@settings(max_examples=50, deadline=None)
@given(networks, targets, st.data(), numbers, numbers)
def test_the_order_of_the_answers_does_not_matter(
    net: Network, target: int, data: st.DataObject, one_order: int, other_order: int
) -> None:
    seeds = data.draw(st.lists(st.sampled_from(net.peers), min_size=1, max_size=5))
    found = []
    for order in (one_order, other_order):
        lookup = net.lookup(target, seeds)
        drive(lookup, net.voice(target), net.config, order)
        found.append(lookup.closest)
    assert found[0] == found[1]


@settings(max_examples=50, deadline=None)
@given(networks, targets, st.data(), numbers)
def test_seeds_that_are_gone_do_not_matter_while_one_lives(
    net: Network, target: int, data: st.DataObject, order: int
) -> None:
    gone = [peer(number) for number in range(1, data.draw(st.integers(1, 20)))]
    seeds = data.draw(st.permutations([data.draw(st.sampled_from(net.peers)), *gone]))
    lookup = net.lookup(target, seeds)
    asked = drive(lookup, net.voice(target, gone), net.config, order)
    assert names(lookup.closest) == net.sorted(target)[: net.config.k]
    assert not set(asked) - set(net.peers) - set(gone)


@settings(max_examples=60, deadline=None)
@given(networks, targets, st.integers(1, 25), st.floats(0, 1), numbers)
def test_with_failing_peers_it_ends_and_has_asked_all_that_mattered(
    net: Network, target: int, settle: int, dying: float, seed: int
) -> None:
    rng = random.Random(seed)
    dead = {one for one in net.peers if rng.random() < dying}
    seeds = rng.sample(net.peers, min(len(net.peers), 5))
    lookup = net.lookup(target, seeds, settle=settle)
    heard = set(seeds)
    living: list[PeerId] = []

    def answer(one: PeerId) -> list[Contact] | None:
        if one in dead:
            return None
        living.append(one)
        said = net.answer(one, target)
        heard.update(names(said))
        return said

    asked = drive(lookup, answer, net.config, seed)
    living.sort(key=lambda one: place(one.multihash) ^ target)
    assert names(lookup.closest) == living[: net.config.k]
    if len(living) < settle:
        assert set(asked) == heard
    else:
        last = place(living[settle - 1].multihash) ^ target
        assert {one for one in heard if place(one.multihash) ^ target <= last} <= set(asked)


def test_with_a_third_dead_in_every_table_the_living_closest_are_found() -> None:
    net = network(5)
    rng = random.Random(7)
    dead = set(rng.sample(net.peers, 100))
    living = [one for one in net.peers if one not in dead]
    for _ in range(25):
        target = rng.getrandbits(256)
        lookup = net.lookup(target, rng.sample(living, 5))
        asked = drive(lookup, net.voice(target, dead), net.config)
        closest = net.sorted(target)[: net.config.k]
        assert {one for one in closest if one not in dead} <= set(names(lookup.closest))
        assert len(asked) < 120


@pytest.mark.parametrize(("settle", "average"), [(20, 26), (3, 18)])
def test_a_search_asks_few_of_many(settle: int, average: int) -> None:
    net = network(5)
    rng = random.Random(3)
    asked = 0
    for _ in range(20):
        target = rng.getrandbits(256)
        lookup = net.lookup(target, rng.sample(net.peers, 5), settle=settle)
        drive(lookup, net.voice(target), net.config, rng.getrandbits(32))
        assert net.sorted(target)[:3] == names(lookup.closest)[:3]
        asked += lookup.asked
    assert asked <= 20 * average


# Liars


@lru_cache
def invented() -> list[PeerId]:
    return [peer(number) for number in range(10_000, 13_000)]


@pytest.mark.parametrize("answering", [False, True], ids=["nobody there", "all in league"])
@settings(max_examples=10, deadline=None)
@given(target=targets, order=numbers, liars=st.integers(1, 30))
def test_liars_that_name_thousands_cost_no_more_than_the_search_may(
    answering: bool, target: int, order: int, liars: int
) -> None:
    net = network(4)
    config = replace(net.config, asked_max=60)
    rng = random.Random(order)
    lying = set(rng.sample(net.peers, liars))
    made_up = set(invented())

    def answer(one: PeerId) -> list[Contact] | None:
        if one in lying or (answering and one in made_up):
            return contacts(rng.sample(invented(), 2000))
        return None if one in made_up else net.answer(one, target)

    lookup = Lookup(target, OWN, contacts(rng.sample(net.peers, 8)), config)
    asked = drive(lookup, answer, config, order)
    assert len(asked) <= config.asked_max
    assert len(lookup._contacts) <= config.asked_max
    if not answering:
        assert not set(names(lookup.closest)) & made_up


@settings(max_examples=40, deadline=None)
@given(networks, targets, numbers, st.integers(1, 12))
def test_forgetting_whom_it_could_not_ask_any_more_changes_nothing(
    net: Network, target: int, seed: int, asked_max: int
) -> None:
    def run(budget: int) -> list[PeerId]:
        config = replace(net.config, asked_max=budget)
        rng = random.Random(seed)
        lookup = Lookup(target, OWN, contacts(rng.sample(net.peers, min(len(net.peers), 3))), config)
        return drive(lookup, net.voice(target), config, seed)

    assert run(asked_max) == run(10_000)[:asked_max]


# Paths


def walk(paths: Paths, answer: Answer, config: KadConfig, rng: random.Random) -> list[PeerId]:
    """Run a search on several paths to its end; returns whom it asked."""
    under_way: list[PeerId] = []
    asked: list[PeerId] = []
    while not paths.done:
        taken = names(paths.take())
        asked += taken
        under_way += taken
        if not under_way:
            assert paths.done, "it is not done, so something goes on"
            break
        assert len(under_way) <= config.alpha
        one = under_way.pop(rng.randrange(len(under_way)))
        said = answer(one)
        if said is None:
            paths.failed(one)
        else:
            paths.answered(one, said)
    assert len(asked) == len(set(asked)) <= config.asked_max
    return asked


@settings(max_examples=50, deadline=None)
@given(networks, targets, st.integers(1, 6), st.integers(1, 25), st.floats(0, 1), numbers)
def test_on_any_number_of_paths_a_search_ends_and_asks_nobody_twice(
    net: Network, target: int, count: int, settle: int, dying: float, seed: int
) -> None:
    rng = random.Random(seed)
    config = replace(net.config, paths=count, asked_max=120)
    dead = {one for one in net.peers if rng.random() < dying}
    seeds = rng.sample(net.peers, min(len(net.peers), 5))
    paths = Paths(target, OWN, contacts(seeds), config, settle=settle)
    answered: list[PeerId] = []

    def answer(one: PeerId) -> list[Contact] | None:
        if one in dead:
            return None
        answered.append(one)
        return net.answer(one, target)

    walk(paths, answer, config, rng)
    answered.sort(key=lambda one: place(one.multihash) ^ target)
    assert names(paths.closest) == answered[: config.k]


@settings(max_examples=40, deadline=None)
@given(networks, targets, st.integers(1, 25), numbers)
def test_one_path_asks_whom_a_lookup_asks(net: Network, target: int, settle: int, seed: int) -> None:
    rng = random.Random(seed)
    seeds = contacts(rng.sample(net.peers, min(len(net.peers), 5)))
    lookup = Lookup(target, OWN, seeds, net.config, settle=settle)
    paths = Paths(target, OWN, seeds, net.config, settle=settle)
    asked = drive(lookup, net.voice(target), net.config, seed)
    assert walk(paths, net.voice(target), net.config, random.Random(seed)) == asked
    assert paths.closest == lookup.closest


def test_a_path_asks_again_where_another_had_wrong_addresses() -> None:
    wrong, right = (Multiaddr(f"/ip4/8.8.8.{last}/tcp/1") for last in (1, 2))
    liar, honest, wanted = BY_DISTANCE[5], BY_DISTANCE[6], BY_DISTANCE[0]
    paths = Paths(TARGET, OWN, contacts([liar, honest]), replace(CONFIG, paths=2))
    assert names(paths.take()) == [liar, honest]
    paths.answered(liar, [Contact(wanted, (wrong,))])
    assert paths.take() == [Contact(wanted, (wrong,))]
    paths.failed(wanted)
    paths.answered(honest, [Contact(wanted, (right,))])
    assert paths.take() == [Contact(wanted, (right,))]
    paths.answered(wanted, [])
    assert names(paths.closest) == [wanted, liar, honest]


def test_more_paths_find_their_way_past_more_liars() -> None:
    """A fifth of all peers lie in league: they name only what they invented, which is closer than anybody and
    names itself."""
    net = network(5)
    rng = random.Random(5)
    found: dict[int, int] = dict.fromkeys((1, 5), 0)
    searches = 40
    for _ in range(searches):
        target = rng.getrandbits(256)
        lying = set(rng.sample(net.peers, 60))
        made_up = sorted(invented(), key=lambda one: place(one.multihash) ^ target)[:60]
        league = lying.union(made_up)
        holders = [one for one in net.sorted(target) if one not in lying][:5]
        seeds = contacts(net.tables[rng.choice(net.peers)].closest(target, net.config.k))

        def answer(one: PeerId) -> list[Contact]:
            if one in league:  # noqa: B023
                return contacts(rng.sample(made_up, 20))  # noqa: B023
            return net.answer(one, target)  # noqa: B023

        for count in found:
            config = replace(net.config, paths=count, asked_max=120)
            paths = Paths(target, OWN, seeds, config)
            found[count] += len(set(holders).intersection(walk(paths, answer, config, rng)))
    assert found[1] < 0.8 * 5 * searches
    assert found[5] > 0.9 * 5 * searches
