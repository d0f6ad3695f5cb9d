"""gun.js clients that lose their connection: what they write meanwhile must not be lost.

gun.js neither queues such writes nor says them again; it only answers when it is asked. It redials two
seconds after the loss, once, and gives up for good when that fails: a relay has this long to be back.
"""

from __future__ import annotations

import pytest

from tests.interop.conftest import NewClient
from tests.interop.gunjs import GunClient, Relay

pytestmark = [pytest.mark.node, pytest.mark.anyio]

REDIAL_SECONDS = 8.0
"""gun.js redials after 2 s; the rest is for a busy machine."""


async def reconnected(client: GunClient, mark: int) -> None:
    """Wait until gun.js has redialled by itself; ``mark`` is len(client.events) before the loss."""
    await client.event("open", REDIAL_SECONDS, since=mark)


@pytest.mark.stock_fault("F4: writes made without a connection never reach those who listen")
async def test_a_listener_hears_what_was_written_while_the_writer_was_cut_off(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul, "x"], "before")
    heard = await bob.listen([soul, "x"])
    await heard.until_value("before")
    mark = len(alice.events)
    await alice.cut()
    await alice.put([soul, "x"], "offline", ack=False)
    await reconnected(alice, mark)
    await heard.until_value("offline")


@pytest.mark.stock_fault("F4: writes made without a connection never reach those who listen")
async def test_a_listener_of_the_whole_node_hears_fields_added_offline(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul], {"a": 1})
    mine = await alice.listen([soul])
    heard = await bob.listen([soul])
    await heard.until_value({"a": 1})
    mark = len(alice.events)
    await alice.cut()
    await alice.put([soul], {"b": 2, "c": 3}, ack=False)
    await mine.until_value({"a": 1, "b": 2, "c": 3})
    await reconnected(alice, mark)
    await heard.until_value({"a": 1, "b": 2, "c": 3})


async def test_the_one_cut_off_hears_what_was_written_meanwhile(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul, "x"], "before")
    heard = await bob.listen([soul, "x"])
    await heard.until_value("before")
    mark = len(bob.events)
    await bob.cut()
    await alice.put([soul, "x"], "missed")
    assert "missed" not in heard.values
    await reconnected(bob, mark)
    await heard.until_value("missed")
    await alice.put([soul, "x"], "live again")
    await heard.until_value("live again")


async def test_both_reconnect_after_the_relay_was_killed_and_are_live_again(
    relay: Relay, alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul, "x"], "before")
    heard = await bob.listen([soul, "x"])
    await heard.until_value("before")
    marks = len(alice.events), len(bob.events)
    await relay.restart()
    await reconnected(alice, marks[0])
    await reconnected(bob, marks[1])
    await alice.put([soul, "x"], "after")
    await heard.until_value("after")


@pytest.mark.stock_fault("F4: writes made without a connection never reach those who listen")
async def test_a_write_made_while_the_relay_was_dead_is_heard_after_its_restart(
    relay: Relay, alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul, "x"], "before")
    heard = await bob.listen([soul, "x"])
    await heard.until_value("before")
    marks = len(alice.events), len(bob.events)
    relay.kill()
    await alice.event("closed", since=marks[0])
    await alice.put([soul, "x"], "while it was dead", ack=False)
    await relay.restart()
    await reconnected(alice, marks[0])
    await reconnected(bob, marks[1])
    await heard.until_value("while it was dead")


async def test_both_write_while_the_relay_is_dead_and_agree_after_its_restart(
    relay: Relay, alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul], {"by": "alice", "alice": 0, "bob": 0})
    hears_bob, hears_alice = await alice.listen([soul]), await bob.listen([soul])
    await hears_alice.until_value({"by": "alice", "alice": 0, "bob": 0})
    await hears_bob.until_value({"by": "alice", "alice": 0, "bob": 0})
    marks = len(alice.events), len(bob.events)
    relay.kill()
    await alice.event("closed", since=marks[0])
    await bob.event("closed", since=marks[1])
    await alice.put([soul], {"by": "alice", "alice": 1}, ack=False)
    await bob.put([soul], {"by": "bob", "bob": 1}, ack=False)
    await relay.restart()
    await reconnected(alice, marks[0])
    await reconnected(bob, marks[1])
    for listener in (hears_bob, hears_alice):
        await listener.until(
            lambda it: it.values[-1] == {"by": "bob", "alice": 1, "bob": 1}, what="the same end on both sides"
        )


@pytest.mark.stock_fault("F4: writes made without a connection stay with their writer")
async def test_an_offline_write_to_a_watched_soul_ends_up_in_the_relay(
    alice: GunClient, bob: GunClient, new_client: NewClient, soul: str
) -> None:
    await alice.put([soul, "x"], "before")
    heard = await bob.listen([soul, "x"])
    await heard.until_value("before")
    async with new_client("leaver") as leaver:
        await leaver.until_once([soul, "x"], "before")
        mark = len(leaver.events)
        await leaver.cut()
        await leaver.put([soul, "x"], "offline", ack=False)
        await reconnected(leaver, mark)
        await heard.until_value("offline")
    async with new_client("newcomer") as newcomer:
        await newcomer.until_once([soul, "x"], "offline")


async def test_what_was_written_offline_is_found_by_whoever_asks_for_it_later(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    """Nobody watched that soul, so the relay asks its clients on when it has nothing itself."""
    mark = len(alice.events)
    await alice.cut()
    await alice.put([soul], {"x": "new and offline"}, ack=False)
    await reconnected(alice, mark)
    await bob.until_once([soul, "x"], "new and offline")
