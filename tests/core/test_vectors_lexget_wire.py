"""Lexical questions of the recorded relay, asked over the wire: from disk, and from a node in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from air.model import Cell, canonical
from tests.peers import GunPeer
from tests.vector_files import load

pytestmark = pytest.mark.vectors


@pytest.mark.parametrize("warm", [False, True], ids=["from disk", "from memory"])
def test_a_lexical_get_is_answered_as_the_recorded_relay_answered_it(warm: bool) -> None:
    vectors = load("gun/lexget.json")
    state, data = vectors["state"], vectors["data"]
    cells = []
    for soul, fields in data.items():
        for key, raw in fields.items():
            value = canonical(raw)
            assert value is not None
            cells.append(Cell(soul, key, value[0], state))
    for number, case in enumerate(vectors["cases"]):
        peer = GunPeer(wall=float(state + 1))
        peer.disk.write(cells)
        peer.connect(1)
        if warm:
            for soul in data:
                peer.frame(1, json.dumps({"#": f"warm {soul}", "get": {"#": soul}}))
            peer.settle()
        peer.said(1)
        peer.frame(1, json.dumps({"#": f"q{number}", "get": case["get"]}))
        peer.settle()
        answers = [m for m in peer.said(1) if m.get("@") == f"q{number}"]
        assert answers, case
        got: dict[str, dict[str, Any]] = {}
        for answer in answers:
            for soul, node in answer.get("put", {}).items():
                assert set(node["_"][">"].values()) == {state}
                got.setdefault(soul, {}).update({key: raw for key, raw in node.items() if key != "_"})
        assert (got or None) == case["answer"], case
