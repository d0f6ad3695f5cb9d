"""``air sim``: whole networks under one seed, from the command line. (root)"""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from dataclasses import fields
from pathlib import Path
from typing import Final

from air.base.errors import Misuse
from air.daemon.show import show
from air.sim.plan import SHAPES, TOPOLOGIES, WIRES, Options, chaotic, draw
from air.sim.shrink import shrink
from air.sim.timeline import Recorder, page
from air.sim.workloads import WORKLOADS
from air.sim.world import Report, World, run

__all__ = ["add_options", "as_json", "command", "perform"]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds(text: str) -> float:
    """``30s``, ``10m``, ``500ms``, ``1h``, or a number of seconds. Raises Misuse."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Misuse(f"{text} is no length of time; write 30s, 10m or 500ms")
    return float(match[1]) * _UNITS[match[2]]


def _numbers(text: str) -> tuple[int, ...]:
    """``1,3,7-9``; ``none`` for none at all."""
    out: list[int] = []
    for part in text.split(",") if text != "none" else ():
        first, dash, last = part.partition("-")
        try:
            out += range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise Misuse(f"{text} is no list of numbers like 1,3,7-9") from None
    return tuple(out)


def add_options(parser: ArgumentParser) -> None:
    add, usual = parser.add_argument, Options()
    add("--json", action="store_true", help="one line of JSON per run")
    add("--peers", type=int, default=usual.peers, metavar="N", help="peers, relays included (5)")
    add("--seed", type=int, default=usual.seed, metavar="S", help="the seed of the first run (1)")
    add("--runs", type=int, default=1, metavar="N", help="runs, each with the next seed (1)")
    add("--minutes", type=float, metavar="M", help="minutes of virtual time until all faults end (1)")
    add("--workload", metavar="NAME", help=f"what the app does: {', '.join(WORKLOADS)}, or a file.py (chat)")
    add("--topology", metavar="T", choices=TOPOLOGIES, help=f"{', '.join(TOPOLOGIES)} (star)")
    add("--partition", type=seconds, metavar="TIME", help="splits of about this length happen")
    add("--shape", metavar="KIND", choices=("any", *SHAPES), help=f"of the splits: any, {', '.join(SHAPES)}")
    add(
        "--loss",
        type=float,
        metavar="P",
        help="chance of a packet to be lost, of a connection to be cut in 10 s",
    )
    add("--delay", type=seconds, metavar="TIME", help="one way from peer to peer (20ms)")
    add("--bandwidth", type=float, metavar="B", help="bytes per second of a connection (2e6)")
    add("--skew", type=seconds, metavar="TIME", help="clocks are off by up to this, drift and jump")
    add("--crash", type=float, metavar="P", help="chance of a peer to crash in 10 s")
    add("--full", type=float, metavar="P", help="chance of a disk to be full for a while, in 10 s")
    add("--liars", type=int, metavar="N", help="clients more that do not keep to the rules")
    add("--tight", action=BooleanOptionalAction, help="small caches and short memories")
    add("--wire", metavar="W", choices=WIRES, help=f"between Air peers: {', '.join(WIRES)} (gun)")
    add("--chaos", action="store_true", help="draw everything that is not given from the seed")
    add("--only-faults", type=_numbers, metavar="LIST", help="of the faults only these: 1,3,7-9 or none")
    add("--only-writes", type=_numbers, metavar="LIST", help="of the writes only these")
    add("--shrink", action="store_true", help="make a run that fails small")
    add("--timeline", metavar="FILE", help="draw the first run, or the first that fails, as a page")


def perform(args: Namespace) -> int:
    """Run the seeds that were asked for. Returns 0 when all are well, else 1. Raises Misuse."""
    given = {
        field.name: getattr(args, field.name)
        for field in fields(Options)
        if field.name not in ("peers", "seed", "chaos") and getattr(args, field.name, None) is not None
    }
    # What peers log of their troubles is no news here.
    logging.getLogger("air").addHandler(logging.NullHandler())
    failed: Report | None = None
    bad = 0
    for seed in range(args.seed, args.seed + args.runs):
        options = chaotic(args.peers, seed, **given) if args.chaos else Options(args.peers, seed, **given)
        report = _run(options, args.timeline if seed == args.seed else None)
        if not report.ok:
            bad += 1
            failed = failed or report
            if args.shrink:
                report = shrink(report, lambda text: print(f"  {text}", file=sys.stderr, flush=True))
        show(json.dumps(as_json(report)) if args.json else _line(report))
        if not report.ok:
            print(f"replay: {command(report.options)}", file=sys.stderr, flush=True)
    if failed is not None and args.timeline and failed.options.seed != args.seed:
        _run(failed.options, args.timeline)
    if args.runs > 1 and not args.json:
        show(f"{args.runs - bad} of {args.runs} runs are well")
    return 1 if bad else 0


def _run(options: Options, timeline: str | None) -> Report:
    if timeline is None:
        return run(options)
    world, recorder = World(draw(options)), Recorder()
    world.network.watch = recorder
    report = run(options, world)
    try:
        Path(timeline).write_text(page(world, recorder, report), encoding="utf-8")
    except OSError as error:
        raise Misuse(f"cannot write {timeline}: {error.strerror}") from None
    return report


def as_json(report: Report) -> dict[str, object]:
    """A run as one object."""
    return {
        "seed": report.options.seed,
        "peers": report.options.peers,
        "ok": report.ok,
        "trace": report.trace,
        "violations": [
            {
                "rule": violated.rule,
                "at": round(violated.time, 3),
                "peer": report.names[violated.peer],
                "text": violated.text,
            }
            for violated in report.violations
        ],
        "events": report.events,
        "virtual_s": report.virtual_s,
        "wall_s": report.wall_s,
        "converged_s": report.converged_s,
        "bytes": report.bytes,
        "writes": report.writes,
        "acks": report.acks,
        "faults": report.faults,
    }


def _line(report: Report) -> str:
    head = f"seed {report.options.seed}: "
    agreed = (
        "they never agreed" if report.converged_s is None else f"all agreed after {report.converged_s:g} s"
    )
    tail = (
        f"{report.options.peers} peers, {report.writes} writes, {report.acks} acks, {report.faults} faults; "
        f"{agreed}; {report.frames} frames in {report.wall_s:.2f} s; trace {report.trace}"
    )
    if report.ok:
        return f"{head}ok, {tail}"
    wrong = [
        f"  {violated.rule} at {violated.time:.2f} s, {report.names[violated.peer]}: {violated.text}"
        for violated in report.violations[:5]
    ]
    more = len(report.violations) - len(wrong)
    return "\n".join([f"{head}FAILED, {tail}", *wrong, *([f"  and {more} more"] if more else [])])


def command(options: Options) -> str:
    """The one command that runs just this again."""
    usual, words = Options(), ["air", "sim"]
    for field in fields(Options):
        value = getattr(options, field.name)
        if field.name == "chaos":
            continue
        if value == getattr(usual, field.name) and field.name not in ("peers", "seed") and not options.chaos:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(value, tuple):
            words += [flag, ",".join(map(str, value)) or "none"]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{field.name}")
        elif value is not None:
            words += [flag, f"{value!r}" if isinstance(value, float) else str(value)]
    if options.chaos:
        words.append("--chaos")
    return shlex.join(words)
