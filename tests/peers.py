"""A whole peer without a network: engine, disk and GUN connections, turned by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from air.base.clock import ManualClock
from air.base.entropy import IdSource, SeededEntropy
from air.base.errors import Violation
from air.base.metrics import Counters
from air.graph.effects import Effect, Fetch, FetchSouls, Notify, Persist, Send, Settled
from air.graph.engine import Engine, EngineConfig
from air.graph.mesh import Role
from air.model import Cell, Message
from air.store.memory import Memory
from air.sync.gun.wire import Greeting, GunCodec, GunConfig, GunLink

MIB = 1024 * 1024


@dataclass
class Peer:
    """An engine in front of a disk that works only when told to (:meth:`settle`).

    The disk is a ``Memory`` with nothing behind it: a real store, only not durable. ``restart`` keeps it
    and forgets everything else, as a process that was killed.
    """

    wall: float = 1_700_000_000_000.0
    config: EngineConfig = field(default_factory=EngineConfig)
    cache_bytes: int = 16 * MIB
    seed: int = 1

    def __post_init__(self) -> None:
        self.clock = ManualClock(self.wall)
        self.disk = Memory(1024 * MIB, authoritative=True)
        self._start()

    def _start(self) -> None:
        self.seed += 1
        self.ids = IdSource(SeededEntropy(self.seed))
        self.memory = Memory(self.cache_bytes)
        self.engine = Engine(self.memory, self.ids, self.config, Counters())
        self.jobs: list[Persist | Fetch | FetchSouls] = []
        self.sent: dict[int, list[Message]] = {}
        self.changes: list[Cell] = []
        self.settled: list[Settled] = []

    def restart(self) -> None:
        self._start()

    def attach(self, link: int, role: Role = Role.INBOUND, name: str = "") -> None:
        self.sent.setdefault(link, [])
        self.take(self.engine.attach(link, role, self.clock.now(), name or (f"peer-{link}")))

    def say(self, link: int, message: Message) -> None:
        """A message arrives. Raises Violation as the engine does."""
        self.take(self.engine.receive(link, message, self.clock.now()))

    def take(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                for link in effect.links:
                    self.sent[link].append(effect.message)
            elif isinstance(effect, Notify):
                self.changes += effect.cells
            elif isinstance(effect, Settled):
                self.settled.append(effect)
            else:
                self.jobs.append(effect)

    def settle(self, fail: str = "") -> None:
        """Let the disk work off everything in order; ``fail``: it refuses every write with this error."""
        while self.jobs:
            job, now = self.jobs.pop(0), self.clock.now()
            if isinstance(job, Persist) and fail:
                self.take(self.engine.aborted(job.ticket, fail, now))
            elif isinstance(job, Persist):
                kept, marks = self.disk.write(job.cells), job.marks
                self.take(self.engine.persisted(job.ticket, kept, now, marks and (lambda marks=marks: marks)))
            elif isinstance(job, Fetch):
                page = self.disk.read(job.soul, job.lex, after=job.after)
                self.take(self.engine.fetched(job.ticket, page, now))
            else:
                self.take(self.engine.fetched_souls(job.ticket, self.disk.scan(job.range), now))

    def advance(self, seconds: float) -> None:
        """Let time pass, and the engine do what is due in it."""
        end = self.clock.now().monotonic + seconds
        while True:
            now = self.clock.now()
            deadline = self.engine.deadline(now)
            if deadline is None or deadline > end:
                break
            self.clock.advance(max(deadline - now.monotonic, 0))
            self.take(self.engine.tick(self.clock.now()))
        self.clock.advance(end - self.clock.now().monotonic)

    def heard(self, link: int) -> list[Message]:
        """What was said on a link since the last call."""
        said, self.sent[link] = self.sent[link], []
        return said

    def stored(self) -> dict[tuple[str, str], tuple[object, float]]:
        """Everything on disk."""
        return {
            (soul, key): pair
            for soul in self.disk.souls(limit=10**9)
            for key, pair in self.disk.read(soul, fields_max=10**9, bytes_max=10**12).fields.items()
        }


class GunPeer(Peer):
    """A peer that is spoken to in GUN frames."""

    def _start(self) -> None:
        super()._start()
        self.wire = GunConfig()
        self.counters = Counters()
        self.codecs = {
            relay: GunCodec(self.wire, self.ids, self.memory, for_relay=relay) for relay in (False, True)
        }
        self.gun: dict[int, GunLink] = {}

    def connect(self, link: int, role: Role = Role.INBOUND) -> None:
        dialer = role is Role.OUTBOUND
        self.gun[link] = GunLink(
            dialer=dialer, pid="airairair", ids=self.ids, config=self.wire, counters=self.counters
        )
        self.attach(link, role)

    def frame(self, link: int, data: bytes | str) -> None:
        """A frame arrives, and is worked off as the session does it."""
        gun = self.gun[link]
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        for item in gun.receive(raw):
            if isinstance(item, Greeting):
                self.take(self.engine.greeted(link, item.peer, self.clock.now()))
                continue
            try:
                self.say(link, item)
            except Violation as error:
                gun.refuse(item.id, error)

    def frames(self, link: int) -> list[bytes]:
        """The frames that go out on a link now."""
        relay = self.gun[link].dialer
        for message in self.heard(link):
            self.gun[link].queue(self.codecs[relay].encode(message))
        return self.gun[link].take_frames()

    def said(self, link: int) -> list[dict[str, Any]]:
        """The messages in those frames, as a JSON parser of somebody else reads them."""
        out: list[dict[str, Any]] = []
        for frame in self.frames(link):
            parsed = json.loads(frame)
            out += parsed if isinstance(parsed, list) else [parsed]
        return out
