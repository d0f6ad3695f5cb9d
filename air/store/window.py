"""How long to wait for company before a commit. (core)

A commit costs nearly the same for one cell as for fifty. Writes that arrive during a commit share the
next one by themselves, and that is all that clients which wait for their answers can gain. A steady
stream of independent writes is different: it would keep the disk and a core busy with commits of one
or two cells, where a wait of a millisecond makes them ten. So the window waits only when commits take
a good part of the time, and only while experience says that a wait brings more than was there.
"""

from __future__ import annotations

from dataclasses import dataclass

from air.base.clock import Now

__all__ = ["CommitWindow", "WindowConfig"]


@dataclass(frozen=True, slots=True)
class WindowConfig:
    max_seconds: float = 0.010
    """Longest wait, whatever the disk. 0: never wait."""
    patience: float = 4.0
    """Length of a wait in commits: a disk that flushes in 0.3 ms is waited for 1.2 ms."""
    share_min: float = 0.25
    """Part of the time that commits must take before anybody waits."""
    gain_min: float = 1.5
    """Writes a wait must bring, for each one that was there, to be worth another. Clients that wait for
    their answers fall into two groups, one queued and one being committed; joining them is no gain."""
    jobs_enough: float = 16.0
    """Writes per commit beyond which a commit's cost is spread thin enough, and a wait would only delay."""
    retry_commits: int = 100
    """After waits that were not worth it, commits until the next try."""
    cells_full: int = 4096
    """A batch of this many cells does not wait."""
    idle_seconds: float = 0.050
    """After this long without a commit, what was learnt about the load means nothing."""


class CommitWindow:
    """Decides, from the last commits, whether the next one waits.

    The owner asks :meth:`wait` before a commit, sleeps as long as it says, and asks again until it
    says 0; after the commit it tells :meth:`committed`.
    """

    __slots__ = ("_config", "_cost", "_ended", "_gain", "_interval", "_jobs", "_skip", "_waited", "_waiting")

    def __init__(self, config: WindowConfig | None = None) -> None:
        self._config = config or WindowConfig()
        self._ended: float | None = None
        self._waiting: int | None = None
        self._waited = 0.0
        self._forget()

    def _forget(self) -> None:
        self._cost, self._interval, self._jobs = 0.0, 1.0, 1.0
        self._gain, self._skip = self._config.gain_min, 0

    def wait(self, now: Now, jobs: int, cells: int) -> float:
        """Seconds to sleep before asking again; 0: commit now.

        ``jobs`` writes with ``cells`` cells are queued. Between two commits there is at most one wait.
        """
        config = self._config
        if self._waiting is not None:
            gained, self._waiting = jobs / max(self._waiting, 1) - 1.0, None
            self._gain += 0.5 * (gained - self._gain)
            if self._gain < config.gain_min:
                self._gain, self._skip = config.gain_min, config.retry_commits
            return 0.0
        if cells >= config.cells_full or self._waited or not self._busy(now.monotonic):
            return 0.0
        if self._skip:
            self._skip -= 1
            return 0.0
        span = min(config.max_seconds, config.patience * self._cost)
        if span > 0:
            self._waiting, self._waited = jobs, span
        return span

    def committed(self, now: Now, jobs: int, seconds: float) -> None:
        """A commit of ``jobs`` writes ended at ``now`` and took ``seconds``."""
        time, last, waited = now.monotonic, self._ended, self._waited
        self._ended, self._waiting, self._waited = time, None, 0.0
        if last is None or time - last > self._config.idle_seconds:
            self._forget()
            self._cost = seconds
            return
        # What the load would look like without our own waits.
        interval = max(time - last - waited, seconds)
        self._interval += 0.2 * (interval - self._interval)
        self._cost += 0.2 * (seconds - self._cost)
        self._jobs += 0.2 * (jobs - self._jobs)

    def _busy(self, time: float) -> bool:
        if self._ended is None or time - self._ended > self._config.idle_seconds:
            return False
        # One write per commit, always, is a single writer who waits for each answer.
        return (
            1.05 < self._jobs < self._config.jobs_enough
            and self._cost >= self._config.share_min * self._interval
        )
