"""One connection's part of a run: the hot path of the generator. (shell)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from bench.client import Connection
from bench.messages import ACK_IDS, Plan, messages_in, value_of
from bench.tally import Got, Sent

__all__ = ["Lane", "pace", "subscriber"]


@dataclass(slots=True, eq=False)
class Lane:
    """One connection's part of a run: sends what the window allows, logs what comes back."""

    connection: Connection
    plan: Plan
    in_flight: int
    spent: Callable[[], None]
    """Called when the plan is used up."""
    samples_max: int = 0
    allowed: float = inf
    """Messages that pacing lets through now."""
    position: int = 0
    stopped: bool = False
    out: set[bytes] = field(default_factory=set)
    sent: list[Sent] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    refused: dict[bytes, str] = field(default_factory=dict)
    found: int = 0
    reads: int = 0
    samples: list[bytes] = field(default_factory=list)

    @property
    def sent_count(self) -> int:
        return self.sent[-1][2] if self.sent else 0

    def pump(self) -> None:
        """Send what the window and the pace let through, in one write."""
        if self.stopped:
            return
        plan, start = self.plan, self.position
        each = plan.per_frame
        # A window smaller than a frame still lets one frame go.
        room = self.in_flight - len(self.out) if self.out else max(self.in_flight, each)
        may = int(min(room, self.allowed))
        frames = may // each
        if not frames and may >= len(plan.ids) - start * each:
            # The last frame holds fewer messages than the others.
            frames = 1
        if frames <= 0:
            return
        end = min(start + frames, len(plan.frames))
        if end > start:
            self.connection.write(b"".join(plan.frames[start:end]))
            first, last = start * each, min(end * each, len(plan.ids))
            self.out.update(plan.ids[first:last])
            self.sent.append((time.perf_counter(), first, last))
            self.allowed -= last - first
            self.position = end
        if end == len(plan.frames):
            self.stopped = True
            self.spent()

    def receive(self, data: bytes) -> None:
        """Take whole frames; every message they answer leaves the window."""
        names = ACK_IDS.findall(data)
        if not names:
            return
        self.got.append((time.perf_counter(), names))
        self.out.difference_update(names)
        if b'"err"' in data:
            self._refusals(data)
        if self.samples_max:
            self.found += data.count(b'"put":{')
            self.reads += 1
            if self.reads % 16 == 1 and len(self.samples) < self.samples_max:
                self.samples.append(data)
        self.pump()

    def _refusals(self, data: bytes) -> None:
        for one in messages_in(data):
            if one.get("err") and "@" in one:
                self.refused[str(one["@"]).encode()] = str(one["err"])[:80]

    def wrong_values(self, mark: bytes) -> int:
        """How many sampled answers hold anything else than what was written."""
        place = {name: at for at, name in enumerate(self.plan.ids)} if self.samples else {}
        wrong = 0
        for one in (one for data in self.samples for one in messages_in(data)):
            at = place.get(str(one.get("@")).encode())
            if at is None or "put" not in one:
                continue
            value = value_of(mark, self.plan.indices[at]).decode()
            node = one["put"].get(self.plan.souls[at].decode(), {})
            wrong += node.get(self.plan.keys[at].decode()) != value
        return wrong


async def pace(lanes: Sequence[Lane], rate: float) -> None:
    """Let ``rate`` messages a second through, over all lanes, in steps of 5 ms."""
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        for lane in lanes:
            # A pause is caught up with, but not for longer than two seconds' worth.
            most = max(2 * rate, lane.plan.per_frame)
            lane.allowed = min(lane.allowed + rate / len(lanes) * (now - last), most)
            lane.pump()
        last = now


def subscriber(find: Callable[[bytes], list[bytes]], log: list[Got]) -> Callable[[bytes], None]:
    """A sink that logs when which of a run's values arrived."""

    def receive(data: bytes) -> None:
        digits = find(data)
        if digits:
            log.append((time.perf_counter(), digits))

    return receive
