"""A client that does not keep to the rules: old, future, false and broken messages, and silence. (core)

What it says in the right form counts as written by it: nobody can tell a liar from a careless writer. The
others have to agree all the same, and their own writes must not suffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from air.base.entropy import IdSource
from air.model.cell import Cell
from air.sim.dice import Dice
from air.sim.gun_json import dumps, messages, read_cells, write_graph
from air.sim.native_liar import NativeLine
from air.sim.network import End
from air.sim.plan import PeerPlan
from air.sim.schedule import SimClock

if TYPE_CHECKING:
    from air.sim.world import World

__all__ = ["Liar"]

_MEMORY = 200
_GARBAGE = (
    b"{",
    b"nonsense",
    b"[1,2,3]",
    b'{"put":7,"#":"x"}',
    b'{"put":{"":{"_":{"#":"",">":{}}}},"#":"y"}',
    b'{"put":{"a":{"_":{"#":"b",">":{"k":1}},"k":1}},"#":"z"}',
    b'{"put":{"a":{"_":{"#":"a",">":{"k":"soon"}},"k":1}},"#":"w"}',
    b'{"put":{"a":{"_":{"#":"a",">":{"k":1}},"k":[1]}},"#":"v"}',
    b'{"get":{"#":{"<":"x"}},"#":"u"}',
    b'{"#":"' + b"i" * 300 + b'","get":{"#":"a"}}',
    b"\x00\xff",
    b'{"dam":"mob","peers":{}}',
)


class _Line:
    """One connection of a liar."""

    def __init__(self, liar: Liar, end: End) -> None:
        self.liar, self.end = liar, end
        end.events = self

    def received(self, frame: bytes) -> None:
        self.liar.heard(self, frame)

    def closed(self, reason: str) -> None:
        self.liar.lines.remove(self)
        self.liar.later(self.end.remote)

    def writable(self) -> None: ...


class Liar:
    """A peer of bad will."""

    def __init__(self, world: World, index: int, plan: PeerPlan) -> None:
        self.world, self.index, self.plan = world, index, plan
        self.clock = SimClock(world.scheduler)
        self.up = True
        self.dice = Dice(world.plan.options.seed, "liar", index)
        self.ids = IdSource(self.dice.entropy)
        self.lines: list[_Line] = []
        self.native: list[NativeLine] = []
        self.cells: list[Cell] = []
        self.frames: list[bytes] = []
        self.tricks: tuple[Any, ...] = (
            self._replay,
            self._stale,
            self._future,
            self._two_faces,
            self._garbage,
            self._false_hash,
            self._false_ack,
            self._unasked,
        )
        self.silent = self.dice.chance(0.2)

    def start(self) -> None:
        for target in self.plan.dials:
            self.later(target)
        self.world.scheduler.after(2.0, self._lie)

    def accept(self, end: End) -> None:
        end.close()

    def later(self, target: int) -> None:
        self.world.scheduler.after(self.dice.between(0.5, 3), self._dial, target)

    def _dial(self, target: int) -> None:
        if self.world.ending:
            return
        if self.plan.speaks_native(self.plan.dials.index(target)):
            self.world.network.dial(
                self.index,
                target,
                lambda end: self.native.append(NativeLine(self, target, end)),
                lambda: self.later(target),
                "native",
            )
        else:
            self.world.network.dial(self.index, target, self._opened, lambda: self.later(target))

    def line_over(self, line: NativeLine) -> None:
        """A native connection has ended."""
        if line in self.native:
            self.native.remove(line)
            self.later(line.target)

    def _opened(self, end: End) -> None:
        self.lines.append(_Line(self, end))
        for soul in self.world.souls:
            end.send([dumps({"#": self.ids(), "get": {"#": soul}})])

    def stop(self) -> None:
        for line in self.lines:
            line.end.close()
        self.lines.clear()
        for native in self.native:
            native.end.close()
        self.native.clear()

    def heard(self, line: _Line, frame: bytes) -> None:
        for message in messages(frame):
            if message.get("put"):
                if len(self.cells) < _MEMORY:
                    self.cells += read_cells(message["put"])
                    self.frames.append(frame)
            elif "get" in message and not self.silent and self.dice.chance(0.5) and self.cells:
                cell = self._varied(self.dice.pick(self.cells))
                self._wrote(cell)
                body = {"#": self.ids(), "@": message["#"], "##": 7, "put": write_graph((cell,))}
                line.end.send([dumps(body)])

    def _lie(self) -> None:
        if self.world.ending:
            self.stop()
            return
        if self.lines and not self.silent:
            self.dice.pick(self.tricks)()
        self.world.scheduler.after(self.dice.wait(1.0), self._lie)

    def _wrote(self, cell: Cell) -> None:
        self.world.oracle.wrote(self.index, (cell,))

    def _say(self, message: Any, line: _Line | None = None) -> None:
        data = message if isinstance(message, bytes) else dumps(message)
        (line or self.dice.pick(self.lines)).end.send([data])

    def learn(self, cells: Sequence[Cell]) -> None:
        """Remember what others wrote, to lie about it."""
        if len(self.cells) < _MEMORY:
            self.cells += cells

    def _put(self, cell: Cell, line: _Line | None = None, id: str = "") -> None:
        self._wrote(cell)
        self._say({"#": id or self.ids(), "put": write_graph((cell,))}, line)

    def _varied(self, cell: Cell) -> Cell:
        return cell._replace(value=self.dice.pick((1, "lie", None, True, "zzz")))

    def _replay(self) -> None:
        if self.frames:
            self._say(self.dice.pick(self.frames))

    def _stale(self) -> None:
        if self.cells:
            cell = self._varied(self.dice.pick(self.cells))
            self._put(cell._replace(state=cell.state - self.dice.below(10_000)))

    def _future(self) -> None:
        if self.cells:
            ahead = self.dice.pick((500, 20_000, 3_600_000 * 12, 3_600_000 * 24 * 40))
            cell = self._varied(self.dice.pick(self.cells))
            self._put(cell._replace(state=float(int(self.clock.wall)) + ahead))

    def _two_faces(self) -> None:
        """The same field at the same state, with another value for each listener, even under one id."""
        if self.cells:
            cell, id = self.dice.pick(self.cells), self.ids()
            cell = cell._replace(state=float(int(self.clock.wall)) - 1)
            for number, line in enumerate(self.lines):
                self._put(cell._replace(value=f"face {number}"), line, id)

    def _garbage(self) -> None:
        self._say(self.dice.pick(_GARBAGE))

    def _false_hash(self) -> None:
        if self.cells:
            self._say(
                {"#": self.ids(), "##": self.dice.below(2**31), "get": {"#": self.dice.pick(self.cells).soul}}
            )

    def _false_ack(self) -> None:
        self._say({"#": self.ids(), "@": self.ids(), "ok": True})

    def _unasked(self) -> None:
        """An answer to a question that nobody asked."""
        if self.cells:
            cell = self._varied(self.dice.pick(self.cells))
            self._wrote(cell)
            self._say({"#": self.ids(), "@": self.ids(), "put": write_graph((cell,))})
