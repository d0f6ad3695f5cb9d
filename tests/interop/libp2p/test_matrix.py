"""Air and implementations we did not write understand each other, on every layer and in both directions."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.interop.conftest import need
from tests.interop.libp2p.matrix import MIB, Cell, cells, run_cell
from tests.interop.libp2p.peers import AIR, ALWAYS, FOREIGN, PEERS, ROOT

FEW = (("tcp", "noise", "yamux"), ("ws", "tls", "mplex"))
"""Stacks in which every layer is there once."""
WHOLE = os.environ.get("AIR_INTEROP", "")
"""Whether to run every cell with 64 MiB each way, which takes minutes: `make interop` does the same."""


def _all() -> Iterator[Cell]:
    for peer in FOREIGN:
        yield from cells(peer, AIR)
        yield from cells(AIR, peer)


def _foreign(cell: Cell) -> str:
    return cell.dialer if cell.listener == "air" else cell.listener


def _check(cell: Cell, bulk_bytes: int) -> None:
    outcome = run_cell(cell, bulk_bytes=bulk_bytes)
    assert outcome.fault is None, f"{cell}: {outcome.fault}\n{outcome.detail}"


@pytest.mark.node
@pytest.mark.parametrize(
    "cell",
    [
        cell
        for cell in _all()
        if (cell.transport, cell.security, cell.muxer) in FEW and _foreign(cell) in ALWAYS
    ],
    ids=str,
)
def test_every_layer_works_with_js_and_py_in_both_directions(cell: Cell) -> None:
    need(PEERS[_foreign(cell)].missing())
    _check(cell, 8 * MIB)


@pytest.mark.node
def test_streams_on_mplex_are_opened_as_slowly_as_a_usual_js_libp2p_demands() -> None:
    need(PEERS["js"].missing())
    layers = ["--security", "noise", "--muxer", "mplex"]
    command = [*PEERS["js"].command(), "listen", "--tcp-port", "0", "--strict", *layers]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = json.loads(process.stdout.readline())["addrs"][0]

        def echo(*options: str) -> int:
            dial = [*AIR.command(), "dial", address, *layers, "--ops", "echo", "--count", "12", *options]
            return subprocess.run(dial, cwd=ROOT, capture_output=True, timeout=60).returncode

        assert echo("--bytes", "1000") == 0
        assert echo("--bytes", "1000", "--mplex-opens", "12") != 0, (
            "the limit is no more: is the pace needed?"
        )
        process.stdin.close()


@pytest.mark.skipif(not WHOLE, reason="the whole matrix takes minutes: make interop")
@pytest.mark.parametrize("cell", list(_all()), ids=str)
def test_every_layer_works_with_every_peer_in_both_directions(cell: Cell) -> None:
    missing = PEERS[_foreign(cell)].missing()
    if missing is not None and _foreign(cell) in ALWAYS and WHOLE == "required":
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)
    _check(cell, 64 * MIB)
