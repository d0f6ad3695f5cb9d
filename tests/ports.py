"""Ports of loopback that a test may name before anybody listens on them."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

__all__ = ["kept_port"]

_LOWEST = 10_000


def _candidates() -> Iterator[int]:
    # What the kernel gives away itself lies above. A port from there is lost while nobody listens on it: to
    # any outgoing connection, and to a dialler of that very port, which then connects to itself.
    try:
        above = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        above = 32_768
    span = max(above - _LOWEST, 1_000)
    # Suites that run side by side begin at different places.
    start = os.getpid() * 613
    return (_LOWEST + (start + number) % span for number in itertools.count())


_ports = _candidates()


def kept_port() -> int:
    """A port that nobody uses now and that the kernel gives to nobody by itself; a new one each time."""
    for port in _ports:
        with socket.socket() as probe:
            # As servers do: a port whose last connections linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("unreachable: the candidates never end")
