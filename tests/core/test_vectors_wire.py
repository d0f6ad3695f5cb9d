"""Recorded conversations of real gun.js processes, replayed against Air in both roles.

As a relay, Air hears what the recorded clients said, and must tell them everything the recorded relay
told them. As a client, Air hears what the recorded relay said, and must end up with its data.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from air.base.errors import Violation
from air.graph.mesh import Role
from air.model import Ack, Answer, Cell, Get, Put
from air.model.ham import merge
from air.sync.gun.limits import GunLimits
from air.sync.gun.reader import Control, parse_frame, read_message
from air.sync.gun.writer import body_hash, encode_ack, encode_answer, encode_control, encode_get, encode_put
from tests.peers import GunPeer
from tests.vector_files import load

pytestmark = pytest.mark.vectors

LIMITS = GunLimits()
SESSIONS = load("gun/wire.json")["cases"]
KEPT = ("#", "@", "put", "dam", "pid", "err")
"""Fields that go through Air to the letter; the others belong to one hop, or mean the same in other words."""


def names(session: dict[str, Any]) -> str:
    return str(session["session"])


def messages(frame: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        return parse_frame(frame["raw"].encode("utf-8", "surrogatepass"), LIMITS)
    except Violation:
        return []


def read(raw: dict[str, Any]) -> Any:
    try:
        return read_message(raw, LIMITS, "invented")
    except Violation:
        return None


def cells_of(raw: dict[str, Any]) -> list[Cell]:
    message = read(raw)
    if isinstance(message, Put):
        return list(message.cells)
    return message.cells() if isinstance(message, Answer) else []


def ends(frame: dict[str, Any]) -> tuple[str, str]:
    sender, receiver = frame["dir"].split("->")
    return sender, receiver


def talks(session: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for frame in session["frames"]:
        for raw in messages(frame):
            yield *ends(frame), raw


@pytest.mark.parametrize("session", SESSIONS, ids=names)
def test_what_is_read_is_written_again_alike(session: dict[str, Any]) -> None:
    for _, _, raw in talks(session):
        message = read(raw)
        match message:
            case Put():
                out = [encode_put(message, ",".join(message.seen_by))]
            case Get():
                out = [encode_get(message)]
            case Ack():
                out = [encode_ack(message)]
            case Control():
                out = [encode_control(message)]
            case Answer():
                out, _ = encode_answer(message, GunLimits(part_bytes=10**9, part_fields=10**9), str)
            case _:
                continue
        again = json.loads(out[0])
        assert read(again) == message
        assert {name: again.get(name) for name in KEPT} == {name: raw.get(name) for name in KEPT}


@pytest.mark.parametrize("session", SESSIONS, ids=names)
def test_answers_carry_the_hash_that_the_relay_gave_them(session: dict[str, Any]) -> None:
    for sender, _, raw in talks(session):
        message = read(raw)
        if isinstance(message, Answer) and "##" in raw and sender in ("R", "Q"):
            _, body = encode_answer(message, GunLimits(part_bytes=10**9, part_fields=10**9), str)
            assert body is not None
            assert body_hash(body) == str(raw["##"])
            # A Node relay sorts its keys, so even the bytes are the same.
            text = json.dumps(raw["put"], ensure_ascii=False, separators=(",", ":"))
            assert body.endswith(b'"put":' + text.encode("utf-8", "surrogatepass"))


def known_before(session: dict[str, Any]) -> list[Cell]:
    """What the recorded relay told without having heard it in this session."""
    heard: set[tuple[str, str, float]] = set()
    before = []
    for sender, receiver, raw in talks(session):
        for cell in cells_of(raw):
            if receiver == "R":
                heard.add((cell.soul, cell.key, cell.state))
            elif sender == "R" and (cell.soul, cell.key, cell.state) not in heard:
                before.append(cell)
    return before


def as_relay(session: dict[str, Any]) -> tuple[GunPeer, dict[str, list[dict[str, Any]]]]:
    """Replay what was said to the relay; returns what Air said, by name of the other end."""
    peer = GunPeer()
    peer.disk.write(known_before(session))
    links: dict[str, int] = {}
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for frame in session["frames"]:
        sender, receiver = ends(frame)
        if receiver != "R":
            continue
        if sender not in links:
            links[sender] = len(links) + 1
            peer.connect(links[sender])
        newest = max((cell.state for raw in messages(frame) for cell in cells_of(raw)), default=0)
        if newest > peer.clock.now().wall:
            peer.clock.jump((newest - peer.clock.now().wall) / 1000 + 0.001)
        peer.frame(links[sender], frame["raw"])
        peer.settle()
        for name, link in links.items():
            said[name] += peer.said(link)
    return peer, said


WITH_RELAY = [session for session in SESSIONS if "R" in session["participants"]]


@pytest.mark.parametrize("session", WITH_RELAY, ids=names)
def test_as_a_relay_air_tells_clients_what_the_recorded_relay_told_them(session: dict[str, Any]) -> None:
    _, said = as_relay(session)
    told = {
        name: {(c.soul, c.key): c for c in merge([c for raw in raws for c in cells_of(raw)]).values()}
        for name, raws in said.items()
    }
    own = defaultdict(list)
    asked = defaultdict(set)
    for sender, receiver, raw in talks(session):
        if receiver == "R":
            own[sender] += cells_of(raw)
            message = read(raw)
            if isinstance(message, Get):
                asked[sender].add((message.soul, message.key))
        if sender != "R" or receiver not in said:
            continue
        for cell in cells_of(raw):
            # Two things Air does not send: an echo of the client's own write, and, where the recorded
            # relay floods, what the client has not asked for.
            wanted = asked[receiver] & {(cell.soul, None), (cell.soul, cell.key)}
            if cell in own[receiver] or ("@" not in raw and not wanted):
                continue
            heard = told[receiver].get((cell.soul, cell.key))
            assert heard is not None, (receiver, cell)
            assert heard.state >= cell.state


@pytest.mark.parametrize("session", WITH_RELAY, ids=names)
def test_as_a_relay_air_answers_every_question_with_the_recorded_answer(session: dict[str, Any]) -> None:
    _, said = as_relay(session)
    for asker, raws in said.items():
        answers: dict[Any, list[Cell]] = defaultdict(list)
        for raw in raws:
            if "@" in raw:
                answers[raw["@"]] += cells_of(raw)
        questions = [raw for sender, receiver, raw in talks(session) if (sender, receiver) == (asker, "R")]
        for question in questions:
            if "get" not in question and "put" not in question:
                continue
            assert question["#"] in answers or "##" in question, question
            recorded = [
                raw
                for sender, receiver, raw in talks(session)
                if (sender, receiver) == ("R", asker) and raw.get("@") == question["#"]
            ]
            if "put" in question or not recorded:
                continue
            expected = {(c.soul, c.key): c for raw in recorded for c in cells_of(raw)}
            got = {(c.soul, c.key): c for c in answers[question["#"]]}
            assert got == expected, question


@pytest.mark.parametrize("session", WITH_RELAY, ids=names)
def test_as_a_relay_air_acknowledges_what_the_recorded_relay_acknowledged(session: dict[str, Any]) -> None:
    _, said = as_relay(session)
    for sender, receiver, raw in talks(session):
        if sender == "R" and raw.get("ok") and "@" in raw and receiver in said:
            answers = [mine for mine in said[receiver] if mine.get("@") == raw["@"]]
            assert answers, raw
            assert all("err" not in mine for mine in answers), answers


@pytest.mark.parametrize("session", SESSIONS, ids=names)
def test_as_a_client_air_keeps_what_a_peer_told(session: dict[str, Any]) -> None:
    for server in ("R", "S"):
        for client in session["participants"]:
            told = [frame for frame in session["frames"] if ends(frame) == (server, client)]
            if not told:
                continue
            peer = GunPeer()
            peer.connect(1, Role.OUTBOUND)
            cells, asked, greeted = [], [], []
            for frame in told:
                cells += [cell for raw in messages(frame) for cell in cells_of(raw)]
                newest = max((cell.state for cell in cells), default=0)
                if newest > peer.clock.now().wall:
                    peer.clock.jump((newest - peer.clock.now().wall) / 1000 + 0.001)
                peer.frame(1, frame["raw"])
                peer.settle()
                # With ## the asker allows silence when we have just that.
                asked += [raw["#"] for raw in messages(frame) if "get" in raw and "##" not in raw]
                greeted += [raw["#"] for raw in messages(frame) if raw.get("dam") == "?" and "@" not in raw]
            kept = {key: (cell.value, cell.state) for key, cell in merge(cells).items()}
            assert peer.stored() == kept
            said = peer.said(1)
            assert [raw["@"] for raw in said if raw.get("dam") == "?"] == greeted
            assert {raw.get("@") for raw in said} >= set(asked)
