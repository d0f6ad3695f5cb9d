"""GUN frames to messages. (core)

A frame is a JSON object or an array of them (gun-wire 1.3). Everything a peer sends is checked here, before
anything is stored or passed on: types, states, names, counts and lengths, each with a code of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeAlias

import orjson

from air.base.errors import LimitReached, Violation
from air.model.cell import Cell, Key, Soul, State
from air.model.lex import ALL, parse_lex
from air.model.message import Ack, Answer, Ephemeral, Get, Id, Put, SoulRange
from air.model.value import SAFE_INTEGER, Link, Value, canonical, canonical_number
from air.sync.gun.limits import FORBIDDEN, GunLimits

__all__ = ["Control", "Incoming", "parse_frame", "read_message"]

_HOP_FIELDS: Final = frozenset(["#", "><", "##", "%", "FOO", "_"])
"""Fields that a message has only between two peers."""

_KNOWN_FIELDS: Final = frozenset(["#", "@", "get", "put", "ok", "err", "dam", "##", "><", "%", "FOO", "_"])


@dataclass(slots=True)
class Control:
    """A ``dam`` message of the mesh itself."""

    kind: str
    id: Id | None = None
    re: Id | None = None
    peer: str = ""
    error: str = ""


Incoming: TypeAlias = Put | Get | Answer | Ack | Ephemeral | Control


def parse_frame(data: bytes, limits: GunLimits) -> list[dict[str, Any]]:
    """The messages of one frame, as parsed JSON; none for the empty frames that gun sends as keep-alive.

    Raises Violation: ``gun.bad-frame`` for what is neither object nor array, ``gun.bad-json``,
    ``gun.bad-message`` for an element that is no object, ``limit.messages``.
    """
    if data == b"[]" or not data:
        return []
    if data[0] not in b"{[":
        raise Violation("a frame is a JSON object or an array of them", code="gun.bad-frame")
    raw = _loads(data)
    if type(raw) is dict:
        return [raw] if raw else []
    if len(raw) > limits.messages_max:
        raise LimitReached("too many messages in one frame", code="limit.messages")
    out = []
    for item in raw:
        if type(item) is str:
            # gun also takes an object that was made text before it went into the array.
            item = _loads(item.encode("utf-8", "surrogatepass"))
        if type(item) is not dict:
            raise Violation("an element of a frame is not an object", code="gun.bad-message")
        if item:
            out.append(item)
    return out


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # JavaScript writes half a surrogate pair as an escape, which orjson refuses. Only then is it
        # worth the slow reader.
        if b"\\ud" not in data and b"\\uD" not in data:
            raise Violation(f"not JSON: {error.msg}", code="gun.bad-json") from None
    try:
        return json.loads(
            data.decode(), parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
        )
    except (ValueError, RecursionError):
        raise Violation("not JSON", code="gun.bad-json") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number


def _whole(text: str) -> int | float:
    # As the fast reader has it. Longer integers can be chosen to share one hash in Python, and a peer that
    # sends 20,000 such ids would keep a dictionary busy for seconds.
    return int(text) if len(text) < 20 else _finite(text)


def read_message(raw: dict[str, Any], limits: GunLimits, invent: str = "") -> Incoming | None:
    """What a message means; None for one that means nothing (gun ignores it, and so do we).

    ``invent`` is the id of a message that came without. Raises Violation; see :func:`message_id` for
    whom to tell.
    """
    id = raw.get("#", invent)
    if type(id) is not str and (type(id) not in (int, float)):
        raise Violation("an id is text or a number", code="gun.bad-id")
    if type(id) is str and not 0 < len(id) <= limits.id_chars_max:
        raise Violation(f"an id has 1 to {limits.id_chars_max} characters", code="gun.bad-id")
    if "dam" in raw:
        return _read_control(raw, id)
    re = raw.get("@")
    if "put" in raw:
        cells = _read_graph(raw["put"], limits)
        if re is not None:
            nodes: dict[Soul, dict[Key, tuple[Value, State]]] = {}
            for soul, key, value, state in cells:
                nodes.setdefault(soul, {})[key] = (value, state)
            return Answer(id, _read_id(re, limits), list(nodes.items()), "%" in raw)
        return Put(id, cells, _read_route(raw), _read_extra(raw, limits))
    if "get" in raw:
        return _read_get(raw, id, limits)
    if re is None:
        return _read_ephemeral(raw, id, limits)
    error = raw.get("err")
    if error is not None or "ok" in raw:
        return Ack(id, _read_id(re, limits), None if error is None else _error_text(error))
    return Answer(id, _read_id(re, limits))


def _read_id(raw: object, limits: GunLimits) -> Id:
    if type(raw) is str and 0 < len(raw) <= limits.id_chars_max:
        return raw
    if type(raw) is int or type(raw) is float:
        return raw
    raise Violation("an id is text or a number", code="gun.bad-id")


def _read_control(raw: dict[str, Any], id: Id) -> Control:
    kind, peer, error, re = raw["dam"], raw.get("pid"), raw.get("err"), raw.get("@")
    return Control(
        kind=kind if type(kind) is str else "",
        id=id,
        re=re if type(re) in (str, int, float) else None,
        peer=peer[:64] if type(peer) is str else "",
        error=_error_text(error) if error is not None else "",
    )


def _error_text(raw: object) -> str:
    # Never the text of a list or an object: lists may be nested more deeply than Python can print.
    return str(raw)[:500] if type(raw) in (str, int, float, bool) else "an error that is no text"


def _read_route(raw: dict[str, Any]) -> tuple[str, ...]:
    route = raw.get("><")
    # gun looks at the first 99 characters only, about nine names (gun-wire 1.7).
    return tuple(route[:99].split(",")) if type(route) is str and route else ()


def _read_ephemeral(raw: dict[str, Any], id: Id, limits: GunLimits) -> Ephemeral | None:
    """A message of nothing that GUN knows: a stock relay passes it on to everybody, fields and all."""
    fields = {name: raw[name] for name in raw if name not in _HOP_FIELDS}
    if not fields:
        return None
    if len(json.dumps(fields)) > limits.extra_bytes_max:
        raise LimitReached(
            f"a message that nobody keeps has at most {limits.extra_bytes_max} bytes", code="limit.ephemeral"
        )
    return Ephemeral(id, fields, _read_route(raw))


def _read_extra(raw: dict[str, Any], limits: GunLimits) -> dict[str, object] | None:
    for name in raw:
        if name not in _KNOWN_FIELDS:
            extra = {name: raw[name] for name in raw if name not in _KNOWN_FIELDS}
            try:
                return extra if len(orjson.dumps(extra)) <= limits.extra_bytes_max else None
            except (orjson.JSONEncodeError, UnicodeEncodeError):
                # Nested too deeply to be written again, or half a surrogate pair.
                return None
    return None


def _read_graph(graph: object, limits: GunLimits) -> list[Cell]:
    """The cells of a put, all of them checked. Source: gun-wire section 3, and its table of bad puts."""
    if type(graph) is not dict:
        raise Violation("a put is an object of nodes", code="gun.bad-put")
    cells: list[Cell] = []
    for soul, node in graph.items():
        _check_soul(soul, limits)
        if type(node) is not dict:
            raise Violation("a node is an object", code="gun.bad-node")
        meta = node.get("_")
        if type(meta) is not dict or meta.get("#") != soul:
            raise Violation("a node names its soul in _", code="gun.bad-soul")
        states = meta.get(">")
        if type(states) is not dict:
            if states is None and len(node) == 1:
                continue  # gun writes {} this way: a node without fields
            raise Violation("a node has its states in _", code="gun.no-state")
        for key, raw in node.items():
            if key == "_":
                continue
            if not key or len(key) > limits.key_chars_max or key == "__proto__":
                raise _bad_key(key, limits)
            state = states.get(key)
            if type(state) is float:
                state = canonical_number(state)
            elif type(state) is not int:
                code = "gun.no-state" if key not in states else "gun.bad-state"
                raise Violation("the state of a field is a number", code=code)
            elif not -SAFE_INTEGER <= state <= SAFE_INTEGER:
                state = canonical_number(state)
            if state is None:
                raise Violation("the state of a field is a finite number", code="gun.bad-state")
            if type(raw) is str:
                if len(raw) > limits.value_chars_max:
                    raise LimitReached(
                        f"a value has at most {limits.value_chars_max} characters", code="limit.value"
                    )
                cells.append(Cell(soul, key, raw, state))
                continue
            value = canonical(raw)
            if value is None:
                raise Violation(
                    "a value is null, a boolean, a finite number, text or a link", code="gun.bad-value"
                )
            if type(value[0]) is Link:
                _check_soul(value[0].soul, limits)
            cells.append(Cell(soul, key, value[0], state))
    if len(cells) > limits.cells_max:
        raise LimitReached(f"a put has at most {limits.cells_max} fields", code="limit.cells")
    return cells


def _check_soul(soul: str, limits: GunLimits) -> None:
    if not soul:
        raise Violation("a soul is not empty", code="gun.empty-soul")
    if len(soul) > limits.soul_chars_max:
        raise LimitReached(f"a soul has at most {limits.soul_chars_max} characters", code="limit.soul")
    if soul in FORBIDDEN:
        raise Violation("this soul is a property of every JavaScript object", code="gun.forbidden-name")


def _bad_key(key: str, limits: GunLimits) -> Violation:
    if not key:
        return Violation("a key is not empty", code="gun.empty-key")
    if key == "__proto__":
        return Violation("this key is a property of every JavaScript object", code="gun.forbidden-name")
    return LimitReached(f"a key has at most {limits.key_chars_max} characters", code="limit.key")


def _read_get(raw: dict[str, Any], id: Id, limits: GunLimits) -> Get:
    get = raw["get"]
    if type(get) is not dict:
        raise Violation("a get is an object", code="gun.bad-get")
    known = raw.get("##")
    known = str(known) if type(known) in (str, int) and len(str(known)) <= 64 else None
    soul, part, budget = get.get("#"), get.get("."), get.get("%")
    reverse = bool(get.get("-"))
    if type(soul) is dict:
        prefix, exact = soul.get("*"), soul.get("=")
        if type(prefix) is str:
            if len(prefix) > limits.soul_chars_max:
                raise LimitReached("a soul prefix is too long", code="limit.soul")
            lex = parse_lex({"*": prefix}, budget)
            return Get(id, SoulRange(prefix, lex.budget or 1, reverse or bool(soul.get("-"))), ALL, known)
        if type(exact) is not str:
            # Bounds on souls give damaged answers in gun (F9), so nobody can depend on them.
            raise Violation("a soul is text, or an object with = or *", code="gun.bad-lex")
        soul = exact
    if type(soul) is not str:
        raise Violation("a get names a soul", code="gun.bad-get")
    _check_soul(soul, limits)
    # A key "" asks for the whole node, as no key does.
    lex = ALL if part is None else parse_lex(part, budget, reverse=reverse)
    if lex.exact == "":
        lex = ALL
    for text in (lex.exact, lex.prefix, lex.start, lex.end):
        if text is not None and len(text) > limits.key_chars_max:
            raise LimitReached("a key is too long", code="limit.key")
    return Get(id, soul, lex, known)
