"""Cells by columns, and back. (core)

What is received is checked column by column before anything is built from it: runs must add up to the number
of cells, numbers must stay inside their tables, and every name, state and value follows the rules that the
GUN wire has for them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby, islice, repeat
from typing import Any, Final

from air.base.errors import LimitReached, Violation
from air.model.cell import Cell, State
from air.model.mark import MARK_DOTS_MAX, Mark
from air.model.value import SAFE_INTEGER, Link, Value, canonical_number
from air.pb.graph_pb2 import Cells
from air.sync.gun.limits import FORBIDDEN
from air.sync.native.limits import NativeLimits

__all__ = ["Columns", "fill", "read_columns", "read_text", "text_bytes"]

Columns = tuple[list[Cell], list[Mark] | None]
"""Cells, and for each its mark; None when they came without."""

_NULL, _FALSE, _TRUE, _WHOLE, _DOUBLE, _TEXT, _LINK = range(7)
_KINDS: Final = {type(None): _NULL, bool: _FALSE, int: _WHOLE, float: _DOUBLE, str: _TEXT, Link: _LINK}
_TURN: Final = 1 << 64
_SEQUENCE_MAX: Final = 2**63 - 1


def text_bytes(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which JavaScript allows, as the three bytes it would have."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _paired(text).encode("utf-8", "surrogatepass")


def read_text(data: bytes) -> str:
    """The text of :func:`text_bytes`. Raises Violation ``native.bad-text`` for anything else."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        try:
            text = data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise _bad("text", "not UTF-8") from None
        # Two halves side by side are one character with another spelling: replicas would not compare equal.
        if _paired(text) != text:
            raise _bad("text", "a surrogate pair in two parts") from None
        return text


def _paired(text: str) -> str:
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


# -- writing -------------------------------------------------------------------


def fill(out: Cells, cells: Sequence[Cell], marks: Sequence[Mark] | None = None) -> None:
    """Write ``cells``, at least one, into an empty message. ``marks``: one for each, or None."""
    souls, keys, values, states = zip(*cells, strict=True)
    for soul, run in groupby(souls):
        out.souls.append(text_bytes(soul))
        out.soul_runs.append(len(list(run)))
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    out.keys.extend([text_bytes(key) for key in number])
    out.key_of.extend(map(number.__getitem__, keys))
    _fill_states(out, states)
    _fill_values(out, values)
    if marks is not None:
        _fill_marks(out, marks)


def _fill_states(out: Cells, states: Sequence[State]) -> None:
    runs = [(state, len(list(run))) for state, run in groupby(states)]
    count = len(runs)
    bits = struct.unpack(f"<{count}q", struct.pack(f"<{count}d", *[state for state, _ in runs]))
    differences = [here - before for before, here in zip((0, *bits), bits, strict=False)]
    try:
        out.states.extend(differences)
    except ValueError:
        # From one end of the doubles to the other: the difference is taken modulo 2**64.
        del out.states[:]
        out.states.extend([_wrapped(one) for one in differences])
    out.state_runs.extend([run for _, run in runs])


def _wrapped(number: int) -> int:
    return (number + _TURN // 2) % _TURN - _TURN // 2


def _fill_values(out: Cells, values: Sequence[Value]) -> None:
    kinds = bytearray(map(_KINDS.__getitem__, map(type, values)))
    present = set(kinds)
    if _FALSE in present:
        for index, value in enumerate(values):
            if value is True:
                kinds[index] = _TRUE
    out.kinds = bytes(kinds)
    if _TEXT in present:
        out.texts.extend([text_bytes(value) for value in values if type(value) is str])
    if _WHOLE in present:
        out.wholes.extend([value for value in values if type(value) is int])
    if _DOUBLE in present:
        out.doubles.extend([value for value in values if type(value) is float])
    if _LINK in present:
        out.links.extend([text_bytes(value.soul) for value in values if type(value) is Link])


def _fill_marks(out: Cells, marks: Sequence[Mark]) -> None:
    number: dict[Mark, int] = {}
    writers: dict[str, int] = {}
    for mark, run in groupby(marks):
        index = number.setdefault(mark, len(number))
        if index == len(out.mark_dots):
            out.mark_dots.append(len(mark))
            for writer, sequence in mark:
                out.dot_writers.append(writers.setdefault(writer, len(writers)))
                out.dot_sequences.append(sequence)
        out.marks.append(index)
        out.mark_runs.append(len(list(run)))
    out.writers.extend(map(text_bytes, writers))


# -- reading -------------------------------------------------------------------


def read_columns(raw: Cells, limits: NativeLimits) -> Columns:
    """The cells of a message, all of them checked.

    Raises Violation: ``native.bad-columns`` when columns do not fit together, ``native.bad-text``,
    ``native.bad-state``, ``native.bad-number``, ``native.bad-kind``, ``native.bad-mark``,
    ``native.empty-soul``, ``native.empty-key``, ``native.forbidden-name``; LimitReached ``limit.cells``,
    ``limit.soul``, ``limit.key``, ``limit.value``.
    """
    kinds = raw.kinds
    count = len(kinds)
    if count > limits.cells_max:
        raise LimitReached(f"a frame has at most {limits.cells_max} cells", code="limit.cells", fatal=True)
    souls = _names(raw.souls, limits.soul_chars_max, count, "soul")
    keys = _names(raw.keys, limits.key_chars_max, count, "key")
    # Lists, here and below: protobuf makes a number anew whenever somebody looks at it.
    key_of = list(raw.key_of)
    if len(key_of) != count or (count and max(key_of) >= len(keys)):
        raise _bad("columns", "the numbers of the keys do not fit")
    soul_column = list(_spread(souls, raw.soul_runs, count))
    key_column = list(map(keys.__getitem__, key_of))
    if len(set(zip(soul_column, key_column, strict=True))) != count:
        raise _bad("columns", "a field stands there twice")
    state_column = _spread(_states(raw), raw.state_runs, count)
    values = _values(raw, kinds, limits)
    # What Cell._make does, without a call in Python for each.
    cells: list[Cell] = list(
        map(
            tuple.__new__,
            repeat(Cell),
            zip(soul_column, key_column, values, state_column, strict=True),
        )
    )
    return cells, _marks(raw, count, limits)


def _bad(what: str, text: str) -> Violation:
    return Violation(text, code=f"native.bad-{what}", fatal=True)


def _spread(items: Sequence[Any], raw_runs: Sequence[int], count: int) -> Iterator[Any]:
    """Each item as often as its run says; together ``count``."""
    runs = list(raw_runs) if len(items) == len(raw_runs) else []
    if len(items) != len(runs) or sum(runs) != count or 0 in runs:
        raise _bad("columns", "runs that do not add up")
    return chain.from_iterable(map(repeat, items, runs))


def _names(raw: Sequence[bytes], chars_max: int, count: int, what: str) -> list[str]:
    if len(raw) > count:
        raise _bad("columns", f"more {what}s than cells")
    names = [read_text(name) for name in raw]
    if not all(names):
        raise Violation(f"a {what} is not empty", code=f"native.empty-{what}", fatal=True)
    if names and len(max(names, key=len)) > chars_max:
        raise LimitReached(f"a {what} has at most {chars_max} characters", code=f"limit.{what}", fatal=True)
    refused = FORBIDDEN.intersection(names) if what == "soul" else {"__proto__", "_"}.intersection(names)
    if refused:
        raise Violation(
            f"this {what} means something else to JavaScript peers", code="native.forbidden-name", fatal=True
        )
    return names


def _states(raw: Cells) -> list[State]:
    if len(raw.states) > len(raw.kinds):
        raise _bad("columns", "more states than cells")
    bits = list(accumulate(raw.states))
    count = len(bits)
    try:
        packed = struct.pack(f"<{count}q", *bits)
    except struct.error:
        packed = struct.pack(f"<{count}q", *map(_wrapped, bits))
    states = [canonical_number(number) for number in struct.unpack(f"<{count}d", packed)]
    if None in states:
        raise _bad("state", "the state of a field is a finite number")
    return states  # type: ignore[return-value]


def _values(raw: Cells, kinds: bytes, limits: NativeLimits) -> list[Value]:
    counts = (
        (_WHOLE, raw.wholes),
        (_DOUBLE, raw.doubles),
        (_TEXT, raw.texts),
        (_LINK, raw.links),
    )
    if kinds and max(kinds) > _LINK:
        raise _bad("kind", "no such kind of value")
    for kind, column in counts:
        if kinds.count(kind) != len(column):
            raise _bad("columns", "as many values of each kind as there are cells of it")
    texts: list[Any] = [read_text(text) for text in raw.texts]
    if texts and len(max(texts, key=len)) > limits.value_chars_max:
        raise LimitReached(
            f"a value has at most {limits.value_chars_max} characters", code="limit.value", fatal=True
        )
    if len(texts) == len(kinds):
        return texts
    wholes: list[Any] = list(raw.wholes)
    if wholes and not -SAFE_INTEGER <= min(wholes) <= max(wholes) <= SAFE_INTEGER:
        raise _bad("number", "a whole number is exact as a double")
    if len(wholes) == len(kinds):
        return wholes
    doubles = [canonical_number(number) for number in raw.doubles]
    if None in doubles:
        raise _bad("number", "a number is finite")
    links = map(Link, _names(raw.links, limits.soul_chars_max, len(kinds), "soul"))
    take: tuple[Callable[[], Any], ...] = (
        repeat(None).__next__,
        repeat(False).__next__,
        repeat(True).__next__,
        *(iter(column).__next__ for column in (wholes, doubles, texts, links)),
    )
    return [take[kind]() for kind in kinds]


def _marks(raw: Cells, count: int, limits: NativeLimits) -> list[Mark] | None:
    if not raw.marks:
        if raw.mark_runs or raw.mark_dots or raw.dot_writers or raw.dot_sequences or raw.writers:
            raise _bad("columns", "marks that no cell has")
        return None
    dots_max = count * MARK_DOTS_MAX
    if len(raw.mark_dots) > count or not len(raw.writers) <= len(raw.dot_writers) <= dots_max:
        raise _bad("columns", "more marks than cells")
    if len(raw.dot_writers) != len(raw.dot_sequences) or len(raw.marks) > count:
        raise _bad("columns", "dots that do not add up")
    sizes, who, sequences = list(raw.mark_dots), list(raw.dot_writers), list(raw.dot_sequences)
    writers = [read_text(name) for name in raw.writers]
    if not all(writers) or (writers and len(max(writers, key=len)) > limits.id_chars_max):
        raise _bad("mark", "a writer is named by its peer id")
    if len(set(writers)) != len(writers):
        raise _bad("columns", "a writer stands there twice")
    if sum(sizes) != len(who):
        raise _bad("columns", "dots that do not add up")
    if max(sizes, default=0) > MARK_DOTS_MAX:
        raise _bad("mark", f"a mark has at most {MARK_DOTS_MAX} dots")
    if who and (max(who) >= len(writers) or not 0 < min(sequences) <= max(sequences) <= _SEQUENCE_MAX):
        raise _bad("mark", "a dot is the number of a writer and a sequence from 1 on")
    dots = iter(zip(map(writers.__getitem__, who), sequences, strict=True))
    table = [_mark(dots, size) for size in sizes]
    numbers = list(raw.marks)
    if max(numbers) >= len(table):
        raise _bad("columns", "the numbers of the marks do not fit")
    return list(_spread(list(map(table.__getitem__, numbers)), raw.mark_runs, count))


def _mark(dots: Iterable[tuple[str, int]], size: int) -> Mark:
    mark = tuple(islice(dots, size))
    if len(dict(mark)) != size:
        raise _bad("mark", "a mark names each writer once")
    return mark
