"""When to try again: exponential back-off with full jitter. (core)"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.entropy import Entropy

__all__ = ["Backoff", "BackoffConfig"]


@dataclass(frozen=True, slots=True)
class BackoffConfig:
    first_seconds: float = 0.25
    """Ceiling of the first wait."""
    max_seconds: float = 30.0
    """Ceiling of every later wait."""
    factor: float = 2.0


class Backoff:
    """Wait longer after each failure, and never in step with others.

    A wait is drawn evenly from the upper half of the current ceiling: peers that lost the same relay
    at the same moment come back spread out, and none of them comes back at once.
    """

    __slots__ = ("_ceiling", "_config", "_entropy")

    def __init__(self, config: BackoffConfig, entropy: Entropy) -> None:
        self._config, self._entropy = config, entropy
        self._ceiling = config.first_seconds

    def failed(self) -> float:
        """Seconds to wait before the next attempt."""
        wait = self._ceiling * (0.5 + 0.5 * self._entropy.fraction())
        self._ceiling = min(self._ceiling * self._config.factor, self._config.max_seconds)
        return wait

    def succeeded(self) -> None:
        self._ceiling = self._config.first_seconds
