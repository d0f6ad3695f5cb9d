"""The side that is asked: it answers, and remembers only what it has not answered yet. (core)"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from air.base.errors import LimitReached, Violation
from air.store.api import Bound, RangeSource
from air.sync.repair.compare import Comparison
from air.sync.repair.config import SPANS_MAX, RepairConfig
from air.sync.repair.messages import Frame, Opening
from air.sync.repair.salt import Salt
from air.sync.repair.side import Side, bytes_of, weight_of
from air.sync.repair.spans import Span

__all__ = ["Responder"]


@dataclass(slots=True)
class _Question:
    """A request that waits for its answers."""

    number: int
    id_bytes: int
    weight: int
    spans: deque[Span]
    answers: list[Span] = field(default_factory=list)
    """Not sent yet."""
    size: int = 0
    """Bytes of those, about."""


class Responder(Side):
    """The side that is asked. It remembers nothing but what it has not answered yet."""

    def __init__(self, config: RepairConfig | None = None) -> None:
        super().__init__(config)
        self._salt: Salt | None = None
        self._range: tuple[Bound, Bound, bool] | None = None
        self._questions: deque[_Question] = deque()
        self._number = self._weight = 0
        self._fresh = False
        """A pass has begun and the cells have not been counted."""

    @property
    def busy(self) -> bool:
        """:meth:`work` would do something."""
        return (bool(self._questions) and not self.cargo.crowded) or self.cargo.sendable

    def _take(self, frame: Frame) -> None:
        if frame.opening is not None:
            self._open(frame.opening)
        elif self._range is None:
            raise Violation("a session begins with its range", code="repair.bad-opening", fatal=True)
        if frame.last:
            raise Violation("an answer to nothing", code="repair.bad-number", fatal=True)
        if not frame.number:
            if frame.spans:
                raise Violation("a request without a number", code="repair.bad-number", fatal=True)
            return
        self._number += 1
        if frame.number != self._number:
            raise Violation(
                f"request {frame.number} instead of {self._number}", code="repair.bad-number", fatal=True
            )
        weight = sum(map(weight_of, frame.spans))
        self._weight += weight
        if self._weight > SPANS_MAX or len(self._questions) >= SPANS_MAX or not frame.id_bytes:
            raise LimitReached("more ranges than may be asked about", code="repair.overrun", fatal=True)
        self._questions.append(_Question(frame.number, frame.id_bytes, weight, deque(frame.spans)))

    def _open(self, opening: Opening) -> None:
        where = (opening.low, opening.high, opening.dry_run)
        self.passes += 1
        if self._questions or (self._range is not None and where != self._range):
            raise Violation(
                "a pass begins after and like the last one", code="repair.bad-opening", fatal=True
            )
        if self.passes > self.config.passes_max:
            raise LimitReached(f"{self.passes} passes", code="repair.endless", fatal=True)
        self._range, self._salt, self._fresh = where, Salt(opening.salt), True
        self.dry_run = opening.dry_run

    def work(self, source: RangeSource) -> None:
        """Answer what was asked; for a few milliseconds at most."""
        if self._fresh and self._range is not None:
            if not self._summed_up(source):
                return
            self._here, self._fresh = source.fingerprint(*self._range[:2])[0], False
        spent = 0
        while self._questions and not self.cargo.crowded and spent < self.config.hop_work:
            spent += self._answer(self._questions[0], source, self.config.hop_work - spent)
        self._ship(source, self.config.batch_cells if self._questions else 1)

    def _answer(self, question: _Question, source: RangeSource, budget: int) -> int:
        """Answer a request, or part of it. Returns the work it took."""
        assert self._salt is not None
        comparison = Comparison(
            source, self._salt, question.id_bytes, question.id_bytes, self.dry_run, leading=False
        )
        while question.spans and not self.cargo.crowded and comparison.work < budget:
            comparison.answer(question.spans.popleft())
            self.cargo.load(comparison.send)
            question.answers += comparison.spans
            question.size += sum(bytes_of(span, question.id_bytes) for span in comparison.spans)
            comparison.send, comparison.spans = [], []
            if question.size >= self.config.request_bytes and question.spans:
                self._reply(question, last=False)
        if not question.spans:
            self._reply(question, last=True)
            self._questions.popleft()
            self._weight -= question.weight
        return max(comparison.work, 1)

    def _reply(self, question: _Question, *, last: bool) -> None:
        spans = question.answers
        self._say(Frame(question.number, last, spans=spans, id_bytes=question.id_bytes if spans else 0))
        question.answers, question.size = [], 0
