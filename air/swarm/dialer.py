"""Carrying out dials: one per peer at a time, however many ask for it. (shell)"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import anyio
from anyio.abc import TaskGroup

from air.base.address import Multiaddr
from air.base.env import Env
from air.base.errors import AirError, Closed, Denied, LimitReached, Unreachable
from air.base.peer_id import PeerId
from air.swarm.dial import Attempt, DialConfig, DialPlan, choose
from air.swarm.gate import Gate
from air.swarm.history import DialHistory
from air.swarm.lifecycle import Lifecycle, PeerEvent, Stage
from air.swarm.limits import ConnectionHold, Limits
from air.swarm.peerbook import PeerBook
from air.swarm.session import Session
from air.swarm.upgrade import Upgraded, Upgrader
from air.transport.raw import RawConn, Transport
from air.transport.resolve import Resolver

__all__ = ["Dialed", "Dialer", "Target"]


_LOG = logging.getLogger("air.swarm.dialer")


class Target(NamedTuple):
    """What is to be dialled."""

    peer: PeerId | None
    """Who must answer; None accepts anybody."""
    addresses: tuple[Multiaddr, ...]
    """Without a peer's name at the end."""
    given: frozenset[Multiaddr]
    """Those of ``addresses`` that the caller named: tried even when they failed lately."""


class Dialed(NamedTuple):
    """A connection that came through."""

    upgraded: Upgraded
    raw: RawConn
    life: Lifecycle
    hold: ConnectionHold


class Owner(Protocol):
    """What the dialler asks of the swarm."""

    def number(self) -> int: ...
    def tell(self, *events: PeerEvent) -> None: ...
    def adopt_dialed(self, dialed: Dialed) -> Session: ...
    @property
    def peerbook(self) -> PeerBook: ...


class _Shared:
    """A dial that several callers wait for."""

    __slots__ = ("done", "error", "scope", "session", "target", "waiters")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.session: Session | None = None
        self.error: AirError | None = None
        self.waiters = 0

    def tries(self, target: Target) -> bool:
        """Whether all that ``target`` asks for is tried here, and what it insists on insisted on."""
        mine = self.target
        return set(mine.addresses).issuperset(target.addresses) and mine.given.issuperset(target.given)


class _Race:
    """The attempts of one dial."""

    __slots__ = ("changed", "errors", "plan", "won")

    def __init__(self, plan: DialPlan) -> None:
        self.plan = plan
        self.changed = anyio.Event()
        self.won: Dialed | None = None
        self.errors: list[AirError] = []


class Dialer:
    """Dials peers for a swarm."""

    def __init__(
        self,
        owner: Owner,
        transports: Sequence[Transport],
        upgrader: Upgrader,
        limits: Limits,
        gate: Gate,
        resolver: Resolver,
        env: Env,
        config: DialConfig,
    ) -> None:
        self._owner, self._transports, self._upgrader = owner, transports, upgrader
        self._limits, self._gate, self._resolver = limits, gate, resolver
        self._env, self._config = env, config
        self.history = DialHistory(env.entropy, config.history)
        self._room = anyio.Semaphore(config.dials_max)
        self._shared: dict[PeerId | Multiaddr, _Shared] = {}

    @property
    def dials(self) -> int:
        """Dials under way."""
        return len(self._shared)

    async def dial(self, target: Target, tasks: TaskGroup) -> Session:
        """A new session, or the one that somebody else is already dialling.

        The dial runs in ``tasks``, so a caller that is cancelled does not take it from the others; it ends
        when nobody is left. Raises Unreachable, Denied, or Closed when the node ends meanwhile.
        """
        key: PeerId | Multiaddr = target.peer or target.addresses[0]
        while True:
            shared = self._shared.get(key)
            mine = shared is None
            if shared is None:
                shared = self._shared[key] = _Shared(target)
                tasks.start_soon(self._run, key, shared, target)
            shared.waiters += 1
            try:
                await shared.done.wait()
            finally:
                shared.waiters -= 1
                if not shared.waiters and not shared.done.is_set():
                    shared.scope.cancel()
                    self._drop(key, shared)
            if shared.session is not None:
                return shared.session
            # Another's dial that failed says nothing about addresses it did not try.
            if mine or shared.tries(target):
                assert shared.error is not None
                raise _copy(shared.error)

    async def _run(self, key: PeerId | Multiaddr, shared: _Shared, target: Target) -> None:
        try:
            with shared.scope:
                async with self._room:
                    dialed = await self._race(target)
                    try:
                        shared.session = self._owner.adopt_dialed(dialed)
                    except Closed:
                        # The node says goodbye already.
                        await self._discard(dialed)
                        raise
        except AirError as error:
            shared.error = error
        except Exception as error:
            # Supervision: a transport of somebody else may raise anything, and must not end the node.
            _LOG.exception("dial.failed: %s", key)
            attempt = _fault(key, error)
            shared.error = Unreachable(f"{key} cannot be reached: {attempt[1]}", [attempt])
        finally:
            if shared.session is None and shared.error is None:
                shared.error = Closed("the dial was given up", code="dial.cancelled")
            self._drop(key, shared)
            shared.done.set()

    def _drop(self, key: PeerId | Multiaddr, shared: _Shared) -> None:
        """Nobody may join any more."""
        if self._shared.get(key) is shared:
            del self._shared[key]

    async def _race(self, target: Target) -> Dialed:
        start = self._env.clock.now()
        if target.peer is not None:
            self._gate.may_dial(target.peer, start)
        addresses, failures = await self._resolved(target)
        now = self._env.clock.now()
        given = [one for one in addresses if addresses[one]]
        told = [one for one in addresses if not addresses[one]]
        good, left = choose(given, self.history, self._config, now, insist=True)
        more, also = choose(told, self.history, self._config, now, insist=False)
        room = self._config.addresses_max - len(good)
        race = _Race(DialPlan([*good, *more[:room]], self.history, self._config, start))
        try:
            async with anyio.create_task_group() as tasks:
                await self._steer(race, target.peer, tasks)
                tasks.cancel_scope.cancel()
        except BaseException:
            # Given up at the very moment it came through.
            if race.won is not None:
                await self._discard(race.won)
            raise
        if race.won is not None:
            return race.won
        failures += [*left, *also, *race.plan.failures]
        who = str(target.peer or target.addresses[0])
        failures = failures or [(who, "dial.no-address: no address is known")]
        raise Unreachable(f"{who} cannot be reached: {failures[-1][1]}", failures) from (
            race.errors[-1] if race.errors else None
        )

    async def _steer(self, race: _Race, peer: PeerId | None, tasks: TaskGroup) -> None:
        plan, clock = race.plan, self._env.clock
        while race.won is None:
            now = clock.now()
            for attempt in plan.due(now):
                tasks.start_soon(self._attempt, race, peer, attempt)
            if plan.over:
                return
            if plan.expired(now):
                plan.failures.append((str(peer or "?"), "dial.no-time: the dial took too long"))
                return
            race.changed = anyio.Event()
            with anyio.move_on_after(max(0.0, plan.deadline - now.monotonic)):
                await race.changed.wait()

    async def _attempt(self, race: _Race, peer: PeerId | None, attempt: Attempt) -> None:
        owner, clock = self._owner, self._env.clock
        address, start = attempt.address, clock.now()
        life = Lifecycle(owner.number(), str(address), inbound=False, peer=peer)
        owner.tell(life.to(Stage.CONNECTING, start))
        hold: ConnectionHold | None = None
        reason = "dial.superseded"
        try:
            hold = self._limits.connection(inbound=False)
            with anyio.move_on_after(attempt.seconds):
                upgraded, raw = await self._connect(address, peer, life, hold)
                if race.won is None:
                    race.won = Dialed(upgraded, raw, life, hold)
                    self.history.succeeded(address, clock.now().monotonic - start.monotonic, clock.now())
                    return
                await upgraded.muxed.aclose()
                return
            reason = f"dial.timeout: nothing within {attempt.seconds:.1f} s"
            race.plan.failed(address, reason, clock.now())
        except AirError as error:
            reason = error.code
            self._note(race, peer, address, error)
        except Exception as error:
            # Supervision: a transport of somebody else may raise anything, and must not end other dials.
            _LOG.exception("dial.failed: %s", address)
            reason = "dial.failed"
            race.plan.failed(address, _fault(address, error)[1], clock.now())
        finally:
            if race.won is None or race.won.life is not life:
                if hold is not None:
                    hold.release()
                owner.tell(*life.end(reason.partition(":")[0], clock.now(), lost=False))
            race.changed.set()

    async def _connect(
        self, address: Multiaddr, peer: PeerId | None, life: Lifecycle, hold: ConnectionHold
    ) -> tuple[Upgraded, RawConn]:
        transport = next(one for one in self._transports if one.handles(address))
        raw = await transport.dial(address)
        clock = self._env.clock
        self._owner.tell(life.to(Stage.HANDSHAKING, clock.now()))

        def admit(found: PeerId) -> None:
            self._gate.authenticated(found, raw.remote_address, clock.now(), inbound=False)
            hold.authenticated(found)

        return await self._upgrader.upgrade(raw, dialer=True, expected=peer, admit=admit), raw

    async def _discard(self, dialed: Dialed) -> None:
        """Nobody wants the connection any more."""
        try:
            with anyio.CancelScope(shield=True):
                await dialed.upgraded.muxed.aclose()
        finally:
            dialed.hold.release()
            self._owner.tell(*dialed.life.end("dial.cancelled", self._env.clock.now(), lost=False))

    def _note(self, race: _Race, peer: PeerId | None, address: Multiaddr, error: AirError) -> None:
        now = self._env.clock.now()
        race.errors.append(error)
        if isinstance(error, Unreachable):
            reasons = [reason for _, reason in error.attempts] or [str(error)]
            race.plan.failed(address, "; ".join(dict.fromkeys(reasons)), now)
            return
        # Our own refusals say nothing about the address.
        ours = isinstance(error, LimitReached | Denied) and error.code.startswith(("limit.", "gate."))
        race.plan.failed(address, f"{error.code}: {error}", now, rest=not ours)
        if peer is not None and error.code == "security.wrong-peer":
            self._owner.peerbook.forget_address(peer, address)

    async def _resolved(self, target: Target) -> tuple[dict[Multiaddr, bool], list[tuple[str, str]]]:
        """What can be dialled, and whether the caller named it; why not with the others."""
        answers: dict[Multiaddr, list[Multiaddr] | None] = dict.fromkeys(target.addresses)
        failures: list[tuple[str, str]] = []

        async def look_up(address: Multiaddr) -> None:
            said: list[Multiaddr] = []
            try:
                said = await self._resolver.resolve(address)
            except Unreachable as error:
                failures.extend(error.attempts)
            except Exception as error:
                # Supervision: a resolver of somebody else may raise anything, and must not end the node.
                _LOG.exception("dial.failed: %s", address)
                failures.append(_fault(address, error))
            answers[address] = said

        # Side by side: a peer that names many names which nobody answers for must not hold up the others.
        with anyio.move_on_after(self._config.total_seconds):
            async with anyio.create_task_group() as tasks:
                for address in answers:
                    tasks.start_soon(look_up, address)
        found: dict[Multiaddr, bool] = {}
        for address, answer in answers.items():
            given = address in target.given
            if answer is None:
                failures.append((str(address), "dial.no-time: the name was not found in time"))
                continue
            for one in answer:
                bare = one.bare
                if bare is None or (one.peer is not None and target.peer not in (None, one.peer)):
                    continue
                try:
                    if any(transport.handles(bare) for transport in self._transports):
                        self._gate.may_dial_address(bare, told=not given)
                        found[bare] = found.get(bare, False) or given
                    else:
                        failures.append((str(bare), "dial.no-transport: nothing here can dial it"))
                except Denied as error:
                    failures.append((str(bare), f"{error.code}: {error}"))
        return found, failures


def _fault(where: PeerId | Multiaddr, error: Exception) -> tuple[str, str]:
    return str(where), f"dial.failed: {type(error).__name__}: {error}"


def _copy(error: AirError) -> AirError:
    """One for each waiter: an exception that is raised twice collects the frames of both."""
    if isinstance(error, Unreachable):
        made: AirError = Unreachable(str(error), error.attempts)
    else:
        made = type(error)(str(error), code=error.code)
    made.__cause__ = error.__cause__
    return made
