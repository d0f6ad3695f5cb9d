"""Two rows that take long to fill: a start on much data, and one page of a very large node. (root)

Air's data is written into its store directly, by the store's own code: through the wire it would take
minutes. The stock relay gets what it can take through the wire in that time; the table says how much.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from air.base.errors import AirError
from air.model.cell import Cell
from air.store import Sqlite
from bench import relays
from bench.client import Connection, connect
from bench.meter import Meter

__all__ = ["BigConfig", "measure"]

MIB = 1024 * 1024
_PUT_FIELDS = 100
_SOUL = "big"


@dataclass(frozen=True, slots=True)
class BigConfig:
    restart_bytes: int = 1024 * MIB
    """Data of Air when it is started again."""
    node_fields: int = 1_000_000
    """Fields of Air's large node."""
    stock_bytes: int = 16 * MIB
    stock_fields: int = 2_000
    pages: int = 30
    """Pages that are read, each somewhere else."""
    page_fields: int = 50
    put_seconds: float = 1.0
    """The longest wait for the acknowledgement of a put to the stock relay."""
    wait_seconds: float = 30.0
    """The longest wait for an answer."""


def measure(side: str, config: BigConfig, data_root: Path | None = None) -> list[str]:
    """Both rows for ``air`` or ``stock``, a line each. A relay that cannot do it is told with its error."""
    lines = []
    for title, row in (("restart", _restart), ("one LEX page", _page)):
        with tempfile.TemporaryDirectory(prefix=f"air-bench-big-{side}-", dir=data_root) as folder:
            try:
                lines.append(f"{side:6}{title}: {row(side, config, Path(folder))}")
            except (AirError, OSError, TimeoutError) as error:
                lines.append(f"{side:6}{title}: failed, {error!r}")
    return lines


def _restart(side: str, config: BigConfig, folder: Path) -> str:
    """Ready and the first read after a start on a full store. Goal: 3 s, then 50 ms."""
    value = os.urandom(512).hex()
    count = (config.restart_bytes if side == "air" else config.stock_bytes) // len(value)
    cells = (Cell(f"s{at:08}", "k", value, 1.0) for at in range(count))
    _fill(side, folder, cells, config)
    began = time.monotonic()
    with relays.again(side, folder) as relay:
        ready = time.monotonic() - began
        first, found = asyncio.run(_first(relay.url, f"s{count // 2:08}", config))
        verdict = "" if side != "air" else _verdict(ready <= 3.0 and first <= 0.05 and found)
        size = f"{count * len(value) / MIB:,.0f} MiB"
        return (
            f"{size}, ready after {ready:.2f} s, first read {first * 1000:.1f} ms{_missing(found)}{verdict}"
        )


async def _first(url: str, soul: str, config: BigConfig) -> tuple[float, bool]:
    connection = await connect(url)
    began = time.monotonic()
    answers = await connection.ask({"get": {"#": soul}}, config.wait_seconds)
    took = time.monotonic() - began
    await connection.aclose()
    return took, any(soul in (one.get("put") or {}) for one in answers)


def _page(side: str, config: BigConfig, folder: Path) -> str:
    """One page by LEX out of a very large node. Goal: 20 ms, and memory stays as it is."""
    count = config.node_fields if side == "air" else config.stock_fields
    _fill(side, folder, (Cell(_SOUL, f"k{at:07}", f"value {at}", 1.0) for at in range(count)), config)
    with relays.again(side, folder) as relay:
        meter = Meter(relay.pid)
        before = meter.usage().rss_bytes
        times, found = asyncio.run(_pages(relay.url, count, config))
        grown = (meter.usage().rss_bytes - before) / MIB
        middle, worst = statistics.median(times) * 1000, max(times) * 1000
        verdict = "" if side != "air" else _verdict(middle <= 20 and grown <= 10 and found)
        return (
            f"{count:,} fields, p50 {middle:.1f} ms, first {times[0] * 1000:.1f} ms, worst {worst:.1f} ms,"
            f" memory {grown:+.1f} MiB{_missing(found)}{verdict}"
        )


async def _pages(url: str, count: int, config: BigConfig) -> tuple[list[float], bool]:
    connection, times, found = await connect(url), [], True
    for number in range(config.pages):
        start = number * (count - config.page_fields) // config.pages
        keys = [f"k{start + at:07}" for at in range(config.page_fields)]
        lex = {">": keys[0], "<": keys[-1]}
        began = time.monotonic()
        answers = await connection.ask({"get": {"#": _SOUL, ".": lex}}, config.wait_seconds)
        times.append(time.monotonic() - began)
        found = found and any(keys[0] in (one.get("put") or {}).get(_SOUL, {}) for one in answers)
        if not answers:
            raise TimeoutError(f"no answer in {config.wait_seconds:.0f} s")
    await connection.aclose()
    return times, found


def _fill(side: str, folder: Path, cells: Iterator[Cell], config: BigConfig) -> None:
    if side == "air":
        (folder / "air").mkdir(mode=0o700)
        store = Sqlite(folder / "air" / "air.db")
        while batch := [cell for cell, _ in zip(cells, range(5_000), strict=False)]:
            store.write(batch)
        store.close()
        return
    with relays.again(side, folder) as relay:
        asyncio.run(_put_all(relay.url, cells, config))
        time.sleep(2)  # it acknowledges before its files are written


async def _put_all(url: str, cells: Iterator[Cell], config: BigConfig) -> None:
    connection: Connection = await connect(url)
    while batch := [cell for cell, _ in zip(cells, range(_PUT_FIELDS), strict=False)]:
        graph: dict[str, dict[str, object]] = {}
        for soul, key, value, state in batch:
            node = graph.setdefault(soul, {"_": {"#": soul, ">": {}}})
            node["_"][">"][key] = state  # type: ignore[index]
            node[key] = value
        # A stock relay leaves some puts to a large node without an answer; what it took is what it has.
        await connection.ask({"put": graph}, config.put_seconds)
    await connection.aclose()


def _missing(found: bool) -> str:
    return "" if found else ", NOT FOUND"


def _verdict(met: bool) -> str:
    return "; goal met" if met else "; goal MISSED"
