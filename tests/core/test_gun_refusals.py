"""What gun.js tolerates and a careful relay must not: every malformed message gets its code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from air.base.errors import Violation
from air.graph.mesh import Role
from air.sync.gun.limits import FORBIDDEN, RELAY_KILLERS, GunLimits
from air.sync.gun.reader import parse_frame, read_message
from tests.peers import GunPeer
from tests.vector_files import load

NOW = 1_700_000_000_000


def node(fields: dict[str, Any], states: Any = None, soul: Any = "s") -> dict[str, Any]:
    states = dict.fromkeys(fields, NOW - 1) if states is None else states
    return {"_": {"#": soul, ">": states}, **fields}


def put(graph: Any, id: Any = "m1") -> str:
    return json.dumps({"#": id, "put": graph})


@pytest.fixture
def peer() -> GunPeer:
    made = GunPeer()
    made.connect(1)
    made.said(1)
    return made


def answer(peer: GunPeer, frame: str | bytes) -> list[dict[str, Any]]:
    peer.frame(1, frame)
    peer.settle()
    return peer.said(1)


PUTS = {
    "gun.bad-put": [put([1]), put("text"), put(None), put(5)],
    "gun.bad-node": [put({"s": None}), put({"s": []}), put({"s": "x"})],
    "gun.bad-soul": [
        put({"s": node({"k": 1}, soul="other")}),
        put({"s": {"k": 1}}),
        put({"s": {"_": 1, "k": 1}}),
    ],
    "gun.empty-soul": [put({"": node({"k": 1}, soul="")})],
    "gun.empty-key": [put({"s": node({"": 1})})],
    "gun.no-state": [put({"s": node({"k": 1}, {})}), put({"s": {"_": {"#": "s"}, "k": 1}})],
    "gun.bad-state": [put({"s": node({"k": 1}, {"k": bad})}) for bad in ("5", None, True, [1], {"a": 1})],
    "gun.bad-value": [
        put({"s": node({"k": bad})})
        for bad in ([], [1], {}, {"a": 1}, {"#": 5}, {"#": ""}, {"#": None}, {"#": "a", "b": 1})
    ],
    "gun.forbidden-name": [
        put({"s": node({"__proto__": 1})}),
        *(put({soul: node({"k": 1}, soul=soul)}) for soul in sorted(FORBIDDEN)),
        put({"s": node({"k": {"#": "__proto__"}})}),
    ],
    "limit.soul": [put({"x" * 9000: node({"k": 1}, soul="x" * 9000)})],
    "limit.key": [put({"s": node({"k" * 9000: 1})}), put({"s": node({"k" * 1_048_576: 1})})],
    "limit.value": [put({"s": node({"k": "v" * (16 * 1024 * 1024 + 1)})})],
    "limit.cells": [put({"s": node({f"k{i}": 1 for i in range(20_001)})})],
    "graph.future-state": [
        put({"s": node({"k": 1}, {"k": NOW + 10**12})}),
        put({"s": node({"k": 1}, {"k": 1e300})}),
    ],
}
PUT_CASES = [(code, frame) for code, frames in PUTS.items() for frame in frames]


@pytest.mark.parametrize(("code", "frame"), PUT_CASES, ids=lambda x: str(x)[:40])
def test_a_bad_put_is_answered_with_its_code_and_nothing_of_it_is_kept(
    peer: GunPeer, code: str, frame: str
) -> None:
    (said,) = answer(peer, frame)
    assert said["@"] == "m1"
    assert said["err"].startswith(code + ":")
    assert peer.stored() == {}


def test_a_bad_field_anywhere_spoils_the_whole_message(peer: GunPeer) -> None:
    good = {"a": node({"k": 1}, soul="a"), "z": node({"k": 1}, soul="z")}
    (said,) = answer(peer, put({"a": good["a"], "m": node({"k": [1]}, soul="m"), "z": good["z"]}))
    assert said["err"].startswith("gun.bad-value")
    assert peer.stored() == {}


GETS = {
    "gun.bad-get": ["text", 5, None, [], {}, {"#": 5}, {"#": None}, {"#": []}],
    "gun.empty-soul": [{"#": ""}],
    "gun.bad-lex": [
        {"#": {}},
        {"#": {">": "a"}},
        {"#": "s", ".": 5},
        {"#": "s", ".": {"*": 1}},
        {"#": "s", ".": [1]},
    ],
    "gun.forbidden-name": [{"#": "__proto__"}],
    "limit.soul": [{"#": "x" * 9000}, {"#": {"*": "x" * 9000}}],
    "limit.key": [{"#": "s", ".": "x" * 9000}, {"#": "s", ".": {"*": "x" * 9000}}],
}


@pytest.mark.parametrize(("code", "get"), [(code, get) for code, gets in GETS.items() for get in gets])
def test_a_bad_get_is_answered_with_its_code(peer: GunPeer, code: str, get: object) -> None:
    (said,) = answer(peer, json.dumps({"#": "m1", "get": get}))
    assert said["@"] == "m1"
    assert said["err"].startswith(code + ":")


FRAMES = {
    "gun.bad-frame": [b"hello", b" {}", b"null", b"5", b'"text"', b"\xff\xfe"],
    "gun.bad-json": [
        b"{bad json",
        b"[bad",
        b"{",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800\xff"}',
        b'{"a":"\\ud800",}',
        b"[" * 100_000,
        b'{"a":"\\ud800","b":' + b"[" * 100_000,
        b'["{bad"]',
    ],
    "gun.bad-message": [b"[1]", b"[null]", b"[[]]", b'["[]"]', b'["5"]'],
    "gun.bad-id": [
        b'{"#":[],"get":5}',
        b'{"#":null,"x":1}',
        b'{"#":"' + b"x" * 200 + b'"}',
        b'{"#":true,"get":{"#":"s"}}',
    ],
    "limit.messages": [b"[" + b'{"#":"a"},' * 20_000 + b'{"#":"a"}]'],
}


@pytest.mark.parametrize(
    ("code", "frame"),
    [(code, frame) for code, frames in FRAMES.items() for frame in frames],
    ids=lambda x: str(x)[:30],
)
def test_a_bad_frame_is_answered_with_an_error_of_the_mesh(peer: GunPeer, code: str, frame: bytes) -> None:
    (said,) = answer(peer, frame)
    assert (said["dam"], said["err"].partition(":")[0]) == ("!", code)
    # And the connection goes on.
    (after,) = answer(peer, put({"s": node({"k": 1})}))
    assert after["ok"]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"{}",
        b"[{}]",
        b'{"#":"x1"}',
        b'{"dam":"unknown","#":"q"}',
        b'{"dam":"constructor"}',
        b'{"dam":5}',
    ],
)
def test_empty_and_unknown_messages_get_no_answer_as_from_any_gun_peer(peer: GunPeer, frame: bytes) -> None:
    assert answer(peer, frame) == []


@pytest.mark.parametrize("kind", ["mob", "opt", "service", "tag"])
def test_orders_of_the_mesh_are_refused(peer: GunPeer, kind: str) -> None:
    (said,) = answer(peer, json.dumps({"dam": kind, "#": "x", "mob": 2, "peers": {"http://other/gun": {}}}))
    assert said["err"].startswith(f"gun.refused-{kind}")


def test_too_many_malformed_messages_end_the_connection(peer: GunPeer) -> None:
    with pytest.raises(Violation) as ended:
        for _ in range(200):
            peer.frame(1, b"junk")
    assert (ended.value.code, ended.value.fatal) == ("gun.too-many-errors", True)


def test_a_connection_to_ourselves_ends() -> None:
    peer = GunPeer()
    peer.connect(1, Role.OUTBOUND)
    with pytest.raises(Violation) as ended:
        peer.frame(1, '{"dam":"?","#":"q","pid":"airairair"}')
    assert ended.value.code == "gun.self"


def test_souls_that_stop_a_stock_relay_are_kept_and_not_sent_to_one(peer: GunPeer) -> None:
    peer.connect(7, Role.OUTBOUND)
    peer.connect(2)
    for soul in sorted(RELAY_KILLERS):
        peer.frame(2, json.dumps({"#": f"g{soul}", "get": {"#": soul}}))
        peer.settle()
    peer.frame(
        1, put({soul: node({"k": 1}, soul=soul) for soul in sorted(RELAY_KILLERS)} | {"s": node({"k": 1})})
    )
    peer.settle()
    assert {soul for soul, _ in peer.stored()} == RELAY_KILLERS | {"s"}
    sent = [soul for said in peer.said(7) for soul in said.get("put", {})]
    assert sent == ["s"]
    assert {soul for said in peer.said(2) for soul in said.get("put", {})} == RELAY_KILLERS


def test_a_number_as_an_id_comes_back_as_a_number(peer: GunPeer) -> None:
    (said,) = answer(peer, put({"s": node({"k": 1})}, id=17))
    assert said["@"] == 17


def test_a_message_that_gun_does_not_know_reaches_the_others_with_all_its_fields(peer: GunPeer) -> None:
    peer.connect(2)
    peer.connect(7, Role.OUTBOUND)
    peer.said(2)
    assert answer(peer, '{"#":"x1","yo":{"deep":[1]},"ok":1,"##":5,"><":"somebody"}') == []
    assert peer.said(2) == [{"#": "x1", "yo": {"deep": [1]}, "ok": 1}]
    assert peer.said(7) == [{"#": "x1", "yo": {"deep": [1]}, "ok": 1, "><": "somebody"}]
    (refused,) = answer(peer, json.dumps({"#": "x2", "yo": "x" * 5000}))
    assert refused["err"].startswith("limit.ephemeral")
    for unknown in ('{"dam":"custom","#":"x3","z":1}', '{"dam":"rtc","#":"x4","ok":{}}'):
        assert answer(peer, unknown) == []
    assert peer.said(2) == []


def test_half_a_surrogate_pair_goes_in_and_out_unharmed(peer: GunPeer) -> None:
    text = '{"#":"m1","put":{"s":{"_":{"#":"s",">":{"k":1}},"k":"a\\ud800b\\ud83d\\ude00"}}}'
    (said,) = answer(peer, text)
    assert said["ok"]
    said = answer(peer, '{"#":"g","get":{"#":"s"}}')
    assert [m["put"]["s"]["k"] for m in said if "put" in m] == ["a\ud800b\U0001f600"]


@pytest.mark.vectors
def test_what_a_stock_relay_stores_air_stores_and_what_it_should_not_air_refuses() -> None:
    vectors = load("gun/firewall.json")
    for case in vectors["cases"]:
        if case["group"] not in ("plain", "shape", "state", "key", "soul"):
            continue  # signatures are checked elsewhere
        peer = GunPeer(wall=float(vectors["relay_clock_at_test"]))
        peer.connect(1)
        peer.said(1)
        (said,) = answer(peer, json.dumps({"#": "m1", "put": case["put"]}))
        states = [s for n in case["put"].values() if n for s in (n["_"].get(">") or {}).values()]
        honest = all(type(state) in (int, float) for state in states)
        fields = sum(len(n) - 1 for n in case["put"].values() if n)
        if case["stored_all"] and honest:
            assert said.get("ok"), case
            assert len(peer.stored()) == fields
        elif fields:
            assert said["err"], case
            assert peer.stored() == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["#", ">", "_", "*"]), inner, max_size=4)
    ),
    max_leaves=12,
)
odd_messages = st.dictionaries(
    st.sampled_from(["#", "@", "put", "get", "dam", "ok", "err", "##", "><", "%", "x", "pid"]),
    json_values,
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(odd_messages, max_size=3))
def test_whatever_json_comes_is_read_or_refused_and_never_breaks_anything(
    batch: list[dict[str, Any]],
) -> None:
    peer = GunPeer()
    peer.connect(1)
    peer.frame(1, json.dumps(batch))
    peer.settle()
    peer.said(1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_read_or_refused(data: bytes) -> None:
    limits = GunLimits()
    try:
        for raw in parse_frame(data, limits):
            read_message(raw, limits, "x")
    except Violation as error:
        assert error.code.startswith(("gun.", "limit."))
