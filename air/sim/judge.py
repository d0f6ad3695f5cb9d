"""The end of a run: who has to agree with whom, and whether they do. (core)

What the GUN wire promises is written down in docs/simulator.md; this module checks exactly that. Who
wants what is taken from the plan and from what the apps did, never from an engine's own tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from air.model.cell import Cell, Key, Soul
from air.sim.air_peer import AirPeer
from air.sim.gun_client import GunClient
from air.sim.marked import MarkedDisk
from air.sim.native import SimCarrier
from air.sim.oracle import beats
from air.sim.schedule import EPOCH

if TYPE_CHECKING:
    from air.sim.world import World

__all__ = ["Judge"]

Place: TypeAlias = tuple[Soul, Key]

_AHEAD_MS = 6 * 3_600_000.0
"""States further ahead than this were written by liars; the run ends before they are due."""
_PATIENCE_SECONDS = 200.0
"""The longest a healed network may take: a connection that is dead and does not know it (75 s), the
longest wait of a dialler (30 s), a dial that began too early (10 s), twice in a row down a chain."""
_PATIENCE_FAULTLESS_SECONDS = 15.0
_ANSWER_SECONDS = 8.0
"""After so long a question has its answer, or never gets it."""
_STILL_SECONDS = 15.0
"""Who agrees must still agree after so long."""


class Judge:
    """Looks at a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._closures: dict[tuple[int, ...], list[frozenset[int]]] = {}
        self._equals = self._all_equal()

    # -- settling --------------------------------------------------------------------

    def settle(self) -> float | None:
        """Let time pass until all agree. Returns how long that took; what is wrong goes to the oracle."""
        world, scheduler = self._world, self._world.scheduler
        start, wait = scheduler.time, 0.5
        due = start + max(self._due_seconds(), 0.0)
        patience = _PATIENCE_FAULTLESS_SECONDS if world.plan.faultless else _PATIENCE_SECONDS
        converged = None
        while True:
            scheduler.run(min(scheduler.time + wait, due + patience))
            if not any(self._disagreements(first=True)):
                converged = round(scheduler.time - start, 3)
                break
            if scheduler.time >= due + patience or world.oracle.violations:
                break
            wait = min(wait * 1.5, 15.0)
        # Nothing that agrees now may disagree later, when debts are settled and the last writes are due.
        scheduler.run(max(scheduler.time + _STILL_SECONDS, due + _STILL_SECONDS))
        for rule, peer, text in self._disagreements(first=False):
            world.oracle.violated(rule, text, peer)
        for air in self._airs():
            world.oracle.kept(air.index, air.disk.get)
            if isinstance(air.disk, MarkedDisk):
                world.causes.judge(air.index, air.disk)
        self.caps(last=True)
        script = world.plan.script
        if script is not None and script.check is not None:
            try:
                script.check(world.views())
            except AssertionError as error:
                world.oracle.violated("check", str(error) or "the check of the workload failed", 0)
            except Exception as error:
                world.oracle.violated("check", f"the check has failed itself: {error!r}", 0)
        return converged

    def _due_seconds(self) -> float:
        """How long until the last state that anybody wrote has come, on the slowest clock."""
        limit = EPOCH + self._world.scheduler.time * 1000 + _AHEAD_MS
        states = [cell.state for cell in self._world.oracle.written if cell.state < limit]
        if not states:
            return 0.0
        return (max(states) - min(peer.clock.wall for peer in self._world.honest)) / 1000 + 1

    def _airs(self) -> list[AirPeer]:
        return [peer for peer in self._world.honest if isinstance(peer, AirPeer)]

    # -- agreement -------------------------------------------------------------------

    def _disagreements(self, *, first: bool) -> Iterable[tuple[str, int, str]]:
        """(rule, peer, text) of what is not as it should be; ``first``: it only matters whether any is."""
        world = self._world
        for peer in world.honest:
            if not peer.connected:
                yield "away", peer.index, f"{world.names[peer.index]} has not come back"
            if peer.unanswered:
                yield "silence", peer.index, f"{peer.unanswered} writes were never answered"
        places = sorted({(cell.soul, cell.key) for cell in world.oracle.written})
        by_soul: dict[Soul, list[Key]] = {}
        for soul, key in places:
            by_soul.setdefault(soul, []).append(key)
        watchers: dict[Soul, list[tuple[AirPeer | GunClient, Key | None]]] = {}
        for peer in world.honest:
            for soul, only in peer.watches:
                watchers.setdefault(soul, []).append((peer, only))
        for soul, watching in watchers.items():
            for key in by_soul.get(soul, ()):
                yield from self._place(soul, key, [peer for peer, only in watching if only in (None, key)])
        for peer in self._airs():
            for line, up in enumerate(peer.plan.dials):
                other, equal = world.peers[up], self._equal(peer.index, line)
                assert isinstance(other, AirPeer)
                yield from self._told(peer, other, equal=equal)
                if equal:
                    yield from self._told(other, peer, equal=True)

    def _place(
        self, soul: Soul, key: Key, watching: list[AirPeer | GunClient]
    ) -> Iterable[tuple[str, int, str]]:
        """All who want a field, and the relays between them, hold the same."""
        world = self._world
        homes = {
            peer.index: peer.plan.dials[0] if isinstance(peer, GunClient) else peer.index for peer in watching
        }
        for group in self._groups(tuple(sorted(set(homes.values())))):
            members: list[AirPeer | GunClient] = [world.peers[index] for index in sorted(group)]  # type: ignore[misc]
            members += [
                peer for peer in watching if isinstance(peer, GunClient) and homes[peer.index] in group
            ]
            held = [(peer, peer.holds(soul, key)) for peer in members]
            best: Cell | None = None
            for _, cell in held:
                if cell is not None and beats(
                    cell.value, cell.state, None if best is None else (best.value, best.state)
                ):
                    best = cell
            if best in world.oracle.turned_away and world.plan.options.skew:
                # Told before the disk refused it, and held back by a client whose clock is behind: that
                # client has nothing to answer when it is asked, and is not asked again.
                continue
            for peer, cell in held:
                if cell != best:
                    yield "agree", peer.index, f"{world.names[peer.index]} holds {cell}, others {best}"
            for peer in watching:
                if homes[peer.index] in group and best is not None:
                    for pair in peer.shows(soul, key):
                        if pair != (best.value, best.state):
                            yield "watch", peer.index, f"{world.names[peer.index]} shows {pair} for {best}"

    def _groups(self, homes: tuple[int, ...]) -> list[frozenset[int]]:
        """The relays that have to agree when these are asked: they, whom they dial, and so on upwards,
        as far as they are connected among each other by dialling."""
        known = self._closures.get(homes)
        if known is not None:
            return known
        plans = self._world.plan.peers
        asked, todo = set(homes), list(homes)
        while todo:
            index = todo.pop()
            for line, up in enumerate(plans[index].dials):
                # Who holds everything does not ask its like: it is told, and mended.
                if up not in asked and not self._equal(index, line):
                    asked.add(up)
                    todo.append(up)
        # Those that hold everything belong together, whether anybody asks them or not.
        groups = [set(equals) for equals in self._equals if equals & asked]
        for index in sorted(asked):
            near = {index, *(set(plans[index].dials) & asked)}
            joined = [group for group in groups if group & near]
            groups = [group for group in groups if not group & near]
            groups.append(near.union(*joined))
        known = self._closures[homes] = [frozenset(group) for group in groups]
        return known

    def _equal(self, index: int, line: int) -> bool:
        """Both ends of a dialled line speak the native wire and hold everything."""
        plans = self._world.plan.peers
        own = plans[index]
        return bool(own.native) and own.native[line] and own.everything and plans[own.dials[line]].everything

    def _all_equal(self) -> list[set[int]]:
        """Peers that hold everything, and are connected among each other as such."""
        groups: list[set[int]] = []
        for index, plan in enumerate(self._world.plan.peers):
            for line, up in enumerate(plan.dials) if plan.kind == "air" else ():
                if self._equal(index, line):
                    joined = [group for group in groups if group & {index, up}]
                    groups = [group for group in groups if not group & {index, up}]
                    groups.append({index, up}.union(*joined))
        return groups

    def _told(self, peer: AirPeer, up: AirPeer, *, equal: bool = False) -> Iterable[tuple[str, int, str]]:
        """Whatever a peer has on disk, each peer that it dials has too, or something newer. ``equal``: both
        hold everything, and nothing excuses them."""
        for soul, node in peer.disk.cells._nodes.items():
            for key, pair in node.fields.items():
                held = up.disk.get(soul, key)
                if held is None or beats(pair[0], pair[1], (held.value, held.state)):
                    cell = Cell(soul, key, *pair)
                    # Heard from that peer itself, before its disk refused it.
                    theirs = (up.index, cell) in peer.heard_up and cell in self._world.oracle.turned_away
                    # Or a debt that a crash wiped out.
                    if not equal and (theirs or peer.forgiven.get((soul, key)) == cell):
                        continue
                    text = f"{self._world.names[up.index]} was never told {cell}, has {held}"
                    yield "told", peer.index, text

    # -- tables ----------------------------------------------------------------------

    def caps(self, *, last: bool = False) -> None:
        """Every table is under its ceiling, and every sum is the sum of its parts."""
        for peer in self._airs():
            if peer.up:
                self._stale(peer)
                for text in self._tables(peer, last):
                    self._world.oracle.violated("table", text, peer.index)

    def _stale(self, peer: AirPeer) -> None:
        """Questions that were answered long ago, but never with what was durable when they came."""
        old = self._world.scheduler.time - _ANSWER_SECONDS
        carriers = peer.native.graph.carriers if peer.native is not None else ()
        for port in (*peer.ports.values(), *carriers):
            for id in [id for id, asked in port.asked.items() if asked.at < old]:
                asked = port.asked.pop(id)
                # Without any answer: the asker had told by its hash that it knows. Or the disk is in trouble.
                if asked.answered and not peer.doubtful:
                    self._world.oracle.violated("stale", f"no answer had all of {asked.held[:3]}", peer.index)

    def _tables(self, peer: AirPeer, last: bool) -> Iterable[str]:
        # The one place that looks into the engine: nobody else has a reason to.
        engine, memory = peer.exchange.engine, peer.exchange.memory
        near, config = engine.near, engine.config
        if memory.bytes > memory.limit_bytes and len(memory) > 1:
            yield f"memory holds {memory.bytes} bytes of {memory.limit_bytes}"
        if memory.bytes != sum(node.bytes for node in memory._nodes.values()):
            yield "memory has lost count of its bytes"
        tables = (
            ("ids", engine._seen, config.seen_max),
            ("ways", near._paths, config.neighbours.paths_max),
        )
        for name, table, most in tables:
            if max(len(table._young), len(table._old)) > most:
                yield f"{len(table)} {name} are remembered, at most {most} in a generation"
        if len(engine.deferred) > config.deferred.entries_max:
            yield f"{len(engine.deferred)} writes wait for their time"
        if engine.deferred.bytes < 0 or (engine.deferred.bytes > 0) != (len(engine.deferred) > 0):
            yield f"{len(engine.deferred)} writes that wait have {engine.deferred.bytes} bytes"
        for state in near.links.values():
            wants = sum(1 if keys is None else len(keys) for keys in state.wants.values())
            if wants != state.wants_count or wants > config.neighbours.subscriptions_max:
                yield f"a link wants {wants} things, counted are {state.wants_count}"
            if len(state.asked) > config.neighbours.asked_max:
                yield f"a link was asked for {len(state.asked)} nodes"
        for upstream in near._upstreams.values():
            limits = upstream._config
            if len(upstream._owed) > limits.owed_max or len(upstream._asked) > limits.asked_max:
                yield f"{len(upstream._owed)} fields are owed, {len(upstream._asked)} asked for"
            oldest = min((sent.at for sent in upstream._sent.values()), default=None)
            late = limits.settle_seconds + 10
            if oldest is not None and peer.clock.now().monotonic - oldest > late:
                yield f"a write that was sent is remembered for more than {late:.0f} s"
        if set(near.interest.souls()) != {soul for state in near.links.values() for soul in state.wants}:
            yield "the table of wishes is not what the links wish"
        for port in peer.ports.values():
            if port.link.queued_bytes != sum(map(len, port.link._queue)):
                yield "a link has lost count of the bytes that wait"
            if port.link.queued_bytes > peer.exchange.config.queued_bytes_max:
                yield f"{port.link.queued_bytes} bytes wait for one link"
        for carrier in peer.native.graph.carriers if peer.native is not None else ():
            yield from _room(carrier)
        if last and (engine.writing or engine.reads):
            yield f"{engine.writing} writes and {len(engine.reads)} reads have been forgotten"


def _room(carrier: SimCarrier) -> Iterable[str]:
    """What waits on a native link is within its ceilings, and is what is counted."""
    link, config = carrier.link, carrier.link._config
    outlet, intake = link._outlet, link._intake
    outbox = outlet.outbox
    if outbox.full:
        yield f"{len(outbox)} cells wait for one native link"
    entries = [*outbox._live.values(), *outbox._bulk.values()]
    counted = sum(entry.size for entry in entries) + sum(size + 24 for _, size in outbox._answers)
    if outbox.bytes != counted:
        yield f"a native link counts {outbox.bytes} bytes that wait, not {counted}"
    if outbox._promised != sum(len(entry.promises) for entry in entries):
        yield "a native link has lost count of the puts that wait"
    if len(intake._pending) > config.unacked_max or len(link._held) > config.gets_waiting_max:
        yield f"{len(intake._pending)} batches and {len(link._held)} questions of one native link wait"
    if max(*intake._window, 0) > max(config.credit_cells, config.credit_bytes):
        yield f"{intake._window} is more credit than there was in the beginning"
