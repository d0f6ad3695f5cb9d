"""How much the fault tests do: a sample in the suite, everything with ``AIR_FAULTS=full``."""

from __future__ import annotations

import os
import random

__all__ = ["FULL", "seeded"]

FULL = os.environ.get("AIR_FAULTS") == "full"


def seeded(name: str) -> random.Random:
    """A generator whose seed is printed; ``AIR_SEED`` repeats a run."""
    seed = int(os.environ.get("AIR_SEED") or random.randrange(2**32))
    print(f"{name}: AIR_SEED={seed}")
    return random.Random(seed)
