"""How fast the simulator is: messages a second, seeds a minute, growth with the number of peers. (root)

    python -m bench.sim [--quick]

Times are of the processor, not of the clock on the wall, so that others who use the machine matter less.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

from air.sim.plan import WIRES, Options, chaotic
from air.sim.world import Report, run

GROWTH = (5, 10, 25, 50, 100, 200)


def measured(options: Iterable[Options]) -> tuple[list[Report], float]:
    """Run all of them. Returns the reports and the seconds of processor time."""
    started = time.process_time()
    reports = [run(one) for one in options]
    return reports, time.process_time() - started


def row(name: str, reports: list[Report], seconds: float) -> str:
    frames, events = sum(r.frames for r in reports), sum(r.events for r in reports)
    virtual = sum(r.virtual_s for r in reports)
    ok = sum(r.ok for r in reports)
    rates = (frames / seconds, events / seconds, 60 * len(reports) / seconds, virtual / seconds)
    return f"{name:<22} {''.join(f'{rate:>9,.0f} ' for rate in rates)} {ok} of {len(reports)}"


def main(quick: bool) -> None:
    logging.getLogger("air").addHandler(logging.NullHandler())
    print(f"{'':<22} {'frames/s':>9} {'events/s':>9} {'seeds/min':>9} {'faster':>9}  well")
    print("any faults")
    for peers, seeds in ((5, 20 if quick else 100), (50, 1 if quick else 3)):
        for wire in WIRES:
            reports, seconds = measured(chaotic(peers, seed, wire=wire) for seed in range(1, seeds + 1))
            print(row(f"  {peers} peers, {wire}", reports, seconds), flush=True)
    print("no faults, a chat for half a minute on a star")
    for peers in GROWTH[:4] if quick else GROWTH:
        for wire in ("gun", "native"):
            options = replace(Options(peers=peers, seed=1, minutes=0.5), wire=wire)
            reports, seconds = measured([options])
            print(row(f"  {peers} peers, {wire}", reports, seconds), flush=True)


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
