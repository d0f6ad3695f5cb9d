"""The plan of one dial: which address when, how many at a time, and when to give up. (core)

Attempts begin one after another, a moment apart, and run side by side; the first that comes through wins
("happy eyeballs", RFC 8305). A failure lets the next begin at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from air.base.address import Multiaddr
from air.base.clock import Now
from air.swarm.history import DialHistory, HistoryConfig
from air.swarm.rank import interleave, is_relayed

__all__ = ["Attempt", "DialConfig", "DialPlan", "choose"]


@dataclass(frozen=True, slots=True)
class DialConfig:
    stagger_seconds: float = 0.25
    """Head start of an attempt before the next one (RFC 8305, 8: 250 ms)."""
    relay_seconds: float = 0.5
    """Head start of direct addresses before relayed ones (as go-libp2p has it)."""
    parallel_max: int = 8
    """Attempts of one dial at a time."""
    addresses_max: int = 25
    """Addresses tried in one dial."""
    total_seconds: float = 15.0
    """How long a dial may take, whatever the number of its addresses."""
    dials_max: int = 160
    """Dials of a node at a time; further ones wait (go-libp2p: 160 over file descriptors)."""
    history: HistoryConfig = field(default_factory=HistoryConfig)


class Attempt(NamedTuple):
    """Dial ``address`` now, and give up after ``seconds``."""

    address: Multiaddr
    seconds: float


def choose(
    addresses: Sequence[Multiaddr], history: DialHistory, config: DialConfig, now: Now, *, insist: bool
) -> tuple[list[Multiaddr], list[tuple[str, str]]]:
    """The addresses worth trying in the order of trying, and (address, reason) of the others.

    What worked before comes first, the most recent success in front. Addresses that failed lately rest,
    unless ``insist``.
    """
    ordered = interleave(list(dict.fromkeys(addresses)))
    # A stable sort: what never worked keeps its place behind what did.
    ordered.sort(key=lambda one: (is_relayed(one), -history.worked_at(one)))
    good: list[Multiaddr] = []
    left: list[tuple[str, str]] = []
    for address in ordered:
        rest = 0.0 if insist else history.resting_seconds(address, now)
        if rest > 0:
            left.append((str(address), f"dial.resting: failed lately, again in {rest:.1f} s"))
        elif len(good) == config.addresses_max:
            left.append((str(address), f"dial.too-many: beyond {config.addresses_max} addresses"))
        else:
            good.append(address)
    return good, left


class DialPlan:
    """One dial. ``due`` says what to begin; tell it how attempts end; ``over`` when nothing is left to do."""

    __slots__ = ("_config", "_ends", "_history", "_next_at", "_running", "_waiting", "failures")

    def __init__(
        self, addresses: Sequence[Multiaddr], history: DialHistory, config: DialConfig, now: Now
    ) -> None:
        self._config, self._history = config, history
        self._waiting = list(reversed(addresses))
        self._running: set[Multiaddr] = set()
        self._ends = now.monotonic + config.total_seconds
        self._next_at = now.monotonic
        self.failures: list[tuple[str, str]] = []
        """(address, reason) of attempts that failed, in the order of failing."""

    @property
    def over(self) -> bool:
        """Whether every address was tried and none is still being tried."""
        return not self._waiting and not self._running

    @property
    def deadline(self) -> float:
        """Monotonic time of the next call of ``due``: the next attempt, or the end of the dial."""
        if self._waiting and len(self._running) < self._config.parallel_max:
            return min(self._next_at, self._ends)
        return self._ends

    def due(self, now: Now) -> list[Attempt]:
        """The attempts to begin now. After ``total_seconds`` nothing more begins."""
        attempts: list[Attempt] = []
        if now.monotonic >= self._ends:
            self.failures += [(str(one), "dial.no-time: the dial took too long") for one in self._waiting]
            self._waiting.clear()
        while (
            self._waiting
            and len(self._running) < self._config.parallel_max
            and (now.monotonic >= self._next_at or not self._running)
        ):
            address = self._waiting.pop()
            self._running.add(address)
            wait = self._config.stagger_seconds
            if self._waiting and is_relayed(self._waiting[-1]) and not is_relayed(address):
                wait = self._config.relay_seconds
            self._next_at = now.monotonic + wait
            seconds = min(self._history.patience(address), max(self._ends - now.monotonic, 0.0))
            attempts.append(Attempt(address, seconds))
        return attempts

    def expired(self, now: Now) -> bool:
        """Whether the whole dial has taken too long."""
        return now.monotonic >= self._ends

    def failed(self, address: Multiaddr, reason: str, now: Now, *, rest: bool = True) -> None:
        """An attempt came to nothing; the next may begin at once. ``rest``: the address is to blame."""
        self._running.discard(address)
        self.failures.append((str(address), reason))
        self._next_at = now.monotonic
        if rest:
            self._history.failed(address, now)
