"""One native link on a stream: a reader, a writer, and what the hub sees of it. (shell)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

import anyio
import anyio.lowlevel

from air.base.errors import AirError, Closed, LimitReached, Violation
from air.base.groups import first
from air.graph.mesh import LinkId, Role
from air.model.cell import Cell
from air.model.message import Ack, Answer, Message, Put
from air.swarm.stream import Stream
from air.sync.hub import Hub
from air.sync.native.frames import Bye, Hello, Wish
from air.sync.native.limits import NativeConfig
from air.sync.native.link import Event, NativeLink

__all__ = ["Carrier", "Opened"]

_LAST_WORDS_SECONDS = 1.0
"""How long a peer that is cut may take to read why."""
_LEAVE_SECONDS = 0.2
"""How long saying goodbye may take when there is no time left."""
_READS_SECONDS = 0.002
"""Between two looks whether the disk has answered."""
_READ_BYTES = 256 * 1024


class _Plain:
    """What a link sends depends on what waits already, so messages reach it as they are."""

    def encode(self, message: Message, targets: Sequence[str] = ()) -> list[Any]:
        return [message]


class Carrier:
    """A link at work; to the hub it is a port."""

    codec = _Plain()

    def __init__(
        self,
        link: NativeLink,
        stream: Stream,
        hub: Hub,
        config: NativeConfig,
        opened: Opened,
        overflowed: Callable[[Carrier], None],
    ) -> None:
        """``opened`` connects the link to the hub once the other side has said hello, or cuts it.
        ``overflowed`` hears that what waited for a peer was dropped."""
        self.link, self.stream = link, stream
        self._hub, self._config, self._opened, self._overflowed = hub, config, opened, overflowed
        self.id: LinkId | None = None
        """Its number in the hub, once it is connected."""
        self.end: AirError | None = None
        """Why this side closes the link."""
        self.left: Closed | None = None
        """How it ended by itself, or by the other side."""
        self._news = anyio.Event()
        self._reading = anyio.CancelScope()

    # -- as a port -------------------------------------------------------------

    @property
    def peer(self) -> str:
        return str(self.stream.peer)

    @property
    def queued_bytes(self) -> int:
        return self.link.queued_bytes

    def queue(self, messages: list[Any]) -> None:
        for message in messages:
            try:
                self.link.send(message)
            except LimitReached as error:
                self.cut(error)
                return
        self._look_for_gaps()

    def _look_for_gaps(self) -> None:
        """Have the two compared once the other side lacks something that it was to have."""
        link = self.link
        if link.needs_repair:
            link.needs_repair = False
            self._overflowed(self)

    def changed(self, cells: Sequence[Cell]) -> None: ...

    def wake(self) -> None:
        self._news.set()

    def refuse(self, id: object, error: Violation) -> None:
        self.link.send(Ack("", id, f"{error.code}: {error}"))  # type: ignore[arg-type]
        if error.fatal:
            self.cut(error)

    def cut(self, error: AirError) -> None:
        """Stop reading, tell the other side why, and close."""
        if self.end is None:
            self.end = error
            self._reading.cancel()
            self.wake()

    # -- at work ---------------------------------------------------------------

    async def run(self) -> None:
        """Carry the link until it ends; ``end`` or ``left`` says how. The stream is the caller's to close."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                try:
                    with self._reading:
                        await self._read()
                except Closed as error:
                    self.left = error
                except AirError as error:
                    self.cut(error)
                # A peer that is cut hears why, if it still reads.
                self.wake()
                tasks.cancel_scope.deadline = anyio.current_time() + _LAST_WORDS_SECONDS
        except* Closed as group:
            self.left = self.left or first(group)
        finally:
            if self.end is None and self.left is None:
                await self._leave()

    async def _leave(self) -> None:
        """This side is stopped in the middle of things: say so, so that it is not missed."""
        with anyio.move_on_after(_LEAVE_SECONDS, shield=True), suppress(AirError):
            self.link.say_bye("link.closed", "this peer stops")
            await self.stream.send(self.link.take_output(self._hub.env.clock.now()))

    async def _read(self) -> None:
        hub, link, clock = self._hub, self.link, self._hub.env.clock
        while True:
            data = await self._receive()
            hub.counters.add("air_native_bytes_in_total", len(data))
            began = clock.now()
            for event in link.receive(data, began):
                self._take(event)
                if self.end is not None:
                    return
                if clock.now().monotonic - began.monotonic > self._config.slice_seconds:
                    await self._pause()
                    began = clock.now()
            self._look_for_gaps()
            await self._pause()

    async def _receive(self) -> bytes:
        link, clock = self.link, self._hub.env.clock
        while True:
            with anyio.move_on_after(max(link.silent_at - clock.now().monotonic, 0)):
                return await self.stream.receive(_READ_BYTES)
            self._tick()
            await anyio.lowlevel.checkpoint()

    def _tick(self) -> None:
        try:
            self.link.tick(self._hub.env.clock.now())
        except AirError as error:
            self.cut(error)

    def _take(self, event: Event) -> None:
        hub = self._hub
        if type(event) is Hello:
            self._opened(self, event)
            return
        if type(event) is Bye:
            raise Closed(event.text, code=event.code or "link.closed")
        assert self.id is not None
        if type(event) is Wish:
            self._wish(event)
        else:
            if type(event) is Put:
                hub.counters.add("air_native_cells_in_total", len(event.cells))
            elif type(event) is Answer:
                hub.counters.add("air_native_cells_in_total", sum(len(fields) for _, fields in event.nodes))
            hub.receive(self.id, [event])  # type: ignore[list-item]

    def _wish(self, wish: Wish) -> None:
        hub, id = self._hub, self.id
        assert id is not None
        if wish.ends and wish.prefix:
            hub.unsubscribe(id, prefix=wish.text)
        elif wish.ends:
            hub.unsubscribe(id, wish.text, wish.key)
        elif not wish.prefix:
            hub.receive(id, [wish.question(hub.ids())])
        elif self.link.role is not Role.PEER:
            # A peer is told everything as it is.
            hub.subscribe(id, wish.text)

    async def _pause(self) -> None:
        """Let the store and other links catch up, and slow down a peer that is too fast."""
        hub, link, clock = self._hub, self.link, self._hub.env.clock
        if link.ready:
            self.wake()
        link.pause()
        await anyio.sleep(link.rates.wait(clock.now()))
        while (  # noqa: ASYNC110 - nobody reports single reads
            self.id is not None
            and hub.engine.reading(self.id) >= self._config.reads_max
            and link.queued_bytes <= hub.config.high_bytes
        ):
            await anyio.sleep(_READS_SECONDS)
        await hub.room()
        link.taken()
        link.resume(clock.now())
        if link.ready:
            self.wake()

    async def _write(self) -> None:
        hub, link, clock = self._hub, self.link, self._hub.env.clock
        while True:
            if self.end is not None:
                link.say_bye(self.end.code, str(self.end))
            elif self.left is not None:
                return
            self._news = anyio.Event()
            cells = link.cells_out
            data = link.take_output(clock.now())
            if data:
                hub.counters.add("air_native_bytes_out_total", len(data))
                hub.counters.add("air_native_cells_out_total", link.cells_out - cells)
                await self.stream.send(data)
                if self.id is not None and self.end is None:
                    hub.drained(self.id)
                    held = link.take_held()
                    if held:
                        hub.receive(self.id, held)
                continue
            if self.end is not None:
                return
            due = link.deadline - clock.now().monotonic
            with anyio.move_on_after(None if due == inf else max(due, 0)) as patience:
                await self._news.wait()
            if patience.cancelled_caught:
                self._tick()


Opened = Callable[[Carrier, Hello], None]
