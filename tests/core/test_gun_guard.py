"""Buckets that slow a connection down and cut it when it goes on, and the share of what waits."""

from __future__ import annotations

from dataclasses import fields

import pytest

from air.base.clock import ManualClock
from air.base.errors import LimitReached
from air.graph.defer import Deferred, DeferredConfig
from air.graph.mesh import Fading
from air.node.config import GunConfig as Settings
from air.sync.gun.guard import GuardConfig, LinkGuard

CONFIG = GuardConfig(
    idle_messages_max=10, idle_messages_per_second=5, repeats_max=10, repeats_per_second=5, insist_seconds=2
)


def test_a_burst_within_the_bucket_costs_nothing_and_is_forgotten() -> None:
    guard, clock = LinkGuard(CONFIG), ManualClock()
    for _ in range(10):
        guard.idled(10)
        assert guard.check(clock.now()) == (0, None)
        clock.advance(2)


def test_who_empties_a_bucket_is_told_once_and_waits_until_it_is_paid() -> None:
    guard, clock = LinkGuard(CONFIG), ManualClock()
    guard.check(clock.now())
    guard.idled(15)
    wait, told = guard.check(clock.now())
    assert (wait, told and told.code, told and told.fatal) == (1.0, "limit.idle", False)
    clock.advance(wait)
    guard.idled(1)
    wait, told = guard.check(clock.now())
    assert (round(wait, 3), told) == (0.2, None)


def test_who_goes_on_is_cut_after_the_time_to_insist() -> None:
    guard, clock = LinkGuard(CONFIG), ManualClock()
    began = clock.now().monotonic
    with pytest.raises(LimitReached) as cut:
        while True:
            guard.idled(100)
            wait, _ = guard.check(clock.now())
            assert 0 < wait <= 2
            clock.advance(wait)
    assert (cut.value.code, cut.value.fatal) == ("limit.idle", True)
    assert clock.now().monotonic - began == 2


def test_a_debt_alone_cuts_nobody() -> None:
    guard, clock = LinkGuard(CONFIG), ManualClock()
    guard.idled(1_000)
    guard.check(clock.now())
    for _ in range(10):
        clock.advance(1)
        assert guard.check(clock.now()) == (0, None)


def test_only_what_the_same_connection_sent_again_is_a_repeat() -> None:
    guard, clock = LinkGuard(CONFIG), ManualClock()
    for start in range(0, 1000, 10):
        guard.repeated(range(start, start + 10))  # others had sent these
    assert guard.check(clock.now()) == (0, None)
    guard.repeated(range(15))
    assert guard.check(clock.now())[0] == 1.0


def test_errors_are_forgiven_with_time() -> None:
    guard, clock = LinkGuard(GuardConfig(errors_max=3, errors_per_second=1)), ManualClock()
    guard.check(clock.now())
    for _ in range(20):
        assert guard.failed() is None
        clock.advance(1)
        guard.check(clock.now())
    assert [guard.failed() is None for _ in range(4)] == [True, True, True, False]


def test_one_link_cannot_take_all_the_room_for_writes_of_the_future() -> None:
    deferred: Deferred[int] = Deferred(DeferredConfig(link_entries_max=10, link_bytes_max=1_000))

    def hold(owner: int, size: int) -> int:
        count = 0
        while True:
            try:
                deferred.check(2.0, size, 1.0, owner)
            except LimitReached as error:
                assert error.code == "limit.deferred"
                return count
            deferred.push(2.0, count, size, owner)
            count += 1

    assert [hold(1, 1), hold(2, 1), hold(3, 500)] == [10, 10, 2]
    assert len(deferred.pop_due(2.0)) == 22
    assert (deferred.bytes, len(deferred), hold(1, 1)) == (0, 0, 10)
    assert hold(4, 7_000) == 1


def test_who_asks_for_all_of_a_prefix_and_waits_for_each_answer_is_only_slowed_down_when_it_is_much() -> None:
    guard, clock = LinkGuard(GuardConfig(scans_max=20, scans_per_second=4)), ManualClock()
    guard.check(clock.now())
    for _ in range(100):
        guard.listened()
        guard.read(1, 1)
        assert guard.check(clock.now()) == (0, None)
        clock.advance(0.25)


def test_a_flood_of_questions_for_all_of_a_prefix_is_told_and_cut() -> None:
    guard, clock = LinkGuard(GuardConfig(scans_max=20, scans_per_second=4, insist_seconds=2)), ManualClock()
    guard.check(clock.now())
    began, told = clock.now().monotonic, []
    with pytest.raises(LimitReached) as cut:
        while True:
            guard.read(1, 1)
            wait, word = guard.check(clock.now())
            told += [word.code] if word else []
            clock.advance(wait)
    assert (told, cut.value.code) == (["limit.scans"], "limit.scans")
    assert clock.now().monotonic - began <= 2


def test_a_flood_of_such_questions_is_cut_in_time_even_when_each_takes_long() -> None:
    guard, clock = LinkGuard(GuardConfig(scans_seconds=2)), ManualClock()
    began = clock.now().monotonic
    with pytest.raises(LimitReached) as cut:
        while True:
            guard.read(1, 1)
            guard.check(clock.now())
            clock.advance(0.5)
    assert cut.value.code == "limit.scans"
    assert clock.now().monotonic - began <= 3


def test_while_others_write_fewer_reads_of_one_connection_may_wait() -> None:
    guard = LinkGuard(GuardConfig(reads_max=64, reads_busy_max=24))
    assert (guard.reads_max(busy=False), guard.reads_max(busy=True)) == (64, 24)


def test_the_settings_have_the_limits_of_a_connection_with_the_same_defaults() -> None:
    settings, limits = Settings(), GuardConfig()
    names = {one.name for one in fields(settings)} & {one.name for one in fields(limits)}
    assert {"errors_max", "waste_bytes_max", "scans_max", "insist_seconds", "reads_per_second"} <= names
    assert {name: getattr(settings, name) for name in names} == {
        name: getattr(limits, name) for name in names
    }


def test_what_is_forgotten_leaves_memory_although_nothing_new_comes() -> None:
    memory: Fading[int, int] = Fading(9.0, 1000)
    for at in range(1000):
        memory.set(at, at, 100.0)
    memory.tick(105.0)
    assert len(memory) == 1000
    memory.tick(110.0)
    memory.tick(119.5)
    assert len(memory) == 0
