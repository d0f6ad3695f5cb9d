"""Goes on with fresh seeds for as long as asked, and keeps those that fail.

    make soak-sim RUNS=… (python -m tests.sim.soak RUNS [FIRST] [PEERS])

A failing seed is printed with its command, and appended to ``sim-failures.txt`` in the current folder.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from air.daemon.simulate import command
from air.sim.plan import chaotic
from air.sim.world import run


def main(runs: int, first: int = 100_000, peers: int = 5) -> int:
    logging.getLogger("air").addHandler(logging.NullHandler())
    failed = frames = 0
    started = time.monotonic()
    for seed in range(first, first + runs):
        options = chaotic(peers, seed)
        report = run(options)
        frames += report.frames
        if not report.ok:
            failed += 1
            worst = report.violations[0]
            line = f"{command(options)}  # {worst.rule}: {worst.text[:200]}"
            print(line, flush=True)
            with Path("sim-failures.txt").open("a", encoding="utf-8") as kept:
                kept.write(line + "\n")
    seconds = time.monotonic() - started
    print(
        f"{runs} runs with {peers} peers, {failed} failed; "
        f"{runs / seconds * 60:.0f} runs a minute, {frames / seconds:.0f} frames a second"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
