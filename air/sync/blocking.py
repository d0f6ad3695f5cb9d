"""The graph without await, for scripts and notebooks: it runs in a thread of its own. (shell)

The classes mirror those of :mod:`air.graph.chain`; what a method does and raises is said there.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast, overload

from anyio import move_on_after
from anyio.from_thread import BlockingPortal, start_blocking_portal

from air.base.errors import Closed
from air.graph.api import Change, Entry, Input, Node, Path, Receipt
from air.graph.chain import Graph, Ref
from air.graph.chain_live import Entries, Live
from air.model.cell import Key, Soul
from air.model.value import Link
from air.sync.opening import ConnectConfig, Durability, OpenConfig, Opening
from air.sync.opening import connect as connect_async
from air.sync.opening import open as open_async

__all__ = ["BlockingEntries", "BlockingGraph", "BlockingLive", "BlockingRef", "connect", "open"]

T = TypeVar("T")


class _Loop:
    """A thread with an event loop in it, in which a graph runs."""

    def __init__(self, opening: Opening, backend: str) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._portal: BlockingPortal = stack.enter_context(start_blocking_portal(backend))
            inside: AbstractContextManager[Graph] = self._portal.wrap_async_context_manager(opening)
            self.graph = stack.enter_context(inside)
            self._stack = stack.pop_all()
        self.closed = False
        # A program that just ends says goodbye too.
        atexit.register(self.close)

    def run(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Await in the thread. An interrupt here, such as Ctrl-C, cancels it there. Raises Closed."""
        if self.closed:
            raise Closed("this graph was closed", code="graph.closed")
        future = self._portal.start_task_soon(call, *arguments)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, call: Callable[..., Awaitable[object]]) -> None:
        """Let something happen in the thread. Raises RuntimeError when it cannot be reached from here."""
        self._portal.start_task_soon(call)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            atexit.unregister(self.close)
            self._stack.close()


class BlockingGraph:
    """:class:`air.Graph` without await. Use it in a ``with`` block, or :meth:`close` it."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye to peers, write what is queued, and end the thread. Again: nothing happens."""
        self._loop.close()

    @property
    def online(self) -> bool:
        return self._loop.graph.online

    def get(self, soul: Soul | Link, *keys: Key) -> BlockingRef:
        return BlockingRef(self._loop, self._loop.graph.get(soul, *keys))

    @overload
    def put(
        self,
        soul: Soul,
        fields: Mapping[Key, Input | BlockingRef],
        /,
        *,
        peers: int | None = None,
        timeout: float | None = None,
    ) -> Receipt: ...
    @overload
    def put(
        self,
        nodes: Mapping[Soul, Mapping[Key, Input | BlockingRef]],
        /,
        *,
        peers: int | None = None,
        timeout: float | None = None,
    ) -> Receipt: ...
    def put(
        self,
        soul: Any,
        fields: Any = None,
        /,
        *,
        peers: int | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        async def put() -> Receipt:
            return await self._loop.graph.put(soul, fields, peers=peers, timeout=timeout)

        return self._loop.run(put)


class BlockingRef(Path):
    """:class:`air.Ref` without await."""

    __slots__ = ("_loop", "_ref")

    def __init__(self, loop: _Loop, ref: Ref) -> None:
        super().__init__(ref.soul, ref.keys)
        self._loop, self._ref = loop, ref

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockingRef) and other._ref == self._ref

    def __hash__(self) -> int:
        return hash(self._ref)

    def __repr__(self) -> str:
        return repr(self._ref)

    def get(self, *keys: Key) -> BlockingRef:
        return BlockingRef(self._loop, self._ref.get(*keys))

    def back(self, steps: int = 1) -> BlockingRef | BlockingGraph:
        back = self._ref.back(steps)
        return BlockingRef(self._loop, back) if isinstance(back, Ref) else BlockingGraph(self._loop)

    def resolve(self, *, timeout: float | None = None) -> BlockingRef | None:
        async def resolve() -> Ref | None:
            return await self._ref.resolve(timeout=timeout)

        ref = self._loop.run(resolve)
        return None if ref is None else BlockingRef(self._loop, ref)

    def once(self, *, depth: int = 1, timeout: float | None = None) -> Any:
        async def once() -> Any:
            return await self._ref.once(depth=depth, timeout=timeout)

        return _shown(self._loop, self._loop.run(once))

    @overload
    def on(self, *, whole: Literal[False] = False) -> BlockingLive[Change]: ...
    @overload
    def on(self, *, whole: Literal[True], depth: int = 1) -> BlockingLive[Any]: ...
    def on(self, *, whole: bool = False, depth: int = 1) -> BlockingLive[Any]:
        live: Live[Any] = self._ref.on(whole=True, depth=depth) if whole else self._ref.on()
        return BlockingLive(self._loop, live)

    def map(self) -> BlockingEntries:
        return BlockingEntries(self._loop, self._ref.map())

    def range(
        self,
        *,
        prefix: str = "",
        start: Key | None = None,
        end: Key | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> BlockingEntries:
        entries = self._ref.range(prefix=prefix, start=start, end=end, reverse=reverse, limit=limit)
        return BlockingEntries(self._loop, entries)

    def put(
        self, value: Input | BlockingRef, *, peers: int | None = None, timeout: float | None = None
    ) -> Receipt:
        async def put() -> Receipt:
            return await self._ref.put(value, peers=peers, timeout=timeout)  # type: ignore[arg-type]

        return self._loop.run(put)

    def add(
        self, value: Input | BlockingRef, *, peers: int | None = None, timeout: float | None = None
    ) -> BlockingRef:
        async def add() -> Ref:
            return await self._ref.add(value, peers=peers, timeout=timeout)  # type: ignore[arg-type]

        return BlockingRef(self._loop, self._loop.run(add))

    set = add

    def unset(
        self, item: Input | BlockingRef, *, peers: int | None = None, timeout: float | None = None
    ) -> int:
        async def unset() -> int:
            return await self._ref.unset(item, peers=peers, timeout=timeout)  # type: ignore[arg-type]

        return self._loop.run(unset)


class BlockingLive(Generic[T]):
    """A live view as a blocking iterator. It ends with its ``with`` block, :meth:`close`, or Ctrl-C."""

    def __init__(self, loop: _Loop, live: Live[T]) -> None:
        self._loop, self._live = loop, live
        live.hold()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """The next one. Raises TimeoutError when there is none within ``timeout`` seconds.

        Raises StopIteration after :meth:`close`.
        """

        async def take() -> tuple[T] | None:
            with move_on_after(timeout) as waiting:
                try:
                    return (await self._live.__anext__(),)
                except StopAsyncIteration:
                    return None
            assert waiting.cancelled_caught
            raise TimeoutError(f"nothing within {timeout} s")

        taken = self._loop.run(take)
        if taken is None:
            raise StopIteration
        return cast(T, _shown(self._loop, taken[0]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it. Again, or after the graph: nothing happens."""
        if not self._loop.closed:
            self._loop.run(self._live.aclose)

    def __del__(self) -> None:
        # A loop that was left by ``break`` ends nothing by itself; nobody waits for this.
        with suppress(AttributeError, RuntimeError):
            if not self._loop.closed:
                self._loop.start(self._live.aclose)


class BlockingEntries(BlockingLive[Entry]):
    """:class:`air.graph.chain_live.Entries` without await."""

    _live: Entries

    def __init__(self, loop: _Loop, entries: Entries) -> None:
        super().__init__(loop, entries)

    def get(self, *keys: Key) -> BlockingEntries:
        return BlockingEntries(self._loop, self._live.get(*keys))

    def once(self, *, depth: int = 1, timeout: float | None = None) -> dict[Key, Any]:
        async def once() -> dict[Key, Any]:
            return await self._live.once(depth=depth, timeout=timeout)

        return {key: _shown(self._loop, value) for key, value in self._loop.run(once).items()}


def _shown(loop: _Loop, value: Any) -> Any:
    """References that were read, as references that need no await."""
    if isinstance(value, Ref):
        return BlockingRef(loop, value)
    if isinstance(value, Node):
        fields = {key: _shown(loop, inner) for key, inner in value.items()}
        return Node(value.soul, fields, {key: value.state(key) for key in value})
    if isinstance(value, Change):
        return Change(value.soul, value.key, _shown(loop, value.value), value.state)
    if isinstance(value, Entry):
        return Entry(value.key, _shown(loop, value.value))
    return value


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    peers: Sequence[str] = (),
    durability: Durability = "group",
    config: OpenConfig | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
) -> BlockingGraph:
    """As :func:`air.open`, without await: ``with air.sync.open("data") as graph``.

    It runs at once, in a thread of its own, until the block ends or it is closed; so it works where an event
    loop is running already, as in a notebook.
    """
    return BlockingGraph(_Loop(open_async(path, peers=peers, durability=durability, config=config), backend))


def connect(
    url: str,
    *more: str,
    config: ConnectConfig | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
) -> BlockingGraph:
    """As :func:`air.connect`, without await: ``with air.sync.connect("ws://localhost/gun") as graph``."""
    return BlockingGraph(_Loop(connect_async(url, *more, config=config), backend))
