"""How many seeds the suite runs, and how a failure is reported."""

from __future__ import annotations

import os

from air.daemon.simulate import command
from air.sim.plan import Options, chaotic
from air.sim.world import Report, run

__all__ = ["check", "check_all", "share"]


def share(usual: int) -> int:
    """How many to run of what the suite promises; ``AIR_SIM_SEEDS`` is a factor, such as 0.1."""
    return max(1, int(usual * float(os.environ.get("AIR_SIM_SEEDS", "1"))))


def check_all(peers: int, first: int, last: int) -> None:
    """Check the seeds from ``first`` to ``last`` with any mixture of faults."""
    for seed in range(first, last + 1):
        check(chaotic(peers, seed))


def check(options: Options) -> Report:
    """Run one seed. A failure prints the command that runs it again."""
    report = run(options)
    wrong = "\n".join(
        f"  {violated.rule} at {violated.time:.2f} s, {report.names[violated.peer]}: {violated.text}"
        for violated in report.violations[:5]
    )
    assert report.ok, f"\n{wrong}\n  replay: {command(options)}"
    return report
