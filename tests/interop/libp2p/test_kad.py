"""Air and implementations we did not write search one DHT, keep each other's values and find each other."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.interop.conftest import need
from tests.interop.libp2p.peers import AIR, ALWAYS, FOREIGN, ROOT, Peer

pytestmark = pytest.mark.node

LAYERS: Final = ("--security", "noise", "--muxer", "yamux")
SECONDS: Final = 60.0
ASKED: Final = ("--key", "/air/greeting", "--value", "hello")


@pytest.fixture(params=FOREIGN, ids=lambda peer: peer.name)
def foreign(request: pytest.FixtureRequest) -> Peer:
    peer: Peer = request.param
    missing = peer.missing()
    if missing is not None and peer.name not in ALWAYS and os.environ.get("AIR_INTEROP") != "required":
        pytest.skip(missing)
    need(missing)
    return peer


@contextmanager
def server(peer: Peer, *options: str) -> Iterator[tuple[str, str]]:
    """A server of the DHT in a process of its own: its address and its peer id."""
    command = [*peer.command(), "listen", "--tcp-port", "0", "--dht", "server", *LAYERS, *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            told = json.loads(process.stdout.readline())
            yield told["addrs"][0], told["peer"]
            process.stdin.close()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def asks(peer: Peer, address: str, ops: Sequence[str], *options: str) -> dict[str, dict[str, Any]]:
    """Dial and run operations; what each of them found."""
    layers = () if peer is AIR else LAYERS
    command = [*peer.command(), "dial", address, "--ops", ",".join(ops), *layers, *ASKED, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * SECONDS)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    results = {event["op"]: event for event in events if event["event"] == "result"}
    for op in ops:
        assert op in results, f"{op}: {done.stdout}{done.stderr[-4000:]}"
        assert results[op]["ok"], f"{results[op]}\n{done.stderr[-4000:]}"
    return results


def test_a_server_of_air_serves_others(foreign: Peer) -> None:
    with server(AIR) as (address, peer):
        asks(foreign, address, ["kad-put"])
        found = asks(foreign, address, ["kad-get", "provide", "find-peer"])
        assert found["kad-get"]["value"] == "hello"
        assert found["find-peer"]["peer"] == peer
        # Who only dialled and left is still found as a provider, by others as by Air.
        mine = asks(AIR, address, ["kad-get", "find-providers"])
        assert mine["kad-get"]["value"] == "hello"
        assert len(mine["find-providers"]["providers"]) == 1
        theirs = asks(foreign, address, ["find-providers"])
        assert theirs["find-providers"]["providers"] == mine["find-providers"]["providers"]


def test_air_uses_the_servers_of_others(foreign: Peer) -> None:
    with server(foreign) as (address, peer):
        asks(AIR, address, ["kad-put", "provide"])
        found = asks(AIR, address, ["kad-get", "find-providers", "find-peer"])
        assert found["kad-get"]["value"] == "hello"
        assert len(found["find-providers"]["providers"]) == 1
        assert found["find-peer"]["peer"] == peer
        assert found["find-peer"]["addrs"]


def test_a_search_leads_through_servers_of_both(foreign: Peer) -> None:
    with (
        server(AIR) as (first, one),
        server(foreign, "--bootstrap", first) as (second, other),
        server(AIR, "--bootstrap", second) as (third, last),
    ):
        # Each knows its neighbour; the ends of the row find each other through the middle.
        assert asks(AIR, first, ["find-peer"], "--target", last)["find-peer"]["addrs"]
        assert asks(AIR, third, ["find-peer"], "--target", one)["find-peer"]["addrs"]
        assert asks(AIR, third, ["find-peer"], "--target", other)["find-peer"]["addrs"]
        asks(AIR, first, ["kad-put"])
        assert asks(AIR, third, ["kad-get"])["kad-get"]["value"] == "hello"
        assert asks(foreign, first, ["kad-get"])["kad-get"]["value"] == "hello"
