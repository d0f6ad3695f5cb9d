"""What a run consists of: its options, its peers, and the faults that will happen. (core)

Everything is drawn before the run begins, in streams of its own, so that a fault or a write can be left
out without changing the others. That is what makes a failing run small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from air.base.errors import Misuse
from air.sim.dice import Dice
from air.sim.script import Action, Script
from air.sim.workloads import WORKLOADS, find

__all__ = ["SHAPES", "TOPOLOGIES", "WIRES", "Fault", "Options", "PeerPlan", "Plan", "chaotic", "draw"]

TOPOLOGIES: Final = ("star", "chain", "mesh")
WIRES: Final = ("gun", "native", "mixed")
SHAPES: Final = ("halves", "bridge", "oneway", "flapping", "isolated")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asks for. Rates are chances within ten seconds."""

    peers: int = 5
    seed: int = 1
    minutes: float = 1.0
    workload: str = "chat"
    topology: str = "star"
    """``star``: one relay and its clients. ``chain``, ``mesh``: relays that dial each other."""
    partition: float = 0.0
    """Length of a split in seconds; 0: none happens."""
    shape: str = "any"
    """One of SHAPES."""
    loss: float = 0.0
    """Chance of a packet to be lost, and of a connection to be cut within ten seconds."""
    delay: float = 0.02
    """One way, in seconds."""
    bandwidth: float = 2_000_000.0
    """Bytes per second of one connection."""
    skew: float = 0.0
    """How far a clock may be off, in seconds. Some also drift, and some jump."""
    crash: float = 0.0
    """Chance of a peer to crash within ten seconds."""
    full: float = 0.0
    """Chance of a disk to be full for a while, within ten seconds."""
    liars: int = 0
    """Clients, beyond ``peers``, that do not keep to the rules."""
    tight: bool = False
    """Small caches and short memories everywhere."""
    wire: str = "gun"
    """What Air peers speak with each other. ``native``: all peers are Air peers and speak only this;
    ``mixed``: some links, and some gun.js clients beside."""
    chaos: bool = False
    """All of the above are drawn from the seed."""
    only_faults: tuple[int, ...] | None = None
    only_writes: tuple[int, ...] | None = None

    @property
    def seconds(self) -> float:
        return self.minutes * 60.0


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """One peer."""

    kind: str
    """``air``: an Air relay or an app with Air inside; ``gun``: a gun.js client; ``liar``."""
    dials: tuple[int, ...] = ()
    app: int | None = None
    """Which peer of the script it is."""
    offset: float = 0.0
    drift: float = 0.0
    cache_bytes: int = 16 * 1024 * 1024
    fields_max: int = 4096
    seen_max: int = 200_000
    native: tuple[bool, ...] = ()
    """For each of ``dials``, whether the native wire is spoken."""
    everything: bool = True
    """On the native wire it says that it holds everything."""
    noise: bool = False
    """Its native connections are encrypted."""
    narrow: bool = False
    """Its native links have little room."""

    def speaks_native(self, line: int) -> bool:
        """Whether the native wire is spoken on the ``line``-th of ``dials``."""
        return bool(self.native) and self.native[line]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a moment, for a while."""

    number: int
    at: float
    seconds: float
    kind: str
    """``split``, ``cut``, ``crash``, ``full``, ``jump`` or ``slow``."""
    peers: tuple[int, ...] = ()
    ways: tuple[tuple[int, int], ...] = ()
    """Ways that are closed by a split."""
    amount: float = 0.0


@dataclass(slots=True)
class Plan:
    """A whole run, before it begins."""

    options: Options
    peers: list[PeerPlan] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    script: Script | None = None

    @property
    def faultless(self) -> bool:
        """Nothing goes wrong, so nobody has a reason to say anything twice."""
        options = self.options
        return not (
            self.faults or options.loss or options.skew or options.liars or options.tight
        ) and not any(action.kind == "offline" for action in self.actions)


def chaotic(peers: int, seed: int, **fixed: object) -> Options:
    """Options drawn from the seed: any mixture of faults, with any workload."""
    dice = Dice(seed, "chaos")
    long = dice.chance(0.1)
    drawn = Options(
        peers=peers,
        seed=seed,
        minutes=dice.between(2, 3) if long else dice.between(0.3, 1.2),
        workload=dice.pick(sorted(WORKLOADS)),
        topology=dice.pick(TOPOLOGIES),
        partition=100.0 if long else dice.pick((0.0, 3.0, 20.0, 50.0)),
        loss=dice.pick((0.0, 0.0, 0.05, 0.3)),
        delay=dice.pick((0.001, 0.02, 0.2)),
        bandwidth=dice.pick((2_000_000.0, 50_000.0)),
        skew=dice.pick((0.0, 0.0, 0.2, 10.0, 600.0)),
        crash=dice.pick((0.0, 0.0, 0.02, 0.1)),
        full=dice.pick((0.0, 0.0, 0.0, 0.05)),
        liars=dice.pick((0, 0, 0, 1, 2)),
        tight=dice.chance(0.5),
        wire="mixed",
        chaos=True,
    )
    return replace(drawn, **fixed)  # type: ignore[arg-type]


def draw(options: Options) -> Plan:
    """Draw everything that will happen. Raises Misuse."""
    if not 2 <= options.peers <= 10_000:
        raise Misuse("a run has 2 to 10000 peers")
    if options.topology not in TOPOLOGIES:
        raise Misuse(f"there is no topology {options.topology}; there are {', '.join(TOPOLOGIES)}")
    if options.shape not in ("any", *SHAPES):
        raise Misuse(f"there is no split of the shape {options.shape}; there are {', '.join(SHAPES)}")
    if options.wire not in WIRES:
        raise Misuse(f"there is no wire {options.wire}; there are {', '.join(WIRES)}")
    plan = Plan(options)
    plan.peers = _wired(options, _peers(options))
    apps = sum(1 for peer in plan.peers if peer.app is not None)
    script = plan.script = Script(apps, options.seconds, Dice(options.seed, "workload"))
    find(options.workload)(script)
    if options.chaos:
        _diaries(script, Dice(options.seed, "diaries"))
    actions = sorted(script.actions, key=lambda action: action.at)
    plan.faults = _faults(options, plan.peers)
    if options.only_faults is not None:
        plan.faults = [fault for fault in plan.faults if fault.number in options.only_faults]
    if options.only_writes is not None:
        actions = [
            action
            for number, action in enumerate(actions)
            if action.kind != "put" or number in options.only_writes
        ]
    plan.actions = actions
    return plan


def _diaries(script: Script, dice: Dice) -> None:
    """Beside the workload, some write what nobody looks at, or only much later."""
    for peer in script.peers:
        if dice.chance(0.5):
            at = dice.wait(script.seconds / 6)
            for page in range(6):
                if at < script.seconds:
                    script.put(peer, f"diary/{peer}", {f"page {page}": f"{at:.2f}"}, at=at)
                at += dice.wait(script.seconds / 6)
            for at in script.times(script.seconds / 4):
                key = f"page {dice.below(6)}" if dice.chance(0.6) else None
                script.get(dice.pick(script.peers), f"diary/{peer}", key, at=at)
            if dice.chance(0.3):
                script.watch(dice.pick(script.peers), f"diary/{peer}", at=dice.between(0, script.seconds))


def _peers(options: Options) -> list[PeerPlan]:
    dice, count = Dice(options.seed, "peers"), options.peers
    relays = 1 if options.topology == "star" else min(max(2, (count + 1) // 3), 8)
    dials: list[tuple[int, ...]] = []
    for relay in range(relays):
        if options.topology == "chain":
            dials.append((relay - 1,) if relay else ())
        elif options.topology == "mesh":
            others = [other for other in range(relays) if other != relay]
            # Everybody reaches the first one somehow; some dial each other.
            first = [dice.below(relay)] if relay else []
            dials.append(tuple(dict.fromkeys(first + dice.some(others, dice.below(3)))))
        else:
            dials.append(())
    plans, app = [], 0
    for index in range(count + options.liars):
        tight = options.tight and dice.chance(0.7)
        offset = dice.between(-options.skew, options.skew) if dice.chance(0.7) else 0.0
        common = {
            "offset": offset,
            "drift": dice.between(-1e-4, 1e-4) if options.skew and dice.chance(0.3) else 0.0,
            "cache_bytes": dice.pick((4096, 65_536)) if tight else 16 * 1024 * 1024,
            "fields_max": dice.pick((4, 32)) if tight else 4096,
            "seen_max": dice.pick((16, 256)) if tight else 200_000,
        }
        if index < relays:
            own = app if options.topology != "star" and dice.chance(0.5) else None
            peer = PeerPlan("air", dials[index], own, **common)  # type: ignore[arg-type]
        elif index < count:
            kind = "gun" if dice.chance(0.7) else "air"
            home = (dice.below(relays),)
            if kind == "air" and relays > 1 and dice.chance(0.3):
                home = tuple(dice.some(range(relays), 2))  # type: ignore[assignment]
            own = app
            peer = PeerPlan(kind, home, own, **common)  # type: ignore[arg-type]
        else:
            own = None
            peer = PeerPlan("liar", tuple(dice.some(range(relays), 2)))
        plans.append(peer)
        app += own is not None
    return plans


def _wired(options: Options, peers: list[PeerPlan]) -> list[PeerPlan]:
    """Choose the wires, by a stream of its own: without native links a plan is what it was before them."""
    if options.wire == "gun":
        return peers
    dice, all_native = Dice(options.seed, "wires"), options.wire == "native"
    noise = dice.chance(0.2)
    # Whoever is dialled must be an Air peer; those come first.
    dialled = {target for peer in peers for target in peer.dials}
    out: list[PeerPlan] = []
    for index, peer in enumerate(peers):
        air = dice.chance(0.4) or all_native
        partial, narrow = dice.chance(0.25), dice.chance(0.3)
        native = tuple(dice.chance(0.75) or all_native for _ in peer.dials)
        if peer.kind == "liar":
            # What it speaks is drawn too, and an honest peer has to stand both.
            out.append(replace(peer, native=tuple(dice.chance(0.5) or all_native for _ in peer.dials)))
            continue
        kind = "air" if air else peer.kind
        out.append(
            replace(
                peer,
                kind=kind,
                native=native if kind == "air" else (False,) * len(peer.dials),
                # A debt to a peer that was never reached is kept by those only that hold not everything.
                everything=index in dialled or not partial,
                noise=noise,
                narrow=narrow and options.tight,
            )
        )
    return out


def _faults(options: Options, peers: Sequence[PeerPlan]) -> list[Fault]:
    faults: list[Fault] = []
    honest = range(options.peers)
    end = options.seconds

    def add(at: float, seconds: float, kind: str, who: Sequence[int], amount: float = 0.0) -> None:
        faults.append(Fault(len(faults), at, seconds, kind, tuple(who), (), amount))

    dice = Dice(options.seed, "splits")
    if options.partition:
        at = dice.wait(min(end / 4, 20))
        while at < end:
            seconds = options.partition * dice.between(0.5, 1.5)
            shape = dice.pick(SHAPES) if options.shape == "any" else options.shape
            ways = _ways(dice, shape, list(honest))
            who = sorted({a for a, _ in ways})
            times = 6 if shape == "flapping" else 1
            for turn in range(times):
                part = seconds / times
                begin, length = at + turn * part, part if times == 1 else part / 2
                faults.append(Fault(len(faults), begin, length, "split", tuple(who), tuple(ways)))
            at += seconds + dice.wait(max(end / 4, 10))
    for kind, rate in (("crash", options.crash), ("full", options.full), ("cut", options.loss / 2)):
        dice = Dice(options.seed, kind)
        for index in honest if rate else ():
            if kind == "full" and peers[index].kind != "air":
                continue
            targets = peers[index].dials if kind == "cut" else (index,)
            for target in targets:
                at = dice.wait(10 / rate)
                while at < end:
                    if kind == "cut":
                        late = dice.pick((0.0, dice.between(0, 5)))
                        add(at, 0.0, "cut", (index, target), late)
                    elif kind == "crash":
                        add(
                            at,
                            dice.pick((0.1, dice.wait(5), dice.wait(20))),
                            "crash",
                            (index,),
                            dice.fraction(),
                        )
                    else:
                        add(at, dice.wait(5), "full", (index,))
                    at += dice.wait(10 / rate)
    dice = Dice(options.seed, "jumps")
    for index in honest if options.skew else ():
        if dice.chance(0.2):
            add(dice.between(0, end), 0.0, "jump", (index,), dice.between(-options.skew, options.skew))
    return faults


def _ways(dice: Dice, shape: str, peers: list[int]) -> list[tuple[int, int]]:
    if shape == "isolated":
        # As likely as not it is the peer on which everything hangs.
        alone = 0 if dice.chance(0.5) else dice.pick(peers)
        return [way for other in peers if other != alone for way in ((alone, other), (other, alone))]
    mixed = dice.some(peers, len(peers))
    bridge = mixed.pop() if shape == "bridge" and len(mixed) > 2 else None
    cut = 1 + dice.below(len(mixed) - 1)
    left, right = mixed[:cut], mixed[cut:]
    ways = [(a, b) for a in left for b in right]
    if shape != "oneway":
        ways += [(b, a) for a, b in ways]
    return [way for way in ways if bridge not in way]
