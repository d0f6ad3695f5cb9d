"""A gun.js client in the simulator, written from its observed behaviour (gun-wire 1.12). (core)

It shares no code with the peers it talks to, but for the generator of its states. It keeps what it wrote
and heard in memory, merges by GUN's rule, asks again for what it watches when it has reconnected, answers
questions from memory, and never says again what it wrote while it was away. Unlike gun.js it goes on
redialling: a page that gave up would only prove that its user reloads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from air.base.entropy import IdSource, SeededEntropy
from air.graph.state import GunStamps
from air.model.cell import Cell, Key, Soul
from air.model.value import Link, Value
from air.sim.gun_json import dumps, messages, read_cells, write_graph
from air.sim.network import End
from air.sim.oracle import beats
from air.sim.plan import PeerPlan
from air.sim.schedule import SimClock

if TYPE_CHECKING:
    from air.sim.world import World

__all__ = ["GunClient"]

_REDIAL_SECONDS = 1.998
_PART_FIELDS = 200


class GunClient:
    """A page with gun.js in it, and the app in that page."""

    def __init__(self, world: World, index: int, plan: PeerPlan) -> None:
        self.world, self.index, self.plan = world, index, plan
        self.clock = SimClock(world.scheduler, plan.offset, plan.drift)
        self.up = False
        self.epoch = 0
        self.offline = False
        self.watches: dict[tuple[Soul, Key | None], bool] = {}
        self.asked_once: dict[tuple[Soul, Key | None], bool] = {}
        self.end: End | None = None
        self.crashes = 0

    def start(self) -> None:
        self.epoch += 1
        self.up = True
        entropy = SeededEntropy(f"{self.world.plan.options.seed}/process/{self.index}/{self.epoch}")
        self.ids = IdSource(entropy)
        self.pid = self.ids()
        self.graph: dict[Soul, dict[Key, tuple[Value, float]]] = {}
        self.stamps = GunStamps()
        self.asked_once.clear()
        self.pending: dict[object, list[Cell]] = {}
        """Writes of this connection that nobody has answered."""
        self.end = None
        self._dial(self.epoch)

    def crash(self, *, durable: bool) -> None:
        """The page is gone, and all that was only in its memory."""
        self.up = False
        self.crashes += 1
        self.end = None
        self.world.network.vanish(self.index)

    def accept(self, end: End) -> None:
        """Nobody dials a page."""
        end.close()

    # -- connection ----------------------------------------------------------------

    def _dial(self, epoch: int) -> None:
        if epoch == self.epoch and self.up:
            self.world.network.dial(
                self.index,
                self.plan.dials[0],
                lambda end: self._opened(epoch, end),
                lambda: self._later(epoch),
            )

    def _later(self, epoch: int) -> None:
        self.world.scheduler.after(_REDIAL_SECONDS, self._dial, epoch)

    def _opened(self, epoch: int, end: End) -> None:
        if epoch != self.epoch or not self.up:
            end.close()
            return
        self.end = end
        end.events = self
        self._say({"dam": "hi", "#": self.ids()})
        for soul, key in self.watches:
            self._ask(soul, key)
        for soul, key in self.asked_once:
            if (soul, key) not in self.watches:
                self._ask(soul, key)

    def closed(self, reason: str) -> None:
        self.end = None
        self.pending.clear()
        self._later(self.epoch)

    def writable(self) -> None: ...

    @property
    def connected(self) -> bool:
        return self.end is not None and self.end.open

    def _say(self, message: Mapping[str, Any]) -> None:
        end = self.end
        if end is not None and end.open:
            end.send((dumps(message),))

    def _ask(self, soul: Soul, key: Key | None) -> None:
        get = {"#": soul} if key is None else {"#": soul, ".": key}
        self._say({"get": get, "#": self.ids()})

    # -- messages ------------------------------------------------------------------

    def received(self, frame: bytes) -> None:
        for message in messages(frame):
            if "dam" in message:
                if message["dam"] == "?" and "@" not in message:
                    self._say({"dam": "?", "pid": self.pid, "@": message["#"], "#": self.ids()})
            elif "put" in message:
                cells = read_cells(message["put"])
                if "@" not in message:
                    self.world.heard_push(self, cells)
                self._merge(cells)
            elif "get" in message:
                self._answer(message["#"], message["get"])
            elif "ok" in message or "err" in message:
                self._answered(message)

    def _answered(self, message: Mapping[str, Any]) -> None:
        written = self.pending.pop(message.get("@"), [])
        if written and "err" in message:
            self.world.oracle.refused += 1

    def _answer(self, id: object, get: Mapping[str, Any]) -> None:
        """From memory; who holds nothing says nothing."""
        soul, key = get["#"], get.get(".")
        node = self.graph.get(soul) if isinstance(soul, str) else None
        if not node or isinstance(key, dict):
            return
        cells = [Cell(soul, name, *pair) for name, pair in node.items() if key in (None, "", name)]
        for start in range(0, len(cells), _PART_FIELDS):
            part = cells[start : start + _PART_FIELDS]
            more = {"%": 1} if start + _PART_FIELDS < len(cells) else {}
            self._say({"#": self.ids(), "@": id, **more, "put": write_graph(part)})

    def _merge(self, cells: Sequence[Cell]) -> None:
        wall = self.clock.wall
        for cell in cells:
            if cell.state > wall:
                wait = min((cell.state - wall) / 1000 + 0.001, 86_400.0)
                self.world.scheduler.after(wait, self._again, self.epoch, cell)
                continue
            known = self.graph.get(cell.soul, {}).get(cell.key)
            if known != (cell.value, cell.state) and beats(cell.value, cell.state, known):
                self._keep(cell, known)

    def _again(self, epoch: int, cell: Cell) -> None:
        if epoch == self.epoch and self.up:
            self._merge((cell,))

    def _keep(self, cell: Cell, known: tuple[Value, float] | None) -> None:
        self.graph.setdefault(cell.soul, {})[cell.key] = (cell.value, cell.state)
        self.world.oracle.saw(self.index, cell, known)
        if isinstance(cell.value, Link) and self.watches.get((cell.soul, None)):
            self.world.scheduler.after(0.0, self.follow, self.epoch, cell.value.soul)

    # -- the app -------------------------------------------------------------------

    def put(self, soul: Soul, fields: Mapping[Key, Value]) -> None:
        state = self.stamps.next(float(int(self.clock.wall)))
        cells = [Cell(soul, key, value, state) for key, value in fields.items()]
        if not cells:
            return
        self.world.oracle.wrote(self.index, cells)
        # A state may be a part of a millisecond ahead of the clock that made it; that is not the future.
        for cell in cells:
            known = self.graph.get(soul, {}).get(cell.key)
            if beats(cell.value, cell.state, known):
                self._keep(cell, known)
        if self.connected:
            id = self.ids()
            self.pending[id] = cells
            self.world.count_put(self, cells)
            self._say({"put": write_graph(cells), "ok": {"@": 9, "/": 1}, "#": id})

    @property
    def unanswered(self) -> int:
        """Writes on the present connection without an answer."""
        return len(self.pending)

    def watch(self, soul: Soul, key: Key | None, follow: bool) -> None:
        if (soul, key) not in self.watches:
            self.watches[soul, key] = follow
            if self.up:
                self._ask(soul, key)

    def follow(self, epoch: int, soul: Soul) -> None:
        if epoch == self.epoch and self.up:
            self.watch(soul, None, False)

    def get(self, soul: Soul, key: Key | None) -> None:
        if self.up:
            self.asked_once[soul, key] = True
            self._ask(soul, key)

    def sees(self, soul: Soul) -> dict[Key, Value]:
        node = self.graph.get(soul, {})
        return {key: pair[0] for key, pair in node.items()}

    def holds(self, soul: Soul, key: Key) -> Cell | None:
        pair = self.graph.get(soul, {}).get(key)
        return None if pair is None else Cell(soul, key, *pair)

    def shows(self, soul: Soul, key: Key) -> list[tuple[Value, float] | None]:
        pair = self.graph.get(soul, {}).get(key)
        return [pair] * sum(1 for watched, only in self.watches if watched == soul and only in (None, key))
