"""What an idle session costs, measured at a listener in a process of its own.

AIR_IDLE_SESSIONS=10000 is the whole measurement; both processes need as many descriptors (`ulimit -n`).
"""

from __future__ import annotations

import os

import anyio

from bench.meter import Meter
from bench.net import listening
from bench.netload import hold

SESSIONS = int(os.environ.get("AIR_IDLE_SESSIONS", "400"))
KIB_MAX = 48


def test_an_idle_session_costs_at_most_48_kib() -> None:
    async def main() -> float:
        with listening("air") as (address, process):
            meter = Meter(process)
            # What the first ones cost is the program's own growing.
            async with hold(address, 100):
                before = meter.usage().rss_bytes
                async with hold(address, SESSIONS):
                    await anyio.sleep(1)
                    return (meter.usage().rss_bytes - before) / SESSIONS / 1024

    grown = anyio.run(main)
    print(f"{grown:.1f} KiB for each of {SESSIONS} idle sessions")
    assert grown <= KIB_MAX
