"""Two unmodified gun.js processes that know each other only through the relay."""

from __future__ import annotations

import math
import secrets
import string
import time

import anyio
import pytest

from tests.interop.conftest import NewClient
from tests.interop.gunjs import MISSING, GunClient, Relay

pytestmark = [pytest.mark.node, pytest.mark.anyio]

ALL = 50_000
"""Enough for every small node: the budget of a lexical get, which is one field when it is not said."""


def new_id() -> str:
    """An id for a hand-made message. Relays remember ids for seconds, and names built on other ids too."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(9))


# ---- writing and reading


async def test_a_put_is_read_by_the_other_client(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"name": "Ann", "age": 41, "admin": True, "left": False})
    seen = await bob.once([soul])
    assert seen.value == {"name": "Ann", "age": 41, "admin": True, "left": False}
    assert seen.soul == soul
    assert (await bob.once([soul, "name"])).value == "Ann"


async def test_states_arrive_as_they_were_stamped(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"a": 1})
    await alice.put([soul, "b"], 2)
    seen = await bob.once([soul])
    assert seen.states == (await alice.memory(soul)).states


async def test_a_put_of_one_field_keeps_the_others(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"a": 1, "b": 2})
    await bob.put([soul, "b"], 3)
    await bob.put([soul], {"c": 4})
    assert (await alice.until_once([soul, "c"], 4)).value == 4
    assert (await bob.once([soul])).value == {"a": 1, "b": 3, "c": 4}


async def test_a_nested_put_becomes_linked_nodes(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"name": "Ann", "home": {"city": "Hanoi", "geo": {"lat": 21.03, "lon": 105.85}}})
    assert (await bob.once([soul])).value == {"name": "Ann", "home": {"#": f"{soul}/home"}}
    assert (await bob.once([soul, "home"])).value == {"city": "Hanoi", "geo": {"#": f"{soul}/home/geo"}}
    assert (await bob.once([soul, "home", "geo", "lat"])).value == 21.03
    assert (await bob.once([f"{soul}/home/geo"])).value == {"lat": 21.03, "lon": 105.85}


async def test_a_put_below_parents_nobody_has_is_stored(alice: GunClient, bob: GunClient, soul: str) -> None:
    """gun.js asks for the link it may overwrite first and waits for an answer without a deadline."""
    await alice.put([soul, "a", "b", "c"], "deep")
    assert (await bob.once([soul, "a", "b", "c"])).value == "deep"


async def test_null_deletes_a_field(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"keep": 1, "drop": 2})
    heard = await bob.listen([soul, "drop"])
    await heard.until_value(2)
    await alice.put([soul, "drop"], None)
    await heard.until_value(None)
    assert (await bob.once([soul])).value == {"keep": 1, "drop": None}


async def test_null_cuts_a_link_and_leaves_the_node(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"friend": {"name": "Bo"}})
    await alice.put([soul, "friend"], None)
    assert (await bob.once([soul])).value == {"friend": None}
    assert (await bob.once([f"{soul}/friend"])).value == {"name": "Bo"}


async def test_links_are_followed_and_can_make_a_circle(alice: GunClient, bob: GunClient, soul: str) -> None:
    ann, bo = f"{soul}/ann", f"{soul}/bo"
    await alice.put([ann], {"name": "Ann"})
    await alice.put([bo], {"name": "Bo"})
    await alice.link([ann, "friend"], [bo])
    await alice.link([bo, "friend"], [ann])
    assert (await bob.once([ann])).value == {"name": "Ann", "friend": {"#": bo}}
    assert (await bob.once([ann, "friend", "name"])).value == "Bo"
    assert (await bob.once([ann, "friend", "friend", "name"])).value == "Ann"


async def test_something_missing_is_answered_at_once(alice: GunClient, soul: str) -> None:
    began = time.monotonic()
    assert (await alice.once([soul])).value is MISSING
    assert (await alice.once([soul, "field"])).value is MISSING
    assert (await alice.once([soul, "no", "such", "path"])).value is MISSING
    # Each once waits 99 ms of its own for more data.
    assert time.monotonic() - began < 1.0


async def test_a_missing_field_of_a_known_node_is_answered_at_once(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul], {"a": 1})
    began = time.monotonic()
    assert (await bob.once([soul, "b"])).value is MISSING
    assert time.monotonic() - began < 1.0


# ---- live


async def test_on_sees_every_change_of_the_other_client(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul, "n"], 0)
    heard = await bob.listen([soul, "n"])
    await heard.until_value(0)
    for n in range(1, 6):
        await alice.put([soul, "n"], n)
        await heard.until_value(n)
    assert heard.values[-1] == 5


async def test_on_hears_of_a_node_that_is_written_later(alice: GunClient, bob: GunClient, soul: str) -> None:
    heard = await bob.listen([soul])
    assert (await bob.once([soul])).value is MISSING  # by now the relay has the question
    await alice.put([soul], {"born": "late"})
    await heard.until_value({"born": "late"})


async def test_both_hear_each_other(alice: GunClient, bob: GunClient, soul: str) -> None:
    from_bob, from_alice = await alice.listen([soul, "bob"]), await bob.listen([soul, "alice"])
    await alice.put([soul, "alice"], "hi bob")
    await from_alice.until_value("hi bob")
    await bob.put([soul, "bob"], "hi alice")
    await from_bob.until_value("hi alice")


async def test_nothing_more_is_heard_after_off(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul, "n"], 1)
    heard = await bob.listen([soul, "n"])
    await heard.until_value(1)
    await heard.off()
    await alice.put([soul, "n"], 2)
    await bob.until_once([soul, "n"], 2)
    assert 2 not in heard.values


# ---- sets and maps


async def test_a_set_is_mapped_by_the_other_client(alice: GunClient, bob: GunClient, soul: str) -> None:
    heard = await bob.listen([soul, {"map": None}])
    first = await alice.set([soul], {"text": "milk"})
    await heard.until_value({"text": "milk"})
    second = await alice.set([soul], {"text": "bread"})
    await heard.until_value({"text": "bread"})
    assert heard.latest == {first: {"text": "milk"}, second: {"text": "bread"}}


async def test_an_item_added_twice_is_in_the_set_once(alice: GunClient, bob: GunClient, soul: str) -> None:
    ann = f"{soul}/ann"
    await alice.put([ann], {"name": "Ann"})
    assert await alice.set([soul], link=[ann]) == ann
    assert await alice.set([soul], link=[ann]) == ann
    await bob.until_once([soul], {ann: {"#": ann}})


async def test_an_item_taken_out_of_a_set_is_heard_as_null(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    heard = await bob.listen([soul, {"map": None}])
    item = await alice.set([soul], {"text": "milk"})
    await heard.until_value({"text": "milk"})
    await alice.unset([soul], item)
    await heard.until(lambda it: it.latest[item] is None, what="null for the item")
    assert (await bob.once([item])).value == {"text": "milk"}


async def test_map_once_delivers_every_item_one_time(alice: GunClient, bob: GunClient, soul: str) -> None:
    wanted = {f"k{n}": {"n": n} for n in range(12)}
    await alice.put([soul], wanted)
    heard = await bob.listen([soul, {"map": None}], "once")
    await heard.until(lambda it: len(it.seen) >= 12, what="12 items")
    late = await alice.set([soul], {"n": 12})
    await heard.until(lambda it: late in it.latest, what="the late item")
    assert heard.latest == {**wanted, late: {"n": 12}}
    assert len(heard.seen) == 13


async def test_map_reaches_into_every_item(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], {"a": {"name": "Ann"}, "b": {"name": "Bo"}})
    heard = await bob.listen([soul, {"map": None}, "name"])
    await heard.until(lambda it: {"Ann", "Bo"} <= set(it.values), what="both names")
    await alice.put([soul, "c"], {"name": "Cy"})
    await heard.until_value("Cy")


# ---- LEX


LOG = {f"2024/{month:02}/{day:02}": f"{month}.{day}" for month in (1, 2, 3) for day in (1, 15)}


@pytest.mark.parametrize(
    ("lex", "wanted"),
    [
        ({"*": "2024/02"}, ["2024/02/01", "2024/02/15"]),
        ({"*": "2024/"}, list(LOG)),
        ({">": "2024/02"}, ["2024/02/01", "2024/02/15", "2024/03/01", "2024/03/15"]),
        ({"<": "2024/02"}, ["2024/01/01", "2024/01/15"]),
        ({">": "2024/01/02", "<": "2024/02/14"}, ["2024/01/15", "2024/02/01"]),
        ({">": "2024/01/15", "<": "2024/02/01"}, ["2024/01/15", "2024/02/01"]),
        ({"=": "2024/01/15"}, ["2024/01/15"]),
        ({"*": "2025"}, []),
    ],
    ids=["prefix", "whole", "from", "to", "range", "bounds", "exact", "nothing"],
)
async def test_a_lex_get_brings_the_matching_fields(
    alice: GunClient, new_client: NewClient, soul: str, lex: dict[str, str], wanted: list[str]
) -> None:
    await alice.put([soul], LOG)
    async with new_client("asker", tap=True) as asker:
        mark = len(asker.events)
        question = new_id()
        await asker.say({"#": question, "get": {"#": soul, ".": lex, "%": ALL}})
        await asker.until(lambda: bool(asker.frames("in", f'"@":"{question}"', mark)), what="an answer")
        if not wanted:
            assert (await asker.memory(soul)).value is MISSING
            return
        held = await asker.until_memory(soul, lambda node: len(node) >= len(wanted))
        assert held.value == {key: LOG[key] for key in wanted}


async def test_map_with_a_lex_delivers_the_matching_items(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    await alice.put([soul], LOG)
    heard = await bob.listen([soul, {".": {"*": "2024/03"}, "%": ALL}, {"map": None}], "once")
    await heard.until(lambda it: len(it.seen) >= 2, what="two items")
    assert heard.latest == {"2024/03/01": "3.1", "2024/03/15": "3.15"}


async def test_a_lex_subscriber_hears_of_a_new_match(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], LOG)
    heard = await bob.listen([soul, {".": {"*": "2024/03"}, "%": ALL}, {"map": None}])
    await heard.until(lambda it: len(it.latest) >= 2, what="two items")
    await alice.put([soul, "2024/03/31"], "last")
    await heard.until_value("last")


# ---- values


TEXTS = {
    "empty": "",
    "quotes": "\"'`\\/",
    "control": "\x00\x01\x1b\x1f\x7f\n\r\t\b\f",
    "separators": "\u2028\u2029\ufeff\xa0",
    "latin": "Größe ÿ",
    "hanzi": "汉字かな한글",
    "astral": "😀𝄞𠜎🏳️‍🌈",
    "private": "\ue000\uffee\ufb01",
    "markup": "<script>alert(1)</script>&amp;",
    "json": '{":":1,"x":[1,2]}',
    "number": "123",
    "word": "null",
}


async def test_texts_arrive_unchanged(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], TEXTS)
    assert (await bob.once([soul])).value == TEXTS
    heard = await bob.listen([soul, "astral"])
    await alice.put([soul, "astral"], "𝕊𝕖𝕖 🧵")
    await heard.until_value("𝕊𝕖𝕖 🧵")


async def test_souls_and_keys_may_be_any_text(alice: GunClient, bob: GunClient, soul: str) -> None:
    strange = f"{soul}/😀 ключ/\u2028'\"\\"
    node = {"𝄞 clé": 1, "a.b/c": 2, " ": 3, '"': 4, "汉字": 5, "10": 6, "9": 7}
    await alice.put([strange], node)
    assert (await bob.once([strange])).value == node


NUMBERS = {
    "zero": 0,
    "third": 1 / 3,
    "tenth": 0.1,
    "sum": 0.1 + 0.2,
    "minus": -273.15,
    "biggest": 1.7976931348623157e308,
    "smallest": 5e-324,
    "exponent": 1.5e-7,
    "huge": 1e21,
    "safe": 2**53 - 1,
    "unsafe": 2**53,
    "wide": 123456789012345680000,
    "pi": math.pi,
}


async def test_numbers_arrive_bit_for_bit(alice: GunClient, bob: GunClient, soul: str) -> None:
    await alice.put([soul], NUMBERS)
    seen = (await bob.once([soul])).value
    assert {key: float(value).hex() for key, value in seen.items()} == {
        key: float(value).hex() for key, value in NUMBERS.items()
    }


# ---- amounts


async def test_a_thousand_keys_in_one_put(alice: GunClient, bob: GunClient, soul: str) -> None:
    wanted = {f"key{n:04}": f"value {n}" for n in range(1000)}
    await alice.put([soul], wanted, seconds=30)
    heard = await bob.listen([soul])
    await heard.until_value(wanted, 30)


async def test_a_thousand_puts_in_one_turn_are_all_acknowledged_and_read(
    alice: GunClient, bob: GunClient, soul: str
) -> None:
    wanted = {f"key{n:04}": n for n in range(1000)}
    await alice.batch([soul], wanted)
    heard = await bob.listen([soul])
    await heard.until_value(wanted, 30)


async def test_a_thousand_puts_reach_a_listener(alice: GunClient, bob: GunClient, soul: str) -> None:
    heard = await bob.listen([soul, {"map": None}])
    assert (await bob.once([soul])).value is MISSING
    wanted = {f"key{n:04}": n for n in range(1000)}
    await alice.batch([soul], wanted)
    await heard.until(lambda it: len(it.latest) >= 1000, 30, what="1,000 items")
    assert heard.latest == wanted


async def test_a_text_of_five_megabytes(alice: GunClient, bob: GunClient, soul: str) -> None:
    text = "Größe 😀 " * (5_000_000 // 8)
    heard = await bob.listen([soul, "live"])
    assert (await bob.once([soul])).value is MISSING
    await alice.put([soul, "live"], text, seconds=30)
    await heard.until_value(text, 30)


async def test_a_text_of_five_megabytes_is_kept(alice: GunClient, new_client: NewClient, soul: str) -> None:
    text = "x" * 5_000_000
    await alice.put([soul, "big"], text, seconds=30)
    async with new_client("later") as later:
        assert (await later.once([soul, "big"], seconds=30)).value == text


# ---- the relay's own copy


async def test_a_newcomer_reads_what_clients_that_left_have_written(new_client: NewClient, soul: str) -> None:
    async with new_client("first") as first:
        await first.put([soul], {"from": "first", "deep": {"er": 1}})
    async with new_client("second") as second:
        assert (await second.once([soul, "from"])).value == "first"
        assert (await second.once([soul, "deep", "er"])).value == 1


async def test_acknowledged_writes_outlive_a_kill_of_the_relay(
    relay: Relay, new_client: NewClient, soul: str
) -> None:
    async with new_client("writer") as writer:
        await writer.batch([soul], {f"k{n}": n for n in range(50)})
        await writer.put([soul, "last"], "kept")
    await relay.restart()
    async with new_client("reader") as reader:
        seen = await reader.once([soul])
        assert seen.value == {**{f"k{n}": n for n in range(50)}, "last": "kept"}


@pytest.mark.stock_fault("F2: an older write wins after a restart")
async def test_an_older_write_loses_after_a_restart_of_the_relay(
    relay: Relay, new_client: NewClient, soul: str
) -> None:
    def put(value: str, state: int) -> dict[str, object]:
        return {"put": {soul: {"_": {"#": soul, ">": {"x": state}}, "x": value}}}

    async with new_client("writer", tap=True) as writer:
        first = new_id()
        await writer.send({"#": first, **put("newer", 2000)})
        await writer.until(lambda: bool(writer.frames("in", f'"@":"{first}"')), what="the ack")
    await relay.restart()
    async with new_client("late", tap=True) as late:
        await late.send({"#": new_id(), **put("older", 1000)})
        # Behind it on the same connection: once this is acknowledged, the one before has been judged.
        await late.put([f"{soul}/mark"], {"x": 1})
    async with new_client("reader") as reader:
        assert (await reader.once([soul, "x"])).value == "newer"


# ---- conflicts


async def test_concurrent_writes_to_one_field_end_equal_on_all_three_sides(
    alice: GunClient, bob: GunClient, new_client: NewClient, soul: str
) -> None:
    hears_alice, hears_bob = await bob.listen([soul, "x"]), await alice.listen([soul, "x"])
    await alice.put([soul, "x"], "start")
    await hears_alice.until_value("start")
    for n in range(40):
        await alice.put([soul, "x"], f"alice {n}", ack=False)
        await bob.put([soul, "x"], f"bob {n}", ack=False)
    # gun.js does not acknowledge a write that had lost before it arrived, so the end is seen in the values.
    last = {"alice 39", "bob 39"}
    with_both = await alice.until_memory(soul, lambda node: node["x"] in last)
    await bob.until_memory(soul, lambda node: node["x"] in last)

    with anyio.fail_after(10):
        # No event tells what the other process holds.
        while (await alice.memory(soul)).value != (await bob.memory(soul)).value:
            await anyio.sleep(0.02)
    final = await alice.memory(soul)
    assert final.states["x"] >= with_both.states["x"]
    assert final.states == (await bob.memory(soul)).states
    async with new_client("third") as third:
        seen = await third.once([soul])
        assert (seen.value, seen.states) == (final.value, final.states)
    assert hears_alice.values[-1] == hears_bob.values[-1] == final.value["x"]


@pytest.mark.parametrize(
    ("lower", "greater"), [("aa", "b"), ("😀", "\ufb01"), (10, 9), ("zz", 1), (1, False), (None, True)]
)
@pytest.mark.parametrize("greater_first", [True, False])
async def test_equal_states_are_decided_by_the_greater_json_text(
    alice: GunClient, new_client: NewClient, soul: str, lower: object, greater: object, greater_first: bool
) -> None:
    both = (greater, lower) if greater_first else (lower, greater)
    for number, value in enumerate(both):
        mine = f"{soul}/{number}"
        node = {"_": {"#": soul, ">": {"x": 1000}}, "x": value}
        await alice.send({"#": new_id(), "put": {soul: node}})
        # Behind it on the same connection: once this is acknowledged, the one before has been judged.
        await alice.put([mine], {"x": 1})
    async with new_client("reader") as reader:
        assert (await reader.once([soul, "x"])).value == greater
