"""What a run came to: counts, rates, percentiles, from logs of (moment, ids). (core)

The generator's hot path only appends to logs; what costs time per message is done here, afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

__all__ = ["Outcome", "Window", "count_answers", "count_deliveries", "percentile"]

Sent = tuple[float, int, int]
"""(moment, first message, one past the last message) of one write."""
Got = tuple[float, list[bytes]]
"""(moment, what a read contained)."""


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run, on the monotonic clock, and what it cost."""

    start: float
    end: float
    cpu_start: float = 0.0
    """CPU seconds of the relay's processes when it began."""
    machine_start: float = 0.0
    """CPU seconds of everything on this machine when it began."""
    cpu_seconds: float = 0.0
    """CPU seconds of the relay's processes inside."""
    generator_seconds: float = 0.0
    """Of the generator's own process."""
    machine_seconds: float = 0.0
    """CPU seconds of everything on this machine inside."""
    exhausted: bool = False
    """True when the prepared messages ran out before the time did."""


@dataclass(slots=True)
class Outcome:
    """One run. Sizes are counts of messages, or of deliveries where a subscriber receives them."""

    sent: int = 0
    answered: int = 0
    missing: int = 0
    """Sent but not answered when the deadline came."""
    refused: Counter[str] = field(default_factory=Counter)
    """Answers with ``err``, by its text; they count as answered, not as done."""
    not_found: int = 0
    """Gets of existing nodes answered without data."""
    wrong: int = 0
    """Values that are not what was written."""
    expected: int = 0
    """Deliveries due: messages sent × subscribers."""
    undelivered: int = 0
    repeated: int = 0
    closed: int = 0
    """Connections that the relay cut."""
    operations: int = 0
    """Done inside the window."""
    window: Window = field(default_factory=lambda: Window(0.0, 0.0))
    latencies_ms: list[float] = field(default_factory=list)
    """Sorted; only of operations done inside the window."""

    @property
    def seconds(self) -> float:
        return max(1e-9, self.window.end - self.window.start)

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of the relay per operation, in microseconds."""
        return self.window.cpu_seconds * 1e6 / max(1, self.operations)

    @property
    def generator_share(self) -> float:
        """Part of one core that the generator used: 1.0 means that it was the bottleneck."""
        return self.window.generator_seconds / self.seconds

    @property
    def others_share(self) -> float:
        """CPU, in cores, that neither the relay nor the generator used: what disturbed the run."""
        window = self.window
        return max(0.0, window.machine_seconds - window.cpu_seconds - window.generator_seconds) / self.seconds

    def percentile_ms(self, part: float) -> float:
        return percentile(self.latencies_ms, part)


def percentile(ordered: Sequence[float], part: float) -> float:
    """Nearest-rank percentile of a sorted sequence; NaN when it is empty. ``part`` is 0 to 1."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def count_answers(
    sent: Iterable[Sent], got: Iterable[Got], ids: Sequence[bytes], window: Window
) -> list[float]:
    """Latencies in ms of the messages first answered inside the window; later repeats do not count."""
    moments: dict[bytes, float] = {}
    for moment, first, end in sent:
        moments.update(dict.fromkeys(ids[first:end], moment))
    take = moments.pop
    found: list[float] = []
    for moment, names in got:
        starts = [start for start in (take(name, 0.0) for name in names) if start]
        if window.start <= moment < window.end:
            found.extend((moment - start) * 1e3 for start in starts)
    return found


def count_deliveries(
    sent: Iterable[Sent], got: Sequence[Got], window: Window, *, latencies: bool
) -> tuple[int, int, int, list[float]]:
    """Of one subscriber: (missing, repeated, deliveries inside the window, their latencies in ms).

    What a subscriber got are index digits; message n of the plan carries index n.
    """
    moments: list[float] = []
    for moment, first, end in sent:
        moments.extend([moment] * (end - first))
    total = sum(len(digits) for _, digits in got)
    seen = {int(digits) for digits in set(chain.from_iterable(digits for _, digits in got))}
    due = len(moments)
    inside = [(moment, digits) for moment, digits in got if window.start <= moment < window.end]
    count = sum(len(digits) for _, digits in inside)
    found: list[float] = []
    if latencies:
        for moment, digits in inside:
            found.extend((moment - moments[int(one)]) * 1e3 for one in digits if int(one) < due)
    return due - sum(index < due for index in seen), total - len(seen), count, found
