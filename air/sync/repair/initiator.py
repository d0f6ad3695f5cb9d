"""The side that opened a session: it asks, and knows when all is done. (core)"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from air.base.errors import LimitReached, Violation
from air.store.api import Bound, RangeSource
from air.sync.repair.compare import Comparison
from air.sync.repair.config import LEAF_ITEMS, PARTS_MAX, SPANS_MAX, RepairConfig, Summary
from air.sync.repair.messages import Frame, Opening
from air.sync.repair.salt import ROOT_BYTES, SALT_BYTES, Salt
from air.sync.repair.side import WEIGHT_MAX, Side, bytes_of, weight_of
from air.sync.repair.spans import Ids, Print, Span, Take, before

__all__ = ["Initiator"]

ID_BYTES: Final = 3
"""Two cells in a small range pass for one with a chance of one in 100,000; the next pass would tell."""
ID_BYTES_DENSE: Final = 2
"""When much differs ids are most of the talk, and some more passes over some ranges cost less."""
ID_BYTES_AGAIN: Final = 5
DENSE_IDS: Final = 32_768
"""So many ids in a pass are much."""
QUIET_PASSES_MAX: Final = 2
"""Passes in a row that move nothing, after which another one would not help."""


@dataclass(slots=True)
class _Request:
    """Something that was asked and is not answered in full."""

    number: int
    depth: int
    spans: Sequence[Span]
    id_bytes: int
    weight: int
    at: int = 0
    """Index of the range that the answer has come to."""
    parts: int = 0
    """Answers to that one."""


class Initiator(Side):
    """The side that opened the session: it asks, and knows when all is done."""

    def __init__(
        self,
        salt: bytes,
        low: Bound = None,
        high: Bound = None,
        *,
        dry_run: bool = False,
        config: RepairConfig | None = None,
    ) -> None:
        """``salt``: 16 random bytes that nobody could foresee."""
        super().__init__(config)
        self._seed = salt
        self._low, self._high = low, high
        self.dry_run = dry_run
        self._salt = Salt(salt)
        self._pending: dict[int, deque[Span]] = {}
        """What to ask, by depth. The deepest goes first, so that there is never much of it."""
        self._asked: deque[_Request] = deque()
        self._answers: deque[tuple[_Request, Span | None]] = deque()
        """What came and was not looked at; None is the end of the answers to a request."""
        self._open: deque[_Request] = deque()
        """Requests whose answers may still come."""
        self._number = self._weight = 0
        self._begin = True
        self._ids = self._quiet = 0
        self._base = self.rounds = 0
        self._moved = 0
        self._differs = False
        self.done = False
        self.equal = False
        self.lacking = self.ahead = 0

    # -- what comes --------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if frame.opening is not None:
            raise Violation("only the opener opens", code="repair.bad-opening", fatal=True)
        if not frame.number:
            if frame.spans or frame.last:
                raise Violation("an answer to nothing", code="repair.bad-number", fatal=True)
            return
        if not self._open or frame.number != self._open[0].number:
            raise Violation(f"an answer to {frame.number}", code="repair.bad-number", fatal=True)
        request = self._open[0]
        if frame.id_bytes and frame.id_bytes != request.id_bytes:
            raise Violation(f"ids of {frame.id_bytes} bytes", code="repair.malformed", fatal=True)
        for span in frame.spans:
            _check(request, span)
            self._answers.append((request, span))
        if frame.spans:
            self._differs = True
        if frame.last:
            self._open.popleft()
            self._answers.append((request, None))

    # -- what goes ---------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """:meth:`work` would do something."""
        if self.done:
            return False
        return (
            self._begin
            or (bool(self._answers) and not self.cargo.crowded)
            or self.cargo.sendable
            or (bool(self._pending) and self._roomy)
            or self._over
        )

    @property
    def _over(self) -> bool:
        return not (self._begin or self._pending or self._asked or self._answers) and self.cargo.settled

    def work(self, source: RangeSource) -> None:
        """Look at what came, and say what follows; for a few milliseconds at most."""
        if self.done:
            return
        if self._over and self._end_pass():
            return
        if self._begin:
            if not self._summed_up(source):
                return
            self._begin_pass(source)
        comparison = Comparison(
            source, self._salt, self._id_bytes, self._id_bytes, self.dry_run, leading=True
        )
        while self._answers and not self.cargo.crowded and comparison.work < self.config.hop_work:
            request, span = self._answers.popleft()
            if span is None:
                self._asked.popleft()
                self._weight -= request.weight
                continue
            comparison.id_bytes = request.id_bytes
            comparison.answer(span)
            self._follow(comparison, request.depth + 1)
        self.lacking += comparison.lacking
        self.ahead += comparison.ahead
        self._ship(source, self.config.batch_cells if self._answers else 1)
        if not self._answers or self.cargo.crowded or self._much_pending:
            self._ask()

    @property
    def _id_bytes(self) -> int:
        if self.passes > 1:
            return ID_BYTES_AGAIN
        return ID_BYTES if self._ids < DENSE_IDS else ID_BYTES_DENSE

    @property
    def _much_pending(self) -> bool:
        return sum(map(len, self._pending.values())) * 16 > self.config.request_bytes

    def _begin_pass(self, source: RangeSource) -> None:
        self._begin, self._differs = False, False
        self.passes += 1
        self._ids, self._moved = 0, self.cargo.sent + self.cargo.received
        self._base = self.rounds
        if self.passes > 1:
            # Whatever passed for equal by chance gets other names now.
            self._salt = Salt(
                blake2b(self.passes.to_bytes(8, "little"), key=self._seed, digest_size=SALT_BYTES).digest()
            )
        count, total = source.fingerprint(self._low, self._high)
        self._here = count
        root = Print(self._low, self._high, count, self._salt.print(count, total, ROOT_BYTES))
        opening = Opening(self._salt.data, self._low, self._high, self.dry_run)
        self._send([root], self._base + 1, opening=opening)

    def _follow(self, comparison: Comparison, depth: int) -> None:
        """Keep what an answer led to."""
        if comparison.send:
            self.cargo.load(comparison.send)
            comparison.send = []
            # What is sent is said to be merged one round trip later.
            self.rounds = max(self.rounds, depth)
        if comparison.spans:
            if depth - self._base > self.config.depth_max:
                raise LimitReached(
                    f"a range that differs after {depth - self._base} round trips",
                    code="repair.endless",
                    fatal=True,
                )
            self._ids += sum(map(_ids_of, comparison.spans))
            self._pending.setdefault(depth, deque()).extend(comparison.spans)
            comparison.spans = []

    @property
    def _roomy(self) -> bool:
        """There is room to ask about one more range, whatever it counts for."""
        return self._weight + WEIGHT_MAX <= SPANS_MAX

    def _ask(self) -> None:
        while self._pending and self._roomy:
            depth = max(self._pending)
            queue, size, weight = self._pending[depth], 0, 0
            spans: list[Span] = []
            width = 0
            while queue and size < self.config.request_bytes:
                span = queue[0]
                here = _id_bytes(span)
                if spans and (not before(spans[-1].high, span.low) or (width and here and width != here)):
                    break
                width = width or here
                if spans and self._weight + weight + weight_of(span) > SPANS_MAX:
                    break
                spans.append(queue.popleft())
                size += bytes_of(span, self._id_bytes)
                weight += weight_of(span)
            if not queue:
                del self._pending[depth]
            self._send(spans, depth, width)

    def _send(
        self, spans: Sequence[Span], depth: int, id_bytes: int = 0, opening: Opening | None = None
    ) -> None:
        self._number += 1
        self.rounds = max(self.rounds, depth)
        id_bytes = id_bytes or self._id_bytes
        request = _Request(self._number, depth, spans, id_bytes, sum(map(weight_of, spans)))
        self._asked.append(request)
        self._open.append(request)
        self._weight += request.weight
        self._say(Frame(self._number, opening=opening, spans=spans, id_bytes=id_bytes))

    def _end_pass(self) -> bool:
        """Decide whether there is another pass; True when not."""
        self.equal = not self._differs
        moved = self.cargo.sent + self.cargo.received > self._moved
        self._quiet = 0 if moved else self._quiet + 1
        self.done = (
            self.equal
            or self.dry_run
            or self.passes >= self.config.passes_max
            or self._quiet >= QUIET_PASSES_MAX
        )
        self._begin = not self.done
        return self.done

    def summary(self, seconds: float) -> Summary:
        """What came of it, after ``seconds``."""
        sent, received = self.cargo.sent, self.cargo.received
        if self.dry_run:
            sent, received = self.ahead, self.lacking
        return Summary(
            sent,
            received,
            self.rounds,
            self.bytes_in,
            self.bytes_out,
            seconds,
            self.equal,
            self.passes,
        )


def _ids_of(span: Span) -> int:
    """Ids in what is said about a range, or in what will probably be answered to it."""
    if isinstance(span, Ids):
        return len(span.ids)
    return span.cells if isinstance(span, Print) and span.cells <= LEAF_ITEMS else 0


def _id_bytes(span: Span) -> int:
    """Bytes of the ids in what is said about a range; 0 when there are none."""
    return len(span.ids[0]) if isinstance(span, Ids | Take) and span.ids else 0


def _check(request: _Request, span: Span) -> None:
    """Raise Violation unless ``span`` is about a range that was asked about."""
    spans = request.spans
    while request.at < len(spans) and before(spans[request.at].high, span.low):
        request.at, request.parts = request.at + 1, 0
    if request.at == len(spans):
        raise Violation("an answer about another range", code="repair.bad-bounds", fatal=True)
    asked = spans[request.at]
    if (asked.low is not None and (span.low is None or span.low < asked.low)) or (
        asked.high is not None and (span.high is None or span.high > asked.high)
    ):
        raise Violation("an answer about another range", code="repair.bad-bounds", fatal=True)
    request.parts += 1
    if request.parts > PARTS_MAX:
        raise LimitReached("too many parts of a range", code="repair.too-many-ranges", fatal=True)
