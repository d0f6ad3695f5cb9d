"""The routing table: who gets in, who has to go, and who is closest."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from air.base.address import Multiaddr
from air.base.clock import ManualClock, Now
from air.base.peer_id import PeerId
from air.dht.config import KadConfig
from air.dht.key import place, shared_bits
from air.dht.table import RoutingTable

START = Now(0.0, 0.0)
CONFIG = KadConfig(k=4)


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(b"%d" % number).digest())


OWN = peer(0)
PEERS = [peer(number) for number in range(1, 1201)]
BITS = {one: shared_bits(place(OWN.multihash), place(one.multihash)) for one in PEERS}
FAR = [one for one in PEERS if BITS[one] == 0]
NEXT = [one for one in PEERS if BITS[one] == 1]

places = st.integers(0, 2**256 - 1)
near_own = st.integers(0, 2**250).map(lambda number: place(OWN.multihash) ^ number)


def at(*hosts: str) -> list[Multiaddr]:
    return [Multiaddr(f"/ip{6 if ':' in host else 4}/{host}/tcp/4001") for host in hosts]


def filled(peers: Sequence[PeerId], config: KadConfig = CONFIG) -> RoutingTable:
    table = RoutingTable(OWN, config)
    for one in peers:
        table.add(one, (), START)
    return table


# Who is closest


def test_quiet_is_who_was_not_heard_of_for_long() -> None:
    clock, table = ManualClock(), filled([])
    for one in FAR[:3]:
        table.add(one, (), clock.now())
    clock.advance(CONFIG.quiet_seconds - 1)
    table.answered(FAR[1], clock.now())
    assert table.quiet(clock.now()) == []
    assert table.quiet(clock.advance(1)) == [FAR[0], FAR[2]]


@settings(max_examples=80, deadline=None)
@given(
    places | near_own | st.sampled_from([*PEERS, OWN]).map(lambda one: place(one.multihash)),
    st.integers(0, 60),
    st.integers(1, 25),
    st.integers(0, 300),
    st.sets(st.sampled_from(PEERS[:30]), max_size=10),
)
def test_the_closest_are_those_that_a_comparison_of_all_finds(
    target: int, count: int, k: int, known: int, without: set[PeerId]
) -> None:
    table = filled(PEERS[:known], KadConfig(k=k))
    others = [one for one in table.peers if one not in without]
    others.sort(key=lambda one: place(one.multihash) ^ target)
    assert table.closest(target, count, without=without) == others[:count]


def test_a_big_table_finds_the_closest_too() -> None:
    table = filled(PEERS, KadConfig(k=1000))
    assert len(table) == len(PEERS)
    for name in (b"", b"1", b"2", OWN.multihash):
        target = place(name)
        everybody = sorted(PEERS, key=lambda one: place(one.multihash) ^ target)
        assert table.closest(target, 20) == everybody[:20]


def test_nobody_is_closest_in_an_empty_table() -> None:
    assert filled([]).closest(0, 20) == []


# Who gets in


def test_a_peer_is_in_the_table_once_and_oneself_never() -> None:
    table = filled([])
    assert not table.add(OWN, (), START)
    assert table.add(FAR[0], (), START)
    assert table.add(FAR[0], (), START)
    assert table.peers == (FAR[0],)
    assert FAR[0] in table
    assert OWN not in table
    assert table.remove(FAR[0])
    assert not table.remove(FAR[0])
    assert len(table) == 0
    assert FAR[0] not in table


def test_a_full_bucket_refuses_newcomers_while_its_members_answer() -> None:
    table = filled(FAR[:4])
    assert not table.add(FAR[4], (), START)
    assert table.peers == tuple(FAR[:4])
    assert table.add(NEXT[0], (), START), "another bucket has room"
    table.remove(FAR[1])
    assert table.add(FAR[4], (), START)


def test_in_a_full_bucket_the_member_that_failed_most_makes_room() -> None:
    table = filled(FAR[:4], replace(CONFIG, failures_max=5))
    table.answered(FAR[2], Now(1.0, 0.0))
    for one, times in ((FAR[0], 1), (FAR[2], 2), (NEXT[0], 5)):
        for _ in range(times):
            assert not table.failed(one, START)
    assert table.add(FAR[4], (), START)
    assert table.peers == (FAR[0], FAR[1], FAR[3], FAR[4])
    assert table.add(FAR[5], (), START)
    assert table.peers == (FAR[1], FAR[3], FAR[4], FAR[5])
    assert not table.add(FAR[6], (), START)


def test_of_equally_failing_members_the_one_longest_unheard_of_makes_room() -> None:
    clock = ManualClock()
    table = filled(FAR[:4])
    for one in (FAR[3], FAR[0], FAR[2]):
        table.answered(one, clock.advance(1))
    table.add(FAR[3], (), clock.advance(1))
    for one in (FAR[0], FAR[2], FAR[3]):
        table.failed(one, clock.advance(1))
    assert table.add(FAR[4], (), clock.now())
    assert FAR[0] not in table
    assert table.add(FAR[5], (), clock.now())
    assert FAR[2] not in table
    table.failed(FAR[5], clock.advance(1))
    assert table.add(FAR[6], (), clock.now())
    assert FAR[3] not in table, "the other came later"


# Failures


def test_a_peer_goes_after_more_failures_in_a_row_than_it_may_have() -> None:
    table = filled(FAR[:1], replace(CONFIG, failures_max=2))
    assert [table.failed(FAR[0], START) for _ in range(2)] == [False, False]
    table.answered(FAR[0], START)
    assert [table.failed(FAR[0], START) for _ in range(3)] == [False, False, True]
    assert FAR[0] not in table
    assert not table.failed(FAR[0], START)
    table.answered(FAR[0], START)
    assert len(table) == 0


def test_to_be_heard_of_is_not_to_have_answered() -> None:
    table = filled(FAR[:1], replace(CONFIG, failures_max=1))
    assert not table.failed(FAR[0], START)
    assert table.add(FAR[0], (), START)
    assert table.failed(FAR[0], START)


def test_a_peer_that_comes_back_begins_anew() -> None:
    table = filled(FAR[:1], replace(CONFIG, failures_max=1))
    assert [table.failed(FAR[0], START) for _ in range(2)] == [False, True]
    assert table.add(FAR[0], (), START)
    assert not table.failed(FAR[0], START)


# Networks

WIDE = KadConfig(k=20, group_table_max=3, group_bucket_max=2)


def test_a_network_has_few_places_in_a_bucket_and_in_the_table() -> None:
    table = filled([], WIDE)
    assert table.add(FAR[0], at("8.8.1.1"), START)
    assert table.add(FAR[1], at("8.8.200.7"), START)
    assert not table.add(FAR[2], at("8.8.3.3"), START), "two of a bucket"
    assert table.add(NEXT[0], at("8.8.3.3"), START)
    assert not table.add(NEXT[1], at("8.8.4.4"), START), "three of the table"
    assert table.add(FAR[2], at("8.9.3.3"), START), "the next network"
    assert table.remove(FAR[0])
    assert table.add(NEXT[1], at("8.8.4.4"), START)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("8.8.1.1", "8.8.2.2", True),
        ("8.8.1.1", "8.7.1.1", False),
        ("2a00:1450:4001::1", "2a00:1450:ffff::2", True),
        ("2a00:1450:4001::1", "2a00:1451:4001::1", False),
        ("::ffff:8.8.1.1", "8.8.2.2", True),
    ],
)
def test_a_network_is_a_16_of_ipv4_or_a_32_of_ipv6(first: str, second: str, same: bool) -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    assert table.add(FAR[0], at(first), START)
    assert table.add(NEXT[0], at(second), START) is not same


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/10.1.2.3/tcp/1",
        "/ip4/192.168.1.1/tcp/1",
        "/ip4/169.254.1.1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip6/::1/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
        "/ip6/fd00::1/tcp/1",
        "/dns4/example.org/tcp/1",
        "/dnsaddr/example.org",
        "/memory/1",
        f"/p2p/{OWN}/p2p-circuit",
    ],
)
def test_what_is_no_public_address_is_not_counted(address: str) -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    assert all(table.add(one, [Multiaddr(address)], START) for one in FAR[:20])


def test_a_peer_with_one_address_in_a_full_network_is_refused() -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    assert table.add(FAR[0], at("8.8.1.1", "9.9.1.1"), START)
    assert not table.add(FAR[1], at("1.1.1.1", "9.9.2.2"), START)
    assert table.add(FAR[1], at("1.1.1.1"), START), "one that was refused is not counted"


def test_a_relay_stands_for_those_that_have_no_other_address() -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    relay = Multiaddr(f"/ip4/8.8.1.1/tcp/1/p2p/{OWN}/p2p-circuit")
    assert table.add(FAR[0], [relay], START)
    assert not table.add(FAR[1], [relay], START)
    assert table.add(FAR[1], [relay, *at("9.9.1.1")], START)


def test_new_addresses_take_the_place_of_the_old_ones() -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    assert table.add(FAR[0], at("8.8.1.1"), START)
    assert table.add(FAR[0], at("9.9.1.1"), START)
    assert not table.add(FAR[1], at("9.9.2.2"), START)
    assert table.add(FAR[1], at("8.8.2.2"), START)


def test_who_names_no_address_any_more_stays_in_its_networks() -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    assert table.add(FAR[0], at("8.8.1.1"), START)
    assert table.add(FAR[0], (), START)
    assert not table.add(FAR[1], at("8.8.2.2"), START)


def test_nobody_gets_into_a_full_network_by_moving_there() -> None:
    table = filled([], replace(WIDE, group_table_max=1))
    assert table.add(FAR[0], at("8.8.1.1"), START)
    assert table.add(FAR[1], at("127.0.0.1"), START)
    assert not table.add(FAR[1], at("8.8.2.2"), START)
    assert table.peers == (FAR[0],)


def test_the_place_of_a_failing_member_counts_as_free_in_its_networks_too() -> None:
    table = RoutingTable(OWN, replace(WIDE, k=2, group_table_max=1))
    assert table.add(FAR[0], at("8.8.1.1"), START)
    assert table.add(FAR[1], at("9.9.1.1"), START)
    table.failed(FAR[0], START)
    assert not table.add(FAR[2], at("9.9.2.2"), START)
    assert FAR[0] in table, "nobody goes for a newcomer that is refused"
    assert table.add(FAR[2], at("8.8.2.2"), START)
    assert table.peers == (FAR[1], FAR[2])


def test_only_so_many_addresses_of_a_peer_are_looked_at() -> None:
    table = filled([], replace(WIDE, addresses_max=2, group_table_max=1))
    assert table.add(FAR[0], at("8.8.1.1", "9.9.1.1", "1.1.1.1"), START)
    assert not table.add(FAR[1], at("9.9.1.1"), START)
    assert table.add(FAR[1], at("1.1.1.1"), START)


# Refreshing


def test_buckets_are_due_until_they_are_searched_and_again_after_a_while() -> None:
    clock = ManualClock(monotonic=1000.0)
    deep = next(one for one in PEERS if BITS[one] == 5)
    table = filled([deep], replace(CONFIG, refresh_seconds=600.0))
    assert table.stale(clock.now()) == [0, 1, 2, 3, 4, 5]
    table.searched(place(FAR[0].multihash), clock.now())
    table.searched(place(deep.multihash), clock.now())
    assert table.stale(clock.now()) == [1, 2, 3, 4]
    table.searched(place(NEXT[0].multihash), clock.advance(599))
    assert table.stale(clock.now()) == [2, 3, 4]
    assert table.stale(clock.advance(1)) == [0, 2, 3, 4, 5]
    table.remove(deep)
    assert table.stale(clock.now()) == [], "an empty table has nobody to ask"


def test_no_bucket_is_refreshed_whose_names_take_long_to_find() -> None:
    deep = next(one for one in PEERS if BITS[one] >= 7)
    table = filled([deep], replace(CONFIG, refresh_bits_max=3))
    table.searched(place(OWN.multihash), START)
    assert table.stale(START) == [0, 1, 2, 3]


# Everything at once

HOSTS = ("8.8.1.1", "8.8.2.2", "9.9.1.1", "2a00:1450::1", "2a00:1450:1::1", "127.0.0.1", "10.0.0.1")
ADDRESSES = {host: at(host)[0] for host in HOSTS}
NETWORKS = {"8.8.1.1": "8.8", "8.8.2.2": "8.8", "9.9.1.1": "9.9"} | dict.fromkeys(HOSTS[3:5], "2a00:1450")
SOME = random.Random(1).sample(PEERS, 30)


class TableMachine(RuleBasedStateMachine):
    """Does anything to a table and keeps beside it, the slow way, what must be in it."""

    @initialize(k=st.integers(1, 4), in_table=st.integers(1, 4), in_bucket=st.integers(1, 3))
    def begin(self, k: int, in_table: int, in_bucket: int) -> None:
        self.config = KadConfig(k=k, group_table_max=in_table, group_bucket_max=in_bucket, failures_max=1)
        self.table = RoutingTable(OWN, self.config)
        self.members: dict[PeerId, set[str]] = {}
        self.failures: Counter[PeerId] = Counter()
        self.clock = ManualClock()

    @rule(one=st.sampled_from(SOME), hosts=st.lists(st.sampled_from(HOSTS), max_size=3))
    def add(self, one: PeerId, hosts: list[str]) -> None:
        before = set(self.members)
        networks = {NETWORKS[host] for host in hosts if host in NETWORKS}
        found = self.table.add(one, [ADDRESSES[host] for host in hosts], self.clock.advance(1))
        assert found == (one in self.table)
        left = before - set(self.table.peers) - {one}
        assert len(left) <= found, "nobody goes for a newcomer that is refused"
        beside = [other for other in before if BITS[other] == BITS[one]]
        full = len(beside) >= self.config.k
        for other in left:
            assert full
            assert one not in before
            assert other in beside
            assert self.failures[other]
        if one in before or not full:
            assert found == (self.has_room(one, networks) or (one in before and not hosts))
        elif not any(self.failures[other] for other in beside):
            assert not found
        for other in left if found else {one}:
            self.forget(other)
        if found and (hosts or one not in before):
            self.members[one] = networks

    def has_room(self, one: PeerId, networks: set[str]) -> bool:
        if networks == self.members.get(one):
            return True
        others = {other: groups for other, groups in self.members.items() if other != one}
        return all(
            sum(group in groups for groups in others.values()) < self.config.group_table_max
            and sum(group in others[other] for other in others if BITS[other] == BITS[one])
            < self.config.group_bucket_max
            for group in networks
        )

    @rule(one=st.sampled_from(SOME))
    def remove(self, one: PeerId) -> None:
        assert self.table.remove(one) == (one in self.members)
        self.forget(one)

    @rule(one=st.sampled_from(SOME))
    def fail(self, one: PeerId) -> None:
        self.failures[one] += one in self.members
        removed = self.table.failed(one, self.clock.advance(1))
        assert removed == (self.failures[one] > self.config.failures_max)
        if removed:
            self.forget(one)

    @rule(one=st.sampled_from(SOME))
    def answer(self, one: PeerId) -> None:
        self.table.answered(one, self.clock.advance(1))
        del self.failures[one]

    def forget(self, one: PeerId) -> None:
        self.members.pop(one, None)
        del self.failures[one]

    @invariant()
    def the_table_holds_whom_it_should(self) -> None:
        assert set(self.table.peers) == set(self.members)
        assert len(self.table) == len(self.members)
        everybody = sorted(self.members, key=lambda one: place(one.multihash))
        assert self.table.closest(0, 100) == everybody

    @invariant()
    def no_bucket_and_no_network_is_above_its_number(self) -> None:
        buckets = Counter(BITS[one] for one in self.members)
        assert max(buckets.values(), default=0) <= self.config.k
        table = Counter(group for groups in self.members.values() for group in groups)
        assert max(table.values(), default=0) <= self.config.group_table_max
        here = Counter((BITS[one], group) for one, groups in self.members.items() for group in groups)
        assert max(here.values(), default=0) <= self.config.group_bucket_max


def test_whatever_happens_the_table_keeps_its_numbers() -> None:
    run_state_machine_as_test(
        TableMachine, settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )
