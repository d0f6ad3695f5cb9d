"""Reading once and following live, over what a source lets us watch. (shell)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, Generic, Self, TypeVar

from air.base.errors import AirError, Misuse
from air.graph.api import Change, Data, Entry, Lookout, Node, Source
from air.graph.chain_follow import NOTHING, Follow, Found, Trail
from air.model.cell import Key, Soul
from air.model.lex import ALL, Lex
from air.model.value import Link, Value, unit_bytes

__all__ = ["Changes", "Entries", "Live", "Values", "read", "shown"]

T = TypeVar("T", covariant=True)
Wrap = Callable[[Value], Data]
"""Makes of a value what the user sees: of a link, a reference."""
_LAST: Final = "\uffff\U0010ffff"
"""Characters that no other character of their length comes after."""
_TOGETHER: Final = 1_000
"""Members of a set that are read together."""
Roots = Iterable[tuple[Soul, Trail]]


def shown(found: Found, wrap: Wrap) -> Data:
    """What was found, as the user sees it."""
    if found.fields is None:
        return wrap(found.value)
    assert found.soul is not None
    return Node(
        found.soul,
        {key: shown(inner, wrap) for key, inner in found.fields.items()},
        {key: inner.state for key, inner in found.fields.items()},
    )


def _watch(lookout: Lookout, follow: Follow) -> None:
    """Watch what the path leads through now, and no longer what it led through."""
    for begin, soul, key in follow.take_wants():
        (lookout.add if begin else lookout.drop)(soul, key)


def _pump(lookout: Lookout, follow: Follow) -> bool:
    """Take everything that has come, and watch what follows from it. True when there was something."""
    some = False
    _watch(lookout, follow)
    while (cell := lookout.take()) is not None:
        some = True
        follow.receive((cell,))
        _watch(lookout, follow)
    return some


async def read(
    source: Source,
    roots: Roots,
    steps: Sequence[Key | Lex] = (),
    *,
    depth: int = 1,
    seconds: float | None = None,
    lenient: bool = False,
) -> Follow:
    """Follow a path until whoever was asked has answered.

    While those who may know more cannot be reached, what is here has to do. Raises AirError
    ``graph.no-answer`` when nothing is here and nobody has answered within ``seconds``; ``lenient``: nothing
    it is then, and nobody is waited for who cannot be reached.
    """
    follow = Follow(roots, steps, depth=depth)
    lookout = await source.look(seconds)
    try:
        while True:
            _pump(lookout, follow)
            if not lookout.asking or (lookout.offline and (lenient or follow.dirty)):
                break
            await lookout.wait()
        if lookout.unanswered and not follow.dirty and not lenient:
            raise AirError(
                "nothing is known here, and nobody who was asked has answered", code="graph.no-answer"
            )
        return follow
    finally:
        lookout.close()


async def links(
    source: Source, places: Sequence[tuple[Soul, Key]], seconds: float | None = None
) -> dict[tuple[Soul, Key], Soul | None]:
    """What some fields link to now, as far as anybody who can be reached knows."""
    found: dict[tuple[Soul, Key], Soul | None] = dict.fromkeys(places)
    for start in range(0, len(places), _TOGETHER):
        lookout = await source.look(seconds, hasty=True)
        try:
            for place in places[start : start + _TOGETHER]:
                lookout.add(*place)
            while True:
                while (cell := lookout.take()) is not None:
                    found[cell.soul, cell.key] = cell.value.soul if isinstance(cell.value, Link) else None
                if not lookout.asking or lookout.offline:
                    break
                await lookout.wait()
        finally:
            lookout.close()
    return found


class Live(ABC, Generic[T]):
    """A live view, as an asynchronous iterator: what is there first, then what becomes of it, without end.

    ``async for`` over it ends with whatever interrupts the loop. To take from it now and then, or with time
    limits, hold it open: ``async with ref.on() as changes``. A reader that is slow is shown the newest value
    of each field and misses those in between; it holds up nobody. Raises LimitReached ``limit.watch`` when
    more fields have changed than are kept for it.
    """

    def __init__(
        self,
        source: Source,
        soul: Soul,
        steps: Sequence[Key | Lex],
        wrap: Wrap,
        *,
        depth: int = 1,
        keep: bool = True,
    ) -> None:
        self._source, self._wrap = source, wrap
        self._follow = Follow([(soul, ())], steps, depth=depth, keep=keep)
        self._lookout: Lookout | None = None
        self._held = self._closed = False

    async def __aenter__(self) -> Self:
        self.hold()
        await self._open()
        return self

    def hold(self) -> None:
        """Stay open when a call for the next one is interrupted; :meth:`close` ends it."""
        self._held = True

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self._next(self._lookout or await self._open())
        except BaseException:
            # Nobody calls again after ``async for`` was interrupted.
            if not self._held:
                self.close()
            raise

    async def _open(self) -> Lookout:
        self._lookout = lookout = await self._source.look()
        _watch(lookout, self._follow)
        return lookout

    @abstractmethod
    async def _next(self, lookout: Lookout) -> T:
        """The next one, waited for."""

    def close(self) -> None:
        """End it. Again: nothing happens."""
        self._closed = True
        lookout, self._lookout = self._lookout, None
        if lookout is not None:
            lookout.close()

    async def aclose(self) -> None:
        """As :meth:`close`."""
        self.close()

    def __del__(self) -> None:
        # A loop that was left by ``break`` or by an error ends nothing by itself.
        self.close()


class Changes(Live[Change]):
    """Every change of a field, or of any field of a node, as a :class:`Change`."""

    def __init__(self, source: Source, soul: Soul, steps: Sequence[Key | Lex], wrap: Wrap) -> None:
        self._ready: deque[Change] = deque()
        super().__init__(source, soul, steps, wrap, keep=False)

    async def _next(self, lookout: Lookout) -> Change:
        while not self._ready:
            # One at a time: what is not taken yet is still replaced by what is newer.
            cell = lookout.take()
            if cell is None:
                await lookout.wait()
                continue
            self._ready += self._follow.receive((cell,))
            _watch(lookout, self._follow)
        change = self._ready.popleft()
        return Change(change.soul, change.key, self._wrap(change.value), change.state)


class Values(Live[Data]):
    """What a path leads to, whole: a value or a :class:`Node`, again whenever it has changed."""

    async def _next(self, lookout: Lookout) -> Data:
        trail = await _settled(lookout, self._follow)
        return shown(self._follow.found(trail), self._wrap)


class Entries(Live[Entry]):
    """The entries of a node or set, live: each once at first, then again whenever it has changed.

    An entry that holds a link is shown as the node behind it, and again when that changes; one that was
    deleted as None. :meth:`once` reads what is there now.
    """

    def __init__(
        self,
        source: Source,
        soul: Soul,
        steps: Sequence[Key],
        wrap: Wrap,
        lex: Lex = ALL,
        *,
        limit: int | None = None,
        inner: Sequence[Key] = (),
    ) -> None:
        self._soul, self._steps, self._lex, self._limit, self._inner = soul, steps, lex, limit, inner
        super().__init__(source, soul, [*steps, lex, *inner], wrap)

    def get(self, *keys: Key) -> Entries:
        """The same entries, of each the field that these keys lead to."""
        return Entries(
            self._source,
            self._soul,
            self._steps,
            self._wrap,
            self._lex,
            limit=self._limit,
            inner=(*self._inner, *keys),
        )

    async def __anext__(self) -> Entry:
        if self._limit is not None or self._lex.reverse:
            raise Misuse("a range with a limit or in reverse is read by once()", code="graph.live-range")
        return await super().__anext__()

    async def _next(self, lookout: Lookout) -> Entry:
        trail = await _settled(lookout, self._follow)
        return Entry(trail[-1], shown(self._follow.found(trail), self._wrap))

    async def once(self, *, depth: int = 1, timeout: float | None = None) -> dict[Key, Any]:
        """What is there now, in order of the keys (reversed when asked so), without what is deleted.

        ``depth`` 0 leaves links as references, 1 shows the nodes behind them, 2 also the nodes behind their
        links. ``timeout``: seconds to wait for those who are asked, at each step. Raises as ``Ref.once``.
        """
        source, wrap = self._source, self._wrap
        soul: Soul | None = self._soul
        if self._steps:
            at = (await read(source, [(self._soul, ())], self._steps, depth=0, seconds=timeout)).found()
            soul = at.value.soul if isinstance(at.value, Link) else None
        if soul is None:
            return {}
        values = await self._values(soul, timeout)
        if not depth and not self._inner:
            return {key: wrap(value) for key, value in values.items()}
        behind = [(value.soul, (key,)) for key, value in values.items() if isinstance(value, Link)]
        entries: dict[Key, Any] = {} if self._inner else dict(values)
        for start in range(0, len(behind), _TOGETHER):
            roots = behind[start : start + _TOGETHER]
            follow = await read(source, roots, self._inner, depth=depth, seconds=timeout, lenient=True)
            for target, trail in roots:
                found = follow.found(trail)
                if found is not NOTHING:
                    entries[trail[0]] = shown(found, wrap)
                elif not self._inner:
                    entries[trail[0]] = Node(target, {}, {})
        return entries

    async def _values(self, soul: Soul, seconds: float | None) -> dict[Key, Value]:
        """What the entries hold that count, in order."""
        lex, limit, values = self._lex, self._limit, dict[Key, Value]()
        if limit == 0:
            return values
        async with aclosing(self._source.pages(soul, _ordered(lex, limit), seconds)) as pages:
            async for fields in pages:
                for key, (value, _) in fields.items():
                    counts = isinstance(value, Link) if self._inner else value is not None
                    if counts and lex.holds(key):
                        values[key] = value
                        if len(values) == limit:
                            return values
        keys = sorted(values, key=unit_bytes, reverse=lex.reverse)
        return {key: values[key] for key in keys}


def _ordered(lex: Lex, limit: int | None) -> Lex:
    """A LEX for the store that chooses the same keys, and perhaps one more.

    As gun reads it, a prefix that is itself a key means that key alone (gun-wire 2.4 rule 5); a range does
    not. A whole node comes from memory in any order, which is as good unless the first are wanted.
    """
    if lex.exact is not None or (lex.is_all and limit is None):
        return lex
    start, end = lex.prefix + (lex.start or ""), lex.end
    if end is not None:
        end = lex.prefix + end
    elif lex.prefix.rstrip(_LAST):
        first = lex.prefix.rstrip(_LAST)
        end = first[:-1] + chr(ord(first[-1]) + 1)
    return Lex(start=start, end=end, reverse=lex.reverse)


async def _settled(lookout: Lookout, follow: Follow) -> Trail:
    """The next trail with news, once nothing is on its way that belongs to it."""
    while True:
        some = _pump(lookout, follow)
        if follow.dirty and (not lookout.asking or lookout.offline):
            trail = follow.take_dirty()
            assert trail is not None
            return trail
        if not some:
            await lookout.wait()
