"""From a run that fails to a small one that still fails in the same way. (core)"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from air.sim.plan import Options, draw
from air.sim.world import Report, run

__all__ = ["shrink"]

_RUNS_MAX = 400


def shrink(report: Report, tell: Callable[[str], None], runs_max: int = _RUNS_MAX) -> Report:
    """Leave out peers, faults, writes and whole kinds of trouble as long as the same rule is broken.

    ``tell`` hears of each step. Returns the report of the smallest run that was found.
    """
    return _Shrinker(report, tell, runs_max).shrink()


class _Shrinker:
    def __init__(self, report: Report, tell: Callable[[str], None], runs_max: int) -> None:
        self._best = report
        self._rule = report.violations[0].rule
        self._tell, self._left = tell, runs_max

    def shrink(self) -> Report:
        self._kinds()
        self._peers()
        self._kinds()
        faults = [fault.number for fault in draw(self._best.options).faults]
        self._fewer("faults", faults, lambda some: replace(self._best.options, only_faults=some))
        writes = self._write_numbers()
        self._fewer("writes", writes, lambda some: replace(self._best.options, only_writes=some))
        faults = [fault.number for fault in draw(self._best.options).faults]
        self._fewer("faults", faults, lambda some: replace(self._best.options, only_faults=some))
        return self._best

    def _write_numbers(self) -> list[int]:
        options = self._best.options
        if options.only_writes is not None:
            return list(options.only_writes)
        return [number for number, action in enumerate(draw(options).actions) if action.kind == "put"]

    def _fails(self, options: Options) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        report = run(options)
        if any(violated.rule == self._rule for violated in report.violations):
            self._best = report
            return True
        return False

    def _kinds(self) -> None:
        """Whole kinds of trouble at once."""
        for change in (
            {"liars": 0},
            {"loss": 0.0},
            {"skew": 0.0},
            {"crash": 0.0},
            {"full": 0.0},
            {"partition": 0.0},
            {"tight": False},
            {"wire": "gun"},
            {"bandwidth": Options().bandwidth},
        ):
            options = replace(self._best.options, **change)
            if options != self._best.options and self._fails(options):
                self._tell(f"without {next(iter(change))}")

    def _peers(self) -> None:
        for count in _halves(self._best.options.peers):
            if self._fails(replace(self._best.options, peers=count)):
                self._tell(f"{count} peers")
                break

    def _fewer(self, what: str, things: Sequence[int], options: Callable[[tuple[int, ...]], Options]) -> None:
        """Zeller's delta debugging: ever smaller parts are left out."""
        left, parts = list(things), 2
        if left and self._fails(options(())):
            left = []
        while len(left) > 1 and self._left > 0:
            size = max(1, len(left) // parts)
            for start in range(0, len(left), size):
                rest = left[:start] + left[start + size :]
                if self._fails(options(tuple(rest))):
                    left, parts = rest, max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    break
                parts = min(parts * 2, len(left))
        self._tell(f"{len(left)} of {len(things)} {what}")


def _halves(count: int) -> Iterator[int]:
    """2, 3, 4, 6, … below ``count``, the smallest first."""
    small = 2
    while small < count:
        yield small
        small += max(1, small // 2)
