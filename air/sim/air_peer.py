"""An Air peer in the simulator: the real exchange, engine and wire on virtual clock and disk. (core)

What stands here is only what the shells do: a writer that sends what has queued, a reader that pauses, a
dialler that comes back after a wait, a clock that wakes the engine. The decisions are made by the same
objects as in the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from air.base.backoff import Backoff, BackoffConfig
from air.base.clock import Now
from air.base.entropy import SeededEntropy
from air.base.env import Env
from air.base.errors import AirError
from air.graph.engine import EngineConfig
from air.graph.mesh import Role
from air.graph.state import Stamps
from air.model.cell import Cell, Key, Soul
from air.model.lex import ALL, Lex
from air.model.mark import Mark
from air.model.message import Get, Put
from air.model.value import Value
from air.sim.dice import Dice
from air.sim.disk import SimDisk, SimWorker
from air.sim.inside import SimExchange, SimWatcher
from air.sim.lines import Lines
from air.sim.marked import MarkedDisk
from air.sim.native import RETRY_SECONDS
from air.sim.network import End, LinkEvents
from air.sim.plan import PeerPlan
from air.sim.port import SimPort
from air.sim.schedule import SimClock
from air.store.memory import Memory
from air.store.worker import WorkerConfig
from air.sync.exchange import ExchangeConfig
from air.sync.gun.wire import GunCodec, GunConfig
from air.sync.hub import STAMP_META, Hub
from air.sync.local import Acks

if TYPE_CHECKING:
    from air.sim.world import World

__all__ = ["AirPeer"]


class AirPeer:
    """One Air process, its disk, and the app inside it if there is one."""

    def __init__(self, world: World, index: int, plan: PeerPlan) -> None:
        self.world, self.index, self.plan = world, index, plan
        self.clock = SimClock(world.scheduler, plan.offset, plan.drift)
        self.keys = world.keys[index]
        self.name = self.keys.name if self.keys is not None else f"peer-{index}"
        """What others call it."""
        self.disk: SimDisk = SimDisk(index, world.oracle)
        if self.keys is not None:
            self.disk = MarkedDisk(
                index,
                world.oracle,
                self.name,
                lambda: self.clock.wall,
                world.causes.wrote,
                world.causes.met,
            )
        self.wire = GunConfig()
        self.up, self.epoch = False, 0
        self.offline = False
        self.watches: dict[tuple[Soul, Key | None], bool] = {}
        """What the app watches -> whether it follows links; the app begins anew with it after a restart."""
        self.forgiven: dict[tuple[Soul, Key], Cell] = {}
        """Debts that a crash has wiped out: nobody has promised to pay them."""
        self.heard_up: set[tuple[int, Cell]] = set()
        """What it was told by which of the peers that it dials: it has no reason to tell them."""
        self.crashes = self.cut_lines = 0
        self.doubtful = False
        """The disk refuses writes, or did so since the app last began anew."""
        self.exchange: SimExchange
        self.worker: SimWorker
        self.ports: dict[int, SimPort] = {}
        self.native: Lines | None = None
        """Its native connections, in a world that has such."""

    # -- life --------------------------------------------------------------------

    def start(self) -> None:
        world, plan = self.world, self.plan
        self.epoch += 1
        self.up = True
        seed = f"{world.plan.options.seed}/process/{self.index}/{self.epoch}"
        dice = Dice(world.plan.options.seed, "disk", self.index, self.epoch)
        memory = Memory(plan.cache_bytes)
        self.worker = SimWorker(self.disk, WorkerConfig(), self.clock, world.scheduler, dice)
        self.worker.due = self._due
        config = ExchangeConfig(engine=EngineConfig(seen_max=plan.seen_max, node_fields_max=plan.fields_max))
        env = Env(self.clock, SeededEntropy(seed))
        self.exchange = SimExchange(self, memory, self.worker, env, config)
        self.pid = self.exchange.ids()
        self.codecs = [
            GunCodec(self.wire, self.exchange.ids, memory, for_relay=relay) for relay in (False, True)
        ]
        self.ports = {}
        self.lines: dict[int, SimPort] = {}
        self.eyes: dict[tuple[Soul, Key | None], SimWatcher] = {}
        self._written: dict[object, list[Cell]] = {}
        self._merging: dict[object, Callable[[AirError | None], None]] = {}
        self.native = None if self.keys is None else Lines(self, self.keys)
        last = self.disk.meta.get(STAMP_META)
        self.stamps = Stamps(f"{self.index}", 0.0 if last is None else float(last))
        self._app = self.exchange.open_link(Role.LOCAL, cast(Any, Acks(self._answered)), "local")
        usual, near = BackoffConfig(), BackoffConfig(max_seconds=RETRY_SECONDS)
        self._waits = [
            Backoff(near if plan.speaks_native(line) else usual, env.entropy)
            for line in range(len(plan.dials))
        ]
        self.exchange._acks = self._app
        self.exchange.turn(cast(Any, self.exchange._alarm))
        for line, target in enumerate(plan.dials):
            if not plan.speaks_native(line) or not plan.everything:
                self.exchange.engine.near.expect(f"peer-{target}")
            self._dial(self.epoch, line)
        self.doubtful = self.disk.full
        for (soul, key), follow in list(self.watches.items()):
            self._watch(soul, key, follow)

    def fill(self) -> None:
        """The disk is full."""
        self.disk.full = self.doubtful = True

    def space(self) -> None:
        """The disk has room again. What was shown and then refused is not taken back; the app looks anew."""
        self.disk.full = False
        if self.up:
            self.doubtful = False
            for (soul, key), eye in list(self.eyes.items()):
                self.exchange.close_link(eye.link)
                self._watch(soul, key, self.watches[soul, key])

    def crash(self, *, durable: bool) -> None:
        """The process ends without a word; ``durable``: just after its disk had taken a batch."""
        self.forgiven.update(
            {
                place: cell
                for up in self.exchange.engine.near._upstreams.values()
                for place, cell in up._owed.items()
            }
        )
        self.forgiven.update({(cell.soul, cell.key): cell for cell in self.worker.pending()})
        self.up = False
        self.crashes += 1
        self.worker.crash(durable=durable)
        self.world.network.vanish(self.index)

    # -- connections ---------------------------------------------------------------

    def accept(self, end: End) -> LinkEvents | None:
        if end.wire == "native":
            return None if self.native is None else self.native.accept(end)
        port = SimPort(self, end, dialer=False)
        self.ports[port.id] = port
        return port

    def _dial(self, epoch: int, line: int) -> None:
        if epoch != self.epoch or not self.up:
            return
        if self.native is not None and self.plan.speaks_native(line):
            self.native.dial(line)
            return
        self.world.network.dial(
            self.index,
            self.plan.dials[line],
            lambda end: self._opened(epoch, line, end),
            lambda: self.later(epoch, line),
        )

    def _opened(self, epoch: int, line: int, end: End) -> None:
        if epoch != self.epoch or not self.up:
            end.close()
            return
        port = SimPort(self, end, dialer=True)
        self.ports[port.id] = self.lines[line] = port

    def hung_up(self, port: SimPort) -> None:
        line = next(line for line, other in self.lines.items() if other is port)
        del self.lines[line]
        self.lost(line, port.opened)

    def lost(self, line: int, since: float) -> None:
        """A link that this side dialled has ended; ``since`` is when it began."""
        self.cut_lines += 1
        if self.world.scheduler.time - since > 5:
            self._waits[line].succeeded()
        self.later(self.epoch, line)

    def later(self, epoch: int, line: int) -> None:
        if epoch == self.epoch and self.up:
            self.world.scheduler.after(self._waits[line].failed(), self._dial, epoch, line)

    def merge(
        self,
        cells: Sequence[Cell],
        marks: Sequence[Mark],
        origin: int,
        done: Callable[[AirError | None], None],
    ) -> None:
        """As ``Hub.merge``: what is due is durable when ``done`` is called, the rest waits for its time."""
        exchange, now = self.exchange, self.clock.now()
        due = [index for index, cell in enumerate(cells) if cell.state <= now.wall]
        if len(due) < len(cells):
            Hub._merge_later(cast(Hub, exchange), cells, marks, origin, now)
        some, some_marks = [cells[index] for index in due], [marks[index] for index in due]
        if not some:
            self.world.scheduler.after(0.0, done, None)
            return

        def answered(error: AirError | None) -> None:
            if error is None:
                self.world.oracle.promised(self.index, some, self.disk.get)
                self.world.causes.took(self.index, some, some_marks)
            done(error)

        id = exchange.ids()
        self._merging[id] = answered
        put = Put(id, some, marks=some_marks, origin=origin)
        exchange.carry_out(exchange.engine.receive(self._app, put, now))

    @property
    def connected(self) -> bool:
        if not self.up:
            return False
        for line in range(len(self.plan.dials)):
            if line not in self.lines and (self.native is None or not self.native.linked(line)):
                return False
        return True

    # -- what is said and kept, for the oracle ---------------------------------------

    def sending(self, port: SimPort, frames: Sequence[bytes]) -> None:
        """Frames leave: look at the promises among them."""
        for frame in frames:
            if b'"ok":true' in frame or b'"err":' in frame:
                for ack in self.world.acks_in(frame):
                    cells = port.answered(ack[0])
                    if cells is not None and ack[1]:
                        self.world.oracle.promised(self.index, cells, self.disk.get)
            if port.asked and b'"@":' in frame:
                self.world.answers_in(self.index, port.asked, frame)
            if self.world.oracle.crossed is not None and b'"put":' in frame:
                self.world.count(self.index, port.end.remote, port.dialer, frame)

    def _due(self, cells: Sequence[Cell]) -> None:
        self.world.oracle.due(self.index, cells, self.clock.wall)

    # -- the app -------------------------------------------------------------------

    def put(self, soul: Soul, fields: Mapping[Key, Value]) -> None:
        """Write as ``Hub.put`` does."""
        clock = self.clock.now()
        state = self.stamps.next(clock.wall)
        cells = [Cell(soul, key, value, state) for key, value in fields.items()]
        if not cells:
            return
        self.world.oracle.wrote(self.index, cells)
        exchange = self.exchange
        id = exchange.ids()
        self._written[id] = cells
        exchange.meta = {STAMP_META: repr(state).encode()}
        try:
            now = Now(clock.monotonic, max(clock.wall, state))
            exchange.carry_out(exchange.engine.receive(self._app, Put(id, cells), now))
        finally:
            exchange.meta = None

    def _answered(self, id: object, error: AirError | None) -> None:
        merging = self._merging.pop(id, None)
        if merging is not None:
            merging(error)
            return
        cells = self._written.pop(id, None)
        if cells is None:
            # Mended, and not due when it came: nobody waits for it.
            return
        if error is None:
            self.world.oracle.promised(self.index, cells, self.disk.get)
        else:
            self.world.oracle.refused += 1

    @property
    def unanswered(self) -> int:
        """Local writes without an answer."""
        return len(self._written)

    def watch(self, soul: Soul, key: Key | None, follow: bool) -> None:
        if (soul, key) not in self.watches:
            self.watches[soul, key] = follow
            if self.up:
                self._watch(soul, key, follow)

    def follow(self, epoch: int, soul: Soul) -> None:
        if epoch == self.epoch and self.up:
            self.watch(soul, None, False)

    def _watch(self, soul: Soul, key: Key | None, follow: bool) -> None:
        eye = self.eyes[soul, key] = SimWatcher(self, soul, key, follow)
        eye.link = self.exchange.open_link(Role.LOCAL, cast(Any, eye), "local")
        lex = ALL if key is None else Lex(exact=key)
        self.exchange.receive(eye.link, [Get(self.exchange.ids(), soul, lex)])

    def get(self, soul: Soul, key: Key | None) -> None:
        """Read once: a link that is closed again."""
        if self.up:
            eye = SimWatcher(self, soul, key, follow=False)
            link = self.exchange.open_link(Role.LOCAL, cast(Any, eye), "local")
            lex = ALL if key is None else Lex(exact=key)
            self.exchange.receive(link, [Get(self.exchange.ids(), soul, lex)])
            self.world.scheduler.after(1.0, self._close, self.epoch, link)

    def _close(self, epoch: int, link: int) -> None:
        if epoch == self.epoch and self.up:
            self.exchange.close_link(link)

    def sees(self, soul: Soul) -> dict[Key, Value]:
        """A node as the app reads it: what its disk has."""
        node = self.disk.cells.node(soul)
        return {} if node is None else {key: pair[0] for key, pair in node.fields.items()}

    def holds(self, soul: Soul, key: Key) -> Cell | None:
        return self.disk.get(soul, key)

    def shows(self, soul: Soul, key: Key) -> list[tuple[Value, float] | None]:
        """What each watcher of a field was shown last."""
        return [
            eye.shown.get(key)
            for (watched, only), eye in self.eyes.items()
            if watched == soul and only in (None, key)
        ]
