"""Air, go-, rust-, js- and py-libp2p over tcp, noise and yamux, on one machine in one run. (root)

    python -m bench.net [--quick] [--peers air,go,rust,js,py] [--rounds 3] [--mib 64] [--json FILE]

Bulk, connect and ping: each implementation with itself, as two processes. Everything else: Air's bare
connections against a listener of each, because not every peer of the interop matrix can be told to do it;
there the listener's CPU is what counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import anyio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from air.base.groups import first
from bench.meter import Meter
from bench.netload import ask, hold, knock, open_streams
from bench.nettable import table
from tests.interop.libp2p.peers import PEERS, ROOT

__all__ = ["main"]

LAYERS: Final = ["--security", "noise", "--muxer", "yamux"]
NAMES: Final = ("air", "go", "rust", "js", "py")
MIB: Final = 1024 * 1024
DIAL_SECONDS: Final = 180.0
Numbers = dict[str, float]


@contextmanager
def listening(name: str) -> Iterator[tuple[str, int]]:
    """A listener in a process of its own: its address and its process id."""
    process = subprocess.Popen(
        [*PEERS[name].command(), "listen", "--tcp-port", "0", *LAYERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["addrs"][0], process.pid
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def dialled(name: str, address: str, *ops: str) -> dict[str, dict[str, Any]]:
    """What a dialler in a process of its own prints, by operation."""
    done = subprocess.run(
        [*PEERS[name].command(), "dial", address, *ops, "--timeout", str(int(DIAL_SECONDS * 1000)), *LAYERS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=DIAL_SECONDS,
        cwd=ROOT,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.get("op", line["event"]): line for line in lines}


def itself(name: str, mib: int, pings: int) -> Numbers:
    """Two processes of one implementation: bulk each way, pings, and a cold connect."""
    found: Numbers = {}
    with listening(name) as (address, _):
        up = dialled(name, address, "--ops", "perf", "--up", str(mib * MIB), "--down", "0")
        down = dialled(name, address, "--ops", "perf", "--up", "0", "--down", str(mib * MIB))
        ping = dialled(name, address, "--ops", "ping", "--count", str(pings))
        for way, told in (("up", up), ("down", down)):
            found[way] = mib * MIB * 8 / _seconds(told["perf"]) / 1e9
        found["ping_ms"] = float(ping["ping"].get("rtt", ping["ping"]["ms"]))
        found["connect_ms"] = median(float(told["connected"]["ms"]) for told in (up, down, ping))
    return found


def core_seconds(name: str, mib: int) -> Numbers:
    """Bulk by what it costs: Gbit for each second of CPU of both sides, start-up not counted.

    Of the rows about bulk this is the one that means something on a busy machine.
    """
    found: Numbers = {}
    with listening(name) as (address, process):
        meter = Meter(process)

        def cost(*ops: str) -> float:
            before, own = meter.cpu_seconds(), _children_seconds()
            dialled(name, address, *ops)
            return meter.cpu_seconds() - before + _children_seconds() - own

        nothing = min(cost("--ops", "ping", "--count", "1") for _ in range(2))
        for way, up, down in (("up", mib, 0), ("down", 0, mib)):
            spent = cost("--ops", "perf", "--up", str(up * MIB), "--down", str(down * MIB)) - nothing
            found[f"{way}_core"] = mib * MIB * 8 / 1e9 / max(spent, 0.01)
    return found


def _children_seconds() -> float:
    """CPU of the child processes that have ended, which is every dialler but no listener under way."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(perf: dict[str, Any]) -> float:
    """From the first byte to the last, whichever way: some count what they have only queued as sent."""
    if "upSeconds" in perf:
        return float(perf["upSeconds"]) + float(perf["downSeconds"])
    return (float(perf["up_ms"]) + float(perf["down_ms"])) / 1000


async def under_load(
    name: str, what: str, work: Callable[[str, float], Awaitable[float]], seconds: float
) -> Numbers:
    """Rate on the wall, and per second of CPU that the listener used."""
    with listening(name) as (address, process):
        # Compilers of the other side and caches of both are warm afterwards.
        await work(address, seconds / 3)
        meter = Meter(process)
        before, start = meter.cpu_seconds(), time.monotonic()
        count = await work(address, seconds)
        took, cpu = time.monotonic() - start, meter.cpu_seconds() - before
    return {what: count / took, f"{what}_core": count / max(cpu, 0.01)}


async def idle(name: str, count: int) -> Numbers:
    """What the listener grows by for each further connection that nobody uses."""
    with listening(name) as (address, process):
        meter = Meter(process)
        async with hold(address, count // 4):
            await anyio.sleep(1)
            before = meter.usage().rss_bytes
            async with hold(address, count):
                await anyio.sleep(2)
                grown = meter.usage().rss_bytes - before
    return {"idle_kib": grown / count / 1024}


def cipher(total: int) -> float:
    """Gbit/s of sealing alone, one core, into a kept buffer: no stream can be faster than its cipher."""
    size = 65_519
    sealing, data, out, nonce = ChaCha20Poly1305(b"k" * 32), bytes(size), bytearray(size + 16), bytes(12)
    start = time.perf_counter()
    for _ in range(total // size):
        sealing.encrypt_into(nonce, data, None, out)
    return total * 8 / (time.perf_counter() - start) / 1e9


WORK: Final = {
    "handshakes": knock,
    "streams": open_streams,
    "ask-1": ask(1),
    "ask-100": ask(100),
}


def measured(call: Callable[[], Numbers], what: str) -> Numbers:
    try:
        return call()
    except Exception as error:
        # A peer that cannot do one thing is measured in the others.
        cause = first(error) if isinstance(error, ExceptionGroup) else error
        print(f"{what}: {type(cause).__name__}: {cause}", file=sys.stderr)
        return {}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round, shorter: a look, about two minutes")
    parser.add_argument("--peers", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=64, help="bulk each way")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each rate")
    parser.add_argument(
        "--only", default="", help="itself, cores, handshakes, streams, ask-1, ask-100 or idle"
    )
    parser.add_argument("--json", type=Path, help="every round's numbers")
    flags = parser.parse_args()
    if flags.quick:
        flags.rounds, flags.seconds = 1, 1.5
    names = [name for name in flags.peers.split(",") if _here(name)]
    uvloop = importlib.util.find_spec("uvloop") is not None

    def run(call: Callable[..., Awaitable[Numbers]], *args: object) -> Numbers:
        return anyio.run(call, *args, backend_options={"use_uvloop": uvloop})

    rounds: list[dict[str, Numbers]] = []
    raw: list[float] = []
    for number in range(flags.rounds):
        found: dict[str, Numbers] = {name: {} for name in names}
        raw.append(cipher(256 * MIB))
        # Peer by peer within a row, so that what disturbs one disturbs its neighbours as well.
        if flags.only in ("", "itself"):
            for name in names:
                found[name] |= measured(lambda name=name: itself(name, flags.mib, 200), f"{name} itself")
        if flags.only in ("", "cores"):
            for name in names:
                found[name] |= measured(lambda name=name: core_seconds(name, 4 * flags.mib), f"{name} cores")
        for what, work in WORK.items():
            if flags.only in ("", what):
                for name in names:
                    found[name] |= measured(
                        lambda name=name, what=what, work=work: run(
                            under_load, name, what, work, flags.seconds
                        ),
                        f"{name} {what}",
                    )
        if flags.only in ("", "idle"):
            for name in names:
                found[name] |= measured(lambda name=name: run(idle, name, 200), f"{name} idle")
        rounds.append(found)
        print(f"round {number + 1} of {flags.rounds} is done", file=sys.stderr)
    print(table(names, rounds, median(raw)))
    if flags.json:
        flags.json.write_text(json.dumps({"cipher_gbit": raw, "rounds": rounds}, indent=1))
    return 0


def _here(name: str) -> bool:
    missing = PEERS[name].missing()
    if missing is not None:
        print(missing, file=sys.stderr)
    return missing is None


if __name__ == "__main__":
    sys.exit(main())
