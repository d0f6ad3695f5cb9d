"""How many seeds the suite runs, and how a failure is reported."""

from __future__ import annotations

import os

from air.daemon.simulate import command
from air.sim.plan import Options
from air.sim.world import Report, run

__all__ = ["FULL", "check", "share"]

FULL = os.environ.get("AIR_SIM_SEEDS") == "full"
"""All of what the suite promises: 1,000 seeds at 5 peers, 20 at 50, 1 at 200; 50 replays."""


def share(full: int, usual: int) -> int:
    """``AIR_SIM_SEEDS`` is ``full``, or a factor for the usual number."""
    factor = os.environ.get("AIR_SIM_SEEDS", "1")
    return full if factor == "full" else max(1, int(usual * float(factor)))


def check(options: Options) -> Report:
    """Run one seed. A failure prints the command that runs it again."""
    report = run(options)
    wrong = "\n".join(
        f"  {violated.rule} at {violated.time:.2f} s, {report.names[violated.peer]}: {violated.text}"
        for violated in report.violations[:5]
    )
    assert report.ok, f"\n{wrong}\n  replay: {command(options)}"
    return report
