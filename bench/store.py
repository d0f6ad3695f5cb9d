"""How fast the store takes cells, and how fast it tells of ranges. ``python -m bench.store [--ranges]``

Each line is one kind of write to a file of its own: new fields, fields that are written again, and both in
transactions of one cell. Flushing is off, so that the disk does not hide what the code costs; rates are per
second of CPU time, the best of some rounds.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from air.model import Cell
from air.store.sqlite import Sqlite, SqliteConfig

PEER = "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2"


def opened(path: Path, options: dict[str, Any], own: bool) -> Sqlite:
    config = SqliteConfig(durable=False, **options)
    # Older versions of the store, which comparisons are made with, know no writer.
    if own and "writer" in inspect.signature(Sqlite.__init__).parameters:
        return Sqlite(path, config, writer=PEER)
    return Sqlite(path, config)


def batches(cells: int, size: int, state: float, order: list[int]) -> Iterator[list[Cell]]:
    """Cells of two-field nodes."""
    for first in range(0, cells, size):
        yield [
            Cell(f"node/{i // 2:08}", f"field {i % 2}", f"value {i} of {state}", state)
            for i in order[first : first + size]
        ]


def rate(store: Sqlite, work: list[list[Cell]]) -> float:
    """Cells per second."""
    gc.collect()
    start = time.process_time()
    for batch in work:
        store.write(batch)
    return sum(len(batch) for batch in work) / (time.process_time() - start)


def measure(cells: int, options: dict[str, Any], own: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder) / "air.db", options, own)
        straight = list(range(cells))
        mixed = random.Random(7).sample(straight, cells)
        found = {
            "new, 2,000": rate(store, list(batches(cells, 2000, 1, straight))),
            "again, 2,000": rate(store, list(batches(cells, 2000, 2, straight))),
            "again at random, 2,000": rate(store, list(batches(cells, 2000, 3, mixed))),
            "again at random, 1": rate(store, list(batches(cells // 10, 1, 4, mixed))),
            "same again, 2,000": rate(store, list(batches(cells // 4, 2000, 3, straight))),
        }
        start = time.process_time()
        for batch in batches(cells // 2, 2, 1, straight[: cells // 2]):
            store.read(batch[0].soul)
        found["read of a node"] = cells / 4 / (time.process_time() - start)
        store.close()
        found["bytes per cell"] = (Path(folder) / "air.db").stat().st_size / cells
    return found


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def timed(name: str, question: Callable[[], object], times: int = 1) -> None:
    start = time.process_time()
    for _ in range(times):
        question()
    print(f"{name:44} {1000 * (time.process_time() - start) / times:10,.3f} ms")


def ranges(cells: int) -> None:
    """What sums over ranges cost, with nothing summed up and with everything."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "air.db"
        store = opened(path, {}, own=True)
        straight, chance = list(range(cells)), random.Random(9)
        for batch in batches(cells, 2000, 1, straight):
            store.write(batch)
        before = resident()
        timed("all, nothing summed up", lambda: store.fingerprint(None, None))
        print(f"{'memory of that':44} {(resident() - before) / 2**20:10,.1f} MiB")
        timed("all, everything summed up", lambda: store.fingerprint(None, None), 20)
        places = [place for place, _ in store.items(None, None, cells)[:: cells // 1000]]
        timed("a sixteenth", lambda: store.fingerprint(*sorted(chance.sample(places, 2))), 100)
        timed("cut all into 16", lambda: store.split(None, None, 16), 10)
        timed("cut all into 1,000", lambda: store.split(None, None, 1000))
        timed("100 items", lambda: store.items(chance.choice(places), None, 100), 100)
        timed("100 cells with marks", lambda: store.cells(places[:100]), 10)
        timed("write down what is known, and close", store.close)
        timed("open", lambda: opened(path, {}, own=True).close())
        store = opened(path, {}, own=True)
        timed("all, after it was opened again", lambda: store.fingerprint(None, None))
        mixed = chance.sample(straight, cells // 10)
        for size, part in ((1, mixed[: cells // 100]), (2000, mixed)):
            while store.refresh(100_000):
                pass
            print(
                f"{f'again at random, {size}, first':44} {rate(store, list(parts(part, size, 2))):10,.0f} /s"
            )
            print(
                f"{f'again at random, {size}, second':44} {rate(store, list(parts(part, size, 3))):10,.0f} /s"
            )
        timed("all, after a tenth has changed", lambda: store.fingerprint(None, None))
        store.close()


def parts(order: list[int], size: int, state: float) -> Iterator[list[Cell]]:
    return batches(len(order), size, state, order)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="without a name for this peer")
    parser.add_argument("--no-marks", action="store_true")
    parser.add_argument("--ranges", action="store_true", help="sums over ranges instead of writes")
    args = parser.parse_args()
    if args.ranges:
        ranges(args.cells)
        return
    options = {"marks": False} if args.no_marks else {}
    best: dict[str, float] = {}
    for _ in range(args.rounds):
        for name, value in measure(args.cells, options, not args.plain).items():
            best[name] = max(value, best.get(name, 0))
    for name, value in best.items():
        print(f"{name:24} {value:12,.0f}")


if __name__ == "__main__":
    main()
