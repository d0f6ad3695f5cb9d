"""What the app does in a run: a list of actions, drawn before the run begins. (core)

A workload is a function that is given a :class:`Script` and calls :meth:`Script.watch`,
:meth:`Script.put`, :meth:`Script.update` and :meth:`Script.offline` on it. It may be a user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from air.base.errors import Misuse
from air.model.cell import Key, Soul
from air.model.value import Value, canonical
from air.sim.dice import Dice

__all__ = ["Action", "Change", "Check", "Script", "View", "values"]

View: TypeAlias = Mapping[Soul, Mapping[Key, Value]]
"""What one peer sees of the graph: soul -> key -> value."""
Change: TypeAlias = Callable[[Mapping[Key, Any]], Mapping[Key, Any]]
"""From the fields of a node as a peer sees them to the fields it writes."""
Check: TypeAlias = Callable[[Sequence[View]], None]
"""A user's own judgement of what all peers see at the end; raises AssertionError."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that the app does on one peer."""

    at: float
    peer: int
    kind: str
    """``put``, ``watch``, ``get``, ``offline`` or ``online``."""
    soul: Soul = ""
    key: Key | None = None
    fields: Mapping[Key, Value] = field(default_factory=dict)
    change: Change | None = None
    follow: bool = False
    """Nodes that the watched fields link to are watched too."""


class Script:
    """Collects what the app does. Peers are numbers from 0 to ``peers`` - 1; times are seconds."""

    def __init__(self, peers: int, seconds: float, dice: Dice) -> None:
        self.peers = range(peers)
        self.seconds = seconds
        self.dice = dice
        self.actions: list[Action] = []
        self.check: Check | None = None

    def watch(
        self, peer: int, soul: Soul, key: Key | None = None, *, at: float = 0.0, follow: bool = False
    ) -> None:
        """From ``at`` on, ``peer`` shows a node, or one field of it."""
        self._add(Action(at, peer, "watch", soul, key, follow=follow))

    def put(self, peer: int, soul: Soul, fields: Mapping[Key, Any], *, at: float) -> None:
        """``peer`` writes some fields. A value is None, a bool, a number, text or ``{"#": soul}``."""
        self._add(Action(at, peer, "put", soul, fields=values(fields)))

    def update(self, peer: int, soul: Soul, change: Change, *, at: float) -> None:
        """``peer`` writes what ``change`` makes of the fields that it sees at that moment."""
        self._add(Action(at, peer, "put", soul, change=change))

    def get(self, peer: int, soul: Soul, key: Key | None = None, *, at: float) -> None:
        """``peer`` asks once, and does not look again (which still subscribes it)."""
        self._add(Action(at, peer, "get", soul, key))

    def offline(self, peer: int, *, at: float, seconds: float) -> None:
        """The device of ``peer`` loses its network for a while; the app goes on."""
        self._add(Action(at, peer, "offline"))
        self._add(Action(at + seconds, peer, "online"))

    def times(self, mean: float, *, start: float = 0.0) -> list[float]:
        """Moments ``mean`` seconds apart on average, until the end."""
        out, now = [], start + self.dice.wait(mean)
        while now < self.seconds:
            out.append(now)
            now += self.dice.wait(mean)
        return out

    def _add(self, action: Action) -> None:
        if action.peer not in self.peers:
            raise Misuse(f"there is no peer {action.peer!r}, only 0 to {len(self.peers) - 1}")
        self.actions.append(action)


def values(fields: Mapping[Key, Any]) -> dict[Key, Value]:
    """Fields as a node may hold them. Raises Misuse."""
    out: dict[Key, Value] = {}
    for key, raw in fields.items():
        value = canonical(raw)
        if value is None or not key:
            raise Misuse(f"a node cannot hold {raw!r} at {key!r}")
        out[key] = value[0]
    return out
