"""Telling watchers what happens to peers: an async iterator for each, bounded. (shell)"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import anyio

from air.swarm.lifecycle import PeerEvent

__all__ = ["EventHub", "EventWatch"]


class EventWatch:
    """Events from the moment it was made, in order: ``async for event in watch``.

    It ends when the node ends or after ``close``. A watcher that falls more than ``queue_max`` events behind
    loses the oldest ones; ``missed`` counts them.
    """

    def __init__(self, hub: EventHub, queue_max: int) -> None:
        self._hub = hub
        self._queue: deque[PeerEvent] = deque(maxlen=queue_max)
        self._news = anyio.Event()
        self._closed = False
        self.missed = 0

    def __aiter__(self) -> EventWatch:
        return self

    async def __anext__(self) -> PeerEvent:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            if self._news.is_set():
                # Not while another task waits for it: that one would never wake.
                self._news = anyio.Event()
            await self._news.wait()
        return self._queue.popleft()

    def __enter__(self) -> EventWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more events; those that are queued are still delivered."""
        self._closed = True
        self._hub.forget(self)
        self._news.set()

    def take(self, events: Iterable[PeerEvent]) -> None:
        """For the hub: queue events and wake the watcher."""
        for event in events:
            if len(self._queue) == self._queue.maxlen:
                self.missed += 1
            self._queue.append(event)
        self._news.set()


class EventHub:
    """Hands every event to every watcher, without waiting for any."""

    def __init__(self, queue_max: int = 1024) -> None:
        self._queue_max = queue_max
        self._watches: set[EventWatch] = set()
        self._closed = False

    def watch(self) -> EventWatch:
        """A watch that begins now; it ends at once when the hub has."""
        watch = EventWatch(self, self._queue_max)
        if self._closed:
            watch.close()
        else:
            self._watches.add(watch)
        return watch

    def tell(self, events: Iterable[PeerEvent]) -> None:
        """Hand on events. Costs nothing while nobody watches."""
        if self._watches:
            events = tuple(events)
            for watch in self._watches:
                watch.take(events)

    def forget(self, watch: EventWatch) -> None:
        """For the watch: it is no longer interested."""
        self._watches.discard(watch)

    def close(self) -> None:
        """End all watches."""
        self._closed = True
        for watch in tuple(self._watches):
            watch.close()
