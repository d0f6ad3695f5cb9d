"""How long to wait for company before a commit. (core)

A commit costs the same for one cell as for a hundred. Alone, a write should not wait at all; under
load, a short wait makes fewer and larger commits, and everybody is served sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.clock import Now

__all__ = ["CommitWindow", "WindowConfig"]


@dataclass(frozen=True, slots=True)
class WindowConfig:
    max_seconds: float = 0.010
    """Longest wait, whatever the disk."""
    patience: float = 8.0
    """Longest wait in commits: a disk that flushes in 0.3 ms is waited for 2.4 ms."""
    jobs_min: float = 3.0
    """Writes that must arrive during one commit, at the recent rate, before anybody waits."""
    cells_full: int = 4096
    """A batch of this many cells waits no more."""
    look_seconds: float = 0.001
    """Time between looks; when nothing came in between, the wait is over."""
    idle_seconds: float = 0.050
    """After this long without a commit the recent rate means nothing."""


class CommitWindow:
    """Decides, from the last commits, whether the next one waits.

    The owner asks :meth:`wait` before a commit, sleeps as long as it says, and asks again until it
    says 0; after the commit it tells :meth:`committed`.
    """

    __slots__ = ("_config", "_cost", "_opened", "_rate", "_seen", "_settled")

    def __init__(self, config: WindowConfig | None = None) -> None:
        self._config = config or WindowConfig()
        self._rate = 0.0
        self._cost = 0.0
        self._settled: float | None = None
        self._opened: float | None = None
        self._seen = 0

    def wait(self, now: Now, jobs: int, cells: int) -> float:
        """Seconds to sleep before asking again; 0: commit now.

        ``jobs`` and ``cells`` are queued. The waits between two commits never sum up to more than
        ``max_seconds``.
        """
        config, time = self._config, now.monotonic
        if cells >= config.cells_full:
            return 0.0
        if self._opened is None:
            if not self._busy(time):
                return 0.0
            self._opened = time
        elif jobs <= self._seen:
            return 0.0
        self._seen = jobs
        span = min(config.max_seconds, config.patience * self._cost)
        return max(0.0, min(config.look_seconds, self._opened + span - time))

    def committed(self, now: Now, jobs: int, seconds: float) -> None:
        """A commit of ``jobs`` writes ended at ``now`` and took ``seconds``."""
        time, last = now.monotonic, self._settled
        self._opened, self._settled = None, time
        if last is None or time - last > self._config.idle_seconds:
            self._rate, self._cost = 0.0, seconds
            return
        self._rate += 0.3 * (jobs / max(time - last, 1e-6) - self._rate)
        self._cost += 0.3 * (seconds - self._cost)

    def _busy(self, time: float) -> bool:
        if self._settled is None or time - self._settled > self._config.idle_seconds:
            return False
        return self._rate * self._cost >= self._config.jobs_min
