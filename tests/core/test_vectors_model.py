"""The rules of GUN's data against what real gun.js did: HAM, order, state, hash, match, valid."""

from __future__ import annotations

import math
from typing import Any

import pytest

from air.graph.state import GunStamps
from air.model import Link, canonical, matches, unit_bytes, value_bytes, value_text
from air.model.ham import decide
from air.sync.gun.hash import graph_hash, sorted_json, text_hash
from tests.vector_files import load

pytestmark = pytest.mark.vectors


def value(raw: object) -> Any:
    got = canonical(raw)
    assert got is not None, raw
    return got[0]


def cases(name: str) -> list[dict[str, Any]]:
    found = load(f"gun/{name}.json")["cases"]
    assert found
    return found


def test_ham_gives_the_verdict_of_gun() -> None:
    for case in cases("ham"):
        known, incoming = case["current"], case["incoming"]
        held = None if known is None else (value(known["value"]), known["state"])
        verdict = decide(case["machine"], value(incoming["value"]), incoming["state"], held)
        assert verdict.value == case["verdict"], case
        after = incoming if verdict.value == "accept" else known
        assert after == case["after"], case


def test_a_deferred_write_waits_as_long_as_gun_lets_it_wait() -> None:
    for case in cases("ham"):
        if case["verdict"] == "defer":
            ahead = case["incoming"]["state"] - case["machine"]
            assert min(ahead, 2**31 - 1) == case["delay_ms"], case


def test_values_print_as_javascript_prints_them() -> None:
    for case in cases("order"):
        if case["kind"] == "stringify":
            assert value_text(value(case["value"])) == case["text"], case


def test_values_order_as_javascript_orders_their_text() -> None:
    for case in cases("order"):
        if case["kind"] == "compare":
            a, b = value(case["a"]), value(case["b"])
            assert (value_text(a), value_text(b)) == (case["json_a"], case["json_b"]), case
            assert (value_bytes(a) > value_bytes(b)) - (value_bytes(a) < value_bytes(b)) == case["order"], (
                case
            )


def test_keys_sort_by_utf16_unit() -> None:
    for case in cases("order"):
        if case["kind"] == "sort":
            assert sorted(case["input"], key=unit_bytes) == case["sorted"], case


def test_gun_stamps_are_bit_exact() -> None:
    for case in cases("state"):
        stamps = GunStamps(case["drift"])
        assert [stamps.next(wall) for wall in case["clock"]] == case["states"], case["note"]


def test_hashes_of_texts_and_graphs() -> None:
    for case in cases("hash"):
        if case["kind"] == "string":
            text = case["text"] if "text" in case else case["repeat"]["unit"] * case["repeat"]["times"]
            assert text_hash(text, case["seed"]) == case["hash"], case
        else:
            native = case.get("serializer") == "native"
            assert sorted_json(case["graph"], native=native) == case["sorted_json"], case
            assert graph_hash(case["graph"], native=native) == case["hash"], case


def test_keys_match_as_in_gun() -> None:
    for case in cases("match"):
        assert matches(case["text"], case["lex"]) == case["match"], case


def test_a_node_holds_what_a_node_may_hold() -> None:
    special = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
    for case in cases("valid"):
        raw = special.get(case["special"], object()) if "special" in case else case["value"]
        got, expected = canonical(raw), case["valid"]
        if isinstance(expected, dict):
            assert got == (Link(expected["link"]),), case
        else:
            assert (got is not None) == expected, case
