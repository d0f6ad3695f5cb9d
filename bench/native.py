"""The native wire: how fast it is, and how small beside GUN's JSON: ``python -m bench.native``. (root)

Rates are of both ends in one process, so a link between two machines has about twice the time for each cell.
Sizes are of whole links (greeting, acks and credit included) and do not depend on the machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from air.base.clock import ManualClock, SystemClock
from air.base.entropy import IdSource, SeededEntropy
from air.base.keys import Identity
from air.graph.state import Stamps
from air.model import Ack, Cell, Mark, Put
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.security.noise import Noise
from air.store.memory import Memory
from air.store.sqlite import Sqlite
from air.store.worker import StoreWorker
from air.sync.gun.writer import encode_put
from air.sync.hub import Hub
from air.sync.native.limits import NativeConfig
from air.sync.native.link import NativeLink
from air.sync.native.rates import Rates
from air.sync.native.session import GraphSync
from air.transport.tcp_transport import Tcp

MIB = 1024 * 1024
PEERS = [str(Identity.generate().peer_id) for _ in range(2)]
WORDS = (Path(__file__).parent / "README.md").read_text().split()


def people(count: int, seed: int = 1) -> list[Cell]:
    """``count`` cells: nodes of two fields, a name and a score, each node written at its own moment."""
    source, ids = random.Random(seed), IdSource(SeededEntropy(seed))
    stamps, wall = Stamps(PEERS[0]), SystemClock().now().wall - 10_000_000
    cells = []
    for _ in range((count + 1) // 2):
        wall += source.expovariate(1 / 20)
        soul, state = f"people/{ids()}", stamps.next(wall)
        cells.append(Cell(soul, "name", f"{source.choice(WORDS)} {source.choice(WORDS)}", state))
        cells.append(Cell(soul, "score", source.randrange(100_000), state))
    return cells[:count]


# -- links by themselves ----------------------------------------------------------


class Wire:
    """Two links joined by hand; the far one acknowledges at once."""

    def __init__(self) -> None:
        self.clock, config = ManualClock(), NativeConfig()
        self.ends = [
            NativeLink(
                own=PEERS[at],
                expected=PEERS[1 - at],
                outbound=not at,
                ids=IdSource(SeededEntropy(at)),
                config=config,
                rates=Rates(config.rates),
                now=self.clock.now(),
            )
            for at in (0, 1)
        ]
        self.bytes = 0
        self.arrived = 0
        self.pump()

    def pump(self) -> None:
        now = self.clock.now()
        while any(end.ready for end in self.ends):
            for at in (0, 1):
                data = self.ends[at].take_output(now)
                self.bytes += len(data)
                for event in self.ends[1 - at].receive(data, now):
                    if type(event) is Put:
                        self.arrived += len(event.cells)
                        self.ends[1 - at].send(Ack("", event.id))


def pieces(cells: Sequence[Cell], size: int) -> list[tuple[Sequence[Cell], list[Mark]]]:
    """Puts of ``size`` cells with the marks that a store gives them."""
    return [
        (cells[start : start + size], [((PEERS[0], 1 + start // size),)] * len(cells[start : start + size]))
        for start in range(0, len(cells), size)
    ]


def native_bytes(cells: Sequence[Cell], size: int) -> int:
    wire = Wire()
    for number, (some, marks) in enumerate(pieces(cells, size)):
        wire.ends[0].send(Put(str(number), some, marks=marks))
        wire.pump()
    assert wire.arrived == len(cells)
    return wire.bytes


def gun_bytes(cells: Sequence[Cell], size: int) -> int:
    """The same puts and their acks as GUN frames with the heads that WebSocket puts before them."""
    ids, total = IdSource(SeededEntropy(1)), 0
    for start in range(0, len(cells), size):
        frame = encode_put(Put(ids(), cells[start : start + size]), for_relay=True)
        ack = len(f'{{"#":"{ids()}","@":"{ids()}","ok":1}}') + 2
        total += len(frame) + (2 if len(frame) < 126 else 4 if len(frame) < 65_536 else 10) + 4 + ack
    return total


def link_rate(cells: Sequence[Cell], size: int) -> float:
    """Cells per second from one link's ``send`` to the other's ``receive``, without a network."""
    wire, puts = Wire(), pieces(cells, size)
    began = time.perf_counter()
    for number, (some, marks) in enumerate(puts):
        wire.ends[0].send(Put(str(number), some, marks=marks))
        wire.pump()
    return len(cells) / (time.perf_counter() - began)


# -- whole peers -------------------------------------------------------------------


class Peer:
    """A hub with its store, and a node on TCP."""

    def __init__(self, data: Path | None) -> None:
        identity = Identity.generate()
        name = str(identity.peer_id)
        memory = Memory(1024 * MIB, authoritative=True) if data is None else Memory(64 * MIB)
        worker = None if data is None else StoreWorker(Sqlite(data, writer=name))
        self.hub = Hub(memory, worker, name, Stamps(name))
        self.sync = GraphSync(self.hub)
        self.node = Node(identity, [Tcp()], [Noise()], [Yamux()], [self.sync], ["/ip4/127.0.0.1/tcp/0"])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells
        await anyio.sleep(0.002)


async def peers_rate(count: int, size: int, data: Path | None) -> float:
    """Cells per second from ``Hub.put`` on one peer until the other has taken all, over TCP and Noise."""
    source = random.Random(2)
    nodes = [
        (f"people/{n}", {"name": f"{source.choice(WORDS)} {n}", "score": source.randrange(100_000)})
        for n in range(count // 2)
    ]
    async with AsyncExitStack() as stack:
        one, other = (Peer(None if data is None else data / name) for name in "ab")
        for peer in (one, other):
            await stack.enter_async_context(peer.hub.running())
            await stack.enter_async_context(peer.node)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(one.sync.dial, str(other.node.addresses[0]))
        await until(lambda: bool(one.sync.peers and other.sync.peers))
        began = time.perf_counter()
        if size == 1:
            for soul, fields in nodes:
                for key, value in fields.items():
                    await one.hub.put({soul: {key: value}})
        else:
            for start in range(0, len(nodes), size // 2):
                await one.hub.put(dict(nodes[start : start + size // 2]))
        await until(lambda: other.hub.engine.accepted >= 2 * len(nodes))
        spent = time.perf_counter() - began
        tasks.cancel_scope.cancel()
        return count / spent


def median(runs: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many runs")
    options = parser.parse_args()
    count, runs = options.cells, options.runs
    cells = people(count)

    print("bytes per cell, the whole link in both directions   native     GUN   GUN / native")
    for size in (2_000, 200, 20, 2, 1):
        some = cells[: count if size > 2 else min(count, 5_000)]
        native, gun = native_bytes(some, size) / len(some), gun_bytes(some, size) / len(some)
        print(f"  puts of {size:5} cells{native:38.1f}{gun:8.1f}{gun / native:12.1f}")

    print("cells per second, both ends in one process           batches of 2,000    one by one")
    few = cells[: min(count, 5_000)]
    batches, singly = (median(runs, lambda: link_rate(cells, 2_000)), median(runs, lambda: link_rate(few, 1)))
    print(f"  links alone, no network{batches:44,.0f}{singly:14,.0f}")
    with TemporaryDirectory() as folder:
        for name, disk in (("memory", False), ("disk", True)):

            def rate(number: int, size: int, name: str = name, disk: bool = disk) -> float:
                data = Path(folder) / f"{name}{size}{time.monotonic_ns()}"
                data.mkdir()
                return anyio.run(peers_rate, number, size, data if disk else None)

            batches = median(runs, lambda: rate(count, 2_000))
            singly = median(runs, lambda: rate(min(count, 1_000 if disk else 5_000), 1))  # noqa: B023
            print(f"  peers over TCP and Noise, stores on {name:8}{batches:23,.0f}{singly:14,.0f}")


if __name__ == "__main__":
    main()
