"""A world: peers, network, disks and time, put together from a plan and run to its end. (root)"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from air.model.cell import Cell
from air.sim.air_peer import AirPeer
from air.sim.causes import Causes
from air.sim.dice import Dice
from air.sim.gun_client import GunClient
from air.sim.gun_json import messages, read_cells
from air.sim.judge import Judge
from air.sim.liar import Liar
from air.sim.network import Network, NetworkConfig
from air.sim.oracle import Asked, Oracle, Violated
from air.sim.plan import Fault, Options, PeerPlan, Plan, draw
from air.sim.schedule import Scheduler
from air.sim.script import Action, View, values
from air.sim.session import Keys, SimSession

__all__ = ["Report", "World", "run"]

Peer: TypeAlias = AirPeer | GunClient | Liar

CAPS_SECONDS = 5.0
"""How often tables are measured."""


@dataclass(slots=True)
class Report:
    """What came of a run."""

    options: Options
    trace: str
    violations: list[Violated]
    events: int
    frames: int
    bytes: int
    virtual_s: float
    wall_s: float
    converged_s: float | None
    """Seconds from the end of all faults until everybody agreed; None: they never did."""
    faults: int
    writes: int
    acks: int
    names: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.violations


class World:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        options = plan.options
        self.plan = plan
        self.scheduler = Scheduler()
        config = NetworkConfig(
            delay_seconds=options.delay, loss=options.loss / 2, bytes_per_second=options.bandwidth
        )
        self.network = Network(self.scheduler, config, Dice(options.seed, "network"))
        self.oracle = Oracle(self.scheduler)
        if plan.faultless:
            self.oracle.crossed = {}
        self.ending = False
        self.native = any(any(peer.native) for peer in plan.peers)
        """Some links speak the native wire."""
        self.keys: list[Keys | None] = [
            Keys(Dice(options.seed, "keys", index)) if self.native and peer.kind != "gun" else None
            for index, peer in enumerate(plan.peers)
        ]
        self.pieces = Dice(options.seed, "pieces")
        doors = sum(peer.kind == "air" for peer in plan.peers)
        lies = any(peer.kind == "liar" and any(peer.native) for peer in plan.peers)
        self.causes = Causes(self.oracle, len(plan.peers), doors, trusted=not lies)
        self.cuts = 0
        """Connections that Air ended because of how the other end behaved."""
        self.souls = sorted({action.soul for action in plan.actions if action.soul})
        kinds: dict[str, Callable[[World, int, PeerPlan], Peer]] = {
            "air": AirPeer,
            "gun": GunClient,
            "liar": Liar,
        }
        self.peers: list[Peer] = [
            kinds[peer.kind](self, index, peer) for index, peer in enumerate(plan.peers)
        ]
        self.network.hosts += self.peers
        self.oracle.acked = [{} for _ in self.peers]
        names = {"air": "air", "gun": "gun.js", "liar": "liar"}
        self.names = [f"{index} {names[peer.kind]}" for index, peer in enumerate(plan.peers)]
        self.apps: list[AirPeer | GunClient] = [
            peer
            for peer, own in zip(self.peers, plan.peers, strict=True)
            if own.app is not None and not isinstance(peer, Liar)
        ]
        self.honest: list[AirPeer | GunClient] = [peer for peer in self.peers if not isinstance(peer, Liar)]
        self.writes = 0
        self.notes: list[tuple[float, float, str, tuple[int, ...], str]] = []
        """(begin, end, kind, peers, text) of faults and writes, for the timeline."""
        self._open: dict[int, tuple[tuple[int, int], ...]] = {}

    # -- running -------------------------------------------------------------------

    def run(self) -> float | None:
        """Run until all agree, or until they should have. Returns the seconds it took after the faults."""
        scheduler, plan = self.scheduler, self.plan
        starts = Dice(plan.options.seed, "starts")
        for peer in self.peers:
            # Not all at the same moment; now and then one comes late.
            late = starts.chance(0.2) and not plan.faultless
            scheduler.at(starts.between(0, 20) if late else starts.between(0, 0.2), self._begin, peer)
        for action in plan.actions:
            scheduler.at(action.at + 0.25, self._act, action)
        for fault in plan.faults:
            scheduler.at(fault.at, self._fault, fault)
        scheduler.after(CAPS_SECONDS, self._caps)
        scheduler.run(plan.options.seconds + 1.0)
        self._heal()
        return Judge(self).settle()

    def _begin(self, peer: Peer) -> None:
        # A crash may have been first, and its restart too.
        if isinstance(peer, Liar) or (not peer.up and peer.epoch == 0 and peer.crashes == 0):
            peer.start()

    def _act(self, action: Action) -> None:
        peer = self.apps[action.peer]
        match action.kind:
            case "put":
                if peer.up:
                    fields = action.fields
                    if action.change is not None:
                        fields = values(action.change(peer.sees(action.soul)))
                    self.writes += 1
                    self.note("write", 0.0, (peer.index,), action.soul)
                    peer.put(action.soul, fields)
            case "watch":
                peer.watch(action.soul, action.key, action.follow)
            case "get":
                peer.get(action.soul, action.key)
            case "offline" if not peer.offline:
                peer.offline = True
                self.network.block(self._around(peer.index))
            case "online" if peer.offline:
                peer.offline = False
                self.network.unblock(self._around(peer.index))

    def _around(self, index: int) -> list[tuple[int, int]]:
        others = [other for other in range(len(self.peers)) if other != index]
        return [way for other in others for way in ((index, other), (other, index))]

    # -- faults --------------------------------------------------------------------

    def _fault(self, fault: Fault) -> None:
        peer = self.peers[fault.peers[0]]
        seconds = min(fault.seconds, self.plan.options.seconds + 1.0 - fault.at)
        self.note(fault.kind, seconds, fault.peers, f"#{fault.number}")
        match fault.kind:
            case "split":
                self._open[fault.number] = fault.ways
                self.network.block(fault.ways)
                self.scheduler.after(fault.seconds, self._mend, fault.number)
            case "cut":
                self.network.cut(fault.peers[0], fault.peers[1], fault.amount)
            case "crash" if peer.up and not isinstance(peer, Liar):
                peer.crash(durable=fault.amount < 0.5)
                self.scheduler.after(fault.seconds, self._restart, peer)
            case "full" if isinstance(peer, AirPeer):
                peer.fill()
                self.scheduler.after(fault.seconds, self._space, peer)
            case "jump":
                peer.clock.offset += fault.amount
            case _:
                pass

    def _mend(self, number: int) -> None:
        ways = self._open.pop(number, None)
        if ways is not None:
            self.network.unblock(ways)

    def _restart(self, peer: AirPeer | GunClient) -> None:
        if not peer.up:
            peer.start()

    def _space(self, peer: AirPeer) -> None:
        if peer.disk.full:
            peer.space()
            # A write that was refused is known to those who had heard of it before the disk was asked, and
            # nobody says it again on the same connection. So the connections begin anew.
            for other in range(len(self.peers)):
                self.network.cut(peer.index, other)

    def _heal(self) -> None:
        """All faults end."""
        self.ending = True
        for number in list(self._open):
            self._mend(number)
        for peer in self.peers:
            if isinstance(peer, Liar):
                peer.stop()
                continue
            if peer.offline:
                peer.offline = False
                self.network.unblock(self._around(peer.index))
            if isinstance(peer, AirPeer):
                self._space(peer)
            self._restart(peer)
        self.network.config = NetworkConfig(
            delay_seconds=self.network.config.delay_seconds,
            bytes_per_second=self.network.config.bytes_per_second,
        )

    def _caps(self) -> None:
        Judge(self).caps()
        if not self.ending:
            self.scheduler.after(CAPS_SECONDS, self._caps)

    # -- what peers report -----------------------------------------------------------

    def note(self, kind: str, seconds: float, peers: Sequence[int], text: str = "") -> None:
        now = self.scheduler.time
        self.notes.append((now, now + seconds, kind, tuple(peers), text))

    def acks_in(self, frame: bytes) -> list[tuple[object, bool]]:
        """(id of the write, whether it was taken) of every answer to a write in a frame."""
        return [
            (message["@"], "err" not in message)
            for message in messages(frame)
            if "@" in message and ("ok" in message or "err" in message)
        ]

    def answers_in(self, peer: int, asked: dict[object, Asked], frame: bytes) -> None:
        """Compare the answers in a frame with what was durable when they were asked for."""
        for message in messages(frame):
            question = asked.get(message.get("@"))
            if question is None or "ok" in message:
                continue
            # Parts of a large answer are not put together here, and a disk that fails says so.
            if (
                "%" in message
                or "err" in message
                or self.oracle.answers(question, read_cells(message.get("put", {})))
            ):
                del asked[message["@"]]

    def count(self, source: int, target: int, dialer: bool, frame: bytes) -> None:
        for message in messages(frame):
            if "put" in message and "@" not in message:
                cells = read_cells(message["put"])
                self.oracle.pushed(source if dialer else target, target if dialer else source, cells)

    def lied(self, session: SimSession, cells: Sequence[Cell]) -> None:
        """What a liar says on a native connection was written by it: bytes that are said once more there may
        mean something else."""
        if self.plan.peers[session.end.remote].kind == "liar":
            self.oracle.wrote(session.end.remote, cells)

    def crossed(self, session: SimSession, cells: Sequence[Cell]) -> None:
        """Cells have come over a native connection, live or in a comparison."""
        end = session.end
        dialer, dialled = (end.host, end.remote) if session.dialer else (end.remote, end.host)
        self.oracle.pushed(dialer, dialled, cells, most=2)

    def count_put(self, client: GunClient, cells: Sequence[Cell]) -> None:
        self.oracle.pushed(client.index, client.plan.dials[0], cells)

    def heard_push(self, client: GunClient, cells: Sequence[Cell]) -> None:
        """A relay tells a client something unasked: it must be due by the relay's clock."""
        relay = self.peers[client.plan.dials[0]]
        if relay.clock.offset == self.plan.peers[relay.index].offset:
            for cell in cells:
                # What an app inside the relay wrote may run ahead of a clock that was set back.
                if cell.state > relay.clock.wall and self.oracle.written.get(cell) != relay.index:
                    self.oracle.violated("early", f"{cell} is told before it is due", relay.index)

    def views(self) -> list[View]:
        """What each app sees in the end; a node that nobody wrote has no fields."""
        return [defaultdict(dict, {soul: peer.sees(soul) for soul in self.souls}) for peer in self.apps]


def run(options: Options, world: World | None = None) -> Report:
    """Run one seed. ``world``: made from a plan by the caller, who wants to look into it."""
    started = time.perf_counter()
    world = world or World(draw(options))
    converged = world.run()
    scheduler, network = world.scheduler, world.network
    return Report(
        options=options,
        trace=network.trace.hexdigest(),
        violations=world.oracle.violations,
        events=scheduler.events,
        frames=network.frames,
        bytes=network.bytes,
        virtual_s=round(scheduler.time, 3),
        wall_s=round(time.perf_counter() - started, 4),
        converged_s=converged,
        faults=len(world.plan.faults),
        writes=world.writes,
        acks=world.oracle.acks,
        names=world.names,
    )
