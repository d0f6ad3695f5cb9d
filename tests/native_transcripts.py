"""Transcripts of the native wire: ``python -m tests.native_transcripts`` writes tests/vectors/native.

Two real links talk to each other by hand, so the bytes are what goes over a stream, frame by frame. Beside
each frame stands what it means, in words that need nothing of Air to check.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from air.base.clock import ManualClock
from air.base.entropy import IdSource, SeededEntropy
from air.base.varint import take_varint
from air.codec.zstd import Expander, ZstdConfig
from air.model import ALL, Ack, Answer, Cell, Get, Lex, Link, Message, Put, SoulRange
from air.sync.native.frames import Acked, Batch, Bye, Credit, Frame, Hello, Part, Wish
from air.sync.native.limits import NativeConfig, NativeLimits
from air.sync.native.link import Event, NativeLink
from air.sync.native.rates import Rates
from air.sync.native.reader import decode
from tests.hostile.native_malformed import greeting, impersonal, personal
from tests.vector_files import folder

__all__ = ["DIALER", "LISTENER", "TRANSCRIPTS", "meaning"]

DIALER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
LISTENER = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"
STATE = 1_700_000_000_000
CONFIG: Any = {"agent": "transcript", "credit_cells": 64}
"""A small window, so that credit has to be given."""
SHORT = 2048
"""Malformed frames up to this size are written down."""


@dataclass
class Talk:
    """Two links, and the frames they say."""

    dialer_config: NativeConfig = field(default_factory=lambda: NativeConfig(**CONFIG))
    listener_config: NativeConfig = field(default_factory=lambda: NativeConfig(**CONFIG))

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.links = {
            "dialer": self._link(DIALER, LISTENER, self.dialer_config, outbound=True, seed=1),
            "listener": self._link(LISTENER, DIALER, self.listener_config, outbound=False, seed=2),
        }
        self.expanders = {side: Expander(ZstdConfig()) for side in self.links}
        self.heard: dict[str, list[Event]] = {side: [] for side in self.links}
        self.lines: list[dict[str, Any]] = []
        self.flush()

    def _link(self, own: str, peer: str, config: NativeConfig, *, outbound: bool, seed: int) -> NativeLink:
        return NativeLink(
            own=own,
            expected=peer,
            outbound=outbound,
            ids=IdSource(SeededEntropy(seed)),
            config=config,
            rates=Rates(config.rates),
            now=self.clock.now(),
        )

    def say(self, side: str, *messages: Message) -> None:
        """Messages are handed to a link and everything it has to say is carried over."""
        for message in messages:
            self.links[side].send(message)
        self.flush()

    def flush(self) -> None:
        moved = True
        while moved:
            moved = False
            for side, other in (("dialer", "listener"), ("listener", "dialer")):
                for frame in cut(self.links[side].take_output(self.clock.now())):
                    moved = True
                    inner = frame[take_varint(frame)[1] :]  # type: ignore[index]
                    means = meaning(decode(inner, self.expanders[side], NativeLimits()))
                    self.lines.append({"from": side, "hex": frame.hex(), "means": means})
                    self.heard[other] += self.links[other].receive(frame, self.clock.now())

    def take(self, side: str, kind: type) -> list[Any]:
        heard, self.heard[side] = self.heard[side], []
        return [one for one in heard if type(one) is kind]

    def acknowledge(self, side: str, error: str | None = None) -> None:
        self.say(side, *[Ack("", put.id, error) for put in self.take(side, Put)])


def cut(data: bytes) -> Iterator[bytes]:
    """The frames of a piece of a stream, with their lengths."""
    at = 0
    while at < len(data):
        taken = take_varint(data, at)
        assert taken is not None
        end = at + taken[1] + taken[0]
        yield data[at:end]
        at = end


def meaning(frame: Frame) -> dict[str, Any]:
    """A frame in JSON."""
    if isinstance(frame, Hello):
        return {"kind": "hello"} | {name: getattr(frame, name) for name in Hello.__slots__}
    if isinstance(frame, Batch):
        marks = None if frame.marks is None else [[list(dot) for dot in mark] for mark in frame.marks]
        return {
            "kind": "put",
            "batch": frame.number,
            "floor": frame.floor,
            "cells": _cells(frame.cells),
            "marks": marks,
            "cost": [len(frame.cells), frame.size],
        }
    if isinstance(frame, Part):
        return {
            "kind": "answer",
            "re": frame.re,
            "cells": _cells(frame.cells),
            "more": frame.more,
            "error": frame.error,
            "cost": [len(frame.cells), frame.size if frame.cells else 0],
        }
    if isinstance(frame, Acked):
        return {"kind": "ack", "batches": list(frame.numbers), "error": frame.error}
    if isinstance(frame, Credit):
        return {"kind": "credit", "cells": frame.cells, "bytes": frame.bytes}
    if isinstance(frame, Bye):
        return {"kind": "bye", "code": frame.code, "text": frame.text}
    if isinstance(frame, Get):
        return {"kind": "get", "id": frame.id} | _question(frame)
    return {
        "kind": "unsubscribe" if frame[0].ends else "subscribe",
        "wishes": [
            {"prefix" if wish.prefix else "soul": wish.text} | ({} if wish.key is None else {"key": wish.key})
            for wish in frame
        ],
    }


def _cells(cells: list[Cell]) -> list[list[Any]]:
    return [
        [soul, key, {"#": value.soul} if isinstance(value, Link) else value, state]
        for soul, key, value, state in cells
    ]


def _question(get: Get) -> dict[str, Any]:
    if isinstance(get.soul, SoulRange):
        return {"prefix": get.soul.prefix, "lex": {"budget": get.soul.budget, "reverse": get.soul.reverse}}
    if get.lex == ALL:
        return {"soul": get.soul}
    return {"soul": get.soul, "lex": {name: getattr(get.lex, name) for name in Lex.__slots__}}


def peers() -> list[dict[str, Any]]:
    """Two that hold everything: each is told every write of the other, with its marks."""
    talk = Talk()
    values = (None, False, True, 0, -42, 2**53, 1.5, -1e300, "", "text", "é😀", "half \ud83d", Link("t"))
    kinds = [Cell("every kind", f"k{index:02}", value, STATE) for index, value in enumerate(values)]
    talk.say("dialer", Put("1", kinds, marks=[((DIALER, 1),)] * len(kinds)))
    talk.acknowledge("listener")
    talk.say(
        "listener",
        Put("2", [Cell("s", "a", 1, STATE + 1)], marks=[((LISTENER, 1),)]),
        Put("3", [Cell("s", "a", 2, STATE + 2)], marks=[((LISTENER, 2),)]),
        Put("4", [Cell("t", "b", "by hand", STATE + 2.015625)], marks=[()]),
    )
    talk.acknowledge("dialer")
    for number in range(3):
        # Much alike: what zstd makes of the second and the third shows that its context goes on.
        cells = [
            Cell(
                f"node/{n:04}",
                key,
                f"value {number * n}" if key == "text" else number * n,
                STATE + 10 + number,
            )
            for n in range(20)
            for key in ("number", "text")
        ]
        marks = [((DIALER, 2 + number), (LISTENER, 2))] * len(cells)
        talk.say("dialer", Put(f"5{number}", cells, marks=marks))
    talk.acknowledge("listener")
    talk.say("dialer", Put("6", [Cell("s", "c", 3, STATE + 20)], marks=[((DIALER, 5),)]))
    talk.acknowledge("listener", "store.full: there is no space to write to")
    talk.clock.advance(5)
    talk.links["dialer"].tick(talk.clock.now())
    talk.flush()
    talk.links["listener"].say_bye("link.closed", "this peer stops")
    talk.flush()
    return talk.lines


def client() -> list[dict[str, Any]]:
    """One that dials and does not hold everything: it asks, subscribes, writes, and is told."""
    talk = Talk(NativeConfig(**CONFIG, everything=False, batch_cells=2))
    talk.links["dialer"].wish([Wish("chat/", prefix=True), Wish("profile"), Wish("profile", "name")])
    talk.say(
        "dialer",
        Get("question", "profile"),
        Get(7, "profile", Lex(exact="name")),
        Get(1.5, "log", Lex(prefix="2026-", start="01", end="06", reverse=True, budget=100)),
        Get("range", SoulRange("chat/", 50, reverse=True)),
    )
    fields = {f"field{n:02}": (f"text {n}", STATE + n) for n in range(12)}
    talk.say(
        "listener",
        Answer("", "question", [("profile", fields)], more=True),
        Answer("", "question", [("profile", {"last": (True, STATE)})]),
        Answer("", 7, [("profile", {"name": ("Ann", STATE)})]),
        Answer("", 1.5),
        Ack("", "range", "store.error: the store could not do its work"),
    )
    talk.links["dialer"].taken()
    talk.flush()
    talk.say("dialer", Put("1", [Cell("chat/1", key, n, STATE + 5) for n, key in enumerate("abc")]))
    talk.acknowledge("listener")
    talk.say("listener", Put("2", [Cell("chat/2", "text", "to subscribers", STATE + 6)]))
    talk.links["dialer"].wish([Wish("chat/", prefix=True).ended, Wish("profile", "name").ended])
    talk.acknowledge("dialer")
    talk.links["dialer"].say_bye("link.closed")
    talk.flush()
    return talk.lines


def malformed() -> list[dict[str, Any]]:
    """What a dialer may not send, and the code that a listener ends the link with."""
    lines = []
    for case in [*personal(DIALER, LISTENER), *impersonal()]:
        data = (greeting(DIALER) if case.greeted else b"") + case.data
        if len(data) <= SHORT:
            lines.append({"name": case.name, "hex": data.hex(), "code": case.code})
    return lines


TRANSCRIPTS = {"peers": peers, "client": client, "malformed": malformed}


def main() -> None:
    target = folder() / "native"
    target.mkdir(exist_ok=True)
    for name, make in TRANSCRIPTS.items():
        lines = [json.dumps(line, separators=(",", ":")) + "\n" for line in make()]
        (target / f"{name}.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
