"""Bytes to frames of the native wire, all of it checked. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Final

from google.protobuf.message import DecodeError

from air.base.errors import LimitReached, Violation
from air.codec.zstd import Expander
from air.model.cell import Key, Soul
from air.model.lex import BUDGET_MAX, Lex
from air.model.message import Get, Id, SoulRange
from air.pb import graph_pb2 as pb
from air.sync.gun.limits import FORBIDDEN
from air.sync.native.columns import read_columns, read_text
from air.sync.native.frames import CREDIT_MAX, Acked, Batch, Bye, Credit, Frame, Hello, Part, Wish, Wishes
from air.sync.native.limits import NativeLimits
from air.sync.native.scan import check_large

__all__ = ["decode"]

_BYTES_MIN: Final = 1024 * 1024
"""Everybody takes frames of this size: a soul, a key and a link of the greatest length fit into one."""


def decode(data: bytes, expander: Expander, limits: NativeLimits) -> Frame:
    """What a frame means.

    Raises Violation, always fatal: ``native.bad-frame``, ``native.bad-id``, ``native.bad-lex``,
    ``native.bad-hello``, ``limit.*``, and the codes of ``columns`` and of :class:`Expander`.
    """
    frame = _parse(data, limits)
    kind = frame.WhichOneof("body")
    if kind == "zipped":
        data = expander.expand(frame.zipped.data, frame.zipped.size, limits.bytes_max)
        frame = _parse(data, limits)
        kind = frame.WhichOneof("body")
        if kind != "put" and kind != "answer":
            raise _bad("frame", "only a put or an answer is compressed")
    if kind == "put":
        put = frame.put
        cells, marks = read_columns(put.cells, limits)
        if not cells:
            raise _bad("columns", "a put without cells")
        return Batch(put.batch, cells, marks, put.floor, len(data))
    if kind == "answer":
        return _part(frame.answer, limits, len(data))
    if kind == "ack":
        if not 0 < len(frame.ack.batches) <= limits.acks_max:
            raise LimitReached(f"an ack names 1 to {limits.acks_max} batches", code="limit.acks", fatal=True)
        error = _said(frame.ack.error, limits) if frame.ack.error else None
        return Acked(tuple(frame.ack.batches), error)
    if kind == "get":
        return _get(frame.get, limits)
    if kind == "subscribe":
        return _wishes(frame.subscribe.wishes, limits, ends=False)
    if kind == "unsubscribe":
        return _wishes(frame.unsubscribe.wishes, limits, ends=True)
    if kind == "credit":
        credit = frame.credit
        if max(credit.cells, credit.bytes) > CREDIT_MAX:
            raise Violation("more credit than anybody has room for", code="native.credit", fatal=True)
        return Credit(credit.cells, credit.bytes)
    if kind == "bye":
        return Bye(_said(frame.bye.code, limits), _said(frame.bye.text, limits))
    if kind == "hello":
        return _hello(frame.hello, limits)
    raise _bad("frame", "a frame of no known kind")


def _bad(what: str, text: str) -> Violation:
    return Violation(text, code=f"native.bad-{what}", fatal=True)


def _parse(data: bytes, limits: NativeLimits) -> pb.Frame:
    if len(data) > limits.columns_bytes_max:
        check_large(data, limits)
    try:
        return pb.Frame.FromString(data)
    except DecodeError:
        raise _bad("frame", "not a frame") from None


def _said(data: bytes, limits: NativeLimits) -> str:
    """Something for people, from a peer."""
    return data[: 4 * limits.error_chars_max].decode(errors="replace")[: limits.error_chars_max]


def _id(raw: pb.Id, limits: NativeLimits) -> Id:
    kind = raw.WhichOneof("kind")
    if kind == "text":
        text = read_text(raw.text)
        if 0 < len(text) <= limits.id_chars_max:
            return text
    elif kind == "whole":
        return raw.whole
    elif kind == "number" and isfinite(raw.number):
        return raw.number
    raise _bad("id", f"an id is a number, or text of 1 to {limits.id_chars_max} characters")


def _part(raw: pb.Answer, limits: NativeLimits, size: int) -> Part:
    cells, marks = read_columns(raw.cells, limits)
    if marks is not None:
        raise _bad("mark", "an answer has no marks")
    return Part(_id(raw.re, limits), cells, raw.more, _said(raw.error, limits) if raw.error else None, size)


def _soul(data: bytes, limits: NativeLimits, *, empty: bool = False) -> Soul:
    soul = read_text(data)
    if not soul and not empty:
        raise Violation("a soul is not empty", code="native.empty-soul", fatal=True)
    if len(soul) > limits.soul_chars_max:
        raise LimitReached(
            f"a soul has at most {limits.soul_chars_max} characters", code="limit.soul", fatal=True
        )
    if soul in FORBIDDEN and not empty:
        raise Violation(
            "this soul means something else to JavaScript peers", code="native.forbidden-name", fatal=True
        )
    return soul


def _key(data: bytes, limits: NativeLimits) -> Key:
    key = read_text(data)
    if len(key) > limits.key_chars_max:
        raise LimitReached(
            f"a key has at most {limits.key_chars_max} characters", code="limit.key", fatal=True
        )
    return key


def _get(raw: pb.Get, limits: NativeLimits) -> Get:
    id, kind, said = _id(raw.id, limits), raw.WhichOneof("what"), raw.lex
    budget = said.budget if said.HasField("budget") else None
    if budget is not None and not 0 < budget <= BUDGET_MAX:
        raise _bad("lex", f"a budget is 1 to {BUDGET_MAX}")
    if kind == "prefix":
        return Get(id, SoulRange(_soul(raw.prefix, limits, empty=True), budget or 1, said.reverse))
    if kind != "soul":
        raise _bad("lex", "a question names a soul or a prefix")
    soul = _soul(raw.soul, limits)
    if not raw.HasField("lex"):
        return Get(id, soul)
    exact = _key(said.exact, limits) if said.HasField("exact") else None
    if exact == "":
        raise Violation("a key is not empty", code="native.empty-key", fatal=True)
    lex = Lex(
        exact=exact,
        prefix=_key(said.prefix, limits),
        start=_key(said.start, limits) if said.HasField("start") else None,
        end=_key(said.end, limits) if said.HasField("end") else None,
        reverse=said.reverse,
        budget=budget,
    )
    return Get(id, soul, lex)


def _wishes(raw: Sequence[pb.Wish], limits: NativeLimits, *, ends: bool) -> Wishes:
    if not 0 < len(raw) <= limits.wishes_max:
        raise LimitReached(f"1 to {limits.wishes_max} wishes in a frame", code="limit.wishes", fatal=True)
    return tuple([_wish(one, limits, ends) for one in raw])


def _wish(raw: pb.Wish, limits: NativeLimits, ends: bool) -> Wish:
    kind, key = raw.WhichOneof("what"), _key(raw.key, limits) if raw.HasField("key") else None
    if key == "":
        raise Violation("a key is not empty", code="native.empty-key", fatal=True)
    if kind == "prefix" and key is None:
        return Wish(_soul(raw.prefix, limits, empty=True), prefix=True, ends=ends)
    if kind == "soul":
        return Wish(_soul(raw.soul, limits), key, ends=ends)
    raise _bad("wish", "a wish names a soul, a field of it, or a prefix of souls")


def _hello(raw: pb.Hello, limits: NativeLimits) -> Hello:
    peer = read_text(raw.peer)
    if not 0 < len(peer) <= limits.id_chars_max:
        raise _bad("id", "a hello names a peer")
    if raw.cells_max < 1 or raw.bytes_max < _BYTES_MIN or not raw.silent_ms:
        raise _bad("hello", "nobody can talk to a peer with such limits")
    if not 0 < raw.credit_cells <= CREDIT_MAX or not 0 < raw.credit_bytes <= CREDIT_MAX:
        raise _bad("hello", "nobody can talk to a peer that gives no credit")
    return Hello(
        raw.version,
        peer,
        raw.everything,
        raw.cells_max,
        raw.bytes_max,
        raw.credit_cells,
        raw.credit_bytes,
        raw.silent_ms,
        _said(raw.agent, limits),
        raw.relays,
    )
