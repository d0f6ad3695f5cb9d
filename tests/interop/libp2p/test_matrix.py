"""Air and implementations we did not write understand each other, on every layer and in both directions."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.interop.libp2p.matrix import Cell, cells, run_cell
from tests.interop.libp2p.peers import AIR, FOREIGN, PEERS

ALWAYS = frozenset({"js", "py"})
"""Brought by `make interop`; the others are tested wherever they have been built."""


def _all() -> Iterator[Cell]:
    for peer in FOREIGN:
        yield from cells(peer, AIR)
        yield from cells(AIR, peer)


@pytest.mark.skipif("AIR_INTEROP" not in os.environ, reason="the matrix takes minutes: make interop")
@pytest.mark.parametrize("cell", list(_all()), ids=str)
def test_every_layer_works_with_every_peer_in_both_directions(cell: Cell) -> None:
    foreign = cell.dialer if cell.listener == "air" else cell.listener
    missing = PEERS[foreign].missing()
    if missing is not None and foreign in ALWAYS and os.environ.get("AIR_INTEROP") == "required":
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)
    outcome = run_cell(cell)
    assert outcome.fault is None, f"{cell}: {outcome.fault}\n{outcome.detail}"
