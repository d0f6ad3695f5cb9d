"""Whom to talk to: five questions on the way to a session, cheapest first. (core)

A refusal says nothing to the peer; its connection is just closed (as go-libp2p does).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from air.base.address import Multiaddr
from air.base.clock import Now
from air.base.errors import ConfigError, Denied
from air.base.peer_id import PeerId
from air.swarm.rank import Reach, host_of, reach_of
from air.swarm.score import Scores

__all__ = ["Gate", "GateConfig"]


@dataclass(frozen=True, slots=True)
class GateConfig:
    peers_allowed: frozenset[str] | None = None
    """Peers that may be talked to; None is all."""
    peers_denied: frozenset[str] = frozenset()
    """Peers that may not, even when allowed."""
    networks_denied: tuple[str, ...] = ()
    """IP networks such as ``10.0.0.0/8`` that connections may neither come from nor go to."""
    dial_private: bool = True
    """Whether to dial loopback and private addresses that other peers told us. The user may name any."""
    ask: Callable[[PeerId, Multiaddr | None, bool], bool] | None = None
    """Last word: called with peer, remote address, and whether it dialled us; False refuses."""


class Gate:
    """Raises Denied with a code ``gate.…`` where the answer is no."""

    def __init__(self, config: GateConfig, own: PeerId, scores: Scores) -> None:
        self._config, self._own, self._scores = config, own, scores
        try:
            self._networks = [ipaddress.ip_network(text) for text in config.networks_denied]
        except ValueError as error:
            raise ConfigError(f"networks_denied: {error}", code="config.bad-network") from None

    def may_dial(self, peer: PeerId, now: Now) -> None:
        """Before anything is sent to a peer. Codes ``gate.self``, ``gate.peer``, ``gate.banned``."""
        if peer == self._own:
            raise Denied("that is this peer itself", code="gate.self")
        self._peer(peer, now)

    def may_dial_address(self, address: Multiaddr, *, told: bool) -> None:
        """Before an address is dialled; ``told``: by another peer. Codes ``gate.network``, ``gate.reach``."""
        reach = reach_of(address)
        if reach is Reach.NOWHERE:
            raise Denied(f"{address} is no place to dial", code="gate.reach")
        if told and reach is not Reach.PUBLIC and not self._config.dial_private:
            raise Denied(f"{address} is private, and another peer named it", code="gate.reach")
        self._network(address)

    def may_accept(self, remote: Multiaddr) -> None:
        """When a connection comes in and only its address is known. Code ``gate.network``."""
        self._network(remote)

    def authenticated(self, peer: PeerId, remote: Multiaddr | None, now: Now, *, inbound: bool) -> None:
        """When the peer has proved its name, before a muxer. Codes as ``may_dial``, and ``gate.asked``."""
        if peer == self._own:
            raise Denied("this peer has connected to itself", code="gate.self")
        self._peer(peer, now)
        ask = self._config.ask
        if ask is not None and not ask(peer, remote, inbound):
            raise Denied(f"{peer} is not welcome", code="gate.asked")

    def _peer(self, peer: PeerId, now: Now) -> None:
        allowed = self._config.peers_allowed
        if peer in self._config.peers_denied or (allowed is not None and peer not in allowed):
            raise Denied(f"{peer} is not welcome", code="gate.peer")
        wait = self._scores.banned_seconds(peer, now)
        if wait > 0:
            raise Denied(f"{peer} has broken rules and may come back in {wait:.0f} s", code="gate.banned")

    def _network(self, address: Multiaddr) -> None:
        if not self._networks:
            return
        try:
            ip = ipaddress.ip_address(host_of(address).partition("%")[0])
        except ValueError:
            return
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip in network for network in self._networks):
            raise Denied(f"{ip} is in a network that is not welcome", code="gate.network")
