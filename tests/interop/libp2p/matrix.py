"""Every layer × peer × direction, Air against implementations we did not write; exit 1 if a cell fails.

    python -m tests.interop.libp2p.matrix [--peers js,py,go,rust] [--repeat 20] [--only SUBSTRING] [--among]

``--among`` leaves Air out and checks the peers against each other: what fails there is not Air's fault.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Final

from tests.interop.libp2p.peers import AIR, FOREIGN, PEERS, ROOT, Peer

__all__ = ["Cell", "Outcome", "cells", "known_fault", "run_cell"]

MIB: Final = 1024 * 1024
BULK_BYTES: Final = 64 * MIB
ECHO_STREAMS: Final = 100
ECHO_BYTES: Final = 20_000
START_SECONDS: Final = 20.0
OP_SECONDS: Final = 60.0
"""Ten times what the slowest peer takes for the bulk on a quiet machine."""
END_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 15.0
"""A dialer that prints nothing for so long hangs; its operations give up a little later."""

SECURITY_ID: Final = {"noise": "/noise", "tls": "/tls/1.0.0", "plaintext": "/plaintext/2.0.0"}
MUXER_ID: Final = {"yamux": "/yamux/1.0.0", "mplex": "/mplex/6.7.0"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One listener, one dialer, one stack of layers."""

    listener: str
    dialer: str
    transport: str
    security: str
    muxer: str

    @property
    def layers(self) -> str:
        return f"{self.transport}-{self.security}-{self.muxer}"

    def __str__(self) -> str:
        return f"{self.dialer}-to-{self.listener}-{self.layers}"


@dataclass(slots=True)
class Outcome:
    """What happened in a cell. ``fault`` names the layer or operation that failed first, or is None."""

    fault: str | None = None
    detail: str = ""
    connected: dict[str, Any] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


def cells(listener: Peer, dialer: Peer) -> Iterator[Cell]:
    """Every stack of layers that both have."""
    for transport in (name for name in listener.transports if name in dialer.transports):
        for security in (name for name in listener.securities if name in dialer.securities):
            for muxer in (name for name in listener.muxers if name in dialer.muxers):
                yield Cell(listener.name, dialer.name, transport, security, muxer)


def known_fault(cell: Cell) -> str | None:
    """Why two peers that are not Air cannot do this with each other, or None."""
    pair = {cell.listener, cell.dialer}
    if "air" in pair:
        return None
    if cell.security == "tls" and pair == {"js", "py"}:
        return "js wants the libp2p extension first in the certificate, py puts it second"
    if cell.muxer == "yamux" and (cell.dialer, cell.listener) == ("js", "py"):
        return "js fills the whole window with one frame, py ends the session at a frame over 16 MiB"
    if cell.muxer == "yamux" and pair == {"js", "rust"}:
        return "js fills the whole window with one frame, rust ends the session at a frame over 1 MiB"
    if cell.muxer == "mplex" and "py" in pair:
        return "py lets the writes of several mplex streams run into each other"
    return None


def _ops(cell: Cell) -> list[str]:
    """What the dialer is asked to do: all it can, but for what it is known to break itself."""
    ops = list(PEERS[cell.dialer].ops)
    if cell.dialer == "py" and cell.muxer == "mplex":
        # py-libp2p ends its whole mplex session when data come in for a stream that it has just reset.
        ops.remove("reset")
    return ops


def run_cell(cell: Cell, *, bulk_bytes: int = BULK_BYTES) -> Outcome:
    """Start a listener, dial it, run every operation, end both; never raises for what a peer does."""
    outcome = Outcome()
    start = time.monotonic()
    layers = ["--security", cell.security, "--muxer", cell.muxer]
    with tempfile.TemporaryFile("w+") as listen_log, tempfile.TemporaryFile("w+") as dial_log:
        try:
            with _listener(PEERS[cell.listener], cell, layers, listen_log) as (address, listener):

                def ask(dialer: subprocess.Popen[str]) -> None:
                    _ask(cell.dialer, dialer)
                    _ask(cell.listener, listener)

                _dial(PEERS[cell.dialer], cell, address, layers, dial_log, bulk_bytes, outcome, ask)
        except _Failed as failed:
            if outcome.fault is None:
                outcome.fault, outcome.detail = failed.stage, failed.detail
        if outcome.fault is not None:
            for name, log in ((cell.listener, listen_log), (cell.dialer, dial_log)):
                log.seek(0)
                outcome.detail += f"\n--- stderr of {name}\n{log.read()[-12_000:]}"
    outcome.seconds = time.monotonic() - start
    return outcome


class _Failed(Exception):
    def __init__(self, stage: str, detail: str) -> None:
        super().__init__(f"{stage}: {detail}")
        self.stage, self.detail = stage, detail


@contextmanager
def _listener(
    peer: Peer, cell: Cell, layers: Sequence[str], log: IO[str]
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a listener, yield its address and process; it must end well when its stdin closes."""
    port = "--ws-port" if cell.transport == "ws" else "--tcp-port"
    process = subprocess.Popen(
        [*peer.command(), "listen", port, "0", *layers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    try:
        event = _first_line(process, START_SECONDS)
        addresses = [text for text in event.get("addrs", ()) if ("/ws" in text) == (cell.transport == "ws")]
        if event.get("event") != "listening" or not addresses:
            raise _Failed("listen", f"no address in {event}")
        yield addresses[0], process
        process.stdin.close()
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise _Failed("shutdown", f"{peer.name} does not end with its stdin") from None
        if code != 0:
            raise _Failed("shutdown", f"the listener {peer.name} ended with {code}")
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        assert process.stdout is not None
        process.stdout.close()


def _first_line(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None
    read = process.stdout.readline
    threading.Thread(target=lambda: lines.put(read()), daemon=True).start()
    try:
        line = lines.get(timeout=seconds)
    except queue.Empty:
        raise _Failed("listen", f"silent for {seconds} s") from None
    if not line:
        raise _Failed("listen", f"ended with {process.wait(END_SECONDS)}")
    return _parsed(line, "listen")


def _parsed(line: str, stage: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _Failed(stage, f"not a JSON object: {line[:200]!r}")
    return found


def _dial(
    peer: Peer,
    cell: Cell,
    address: str,
    layers: Sequence[str],
    log: IO[str],
    bulk_bytes: int,
    outcome: Outcome,
    ask: Callable[[subprocess.Popen[str]], None],
) -> None:
    ops = _ops(cell)
    # Air's dialer offers what it has and the listener's single choice decides; the others are told.
    told = ["--mplex-opens", str(ECHO_STREAMS)] if peer.name == "air" else layers
    streams = 8 if cell.muxer == "mplex" and "py" in (cell.dialer, cell.listener) else ECHO_STREAMS
    command = [*peer.command(), "dial", address, "--ops", ",".join(ops), "--count", str(streams)]
    command += ["--bytes", str(ECHO_BYTES), "--up", str(bulk_bytes), "--down", str(bulk_bytes)]
    command += ["--timeout", str(int(OP_SECONDS * 1000)), *told]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        printed = _watched(process, START_SECONDS + OP_SECONDS * len(ops), ask)
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise _Failed("dial", "it said that it was done, and did not end") from None
    finally:
        process.kill()
        process.wait()
    events = [_parsed(line, "dial") for line in printed if line.strip()]
    outcome.connected = next((event for event in events if event.get("event") == "connected"), {})
    outcome.results = {event["op"]: event for event in events if event.get("event") == "result"}
    if not outcome.connected:
        raise _Failed("connect", json.dumps(events))
    for what, wanted in (("encryption", SECURITY_ID[cell.security]), ("muxer", MUXER_ID[cell.muxer])):
        if outcome.connected.get(what) != wanted:
            raise _Failed(what, f"{wanted} was wanted: {outcome.connected}")
    for op in ops:
        result = outcome.results.get(op)
        if result is None or result.get("ok") is not True:
            raise _Failed(op, json.dumps(result))
    if "identify" in outcome.results:
        missing = {"/echo/1.0.0", "/perf/1.0.0", "/ipfs/ping/1.0.0"} - set(
            outcome.results["identify"]["protocols"]
        )
        if missing:
            raise _Failed(
                "identify", f"{sorted(missing)} not among the protocols: {outcome.results['identify']}"
            )
    if code != 0:
        raise _Failed("dial", f"all operations are well, but it ended with {code}")


def _watched(
    process: subprocess.Popen[str], seconds: float, ask: Callable[[subprocess.Popen[str]], None]
) -> list[str]:
    """What a dialer prints until its end. If it is silent for long, both sides are asked for their state."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    printed: list[str] = []
    end, asked = time.monotonic() + seconds, False
    while True:
        try:
            line = lines.get(timeout=max(0.01, min(end - time.monotonic(), SILENT_SECONDS)))
        except queue.Empty:
            if time.monotonic() >= end:
                raise _Failed("dial", f"not done after {seconds} s; so far:\n{''.join(printed)}") from None
            if not asked:
                asked = True
                ask(process)
            continue
        if not line:
            return printed
        printed.append(line)
        asked = False


def _pump(source: IO[str], lines: queue.SimpleQueue[str]) -> None:
    for line in source:
        lines.put(line)
    lines.put("")


def _ask(name: str, process: subprocess.Popen[str]) -> None:
    """Have a peer write to stderr what it waits for; to the others this signal means something else."""
    if name in ("air", "py"):
        process.send_signal(signal.SIGUSR1)


def _pairs(names: Sequence[str], among: bool) -> list[tuple[Peer, Peer]]:
    chosen = [peer for peer in FOREIGN if peer.name in names]
    if among:
        return [(listener, dialer) for listener in chosen for dialer in chosen]
    return [pair for peer in chosen for pair in ((peer, AIR), (AIR, peer))]


def _rate(result: dict[str, Any], way: str) -> str:
    seconds = result.get(f"{way}Seconds")
    milliseconds = result.get(f"{way}_ms") if seconds is None else seconds * 1000
    return f"{result[way] * 8 / milliseconds / 1e6:.2f}" if milliseconds else "-"


def _median(ping: dict[str, Any]) -> str:
    # Air's "ms" is the time of the whole operation.
    milliseconds = ping.get("rtt", ping.get("ms"))
    return f"{milliseconds:.2f}" if isinstance(milliseconds, int | float) else "-"


def _line(cell: Cell, outcome: Outcome, known: str | None) -> str:
    perf, ping = outcome.results.get("perf", {}), outcome.results.get("ping", {})
    verdict = "ok" if outcome.fault is None else f"FAIL {outcome.fault}"
    if outcome.fault is not None and known is not None:
        verdict = f"known ({outcome.fault}): {known}"
    numbers = (
        f"{outcome.connected.get('ms', 0):8.1f} {_median(ping):>7}"
        f" {_rate(perf, 'up'):>6} {_rate(perf, 'down'):>6} {outcome.seconds:6.1f}"
    )
    return f"{cell.dialer:>5} → {cell.listener:<5} {cell.layers:<18} {numbers}  {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="js,py,go,rust")
    parser.add_argument(
        "--only", default="", help="cells whose name (js-to-air-tcp-noise-yamux) contains this"
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--mib", type=int, default=BULK_BYTES // MIB, help="bulk transfer each way")
    parser.add_argument("--among", action="store_true", help="the peers against each other, without Air")
    flags = parser.parse_args()
    names = flags.peers.split(",")
    for name in names:
        if (why := PEERS[name].missing()) is not None:
            print(why, file=sys.stderr)
            return 1
    print(f"{'dialer':>6}  listener layers             connect   ping    up   down  took")
    print(f"{'':>34}      ms      ms  Gbit/s Gbit/s   s")
    failed: list[Cell] = []
    for _ in range(flags.repeat):
        for listener, dialer in _pairs(names, flags.among):
            for cell in cells(listener, dialer):
                if flags.only not in str(cell):
                    continue
                known = known_fault(cell)
                outcome = run_cell(cell, bulk_bytes=flags.mib * MIB)
                print(_line(cell, outcome, known), flush=True)
                if outcome.fault is not None and known is None:
                    failed.append(cell)
                    print(f"=== {cell}: {outcome.fault}\n{outcome.detail}\n===", flush=True)
    print(f"\nfailed: {', '.join(map(str, failed))}" if failed else "\nall cells are green")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
