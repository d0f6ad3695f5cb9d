"""What reconciliation costs: two peers with a million cells, some of which differ. (root)

    .venv/bin/python -m bench.repair                # 10**6 cells; 0, 10, 1,000 and 100,000 of them differ
    .venv/bin/python -m bench.repair --quick        # 10**5 cells

Both peers run in this process, each with a store on disk, over TCP with Noise and yamux on loopback. Nodes
have two fields of 16 characters. ``edited``: the differing fields were written again, half on one side, half
on the other. ``new``: one side has them and the other lacks them, half and half. ``both``: written on both
sides. ``alone``: one side has nothing. Bytes are those of the repair streams, both directions together.
The *difference* is what the winning cells take as batches of the native wire, plain and compressed. The
seconds of CPU are those of both peers.

What gun.js does after the same split is measured with its own relay and its own client, for fewer nodes: the
client listened to all nodes, lost its connection, some nodes were written meanwhile, and it dials again. It
asks for every node by its hash. That is scaled to the number of nodes here. It heals one direction only: what
the client itself wrote while it was away, it does not say again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from air.base.errors import AirError
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.codec.zstd import Squeezer, ZstdConfig
from air.model import Cell
from air.model.mark import Mark
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.pb.graph_pb2 import Cells as Columns
from air.security.noise import Noise
from air.store.api import RangeSource
from air.store.sqlite import Sqlite, SqliteConfig
from air.sync.native.columns import fill
from air.sync.repair.config import Summary
from air.sync.repair.session import Repair
from air.transport.tcp_transport import Tcp
from bench import relays

NOW = 1_700_000_000_000
KEYS = ("bio", "name")
BATCH = 2_000
ORIGIN: Mark = (("12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2", 1),)
GUN_NODES = 1_000
GUN_EDITED = 100


def text(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"


def base(count: int) -> Iterator[Cell]:
    """Cells of nodes with two fields, written over a day."""
    rng = random.Random(1)
    for index in range(count):
        yield Cell(f"user/{index // 2:07d}", KEYS[index % 2], text(rng), NOW + rng.randrange(86_400_000))


class Case(NamedTuple):
    """What differs: cells that only one side gets, in addition to what both have."""

    name: str
    differing: int
    kind: str


class Side:
    """A store, and what serves it."""

    def __init__(self, path: Path, writer: str) -> None:
        self.store = Sqlite(path, SqliteConfig(durable=False, conflicts_max=10), writer=writer)
        self.one = anyio.CapacityLimiter(1)
        self.repair = Repair(self.ask, self.merge)

    async def ask(self, question: Callable[[RangeSource], None]) -> None:
        await anyio.to_thread.run_sync(question, self.store, limiter=self.one)

    async def merge(self, peer: PeerId, cells: Sequence[Cell], marks: Sequence[Mark]) -> None:
        await anyio.to_thread.run_sync(partial(self.store.write, cells, marks=marks), limiter=self.one)

    def sum_up(self) -> None:
        """Sum up what has changed, as a daemon does in idle time."""
        while self.store.refresh():
            pass


def difference(cells: Sequence[Cell]) -> tuple[int, int]:
    """Bytes of some cells as batches of the native wire: plain, and compressed."""
    plain = zipped = 0
    squeezer = Squeezer(ZstdConfig())
    ordered = sorted(cells)
    for start in range(0, len(ordered), 512):
        columns = Columns()
        some = ordered[start : start + 512]
        fill(columns, some, [ORIGIN] * len(some))
        data = columns.SerializeToString()
        plain += len(data)
        zipped += len(squeezer.squeeze(data))
    return plain, zipped


def fill_store(path: Path, cells: Iterator[Cell], without: frozenset[int] = frozenset()) -> None:
    batch: list[Cell] = []
    with closing(Sqlite(path, SqliteConfig(durable=False))) as store:
        for index, cell in enumerate(cells):
            if index not in without:
                batch.append(cell)
            if len(batch) == BATCH:
                store.write(batch, marks=[ORIGIN] * len(batch))
                batch.clear()
        if batch:
            store.write(batch, marks=[ORIGIN] * len(batch))
        while store.refresh():
            pass


def prepare(case: Case, count: int, folder: Path, origin: Path) -> list[Cell]:
    """Make the two files; returns the cells that differ, as they are when all is over."""
    rng = random.Random(7)
    paths = [folder / "one.db", folder / "other.db"]
    for path in paths:
        path.unlink(missing_ok=True)
    picked = rng.sample(range(count), case.differing)
    if case.kind == "alone":
        shutil.copy(origin, paths[1])
        return list(base(count))
    if case.kind == "new":
        for number, path in enumerate(paths):
            fill_store(path, base(count), frozenset(picked[number::2]))
        chosen = set(picked)
        return [cell for index, cell in enumerate(base(count)) if index in chosen]
    for path in paths:
        shutil.copy(origin, path)
    chosen = set(picked)
    known = [cell for index, cell in enumerate(base(count)) if index in chosen]
    rng.shuffle(known)

    def renewed(cell: Cell) -> Cell:
        return cell._replace(value=text(rng), state=NOW + 86_400_000 + rng.randrange(3_600_000))

    if case.kind == "edited":
        edits = [[renewed(cell) for cell in known[number::2]] for number in range(2)]
        winners = edits[0] + edits[1]
    else:
        edits = [[renewed(cell) for cell in known] for _ in range(2)]
        winners = [max(pair, key=lambda cell: cell.state) for pair in zip(*edits, strict=True)]
    for path, cells in zip(paths, edits, strict=True):
        with closing(Sqlite(path, SqliteConfig(durable=False), writer=path.stem)) as store:
            for start in range(0, len(cells), BATCH):
                store.write(cells[start : start + BATCH])
    return winners


async def reconcile(folder: Path) -> tuple[Summary, float]:
    """One session between the two files. Returns what it took, and the seconds of CPU of both sides."""
    sides = [Side(folder / "one.db", "one"), Side(folder / "other.db", "other")]
    try:
        for side in sides:
            side.sum_up()
        nodes = [
            Node(Identity.generate(), [Tcp()], [Noise()], [Yamux()], [side.repair], ["/ip4/127.0.0.1/tcp/0"])
            for side in sides
        ]
        async with nodes[0] as one, nodes[1] as other:
            await one.dial(other.addresses[0])
            start = time.process_time()
            summary = await sides[0].repair.with_peer(one.swarm, other.peer)
            spent = time.process_time() - start
            if sides[0].store.fingerprint(None, None) != sides[1].store.fingerprint(None, None):
                raise SystemExit("the stores differ afterwards")
            return summary, spent
    finally:
        for side in sides:
            side.store.close()


# -- gun.js ----------------------------------------------------------------------


class GunClient:
    """A gun.js client in a process of its own."""

    def __init__(self, url: str) -> None:
        script = Path(__file__).with_name("repair_gun.cjs")
        self._process = subprocess.Popen(
            ["node", str(script), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the gun.js client has ended")
        return json.loads(line)["ok"]

    def do(self, name: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class GunCost(NamedTuple):
    """Bytes of WebSocket messages, without their heads."""

    node: float
    """For each node, changed or not."""
    edited: float
    """On top for each changed one."""
    healed: bool
    """The client knew all changes afterwards."""


def gun_cost() -> GunCost:
    """What a client of the stock relay says and hears after its connection was cut."""
    rng = random.Random(3)
    souls = [f"user/{index:07d}" for index in range(GUN_NODES)]
    totals: list[int] = []
    healed = True
    for edited in (0, GUN_EDITED):
        with relays.stock() as relay, closing(GunClient(relay.url)) as writer:
            for start in range(0, GUN_NODES, 50):
                some = souls[start : start + 50]
                writer.do("put", nodes={soul: {key: text(rng) for key in KEYS} for soul in some})
            with closing(GunClient(relay.url)) as reader:
                reader.do("listen", souls=souls)
                reader.do("cut")
                news = {soul: {rng.choice(KEYS): text(rng)} for soul in rng.sample(souls, edited)}
                if news:
                    writer.do("put", nodes=news)
                said = reader.do("healed")
                totals.append(said["sent"] + said["received"])
                held = reader.do("read", souls=list(news))
                healed = healed and all(
                    fields.items() <= found.items() for fields, found in zip(news.values(), held, strict=True)
                )
    return GunCost(totals[0] / GUN_NODES, max(0.0, (totals[1] - totals[0]) / GUN_EDITED), healed)


# -- the table ---------------------------------------------------------------------


@contextmanager
def workplace(root: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="air-bench-repair-", dir=root) as folder:
        yield Path(folder)


def cases(count: int) -> list[Case]:
    many = count // 10
    return [
        Case("equal", 0, "edited"),
        Case("10 edited", 10, "edited"),
        Case("1,000 edited", 1_000, "edited"),
        Case(f"{many:,} edited", many, "edited"),
        Case(f"{many:,} new", many, "new"),
        Case(f"{many:,} edited on both", many, "both"),
        Case("alone", count, "alone"),
    ]


def row(
    case: Case, count: int, cells: Sequence[Cell], summary: Summary, cpu: float, gun: GunCost | None
) -> str:
    total = summary.bytes_in + summary.bytes_out
    plain, zipped = difference(cells)
    ratios = f"{total / plain:9.2f}{total / zipped:9.2f}" if cells else f"{'-':>9}{'-':>9}"
    line = (
        f"{case.name:24}{summary.rounds:7}{summary.passes:7}{total:13,}{plain:13,}{zipped:13,}{ratios}"
        f"{summary.sent + summary.received:10,}{summary.seconds:9.2f}{cpu:9.2f}"
    )
    if gun is not None:
        nodes = count / len(KEYS)
        theirs = nodes * gun.node + min(case.differing, nodes) * gun.edited
        line += f"{theirs:16,.0f}{theirs / total:12,.1f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cells")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--no-gun", action="store_true", help="without gun.js")
    parser.add_argument("--data-root", type=Path, help="where the stores are made")
    options = parser.parse_args()
    count = 100_000 if options.quick else options.cells
    gun = None
    if not options.no_gun:
        try:
            gun = gun_cost()
            print(
                f"gun.js, {GUN_NODES:,} nodes: {gun.node:,.0f} bytes a node, {gun.edited:,.0f} more for"
                f" each one changed; knew all changes: {'yes' if gun.healed else 'no'}"
            )
        except (AirError, OSError) as error:
            print(f"without gun.js: {error}", file=sys.stderr)
    head = f"{f'{count:,} cells':24}{'rounds':>7}{'passes':>7}{'bytes':>13}{'difference':>13}{'zipped':>13}"
    head += f"{'ratio':>9}{'zipped':>9}{'moved':>10}{'seconds':>9}{'CPU':>9}"
    print(head + (f"{'gun.js bytes':>16}{'gun.js/Air':>12}" if gun else ""))
    with workplace(options.data_root) as folder:
        origin = folder / "origin.db"
        fill_store(origin, base(count))
        for case in cases(count):
            if options.only not in case.name:
                continue
            cells = prepare(case, count, folder, origin)
            summary, cpu = anyio.run(reconcile, folder)
            print(row(case, count, cells, summary, cpu, gun), flush=True)


if __name__ == "__main__":
    main()
