"""The table: medians of the rounds side by side, ratio, spread, goal. (core)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any

from bench.rows import Row

__all__ = ["DISTURBED", "SATURATED", "table"]

SATURATED = 0.9
"""Part of a core above which the generator may have been the bottleneck."""
DISTURBED = 0.25
"""CPU of other processes, in cores, above which a round is not worth much on a small machine."""

Results = Sequence[Mapping[str, Any]]


def _middle(results: Results, key: str) -> float:
    values = [float(one[key]) for one in results if key in one and not isnan(float(one[key]))]
    return median(values) if values else float("nan")


def _number(value: float) -> str:
    if isnan(value):
        return "-"
    if value >= 10_000:
        return f"{value / 1000:,.1f} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}" if value < 10 else f"{value:,.1f}"


def _spread(results: Results, key: str) -> str:
    values = [float(one[key]) for one in results if key in one]
    middle = median(values) if values else 0
    if len(values) < 2 or not middle:
        return ""
    return f"±{(max(values) - min(values)) / 2 / abs(middle):.0%}"


def _goal(row: Row, sides: Mapping[str, Results]) -> str:
    stock, air = sides.get("stock", ()), sides.get("air", ())
    if not air:
        return ""
    checks = []
    if row.goal_ratio and stock:
        ratio = _middle(air, "rate") / max(1e-9, _middle(stock, "rate"))
        checks.append((f">= {row.goal_ratio:g}x", ratio >= row.goal_ratio))
    if row.goal_cpu_ratio and stock:
        ratio = _middle(stock, "cpu_us") / max(1e-9, _middle(air, "cpu_us"))
        checks.append((f"CPU <= 1/{row.goal_cpu_ratio:g}", ratio >= row.goal_cpu_ratio))
    for name, limit in (("p50_ms", row.goal_p50_ms), ("p99_ms", row.goal_p99_ms)):
        if limit:
            checks.append((f"{name[:3]} <= {limit:g} ms", _middle(air, name) <= limit))
    if row.goal_bytes:
        checks.append((f"<= {row.goal_bytes / 1024:g} KiB", _middle(air, "bytes_each") <= row.goal_bytes))
    return ", ".join(f"{text} {'met' if met else 'MISSED'}" for text, met in checks)


def _cells(row: Row, side: str, results: Results, sides: Mapping[str, Results]) -> list[str]:
    stock = sides.get("stock", ())
    other = side != "stock" and bool(stock)
    if row.kind in ("idle", "nodes"):
        each = _middle(results, "bytes_each")
        ratio = (
            f"{each / _middle(stock, 'bytes_each'):.2f}x"
            if other and _middle(stock, "bytes_each") > 0
            else ""
        )
        pss = _middle(results, "pss_bytes_each")
        size = f"{each / 1024:.2f} KiB RSS", f"{pss / 1024:.2f} KiB PSS"
        total = f"{_middle(results, 'rss_after_bytes') / 2**20:.0f} MiB at the end"
        return [size[0], _spread(results, "bytes_each"), ratio, size[1], "", total, ""]
    rate = _middle(results, "rate")
    return [
        f"{_number(rate)}/s",
        _spread(results, "rate"),
        f"{rate / max(1e-9, _middle(stock, 'rate')):.1f}x" if other else "",
        f"{_number(_middle(results, 'cpu_us'))} µs",
        f"{_number(_middle(results, 'p50_ms'))} ms",
        f"{_number(_middle(results, 'p99_ms'))} ms",
        f"{_middle(results, 'generator_share'):.0%}",
    ]


def table(rows: Sequence[tuple[Row, Mapping[str, Results]]]) -> str:
    """The whole report as text; a second part lists what was lost, refused or saturated."""
    heads = ["work", "relay", "rate", "spread", "ratio", "CPU/op", "p50", "p99", "generator", "goal"]
    lines: list[list[str]] = [heads]
    notes: list[str] = []
    for row, sides in rows:
        for at, (side, results) in enumerate(sides.items()):
            good = [one for one in results if "error" not in one]
            title = row.title if at == 0 else ""
            if good:
                cells = _cells(row, side, good, sides)
                lines.append([title, side, *cells, _goal(row, sides) if side == "air" else ""])
            else:
                lines.append([title, side, "failed", *[""] * 7])
            for number, one in enumerate(results, 1):
                for note in [*one.get("notes", []), *([one["error"]] if "error" in one else [])]:
                    notes.append(f"{row.name}, {side}, round {number}: {note}")
                if one.get("others_share", 0) > DISTURBED:
                    busy = one["others_share"]
                    notes.append(
                        f"{row.name}, {side}, round {number}: other processes used {busy:.0%} of a core"
                    )
                if one.get("generator_share", 0) > SATURATED:
                    share = one["generator_share"]
                    notes.append(
                        f"{row.name}, {side}, round {number}: generator saturated ({share:.0%} of a core)"
                    )
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    text = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * max(len(line) for line in text))
    return "\n".join(
        [*text, "", *(["Notes:", *(f"  {note}" for note in notes)] if notes else ["No losses."])]
    )
