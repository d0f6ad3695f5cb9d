"""Load: closed-loop and paced traffic for one GUN relay, with every answer accounted for. (shell)

    async with Load("ws://127.0.0.1:8765/gun", clients=4) as load:
        outcome = await load.puts(seconds=10, in_flight=64)
        print(outcome.rate, outcome.percentile_ms(0.99), outcome.missing)
        print(await load.check(sample=200))

Messages are built before a run; during one, the hot path is a search, a set difference and a write per read.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, inf
from types import TracebackType

from bench.client import Connection, connect, drop, hold, read_fields, release, wait_for
from bench.lane import Lane, pace, subscriber
from bench.messages import Plan, get_plan, new_mark, put_plan, random_ids, value_finder, value_of
from bench.meter import Meter
from bench.tally import Got, Outcome, Window, count_answers, count_deliveries

__all__ = ["Check", "Load", "LoadConfig", "Written"]

_LATE_SECONDS = 1.0
"""A paced run may take this much longer, so that everything planned is sent."""

Written = tuple[bytes, bytes, bytes]
"""(soul, key, value) of an acknowledged put."""


@dataclass(frozen=True, slots=True)
class LoadConfig:
    connect_seconds: float = 10.0
    ramp_seconds: float = 0.5
    """Load runs this long before the window opens."""
    quiet_seconds: float = 3.0
    """After the run, this long without any answer means that no more will come."""
    drain_seconds: float = 15.0
    """After the run, the longest wait for answers."""
    warm_seconds: float = 1.0
    """An unmeasured run before the measured one; it also tells how many messages to build. 0: none."""
    messages_max: int = 1_000_000
    """Most messages built for one run."""
    ledger_max: int = 400_000
    """Most acknowledged puts remembered for ``check``; the oldest go first."""
    samples_max: int = 64
    """Reads kept whole during gets, to compare the values afterwards."""


@dataclass(slots=True)
class Check:
    """What reading back acknowledged puts showed."""

    asked: int = 0
    equal: int = 0
    lost: int = 0
    wrong: int = 0


class Load:
    """Connections to one relay and the runs made over them. One run at a time."""

    def __init__(
        self, url: str, *, clients: int = 4, config: LoadConfig | None = None, meter: Meter | None = None
    ) -> None:
        self.url = url
        self.config = config or LoadConfig()
        self.mark = new_mark()
        """Begins every value this object writes."""
        self.ledger: dict[tuple[bytes, bytes], bytes] = {}
        """(soul, key) → value of every acknowledged put, up to ``ledger_max``."""
        self._clients = clients
        self._meter = meter or Meter(None)
        self._connections: list[Connection] = []
        self._next = 0

    async def __aenter__(self) -> Load:
        self._connections = await hold(self.url, self._clients, self.config.connect_seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await release(self._connections)
        self._connections = []

    async def puts(
        self,
        *,
        in_flight: int = 64,
        seconds: float = 5.0,
        count: int | None = None,
        rate: float | None = None,
        batch: bool = False,
    ) -> Outcome:
        """One-field puts to new souls, ``in_flight`` per client, each acknowledged.

        With ``count`` that many are sent and the window is the whole run; with ``rate`` (messages a second,
        all clients together) they are paced; otherwise as many as the relay answers in ``seconds``.
        """

        def build(total: int) -> list[Plan]:
            each = ceil(total / len(self._connections))
            return [self._put_plan(each, batch) for _ in self._connections]

        return await self._steady(build, in_flight, seconds, count, rate)

    async def gets(
        self,
        written: Sequence[Written],
        *,
        in_flight: int = 64,
        seconds: float = 5.0,
        count: int | None = None,
        rate: float | None = None,
        batch: bool = False,
    ) -> Outcome:
        """Whole-node gets over ``written`` (puts of this object), in random order, over and over."""
        souls = [soul for soul, _, _ in written]
        indices = [int(value[len(self.mark) : len(self.mark) + 7]) for _, _, value in written]

        def build(total: int) -> list[Plan]:
            plans = []
            for _ in self._connections:
                picks = random.choices(range(len(souls)), k=ceil(total / len(self._connections)))
                plans.append(
                    get_plan([souls[at] for at in picks], [indices[at] for at in picks], batch=batch)
                )
            return plans

        return await self._steady(build, in_flight, seconds, count, rate, samples=self.config.samples_max)

    async def fan_out(
        self,
        subscribers: int,
        *,
        in_flight: int = 64,
        seconds: float = 5.0,
        count: int | None = None,
        rate: float | None = None,
        batch: bool = False,
    ) -> Outcome:
        """One writer adds fields to a node that ``subscribers`` connections watch; operations are deliveries.

        Acknowledgements open the writer's window; ``latencies_ms`` run from the write to each delivery.
        """
        readers = await hold(self.url, subscribers, self.config.connect_seconds)
        try:
            if count is not None and self.config.warm_seconds:
                await self._chat(
                    readers, in_flight, seconds, min(count, 2_000), None, batch, min(count, 2_000)
                )
            if self.config.warm_seconds and count is None and rate is None:
                warm = await self._chat(readers, in_flight, self.config.warm_seconds, None, rate, batch, None)
                count_max = self._enough(warm.sent / warm.seconds, seconds, in_flight)
            else:
                count_max = count or ceil((rate or 10_000) * seconds)
            return await self._chat(readers, in_flight, seconds, count, rate, batch, count_max)
        finally:
            await release(readers)

    async def check(self, sample: int = 200, wait_seconds: float = 5.0) -> Check:
        """Read back a random sample of acknowledged puts over a new connection and compare."""
        picks = random.sample(list(self.ledger), min(sample, len(self.ledger)))
        result = Check(asked=len(picks))
        if not picks:
            return result
        connection = await connect(self.url, self.config.connect_seconds)
        try:
            values = await read_fields(connection, picks, wait_seconds)
        finally:
            await connection.aclose()
        for place in picks:
            if place not in values:
                result.lost += 1
            elif values[place] == self.ledger[place].decode():
                result.equal += 1
            else:
                result.wrong += 1
        return result

    def written(self) -> list[Written]:
        """Everything in the ledger, for ``gets``."""
        return [(soul, key, value) for (soul, key), value in self.ledger.items()]

    def _put_plan(self, count: int, batch: bool) -> Plan:
        first, self._next = self._next, self._next + count
        return put_plan(count, mark=self.mark, first=first, wall_ms=time.time() * 1000, batch=batch)

    def _enough(self, rate: float, seconds: float, in_flight: int) -> int:
        """Messages to build so that a run of ``seconds`` at about ``rate`` does not run dry."""
        need = rate * 1.6 * (seconds + self.config.ramp_seconds) + 2 * in_flight
        return min(self.config.messages_max, ceil(need))

    async def _steady(
        self,
        build: Callable[[int], list[Plan]],
        in_flight: int,
        seconds: float,
        count: int | None,
        rate: float | None,
        *,
        samples: int = 0,
    ) -> Outcome:
        everyone = in_flight * len(self._connections)
        before = Outcome()
        if count is not None:
            total, limit, ramp = count, self.config.drain_seconds + seconds, 0.0
        elif rate is not None:
            total, limit, ramp = ceil(rate * seconds), seconds + _LATE_SECONDS, 0.0
        else:
            limit, ramp = seconds, self.config.ramp_seconds
            guess = max(4_000, min(80_000, everyone * 100))
            if self.config.warm_seconds:
                before = await self._run(build(guess), in_flight, 0.0, self.config.warm_seconds, None, 0)
                total = self._enough(before.sent / before.seconds, seconds, everyone)
            else:
                total = guess
        outcome = await self._run(build(total), in_flight, ramp, limit, rate, samples)
        outcome.missing += before.missing
        outcome.refused += before.refused
        return outcome

    async def _run(
        self, plans: list[Plan], in_flight: int, ramp: float, seconds: float, rate: float | None, samples: int
    ) -> Outcome:
        spent = asyncio.Event()
        lanes = [
            Lane(connection, plan, in_flight, spent.set, samples)
            for connection, plan in zip(self._connections, plans, strict=True)
        ]
        window = await self._drive(lanes, ramp, seconds, rate, spent)
        outcome = self._sum_up(lanes, window)
        for lane in lanes:
            outcome.latencies_ms += count_answers(lane.sent, lane.got, lane.plan.ids, window)
            outcome.wrong += lane.wrong_values(self.mark) if samples else 0
            if samples:
                outcome.not_found += max(0, lane.sent_count - len(lane.out) - lane.found)
            else:
                self._remember(lane, self.mark)
        outcome.latencies_ms.sort()
        outcome.operations = len(outcome.latencies_ms)
        return outcome

    async def _chat(
        self,
        readers: list[Connection],
        in_flight: int,
        seconds: float,
        count: int | None,
        rate: float | None,
        batch: bool,
        total: int | None,
    ) -> Outcome:
        """One run of ``fan_out`` in a room of its own."""
        mark, room = new_mark(), b"room/" + random_ids(1, 12)[0]
        logs: list[list[Got]] = [[] for _ in readers]
        await asyncio.gather(*(reader.ask({"get": {"#": room.decode()}}, 2.0) for reader in readers))
        finder = value_finder(mark)
        for reader, log in zip(readers, logs, strict=True):
            reader.sink = subscriber(finder.findall, log)
        size = total or max(4_000, min(60_000, in_flight * 100))
        plan = put_plan(size, mark=mark, first=0, wall_ms=time.time() * 1000, batch=batch, soul=room)
        spent = asyncio.Event()
        lane = Lane(self._connections[0], plan, in_flight, spent.set)
        whole = count is not None or rate is not None
        ramp = 0.0 if whole or total is None else self.config.ramp_seconds
        limit = seconds + (self.config.drain_seconds if count is not None else _LATE_SECONDS if rate else 0.0)
        window = await self._drive([lane], ramp, limit, rate, spent)
        await self._all_delivered(logs, lane.sent_count)
        if window.exhausted and logs[0]:
            # Everything was sent at once: the run ends with the last delivery, not with the last write.
            last = max(log[-1][0] for log in logs if log) + 1e-6
            cpu = self._meter.cpu_seconds() - window.cpu_start
            machine = self._meter.machine_seconds() - window.machine_start
            window = replace(window, end=max(last, window.end), cpu_seconds=cpu, machine_seconds=machine)
        outcome = self._sum_up([lane], window)
        self._remember(lane, mark)
        step = max(1, len(logs) // 10)
        for at, log in enumerate(logs):
            missing, repeated, done, latencies = count_deliveries(
                lane.sent, log, window, latencies=at % step == 0
            )
            outcome.undelivered += missing
            outcome.repeated += repeated
            outcome.operations += done
            outcome.latencies_ms += latencies
        outcome.expected = lane.sent_count * len(readers)
        outcome.closed += sum(not reader.is_open for reader in readers)
        outcome.latencies_ms.sort()
        for reader in readers:
            reader.sink = drop
        return outcome

    async def _all_delivered(self, logs: list[list[Got]], sent: int) -> None:
        due, deadline = sent * len(logs), time.perf_counter() + self.config.drain_seconds
        before, since = -1, time.perf_counter()
        while time.perf_counter() < deadline:
            done = sum(len(digits) for log in logs for _, digits in log)
            if done != before:
                before, since = done, time.perf_counter()
            if done >= due or time.perf_counter() - since > self.config.quiet_seconds:
                return
            await asyncio.sleep(0.05)

    async def _drive(
        self, lanes: list[Lane], ramp: float, seconds: float, rate: float | None, spent: asyncio.Event
    ) -> Window:
        """Run the lanes, measure between the ramp and the end, then wait for the answers still out."""
        for lane in lanes:
            lane.connection.sink = lane.receive
            lane.connection.lost = spent.set
            lane.allowed = 0.0 if rate is not None else inf
        start, cpu, own, machine = self._sample()
        pacing = asyncio.create_task(pace(lanes, rate)) if rate is not None else None
        for lane in lanes:
            lane.pump()
        await wait_for(spent, ramp)
        if ramp and not spent.is_set():
            start, cpu, own, machine = self._sample()
        if not spent.is_set():
            await wait_for(spent, seconds)
        for lane in lanes:
            lane.stopped = True
        exhausted = spent.is_set()
        if pacing is not None:
            pacing.cancel()
        if exhausted:
            # A plan that was used up ends with its last answer: what is still out is part of the run.
            await self._drain(lanes)
        end = time.perf_counter()
        if exhausted:
            end = max((lane.got[-1][0] for lane in lanes if lane.got), default=end) + 1e-6
        spent_cpu = self._meter.cpu_seconds() - cpu
        spent_machine = self._meter.machine_seconds() - machine
        own = time.process_time() - own
        window = Window(start, end, cpu, machine, spent_cpu, own, spent_machine, exhausted)
        await self._drain(lanes)
        for lane in lanes:
            lane.connection.sink, lane.connection.lost = drop, None
        return window

    def _sample(self) -> tuple[float, float, float, float]:
        """(moment, CPU of the relay, of this process, of the whole machine), all in seconds."""
        meter = self._meter
        return time.perf_counter(), meter.cpu_seconds(), time.process_time(), meter.machine_seconds()

    async def _drain(self, lanes: list[Lane]) -> None:
        deadline = time.perf_counter() + self.config.drain_seconds
        before, since = -1, time.perf_counter()
        while time.perf_counter() < deadline:
            out = sum(len(lane.out) for lane in lanes if lane.connection.is_open)
            if out != before:
                before, since = out, time.perf_counter()
            if out == 0 or time.perf_counter() - since > self.config.quiet_seconds:
                return
            await asyncio.sleep(0.002)

    def _sum_up(self, lanes: Iterable[Lane], window: Window) -> Outcome:
        outcome = Outcome(window=window)
        for lane in lanes:
            outcome.sent += lane.sent_count
            outcome.missing += len(lane.out)
            outcome.answered += lane.sent_count - len(lane.out)
            outcome.refused += Counter(lane.refused.values())
            outcome.closed += not lane.connection.is_open
        return outcome

    def _remember(self, lane: Lane, mark: bytes) -> None:
        """Put what was acknowledged without an error into the ledger."""
        plan, out, refused = lane.plan, lane.out, lane.refused
        for at in range(lane.sent_count):
            name = plan.ids[at]
            if name not in out and name not in refused:
                self.ledger[plan.souls[at], plan.keys[at]] = value_of(mark, plan.indices[at])
        over = len(self.ledger) - self.config.ledger_max
        if over > 0:
            self.ledger = dict(islice(self.ledger.items(), over, None))
