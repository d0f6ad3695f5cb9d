"""The virtual network: connections as TCP gives them, and what can happen to them. (core)

Bytes of a connection arrive in order and once, or the connection ends. So nothing is lost or reordered
inside one; a lost packet is a delay, and a connection that is cut loses whatever was on its way. Two
peers that cannot reach each other do not learn it: frames are held back, and each end waits until its
patience is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Protocol

from air.sim.dice import Dice
from air.sim.schedule import Scheduler

__all__ = ["End", "Host", "LinkEvents", "Network", "NetworkConfig"]

_HEAD = Struct("<dHH")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    delay_seconds: float = 0.02
    """Way of a frame from one peer to another, on average."""
    bytes_per_second: float = 2_000_000.0
    loss: float = 0.0
    """Chance that a frame comes late because a packet of it had to be sent again."""
    resend_seconds: float = 0.2
    """What the first such repetition takes; each further one takes twice as long."""
    connect_seconds: float = 10.0
    """After so long without an answer a dial has failed."""
    dead_seconds: float = 75.0
    """After so long without a sign of the other end (it is pinged) a connection is given up."""
    window_bytes: int = 256 * 1024
    """What may be on its way in one direction before the writer has to wait."""


class LinkEvents(Protocol):
    """What uses one end of a connection."""

    def received(self, frame: bytes) -> None: ...
    def closed(self, reason: str) -> None: ...
    def writable(self) -> None: ...


class Host(Protocol):
    """A peer that can be dialled."""

    up: bool

    def accept(self, end: End) -> LinkEvents | None: ...


class End:
    """One end of a connection."""

    __slots__ = (
        "_free_at",
        "_held",
        "_last",
        "delay",
        "events",
        "host",
        "net",
        "on_way",
        "open",
        "other",
        "remote",
        "torn",
        "waiting",
        "wire",
    )

    def __init__(self, net: Network, host: int, remote: int, delay: float, wire: str = "gun") -> None:
        self.net, self.host, self.remote, self.delay = net, host, remote, delay
        self.wire = wire
        """What is spoken here: each has a port of its own."""
        self.other: End
        self.events: LinkEvents | None = None
        self.open, self.torn, self.waiting = True, False, False
        self.on_way = 0
        """Bytes sent that have not arrived."""
        self._held: list[bytes | None] = []
        self._free_at = self._last = 0.0

    @property
    def room(self) -> bool:
        """False when the writer has to wait for ``writable``."""
        if self.on_way > self.net.config.window_bytes:
            self.waiting = True
            return False
        return True

    def send(self, frames: Iterable[bytes]) -> None:
        if self.open:
            for frame in frames:
                self._say(frame)

    def close(self) -> None:
        """Say goodbye after what was sent. The own side is not told."""
        if self.open:
            self.open = False
            self.events = None
            self._say(None)

    def _say(self, frame: bytes | None) -> None:
        if frame is not None:
            self.on_way += len(frame)
            self.net.bytes += len(frame)
        if (self.host, self.remote) in self.net.blocked:
            self._held.append(frame)
        else:
            self._launch(frame)

    def _launch(self, frame: bytes | None) -> None:
        net, now = self.net, self.net.scheduler.time
        config, dice = net.config, net.dice
        self._free_at = max(now, self._free_at) + (len(frame) if frame else 40) / config.bytes_per_second
        delay, again = self.delay * (0.75 + 0.5 * dice.fraction()), config.resend_seconds
        while config.loss and again < 10 and dice.chance(config.loss):
            delay, again = delay + again, again * 2
        self._last = max(self._last, self._free_at + delay)
        net.scheduler.at(self._last, self._arrive, frame, now)

    def release(self) -> None:
        """What was held back goes on its way."""
        held, self._held = self._held, []
        for frame in held:
            self._launch(frame)

    def _arrive(self, frame: bytes | None, sent: float) -> None:
        other, net = self.other, self.net
        if frame is not None:
            self.on_way -= len(frame)
        if self.torn:
            return
        if not other.open:
            if frame is not None and self.open:
                # The other end is gone; its machine says so.
                net.scheduler.after(self.delay, self.lose, "net.reset")
            return
        if frame is None:
            other.lose("net.closed")
            return
        net.frames += 1
        net.trace.update(_HEAD.pack(net.scheduler.time, self.host, self.remote))
        net.trace.update(frame)
        if net.watch is not None:
            net.watch(sent, net.scheduler.time, self.host, self.remote, frame)
        events = other.events
        if events is not None:
            events.received(frame)
        if self.waiting and self.open and self.events is not None and self.on_way <= net.config.window_bytes:
            self.waiting = False
            self.events.writable()

    def lose(self, reason: str) -> None:
        """This end learns that the connection is over."""
        if not self.open:
            return
        events = self.events
        self.close()
        if events is not None:
            events.closed(reason)


class Network:
    """All connections of a run."""

    def __init__(self, scheduler: Scheduler, config: NetworkConfig, dice: Dice) -> None:
        self.scheduler, self.config, self.dice = scheduler, config, dice
        self.hosts: list[Host] = []
        self.blocked: dict[tuple[int, int], tuple[int, float]] = {}
        """Ways on which nothing gets through -> by how many faults at once, and since when."""
        self.ends: list[End] = []
        """Both ends of every connection, those that are over swept out now and then."""
        self.trace = blake2b(digest_size=12)
        """Of every frame that arrived, with its time and place."""
        self.watch: Callable[[float, float, int, int, bytes], None] | None = None
        self.frames = self.bytes = 0

    def dial(
        self,
        source: int,
        target: int,
        opened: Callable[[End], None],
        failed: Callable[[], None],
        wire: str = "gun",
    ) -> None:
        """Connect; one of the two is called later."""
        delay = self.config.delay_seconds * self.dice.between(0.5, 1.5)
        if (source, target) in self.blocked or (target, source) in self.blocked:
            self.scheduler.after(self.config.connect_seconds, failed)
        else:
            # There and back for TCP, there for the upgrade.
            self.scheduler.after(3 * delay, self._connect, source, target, delay, opened, failed, wire)

    def _connect(
        self,
        source: int,
        target: int,
        delay: float,
        opened: Callable[[End], None],
        failed: Callable[[], None],
        wire: str,
    ) -> None:
        host = self.hosts[target]
        if not host.up:
            failed()
            return
        near, far = End(self, source, target, delay, wire), End(self, target, source, delay, wire)
        near.other, far.other = far, near
        far.events = host.accept(far)
        if len(self.ends) > 64 and len(self.ends) > 8 * len(self.hosts):
            self.ends = [end for end in self.ends if end.open or end.other.open]
        self.ends += (near, far)
        opened(near)

    # -- faults ----------------------------------------------------------------

    def block(self, ways: Iterable[tuple[int, int]]) -> None:
        """Nothing gets through on these ways, and nobody is told."""
        now = self.scheduler.time
        fresh = set()
        for way in ways:
            count, since = self.blocked.get(way, (0, now))
            self.blocked[way] = (count + 1, since)
            if count == 0:
                fresh.add(way)
        for end in self.ends:
            if end.open and (end.remote, end.host) in fresh:
                self.scheduler.after(self.config.dead_seconds, self._silent, end, now)

    def _silent(self, end: End, since: float) -> None:
        # The way may have been free for a while in between; that was a sign of life.
        way = self.blocked.get((end.remote, end.host))
        if way is not None and way[1] <= since:
            end.lose("ws.dead")

    def unblock(self, ways: Iterable[tuple[int, int]]) -> None:
        free = set()
        for way in ways:
            count, since = self.blocked.pop(way)
            if count > 1:
                self.blocked[way] = (count - 1, since)
            else:
                free.add(way)
        for end in self.ends:
            if (end.host, end.remote) in free:
                end.release()

    def cut(self, a: int, b: int, late: float = 0.0) -> None:
        """End the connections between two peers; what is on its way is lost. One end learns it ``late``."""
        for end in [end for end in self.ends if end.host == a and end.remote == b and end.open]:
            end.torn = end.other.torn = True
            end.lose("net.cut")
            self.scheduler.after(late, end.other.lose, "net.cut")

    def vanish(self, host: int) -> None:
        """A process is gone: its machine says so to whoever it was connected to."""
        for end in [end for end in self.ends if end.host == host and end.open]:
            end.close()
