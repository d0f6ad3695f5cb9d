"""Workloads that come with the simulator, and the loading of a user's own. (core)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

from air.base.errors import Misuse
from air.sim.script import Script

__all__ = ["WORKLOADS", "Workload", "find"]

Workload: TypeAlias = Callable[[Script], None]

_WORDS: Final = ("yes", "no", "später", "好", "😀", "ﬁ", "a b", 'q"t', "", "line\nbreak")


def chat(script: Script) -> None:
    """Rooms that everybody watches; a message is a node, and a link to it in the room."""
    dice = script.dice
    rooms = [f"room/{i}" for i in range(1 + len(script.peers) // 10)]
    for peer in script.peers:
        script.watch(peer, dice.pick(rooms), at=dice.between(0, 2), follow=True)
    for peer in script.peers:
        for count, at in enumerate(script.times(4 + len(script.peers) / 4)):
            soul = f"message/{peer}-{count}"
            text = f"{dice.pick(_WORDS)} {count}"
            script.put(peer, soul, {"who": f"p{peer}", "text": text, "at": round(at, 3)}, at=at)
            script.put(peer, dice.pick(rooms), {f"{peer}-{count}": {"#": soul}}, at=at)


def hot(script: Script) -> None:
    """Everybody writes the same few fields, often at the same moment."""
    dice = script.dice
    for peer in script.peers:
        if dice.chance(0.7):
            script.watch(peer, "hot", at=dice.between(0, script.seconds / 2))
        else:
            script.watch(peer, "hot", "value", at=dice.between(0, script.seconds / 2))
        for at in script.times(2 + len(script.peers) / 4):
            # Whole seconds: writers whose clocks agree tie.
            at = float(int(at)) if dice.chance(0.3) else at
            key = "value" if dice.chance(0.7) else dice.pick(("other", "more", "none"))
            value = dice.pick((dice.below(20), dice.pick(_WORDS), None, dice.chance(0.5), {"#": "hot"}, 1.5))
            script.put(peer, "hot", {key: value}, at=at)
            if dice.chance(0.2):
                key = dice.pick(("value", "other", "more", "none"))
                script.get(dice.pick(script.peers), "hot", key, at=dice.between(0, script.seconds))


def sensors(script: Script) -> None:
    """Everybody writes its own node at a steady pace; some look at all of them."""
    dice = script.dice
    for reader in dice.some(script.peers, 1 + len(script.peers) // 8):
        for peer in script.peers:
            script.watch(reader, f"sensor/{peer}", at=dice.between(0, script.seconds * 0.8))
    for peer in script.peers:
        pace, at = dice.between(1, 4) + len(script.peers) / 20, dice.fraction()
        while at < script.seconds:
            fields = {"celsius": round(dice.between(-30, 40), 2), "ok": dice.chance(0.9)}
            script.put(peer, f"sensor/{peer}", fields, at=at)
            at += pace


def wide(script: Script) -> None:
    """One node with hundreds of fields."""
    dice = script.dice
    for peer in script.peers:
        script.watch(peer, "wide", None if dice.chance(0.6) else f"k{dice.below(200)}", at=dice.between(0, 5))
        for at in script.times(3 + len(script.peers) / 3):
            some = range(dice.below(12) + 1)
            script.put(peer, "wide", {f"k{dice.below(200)}": dice.below(1000) for _ in some}, at=at)
            if dice.chance(0.3):
                key = f"k{dice.below(200)}" if dice.chance(0.7) else None
                script.get(dice.pick(script.peers), "wide", key, at=dice.between(0, script.seconds))


def churn(script: Script) -> None:
    """People come and go while they write to a shared list, and look at it again and again."""
    dice = script.dice
    for peer in script.peers:
        for at in script.times(script.seconds / 4):
            script.offline(peer, at=at, seconds=dice.between(0.05, 8))
        for _ in range(3):
            script.watch(peer, f"list/{dice.below(3)}", at=dice.between(0, script.seconds * 0.9))
        for count, at in enumerate(script.times(4 + len(script.peers) / 4)):
            script.put(peer, f"list/{dice.below(3)}", {f"{dice.below(6)}": f"p{peer} {count}"}, at=at)


def offline(script: Script) -> None:
    """Everybody is offline for a good part of the time and goes on writing."""
    dice = script.dice
    for peer in script.peers:
        script.watch(peer, "notes", at=dice.between(0, script.seconds * 0.9))
        away = dice.between(0, script.seconds * 0.7)
        script.offline(peer, at=away, seconds=dice.between(2, script.seconds * 0.5))
        for count, at in enumerate(script.times(4 + len(script.peers) / 4)):
            soul = "notes" if dice.chance(0.6) else f"notes/{dice.below(4)}"
            script.put(peer, soul, {f"{dice.below(8)}": f"p{peer} {count}"}, at=at)
    for number in range(4):
        script.watch(dice.pick(script.peers), f"notes/{number}", at=dice.between(0, script.seconds))


def bulk(script: Script) -> None:
    """Some import large nodes at full speed; others look at parts of them, some only afterwards."""
    dice = script.dice
    for peer in script.peers:
        for _ in range(3):
            script.watch(peer, f"row/{dice.below(20)}", at=dice.between(0, script.seconds))
        script.get(peer, f"row/{dice.below(20)}", at=dice.between(0, script.seconds))
    for peer in dice.some(script.peers, 1 + len(script.peers) // 10):
        start = dice.between(0, script.seconds / 2)
        for row in range(20):
            # Some rows are too large for one message to a relay.
            width = 450 if dice.chance(0.1) else dice.below(60) + 1
            fields = {f"c{i}": f"{dice.below(10**9)}" for i in range(width)}
            script.put(peer, f"row/{row}", fields, at=start + row * 0.01)


def lookup(script: Script) -> None:
    """A table of a few fields that are written and looked up one by one, by most without watching."""
    dice = script.dice
    for peer in script.peers:
        if dice.chance(0.5):
            script.watch(peer, "table", f"row {dice.below(8)}", at=dice.between(0, script.seconds))
        for at in script.times(1.5 + len(script.peers) / 6):
            key = f"row {dice.below(8)}"
            if dice.chance(0.5):
                script.put(peer, "table", {key: dice.below(1000)}, at=at)
            else:
                script.get(peer, "table", key if dice.chance(0.95) else None, at=at)


WORKLOADS: Final[Mapping[str, Workload]] = {
    "bulk": bulk,
    "chat": chat,
    "churn": churn,
    "hot": hot,
    "lookup": lookup,
    "offline": offline,
    "sensors": sensors,
    "wide": wide,
}


def find(name: str) -> Workload:
    """A workload by name, or from the Python file of that name. Raises Misuse.

    A file defines ``workload(script)``, and may define ``check(views)``.
    """
    known = WORKLOADS.get(name)
    if known is not None:
        return known
    if not name.endswith(".py"):
        raise Misuse(f"there is no workload {name}; there are {', '.join(WORKLOADS)}, or a file of yours.py")
    try:
        source = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise Misuse(f"cannot read {name}: {error.strerror}") from None
    module = ModuleType("workload")
    module.__file__ = name
    space: dict[str, Any] = module.__dict__
    exec(compile(source, name, "exec"), space)
    own = space.get("workload")
    if not callable(own):
        raise Misuse(f"{name} defines no function workload(script)")
    check = space.get("check")

    def load(script: Script) -> None:
        own(script)
        script.check = check if callable(check) else None

    return load
