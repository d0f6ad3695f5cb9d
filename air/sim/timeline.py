"""A run as a picture: one page without anything from elsewhere. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from air.sim.world import Report, World

__all__ = ["Recorder", "page"]

_MESSAGES_MAX = 6_000
_LANE, _TOP, _LEFT, _WIDTH = 34, 40, 130, 1_800
_KINDS = (("put", b'"put":'), ("get", b'"get":'), ("ack", b'"ok":'), ("error", b'"err":'))


@dataclass(slots=True)
class Recorder:
    """Notes the messages of a run. Set as ``Network.watch`` before the run begins."""

    messages: list[tuple[float, float, int, int, str]] = field(default_factory=list)
    left_out: int = 0

    def __call__(self, sent: float, arrived: float, source: int, target: int, frame: bytes) -> None:
        if frame == b"[]" or frame.startswith(b'{"dam"'):
            return
        if len(self.messages) >= _MESSAGES_MAX:
            self.left_out += 1
            return
        kind = next((name for name, mark in _KINDS if mark in frame), "other")
        self.messages.append((sent, arrived, source, target, kind))


_STYLE = """
body{font:13px/1.4 system-ui,sans-serif;margin:16px;color:#1b1f24;background:#fff}
h1{font-size:18px;margin:0 0 4px}p{margin:2px 0 10px;color:#57606a}
.bad{color:#b3261e;font-weight:600}.scroll{overflow-x:auto;border:1px solid #d0d7de;border-radius:6px}
.lane{stroke:#d0d7de}.grid{stroke:#eef1f4}.tick{fill:#57606a}.name{font-weight:600}
.split{fill:#f4b400;opacity:.25}.crash{fill:#b3261e;opacity:.35}
.full{fill:#6f42c1;opacity:.3}.jump,.cut{stroke:#b3261e;stroke-width:2}.write{fill:#1b1f24}
.put{stroke:#1f6feb}.get{stroke:#8c959f}.ack{stroke:#2da44e}.error{stroke:#b3261e}.other{stroke:#c9b458}
.m{stroke-width:1;opacity:.55}.wrong{stroke:#b3261e;stroke-width:2;stroke-dasharray:5 3}
.heal{stroke:#2da44e;stroke-width:2;stroke-dasharray:2 3}ul{padding-left:18px}
span.k,span.k i{display:inline-block}span.k{margin-right:14px}
span.k i{width:14px;height:10px;margin-right:4px}
"""
_LEGEND = (
    ("#1f6feb", "data"),
    ("#8c959f", "question"),
    ("#2da44e", "ack"),
    ("#c9b458", "bytes of a native link, or anything else"),
    ("#b3261e", "refusal, crash, cut, violation"),
    ("#f4b400", "split"),
    ("#6f42c1", "disk full"),
    ("#1b1f24", "write of the app"),
)


class _Canvas:
    """Where times and peers lie on the page."""

    def __init__(self, end: float, peers: int) -> None:
        self.end, self.height = end, _TOP + _LANE * peers + 20
        self._scale = _WIDTH / end
        self.parts: list[str] = []

    def x(self, time: float) -> float:
        return round(_LEFT + min(time, self.end) * self._scale, 1)

    def y(self, peer: int) -> int:
        return _TOP + _LANE * peer + _LANE // 2

    def add(self, *parts: str) -> None:
        self.parts += parts

    def line(self, style: str, x1: float, y1: float, x2: float, y2: float, title: str = "") -> None:
        self.add(f'<line class="{style}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}">{title}</line>')

    def upright(self, style: str, time: float, title: str = "") -> None:
        self.line(style, self.x(time), _TOP - 14, self.x(time), self.height, title)

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        self.add(f'<text class="{style}" x="{x}" y="{y}">{escape(text)}</text>')


def page(world: World, recorder: Recorder, report: Report) -> str:
    """The whole page as HTML."""
    canvas = _Canvas(_end(world, report), len(world.names))
    _axis(canvas)
    _notes(canvas, world)
    for peer, name in enumerate(world.names):
        canvas.line("lane", _LEFT, canvas.y(peer), _LEFT + _WIDTH, canvas.y(peer))
        canvas.text(8, canvas.y(peer) + 4, name, "name")
    for sent, arrived, source, target, kind in recorder.messages:
        if sent < canvas.end:
            canvas.line(f"m {kind}", canvas.x(sent), canvas.y(source), canvas.x(arrived), canvas.y(target))
    heal = world.plan.options.seconds + 1.0
    canvas.upright("heal", heal)
    canvas.text(canvas.x(heal) + 4, _TOP - 6, "all faults end")
    for violated in report.violations[:20]:
        canvas.upright("wrong", violated.time, f"<title>{escape(violated.text)}</title>")
        x, y = canvas.x(violated.time), canvas.y(violated.peer)
        canvas.add(f'<circle class="wrong" cx="{x}" cy="{y}" r="7" fill="none"/>')
    legend = "".join(
        f'<span class="k"><i style="background:{color}"></i>{text}</span>' for color, text in _LEGEND
    )
    title = f"air sim, seed {report.options.seed}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>{_summary(recorder, report)}"
        f'<p>{legend}</p><div class="scroll"><svg width="{_LEFT + _WIDTH + 20}" height="{canvas.height}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(canvas.parts)}</svg></div>{_wrong(report)}</html>\n'
    )


def _notes(canvas: _Canvas, world: World) -> None:
    """Faults, and what the app wrote."""
    for begin, until, kind, peers, text in world.notes:
        if begin > canvas.end:
            continue
        title = f"<title>{escape(kind)} {escape(text)} at {begin:.2f} s</title>"
        left, right = canvas.x(begin), canvas.x(until)
        for peer in peers:
            y = canvas.y(peer)
            if kind in ("split", "crash", "full"):
                box = f'x="{left}" y="{y - 13}" width="{max(right - left, 2):.1f}" height="26"'
                canvas.add(f'<rect class="{kind}" {box}>{title}</rect>')
            elif kind == "write":
                canvas.add(f'<circle class="write" cx="{left}" cy="{y}" r="3">{title}</circle>')
            else:
                canvas.line(kind, left, y - 12, left, y + 12, title)


def _end(world: World, report: Report) -> float:
    """What is shown: until a little after everybody agreed, or to the first violation."""
    healed = world.plan.options.seconds + 1.0
    last = max((violated.time for violated in report.violations), default=0.0)
    # A run waits long for late writes; a violation that is only found after that is drawn at the edge.
    return min(max(healed + (report.converged_s or 0.0) + 5.0, last), 1.5 * healed + 20)


def _axis(canvas: _Canvas) -> None:
    step = next(step for step in (1, 2, 5, 10, 30, 60, 120, 300, 600, 3600) if canvas.end / step <= 30)
    for number in range(int(canvas.end / step) + 1):
        x = canvas.x(number * step)
        canvas.text(x, 14, f"{number * step} s", "tick")
        canvas.line("grid", x, 18, x, canvas.height)


def _summary(recorder: Recorder, report: Report) -> str:
    options = report.options
    state = "ok" if report.ok else f'<span class="bad">{len(report.violations)} violations</span>'
    agreed = (
        "they never agreed" if report.converged_s is None else f"all agreed {report.converged_s:g} s later"
    )
    more = f", {recorder.left_out} messages are not drawn" if recorder.left_out else ""
    return (
        f"<p>{state} · {options.peers} peers, {escape(options.topology)}, {escape(options.workload)} · "
        f"{report.writes} writes, {report.frames} frames, {report.faults} faults; {agreed} · "
        f"trace {report.trace}{more}</p>"
    )


def _wrong(report: Report) -> str:
    items: Sequence[str] = [
        f"<li><b>{escape(violated.rule)}</b> at {violated.time:.2f} s, "
        f"{escape(report.names[violated.peer])}: {escape(violated.text)}</li>"
        for violated in report.violations
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""
