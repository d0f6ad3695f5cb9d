"""The table of `make bench-net`: medians of the rounds, and Air against its goals. (core)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from statistics import median
from typing import Final, NamedTuple

__all__ = ["table"]


class _Row(NamedTuple):
    title: str
    key: str
    small: bool
    """Whether less is better."""
    goals: Mapping[str, float]
    """Peer -> Air's factor over it that is the goal, at least, or at most where less is better."""


_BULK: Final = {"go": 1.0, "js": 3.0, "py": 5.0}
ROWS: Final = (
    _Row("bulk up, Gbit/s", "up", False, _BULK),
    _Row("bulk down, Gbit/s", "down", False, _BULK),
    _Row("bulk up ÷ cipher", "up_part", False, {}),
    _Row("bulk down ÷ cipher", "down_part", False, {}),
    _Row("bulk up, Gbit per core-second", "up_core", False, _BULK),
    _Row("bulk down, Gbit per core-second", "down_core", False, _BULK),
    _Row("connect, ms", "connect_ms", True, {"go": 2.0}),
    _Row("ping, ms", "ping_ms", True, {"go": 3.0}),
    _Row("handshakes/s of its core", "handshakes_core", False, {}),
    _Row("handshakes/s", "handshakes", False, {}),
    _Row("streams/s of its core", "streams_core", False, {}),
    _Row("streams/s", "streams", False, {}),
    _Row("200 B ×1, /s of its core", "ask-1_core", False, {}),
    _Row("200 B ×1, /s", "ask-1", False, {}),
    _Row("200 B ×100, /s of its core", "ask-100_core", False, {}),
    _Row("200 B ×100, /s", "ask-100", False, {}),
    _Row("idle session, KiB", "idle_kib", True, {}),
)


def table(names: Sequence[str], rounds: Sequence[Mapping[str, Mapping[str, float]]], cipher: float) -> str:
    """Markdown. ``cipher`` is the rate of the raw cipher in Gbit/s."""
    others = [name for name in names if name != "air"]
    head = ["", *names, *(f"air ÷ {name}" for name in others), "goals"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in ROWS:
        values = {name: _middle(rounds, name, row.key, cipher) for name in names}
        if all(isnan(value) for value in values.values()):
            continue
        air = values.get("air", nan)
        cells = [row.title, *(_number(values[name]) for name in names)]
        cells += [_number(air / values[name]) for name in others]
        lines.append(_line([*cells, _verdicts(row, values)]))
    return "\n".join([*lines, "", f"raw cipher, sealing 64 KiB on one core: {cipher:.1f} Gbit/s"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _middle(rounds: Sequence[Mapping[str, Mapping[str, float]]], name: str, key: str, cipher: float) -> float:
    wanted, part = key.removesuffix("_part"), key.endswith("_part")
    values = [found[name][wanted] for found in rounds if wanted in found.get(name, {})]
    return nan if not values else median(values) / (cipher if part else 1.0)


def _number(value: float) -> str:
    if isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _verdicts(row: _Row, values: Mapping[str, float]) -> str:
    said = []
    for name, factor in row.goals.items():
        value, air = values.get(name, nan), values.get("air", nan)
        if isnan(value) or isnan(air):
            continue
        met = air <= factor * value if row.small else air >= factor * value
        said.append(f"{'≤' if row.small else '≥'} {factor:g} × {name}: {'met' if met else 'MISSED'}")
    return ", ".join(said)
