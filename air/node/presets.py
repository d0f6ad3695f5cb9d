"""Nodes for people who want one line. Each is what a user could write himself. (root)"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from air.base.errors import ConfigError
from air.base.keys import Identity
from air.mux.api import Muxer
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.protocols import Identify, Ping
from air.security.api import Security
from air.security.noise import Noise
from air.swarm.api import Service
from air.transport.raw import Transport
from air.transport.tcp_transport import Tcp
from air.transport.ws_transport import WebSocket

__all__ = ["MUXERS", "SECURITY", "available", "client", "muxer", "peer", "security", "services", "transports"]

SECURITY = ("noise", "tls", "plaintext")
MUXERS = ("yamux", "mplex")


def transports() -> list[Transport]:
    """TCP and WebSocket."""
    return [Tcp(), WebSocket()]


def services() -> list[Service]:
    """What every peer is expected to speak."""
    return [Ping(), Identify()]


def security(name: str) -> Security:
    """One of SECURITY by its name. Raises ConfigError ``config.unknown-part``."""
    if name == "noise":
        return Noise()
    if name == "tls":
        from air.security.tls import Tls

        return Tls()
    if name == "plaintext":
        from air.security.plaintext import Plaintext

        return Plaintext()
    raise ConfigError(f"there is no security called {name!r}", code="config.unknown-part")


def available(names: Iterable[str] = SECURITY) -> tuple[str, ...]:
    """Those of ``names`` whose library is installed."""
    found = []
    for name in names:
        try:
            security(name)
        except ImportError:
            continue
        found.append(name)
    return tuple(found)


def muxer(name: str) -> Muxer:
    """One of MUXERS by its name. Raises ConfigError ``config.unknown-part``."""
    if name == "yamux":
        return Yamux()
    if name == "mplex":
        from air.mux.mplex.conn import Mplex

        return Mplex()
    raise ConfigError(f"there is no muxer called {name!r}", code="config.unknown-part")


def peer(
    key_file: str | os.PathLike[str],
    listen: Iterable[str] = ("/ip4/0.0.0.0/tcp/8764",),
    *more: Service,
) -> Node:
    """A peer that others can dial, with the identity kept in ``key_file`` and ``more`` services."""
    return Node(
        identity=Identity.load_or_create(key_file),
        transports=transports(),
        security=[Noise()],
        muxers=[Yamux()],
        services=[*services(), *more],
        listen=listen,
    )


def client(*more: Service, transports: Sequence[Transport] | None = None) -> Node:
    """A peer that only dials, with an identity for this run."""
    return Node(
        identity=Identity.generate(),
        transports=[Tcp(), WebSocket()] if transports is None else transports,
        security=[Noise()],
        muxers=[Yamux()],
        services=[*services(), *more],
    )
