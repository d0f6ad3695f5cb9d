"""What one connection may cost the others: it is slowed down, told why, and cut when it goes on. (core)

Useful work has no limit here: whoever puts and gets at full speed only has to share. What is limited is what
serves nobody: messages that are refused, mean nothing, or were sent before on the same connection. Each kind
has a bucket of tokens. An empty one makes the connection wait until it has filled up again; a connection that
empties it once more after ``insist_seconds`` is cut with the code of the bucket.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from air.base.bucket import TokenBucket
from air.base.clock import Now
from air.base.errors import LimitReached, Violation

__all__ = ["GuardConfig", "LinkGuard"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class GuardConfig:
    errors_max: int = 100
    """Malformed or refused messages at once; more end the connection: ``gun.too-many-errors``."""
    errors_per_second: float = 1.0
    """Such messages that are forgiven."""
    waste_bytes_max: int = 8 * MIB
    """Bytes at once of messages that are refused or mean nothing: ``limit.waste``."""
    waste_bytes_per_second: float = 256 * KIB
    """Such bytes that are forgiven."""
    idle_messages_max: int = 5_000
    """Messages at once that mean nothing: empty, unknown, or acks of what was never sent: ``limit.idle``."""
    idle_messages_per_second: float = 100.0
    """Such messages that are forgiven."""
    repeats_max: int = 5_000
    """Messages at once that the same connection has sent before: ``limit.repeats``. What reaches us by
    two ways is no repeat: relays in a mesh do that all the time."""
    repeats_per_second: float = 100.0
    """Such messages that are forgiven."""
    repeats_memory: int = 20_000
    """Ids remembered of a connection to know its repeats, twice over; only of messages that others or it
    had sent before, so a connection without any costs nothing."""
    acks_ahead_max: int = 1_000
    """Acks a connection may send beyond the messages it was sent."""
    insist_seconds: float = 1.5
    """How long a connection is only slowed down before it is cut."""
    unread_seconds: float = 1.5
    """A peer that takes nothing for so long while much waits for it, and asks for more, and that twice in a
    row, is cut: ``limit.unread``. Who merely reads slowly has the write deadline of the transport."""
    unread_bytes_max: int = 1 * MIB
    """What is read at most of such a peer to see whether it asks for more."""
    reads_max: int = 64
    """Reads of one connection that may wait for the disk; its next messages wait with them."""
    reads_burst: int = 20_000
    """Reads at once before a connection is slowed down to ``reads_per_second``; what is in memory is free."""
    reads_per_second: float = 5_000.0
    """Reads from disk for one connection in the long run."""
    reads_busy_max: int = 24
    """The same while somebody writes: who asks without waiting for answers leaves room to those who wait."""
    scan_reads: int = 50
    """What a question for all souls of a prefix counts for."""
    scans_max: int = 128
    """Such questions at once: ``limit.scans``. Each may read a whole page of the disk."""
    scans_per_second: float = 4.0
    """Such questions that are forgiven."""
    scans_pressed: int = 8
    """What one counts for that did not wait until those before it were answered."""
    scans_seconds: float = 2.5
    """Who does not wait for so long is cut, however few of them were worked off: ``limit.scans``."""
    scan_rest: float = 4.0
    """After such a question its connection rests for so many times as long as it took, while others work."""
    scan_rest_max_seconds: float = 1.0
    """The longest such rest."""
    slice_messages: int = 64
    """Messages worked off at a time before the clock is looked at."""
    slice_seconds: float = 0.002
    """After so long other connections get their turn."""


class _Bucket(TokenBucket):
    """Charges are taken at any moment, time passes in ``refill``."""

    __slots__ = ("charged", "code", "since", "text")

    def __init__(self, burst: float, rate: float, code: str, text: str) -> None:
        super().__init__(burst, rate)
        self.code, self.text = code, text
        self.charged = False
        """Something was taken since it was last looked at."""
        self.since: float | None = None
        """When it was first found empty; None once it is half full again."""

    def charge(self, amount: float) -> None:
        self.level -= amount
        self.charged = True

    def refill(self, monotonic: float) -> None:
        super().refill(monotonic)
        if self.since is not None and self.level * 2 >= self._burst:
            self.since = None


_NOTHING: set[Hashable] = set()


class LinkGuard:
    """The account of one connection."""

    __slots__ = (
        "_config",
        "_errors",
        "_idle",
        "_old",
        "_others",
        "_pressing",
        "_reads",
        "_repeats",
        "_scanned",
        "_scans",
        "_waste",
        "_young",
        "reads_lately",
        "scanned",
    )

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._errors = _Bucket(config.errors_max, config.errors_per_second, "gun.too-many-errors", "")
        self._waste = _Bucket(
            config.waste_bytes_max,
            config.waste_bytes_per_second,
            "limit.waste",
            "too much that means nothing",
        )
        self._idle = _Bucket(
            config.idle_messages_max,
            config.idle_messages_per_second,
            "limit.idle",
            "too many messages that mean nothing",
        )
        self._repeats = _Bucket(
            config.repeats_max, config.repeats_per_second, "limit.repeats", "too many messages sent before"
        )
        self._scans = _Bucket(
            config.scans_max, config.scans_per_second, "limit.scans", "too many questions for all of a prefix"
        )
        self._others = (self._waste, self._idle, self._repeats, self._scans)
        self._reads = _Bucket(config.reads_burst, config.reads_per_second, "", "")
        self.reads_lately = False
        """The last messages made the disk work."""
        self._scanned = 0
        """Such questions since the connection was last listened to."""
        self._pressing: float | None = None
        """When the second of them was worked off."""
        self.scanned = False
        """The last one was a question for all souls of a prefix."""
        # Most links never repeat anything, and two empty sets take 0.4 KiB of each.
        self._young: set[Hashable] = _NOTHING
        self._old: set[Hashable] = _NOTHING

    def failed(self) -> Violation | None:
        """A message was malformed or refused. Returns why the connection must end, or None."""
        self._errors.charge(1)
        if self._errors.level < 0:
            return Violation("too many malformed messages", code="gun.too-many-errors", fatal=True)
        return None

    def wasted(self, size: int) -> None:
        """``size`` bytes came that cannot be used."""
        self._waste.charge(size)

    def idled(self, count: int = 1) -> None:
        """Messages came that mean nothing."""
        self._idle.charge(count)

    def read(self, count: int, scans: int) -> None:
        """Messages made the disk work: ``count`` reads, of which ``scans`` were for all souls of a prefix."""
        self.reads_lately, self.scanned = count > 0, scans > 0
        if count:
            self._reads.charge(count + scans * (self._config.scan_reads - 1))
        if scans:
            self._scans.charge(scans * (self._config.scans_pressed if self._scanned else 1))
            self._scanned += scans

    def listened(self) -> None:
        """Everything that came before has been worked off."""
        self._scanned, self._pressing = 0, None

    def reads_max(self, busy: bool) -> int:
        """Reads that may wait for the disk; ``busy``: others want to write."""
        return self._config.reads_busy_max if busy else self._config.reads_max

    def repeated(self, ids: Iterable[Hashable]) -> None:
        """Some messages of a batch with these ids had been seen before, by whatever way they came then."""
        count = 0
        for id in ids:
            if id in self._young or id in self._old:
                count += 1
            else:
                if self._young is _NOTHING or len(self._young) >= self._config.repeats_memory:
                    self._old, self._young = self._young, set()
                self._young.add(id)
        if count:
            self._repeats.charge(count)

    def check(self, now: Now) -> tuple[float, LimitReached | None]:
        """(seconds to wait before reading on, what to tell the peer). Call it between batches.

        Raises LimitReached, fatal, when the connection has been slowed down long enough and goes on.
        """
        self._errors.refill(now.monotonic)
        self._reads.refill(now.monotonic)
        wait, told = self._reads.wait_seconds, None
        if self._scanned > 1:
            if self._pressing is None:
                self._pressing = now.monotonic
            elif self._scanned > 2 and now.monotonic - self._pressing >= self._config.scans_seconds:
                raise LimitReached(self._scans.text, code=self._scans.code, fatal=True)
        for bucket in self._others:
            bucket.refill(now.monotonic)
            if not bucket.charged:
                continue
            bucket.charged = False
            if bucket.level >= 0:
                continue
            left = self._config.insist_seconds
            if bucket.since is None:
                bucket.since = now.monotonic
                told = LimitReached(f"{bucket.text}; slow down", code=bucket.code)
            else:
                left -= now.monotonic - bucket.since
                if left <= 0:
                    raise LimitReached(bucket.text, code=bucket.code, fatal=True)
            wait = max(wait, min(bucket.wait_seconds, left))
        return wait, told
