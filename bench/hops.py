"""What a chain of relays costs: ``python -m bench.hops``. (root)

    writer - relay - relay - relay - watcher

Three Air daemons joined by native links, and three stock relays joined by gun's own, in turn in the same run.
The writer and the watcher speak GUN on both sides. Then the memory that 100,000 nodes of two fields take at
the first relay and at the last one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import anyio

from air.transport.websocket import WebSocketConn, dial_websocket
from bench import relays
from bench.meter import Meter
from bench.relays import Running

HOPS = 3
GOAL = 1 / 3
"""Air's median over that of the stock relays."""
IDLE_SECONDS = 0.01
"""Between the arrival of an update and the next one: what is measured is a way, and no queue."""
LOST_SECONDS = 2.0
NODES_TOGETHER = 100
MIB = 1024 * 1024


@dataclass
class Measured:
    """What one side has shown in all rounds."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    bytes_per_node: list[list[float]] = field(default_factory=list)
    """By round: at the first relay, and at the last one."""

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@contextmanager
def air_chain() -> Iterator[list[Running]]:
    """Each daemon dials the one before it by the native wire."""
    with ExitStack() as stack:
        chain = [stack.enter_context(relays.air())]
        while len(chain) < HOPS:
            chain.append(stack.enter_context(relays.air(peers=[chain[-1].native])))
        yield chain


@contextmanager
def stock_chain() -> Iterator[list[Running]]:
    """Each relay dials the one before it."""
    with ExitStack() as stack:
        chain = [stack.enter_context(relays.stock(peers=()))]
        while len(chain) < HOPS:
            url = chain[-1].url.replace("ws://", "http://", 1)
            chain.append(stack.enter_context(relays.stock(peers=[url])))
        yield chain


SIDES: dict[str, Callable[[], AbstractContextManager[list[Running]]]] = {
    "stock": stock_chain,
    "air": air_chain,
}


class Ends:
    """The writer and the watcher of a chain."""

    def __init__(self, writer: WebSocketConn, watcher: WebSocketConn) -> None:
        self._writer, self._watcher = writer, watcher
        self._count = 0

    async def watch(self, soul: str) -> None:
        await self._watcher.send([json.dumps({"#": f"w{soul}", "get": {"#": soul}}).encode()])

    async def cross(self, soul: str, seconds: float) -> float | None:
        """Write once; seconds until the watcher has it, None when it does not come."""
        self._count += 1
        value = f"{soul} {self._count}"
        frame = _put(f"m{soul}{self._count}", {soul: {"value": value}})
        began = time.perf_counter()
        await self._writer.send([frame])
        with anyio.move_on_after(seconds):
            while True:
                for text in await self._watcher.receive():
                    if value.encode() in bytes(text):
                        return time.perf_counter() - began
        return None

    async def joined(self, soul: str) -> None:
        """Wait until what is written at one end arrives at the other."""
        await self.watch(soul)
        for _ in range(60):
            if await self.cross(soul, 0.5) is not None:
                return
        raise RuntimeError("the relays of the chain do not find each other")

    async def fill(self, count: int) -> None:
        """Write so many nodes of two fields, each message once the one before is acknowledged."""
        for start in range(0, count, NODES_TOGETHER):
            many = range(start, min(start + NODES_TOGETHER, count))
            id = f"fill{start}"
            nodes = {f"people/{it}": {"name": f"somebody number {it}", "score": it} for it in many}
            await self._writer.send([_put(id, nodes)])
            with anyio.move_on_after(LOST_SECONDS):
                while not any(f'"@":"{id}"'.encode() in bytes(it) for it in await self._writer.receive()):
                    pass


def _put(id: str, nodes: dict[str, dict[str, object]]) -> bytes:
    # A little back, so that no relay has a reason to hold it until its time has come.
    state = time.time() * 1000 - 5
    graph = {
        soul: {"_": {"#": soul, ">": dict.fromkeys(fields, state)}, **fields}
        for soul, fields in nodes.items()
    }
    return json.dumps({"#": id, "put": graph}, separators=(",", ":")).encode()


async def measure(chain: Sequence[Running], measured: Measured, updates: int, nodes: int) -> None:
    """One round over a fresh chain."""
    ends = Ends(await dial_websocket(chain[0].url), await dial_websocket(chain[-1].url))
    await ends.joined("hello")
    await ends.watch("live")
    for index in range(updates + 10):
        seconds = await ends.cross("live", LOST_SECONDS)
        if seconds is None:
            measured.lost += 1
        elif index >= 10:
            measured.seconds.append(seconds)
        await anyio.sleep(IDLE_SECONDS)
    if not nodes:
        return
    meters = [Meter(chain[0].pid), Meter(chain[-1].pid)]
    before = [meter.usage().rss_bytes for meter in meters]
    await ends.fill(nodes)
    await anyio.sleep(3)
    measured.bytes_per_node.append(
        [(meter.usage().rss_bytes - was) / nodes for meter, was in zip(meters, before, strict=True)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hops", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=300, help="of each round")
    parser.add_argument("--nodes", type=int, default=100_000, help="0: do not measure memory")
    args = parser.parse_args()
    sides = {name: Measured() for name in SIDES}
    for number in range(args.rounds):
        for name, start in SIDES.items():
            with start() as chain:
                # Memory once: it is the slow part, and hardly differs.
                nodes = args.nodes if number == 0 else 0
                anyio.run(measure, chain, sides[name], args.updates, nodes)
    report(sides, args.nodes)


def report(sides: dict[str, Measured], nodes: int) -> None:
    """Print what came out."""
    print(f"writer -> {HOPS} relays -> watcher, one update at a time")
    for name, measured in sides.items():
        p50, p99 = measured.percentile_ms(0.5), measured.percentile_ms(0.99)
        count = len(measured.seconds)
        print(f"  {name:6} p50 {p50:8.2f} ms   p99 {p99:8.2f} ms   {count} updates, {measured.lost} lost")
    ratio = sides["air"].percentile_ms(0.5) / sides["stock"].percentile_ms(0.5)
    verdict = "met" if ratio <= GOAL else "missed"
    print(f"  ratio of the medians {ratio:.2f} (goal: at most {GOAL:.2f}: {verdict})")
    if not nodes:
        return
    print(f"resident memory for {nodes} nodes of two fields")
    for name, measured in sides.items():
        first, last = (statistics.median(column) for column in zip(*measured.bytes_per_node, strict=True))
        print(
            f"  {name:6} first relay {first * nodes / MIB:6.1f} MiB   last {last * nodes / MIB:6.1f} MiB"
            f"   {first:5.0f} and {last:5.0f} bytes a node"
        )


if __name__ == "__main__":
    main()
