"""Many sockets that do nothing: they are cut at a deadline or held at little cost, and keep nobody out."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.hostile.attack import upgrade
from tests.hostile.daemons import Daemon, running
from tests.hostile.peer import Peer

pytestmark = pytest.mark.hostile

KIB = 1024
SPARE = 500
"""Descriptors that the test and the daemon need besides."""


@contextmanager
def descriptors(wanted: int) -> Iterator[int]:
    """How many sockets each side may open: as many as wanted, or what the hard limit leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else wanted + SPARE
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, wanted + SPARE)), hard))
    try:
        count = min(wanted, most - SPARE)
        if count < wanted // 10:
            pytest.skip(f"the hard limit leaves {count} sockets")
        yield count
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def dial(daemon: Daemon, count: int, stack: ExitStack) -> list[socket.socket]:
    socks = []
    for _ in range(count):
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=10))
        socks.append(sock)
    return socks


def connect_seconds(daemon: Daemon) -> float:
    began = time.monotonic()
    with Peer(daemon.port) as peer:
        assert peer.put("honest", {"k": began}, time.time() * 1000 - 1000, f"h{began}")["ok"]
    return time.monotonic() - began


@pytest.mark.parametrize(
    "start", [b"", b"GET /gun HTTP/1.1\r\nHost: h\r\nX: "], ids=["silent", "half a head"]
)
def test_thousands_of_unfinished_handshakes_are_cut_and_keep_nobody_out(tmp_path: Path, start: bytes) -> None:
    lines = ("[gun]", "handshake_seconds = 2.0", "links_max = 6_000")
    with descriptors(5_000) as count, running(tmp_path, *lines) as daemon, ExitStack() as stack:
        began = time.monotonic()
        slow = []
        waits = []
        for _ in range(10):
            some = dial(daemon, count // 10, stack)
            for sock in some:
                sock.sendall(start)
            slow += some
            waits.append(connect_seconds(daemon))
        opened = time.monotonic() - began
        ended = 0
        for sock in slow:
            sock.settimeout(max(0.01, began + opened + 6 - time.monotonic()))
            try:
                ended += sock.recv(100) == b""
            except ConnectionResetError:
                ended += 1
        took = time.monotonic() - began - opened
        print(f"{count} in {opened:.1f} s, ended {took:.1f} s later, honest {max(waits) * 1000:.0f} ms")
        assert ended == count
        assert max(waits) < 1.0
        crowded = daemon.metric("air_ws_refused", "ws.handshake-crowded")
        late = daemon.metric("air_ws_refused", "ws.handshake-slow")
        assert crowded + late >= count
        assert crowded > 0


def test_unfinished_handshakes_cannot_take_the_last_place(tmp_path: Path) -> None:
    """More of them than there are places for connections: the oldest give way."""
    lines = ("[gun]", "handshake_seconds = 300.0", "links_max = 1_100")
    with descriptors(3_000) as count, running(tmp_path, *lines) as daemon, ExitStack() as stack:
        dial(daemon, count, stack)
        assert connect_seconds(daemon) < 1.0
        assert daemon.metric("air_ws_refused", "ws.handshake-crowded") > 0


def test_thousands_of_idle_sockets_are_held(tmp_path: Path) -> None:
    wanted = int(os.environ.get("AIR_IDLE_SOCKETS", "3000"))
    with descriptors(wanted) as count, running(tmp_path) as daemon, ExitStack() as stack:
        connect_seconds(daemon)
        before = daemon.rss
        for _ in range(count):
            stack.enter_context(upgrade("127.0.0.1", daemon.port))
        each = (daemon.rss - before) / count
        seconds = connect_seconds(daemon)
        print(f"{count} idle sockets, {each / KIB:.1f} KiB each, an honest client in {seconds * 1000:.0f} ms")
        assert daemon.metric("air_links") == count
        assert each < 40 * KIB
        assert seconds < 1.0
