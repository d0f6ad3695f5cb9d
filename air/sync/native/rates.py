"""How fast one peer may go: it is read from more slowly, and cut when it only wastes time. (core)

Work that serves somebody is never refused, because credit and the store hold it back by themselves; a peer
that is too fast has to wait. Frames that carry nothing are another matter.
"""

from __future__ import annotations

from air.base.bucket import TokenBucket
from air.base.clock import Now
from air.base.errors import LimitReached
from air.sync.native.limits import RatesConfig

__all__ = ["Rates"]


class Rates:
    """The account of one peer, whatever number of links it has."""

    __slots__ = ("_bytes", "_config", "_gets", "_idles", "_puts", "_since")

    def __init__(self, config: RatesConfig) -> None:
        self._config = config
        self._bytes = TokenBucket(config.bytes_burst, config.bytes_per_second)
        self._puts = TokenBucket(config.puts_burst, config.puts_per_second)
        self._gets = TokenBucket(config.gets_burst, config.gets_per_second)
        self._idles = TokenBucket(config.idles_burst, config.idles_per_second)
        self._since: float | None = None
        """Since when it sends too many frames that carry nothing."""

    def received(self, size: int) -> None:
        """``size`` bytes came."""
        self._bytes.level -= size

    def put(self, size: int) -> None:
        """A batch came, of so many bytes before compression: a peer pays for what it makes us unfold."""
        self._puts.level -= 1
        self._bytes.level -= size

    def asked(self, count: int = 1) -> None:
        """Questions or wishes came."""
        self._gets.level -= count

    def idled(self, count: int = 1) -> None:
        """Frames came that carry nothing."""
        self._idles.level -= count

    def wait(self, now: Now) -> float:
        """Seconds to wait before reading on. Call it between batches.

        Raises LimitReached ``limit.idle``, fatal, when the peer has been slowed down long enough.
        """
        at = now.monotonic
        idle = self._idles.wait(at)
        if not idle:
            self._since = None
        elif self._since is None:
            self._since = at
        elif at - self._since >= self._config.idle_insist_seconds:
            raise LimitReached("too many frames that carry nothing", code="limit.idle", fatal=True)
        return max(
            min(idle, self._config.idle_insist_seconds),
            self._bytes.wait(at),
            self._puts.wait(at),
            self._gets.wait(at),
        )
