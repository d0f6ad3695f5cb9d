"""Messages to GUN frames. (core)"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson

from air.model.cell import Cell, Fields, Key, Soul, State
from air.model.lex import BUDGET_MAX, Lex
from air.model.message import Ack, Answer, Ephemeral, Get, Id, Put, SoulRange
from air.model.value import Link
from air.sync.gun.hash import graph_hash, integer_like, sorted_json, text_hash
from air.sync.gun.limits import RELAY_KILLERS, GunLimits
from air.sync.gun.reader import Control

__all__ = [
    "body_hash",
    "encode_ack",
    "encode_answer",
    "encode_control",
    "encode_ephemeral",
    "encode_get",
    "encode_put",
]

_HASHED_BYTES_MAX: Final = 64 * 1024
"""A larger answer carries no hash: it would cost more than it can save, and the field is optional."""


def encode_put(put: Put, route: str = "", *, for_relay: bool = False) -> bytes:
    """A put as one message. ``route`` is the ``><``; ``for_relay`` leaves out what stops a stock relay."""
    message: dict[str, Any] = {"#": put.id}
    if put.extra:
        message.update(put.extra)
    if route:
        message["><"] = route
    cells = put.cells
    if for_relay and any(cell.soul in RELAY_KILLERS for cell in cells):
        cells = [cell for cell in cells if cell.soul not in RELAY_KILLERS]
    message["put"] = _graph(cells)
    return _dumps(message)


def encode_get(get: Get) -> bytes:
    query: dict[str, Any] = {}
    if isinstance(get.soul, SoulRange):
        query["#"] = {"*": get.soul.prefix}
        query["%"] = get.soul.budget
        if get.soul.reverse:
            query["-"] = 1
    else:
        query["#"] = get.soul
        if get.lex.exact is not None:
            query["."] = get.lex.exact
        elif not get.lex.is_all or get.lex.reverse:
            query["."] = _lex(get.lex)
            if get.lex.budget is not None:
                query["%"] = min(get.lex.budget, BUDGET_MAX)
    message: dict[str, Any] = {"get": query, "#": get.id}
    if get.known is not None:
        # A hash is a number on this wire, and any token to whoever compares it.
        message["##"] = int(get.known) if get.known.lstrip("-").isdecimal() else get.known
    return _dumps(message)


def encode_ack(ack: Ack) -> bytes:
    if ack.error is None:
        return b'{"#":%b,"@":%b,"ok":true}' % (_dumps(ack.id), _dumps(ack.re))
    return _dumps({"#": ack.id, "@": ack.re, "err": ack.error})


def encode_ephemeral(message: Ephemeral, route: str = "") -> bytes:
    return _dumps({**message.fields, "#": message.id, **({"><": route} if route else {})})


def encode_control(control: Control) -> bytes:
    message: dict[str, Any] = {"#": control.id, "dam": control.kind}
    if control.peer:
        message["pid"] = control.peer
    if control.re is not None:
        message["@"] = control.re
    if control.error:
        message["err"] = control.error
    return _dumps(message)


def encode_answer(
    answer: Answer, limits: GunLimits, new_id: Callable[[], Id], body: bytes | None = None
) -> tuple[list[bytes], bytes | None]:
    """An answer as one or more messages, and what is worth remembering of it.

    That is the ``body`` of an answer in one part, ``"##":hash,"put":{…}``, to be handed in again as long as
    the node does not change. No message at all when the asker already has just this (gun-wire 1.8).
    Later parts get ids from ``new_id``.
    """
    if not answer.nodes:
        return [_dumps(_head(answer, answer.id, 1 if answer.more else None))], None
    if body is None:
        parts = list(_parts(answer.nodes, limits))
        if len(parts) > 1:
            ids = [answer.id] + [new_id() for _ in parts[1:]]
            follows = [*ids[1:], 1 if answer.more else None]
            return [
                _dumps(_head(answer, id, next_id) | {"put": graph})
                for id, next_id, graph in zip(ids, follows, parts, strict=True)
            ], None
        body = _encode_body(parts[0])
    if answer.known is not None and answer.known in (body_hash(body), _native_hash(answer)):
        return [], body
    more = b'"%":1,' if answer.more else b""
    return [b'{"#":%b,"@":%b,%b%b}' % (_dumps(answer.id), _dumps(answer.re), more, body)], body


def body_hash(body: bytes) -> str | None:
    """The hash that a remembered body begins with; None when it was too large for one."""
    return body[5 : body.index(b",")].decode() if body.startswith(b'"##":') else None


def _head(answer: Answer, id: Id, follows: Id | None) -> dict[str, Any]:
    """``%`` tells that parts follow: the id of the next one, or 1 when it has none yet (gun-wire 2.3)."""
    head: dict[str, Any] = {"#": id, "@": answer.re}
    if follows is not None:
        head["%"] = follows
    return head


def _encode_body(graph: Mapping[Soul, Any]) -> bytes:
    names = [name for soul, node in graph.items() for name in (soul, *node)]
    body = text = None
    # orjson sorts by code point, GUN by UTF-16 unit. They differ only beyond the surrogates.
    if all(name.isascii() or max(name) < "\ud800" for name in names) and not _odd_numbers(graph):
        with suppress(orjson.JSONEncodeError, UnicodeEncodeError):
            body = orjson.dumps(graph, default=_default, option=orjson.OPT_SORT_KEYS)
    if body is None:
        body, text = _dumps(graph), sorted_json(graph)
    if len(body) > _HASHED_BYTES_MAX:
        return b'"put":' + body
    hash = text_hash(text or body.decode())
    return b'"##":%d,"put":%b' % (hash, body)


def _odd_numbers(graph: Mapping[Soul, Any]) -> bool:
    """True when a number stands here that orjson spells in another way than JavaScript."""
    return any(
        type(value) is float and not 1e-4 <= abs(value) < 1e15
        for node in graph.values()
        for value in node.values()
    )


def _native_hash(answer: Answer) -> str:
    if not any(integer_like(key) for _, fields in answer.nodes for key in fields):
        return ""
    return str(graph_hash({soul: _node(soul, fields) for soul, fields in answer.nodes}, native=True))


def _parts(nodes: Sequence[tuple[Soul, Fields]], limits: GunLimits) -> Iterator[dict[Soul, dict[str, Any]]]:
    """Cut an answer into graphs of about ``part_bytes``, at least one field each."""
    graph: dict[Soul, dict[str, Any]] = {}
    size = count = 0
    for soul, fields in nodes:
        node: dict[str, Any] | None = None
        states: dict[Key, State] = {}
        for key, (value, state) in fields.items():
            length = 2 * len(key) + 32 + (len(value) if type(value) is str else 12)
            if count and (size + length > limits.part_bytes or count >= limits.part_fields):
                yield graph
                graph, node = {}, None
                size = count = 0
            if node is None:
                states = {}
                node = graph[soul] = {"_": {"#": soul, ">": states}}
                size += 2 * len(soul) + 20
            node[key] = value
            states[key] = state
            size += length
            count += 1
    if graph:
        yield graph


def _node(soul: Soul, fields: Fields) -> dict[str, Any]:
    node: dict[str, Any] = {key: value for key, (value, _) in fields.items()}
    node["_"] = {"#": soul, ">": {key: state for key, (_, state) in fields.items()}}
    return node


def _graph(cells: Sequence[Cell]) -> dict[Soul, dict[str, Any]]:
    graph: dict[Soul, dict[str, Any]] = {}
    for soul, key, value, state in cells:
        node = graph.get(soul)
        if node is None:
            node = graph[soul] = {"_": {"#": soul, ">": {}}}
        node[key] = value
        node["_"][">"][key] = state
    return graph


def _lex(lex: Lex) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    if lex.prefix or (lex.budget is not None and lex.start is None and lex.end is None):
        # An empty prefix means all keys within the budget; without one, all keys.
        raw["*"] = lex.prefix
    if lex.start is not None:
        raw[">"] = lex.start
    if lex.end is not None:
        raw["<"] = lex.end
    if lex.reverse:
        raw["-"] = 1
    return raw


def _default(value: object) -> object:
    if type(value) is Link:
        return {"#": value.soul}
    raise TypeError(type(value))


def _dumps(raw: object) -> bytes:
    try:
        return orjson.dumps(raw, default=_default)
    except (orjson.JSONEncodeError, UnicodeEncodeError):
        # Half a surrogate pair somewhere: written as an escape, as JavaScript does it.
        return json.dumps(raw, default=_default, separators=(",", ":")).encode()
