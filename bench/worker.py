"""The generator's own process: a job comes on stdin, its result goes to stdout. (root)"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from bench.client import hold, release
from bench.load import Load, LoadConfig
from bench.meter import Meter
from bench.rows import Row
from bench.tally import Outcome

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # the generator only needs to be faster than the relay
    from asyncio import new_event_loop

__all__ = ["Job", "main", "run_job"]


@dataclass(frozen=True, slots=True)
class Job:
    row: Row
    url: str
    pid: int
    """The relay's process, whose CPU and memory are read."""
    seconds: float
    ops: int | None = None
    """Send exactly this many messages instead of running for ``seconds``."""
    warm_seconds: float = 1.0
    settle_seconds: float = 1.5
    """Rest before memory is read."""
    check: bool = True


async def run_job(job: Job) -> dict[str, Any]:
    """Do the job; the result is flat and JSON-able."""
    meter = Meter(job.pid)
    if job.row.kind == "idle":
        return await _idle(job, meter)
    config = LoadConfig(warm_seconds=job.warm_seconds)
    async with Load(job.url, clients=job.row.clients, config=config, meter=meter) as load:
        if job.row.kind == "nodes":
            return await _nodes(job, load, meter)
        return await _traffic(job, load)


async def _traffic(job: Job, load: Load) -> dict[str, Any]:
    row, seconds, ops = job.row, job.seconds, job.ops
    notes: list[str] = []
    if row.kind == "put":
        outcome = await load.puts(in_flight=row.in_flight, seconds=seconds, count=ops, batch=row.batch)
    elif row.kind == "get":
        before = await load.puts(in_flight=1250, count=row.items, batch=True)
        if before.missing:
            notes.append(f"{before.missing} of {before.sent} puts before the gets never acknowledged")
        # What the relay still does for those puts is not the cost of gets.
        await asyncio.sleep(job.settle_seconds)
        outcome = await load.gets(
            load.written(), in_flight=row.in_flight, seconds=seconds, count=ops, batch=row.batch
        )
    else:
        outcome = await load.fan_out(
            row.subscribers, in_flight=row.in_flight, seconds=seconds, count=ops, batch=row.batch
        )
    result = _flat(outcome, notes)
    if job.check and row.kind != "get":
        check = await load.check(200)
        result["check"] = asdict(check)
        if check.lost or check.wrong:
            notes.append(f"read back {check.asked}: {check.lost} lost, {check.wrong} wrong")
    return result


def _flat(outcome: Outcome, notes: list[str]) -> dict[str, Any]:
    for count, text in (
        (outcome.missing, f"{outcome.missing} of {outcome.sent} never answered"),
        (outcome.refused.total(), f"{outcome.refused.total()} refused: {outcome.refused.most_common(3)}"),
        (outcome.not_found, f"{outcome.not_found} gets found nothing"),
        (outcome.wrong, f"{outcome.wrong} of the sampled answers without the value written"),
        (outcome.undelivered, f"{outcome.undelivered} of {outcome.expected} deliveries missing"),
        (outcome.repeated, f"{outcome.repeated} delivered twice"),
        (outcome.closed, f"{outcome.closed} connections cut"),
    ):
        if count:
            notes.append(text)
    return {
        "rate": outcome.rate,
        "operations": outcome.operations,
        "seconds": outcome.seconds,
        "cpu_us": outcome.cpu_us,
        "p50_ms": outcome.percentile_ms(0.50),
        "p99_ms": outcome.percentile_ms(0.99),
        "max_ms": outcome.percentile_ms(1.0),
        "generator_share": outcome.generator_share,
        "others_share": outcome.others_share,
        "sent": outcome.sent,
        "missing": outcome.missing,
        "undelivered": outcome.undelivered,
        "notes": notes,
    }


async def _idle(job: Job, meter: Meter) -> dict[str, Any]:
    # Code and caches that the first sockets bring in are not the price of a socket.
    await release(await hold(job.url, 50))
    await asyncio.sleep(job.settle_seconds)
    before = meter.usage()
    held = await hold(job.url, job.row.items)
    await asyncio.sleep(job.settle_seconds)
    after = meter.usage()
    closed = sum(not one.is_open for one in held)
    await release(held)
    notes = [f"{closed} sockets cut"] if closed else []
    return _memory(before.rss_bytes, after.rss_bytes, before.pss_bytes, after.pss_bytes, job.row.items, notes)


async def _nodes(job: Job, load: Load, meter: Meter) -> dict[str, Any]:
    await load.puts(in_flight=250, count=2_000, batch=True)
    await asyncio.sleep(job.settle_seconds)
    before = meter.usage()
    outcome = await load.puts(in_flight=job.row.in_flight, count=job.row.items, batch=True)
    await asyncio.sleep(job.settle_seconds)
    after = meter.usage()
    done = max(1, outcome.answered - outcome.refused.total())
    notes = [f"{outcome.missing} of {outcome.sent} never answered"] if outcome.missing else []
    return _memory(before.rss_bytes, after.rss_bytes, before.pss_bytes, after.pss_bytes, done, notes)


def _memory(
    rss: int, rss_after: int, pss: int, pss_after: int, items: int, notes: list[str]
) -> dict[str, Any]:
    return {
        "bytes_each": (rss_after - rss) / items,
        "pss_bytes_each": (pss_after - pss) / items,
        "rss_before_bytes": rss,
        "rss_after_bytes": rss_after,
        "items": items,
        "notes": notes,
    }


def run_async(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run to the end on the fastest loop there is."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def main() -> None:
    given = json.load(sys.stdin)
    job = Job(**{**given, "row": Row(**given["row"])})
    # Millions of small lists live until the tally; collecting them over and over would only cost time.
    gc.disable()
    json.dump(run_async(run_job(job)), sys.stdout)


if __name__ == "__main__":
    main()
