"""How fast the Python API writes: one by one and in batches, in this program and through a relay.

    python -m bench.api [--fields 100000] [--batch 1000] [--single 2000]

One by one means that each put is awaited, so durable, before the next begins; ``--single`` bounds how many of
them are timed. The relay runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

import air


async def singly(graph: air.Graph, count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        await graph.put(f"one/{number}", {"v": number})
    return count / (time.perf_counter() - began)


async def batched(graph: air.Graph, count: int, size: int) -> float:
    began = time.perf_counter()
    for start in range(0, count, size):
        await graph.put(
            {f"many/{number}": {"v": number} for number in range(start, min(start + size, count))}
        )
    return count / (time.perf_counter() - began)


async def measure(name: str, graph: air.Graph, options: argparse.Namespace) -> None:
    await singly(graph, 100)
    one = await singly(graph, min(options.single, options.fields))
    many = await batched(graph, options.fields, options.batch)
    print(f"{name:<28} {one:>9,.0f} /s {many:>11,.0f} /s {many / one:>7.1f} x", flush=True)


async def main(options: argparse.Namespace) -> None:
    print(f"{'':<28} {'one by one':>12} {f'by {options.batch}':>14} {'ratio':>9}")
    with tempfile.TemporaryDirectory() as folder:
        async with air.open(Path(folder) / "own") as graph:
            await measure("opened, on disk", graph, options)
        async with air.open() as graph:
            await measure("opened, in memory", graph, options)
        with daemon(Path(folder) / "relay") as addresses:
            for wire in ("gun", "native"):
                async with air.connect(addresses[wire]) as graph:
                    await measure(f"connected, {wire} wire", graph, options)


@contextmanager
def daemon(data: Path) -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "air", "run", "--json", "--data", str(data), "--port", "0"]
    command += ["--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield {wire: ready[wire][0] for wire in ("gun", "native")}
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How fast the Python API writes.")
    parser.add_argument("--fields", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--single", type=int, default=2_000)
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    chosen = parser.parse_args()
    anyio.run(main, chosen, backend=chosen.backend)
