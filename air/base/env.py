"""What a root hands to every part it builds: time and randomness. (core)"""

from __future__ import annotations

from dataclasses import dataclass, field

from air.base.clock import Clock, SystemClock
from air.base.entropy import Entropy, SystemEntropy

__all__ = ["Env"]


@dataclass(frozen=True, slots=True)
class Env:
    """The outside world, as far as the cores may know it."""

    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
