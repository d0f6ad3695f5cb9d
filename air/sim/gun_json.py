"""GUN's JSON as a peer that is not Air reads and writes it. (core)

Written apart from ``sync/gun`` on purpose: both ends of a conversation must not share a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from air.model.cell import Cell
from air.model.value import Link

__all__ = ["dumps", "messages", "read_cells", "write_graph"]


def messages(frame: bytes) -> list[dict[str, Any]]:
    """The messages of a frame."""
    raw = orjson.loads(frame)
    return raw if type(raw) is list else [raw]


def dumps(message: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        # Half a surrogate pair, or a number that orjson does not write.
        return json.dumps(message, separators=(",", ":")).encode()


def read_cells(graph: Mapping[str, Any]) -> list[Cell]:
    """The cells of a ``put``."""
    cells = []
    for soul, node in graph.items():
        states = node["_"][">"]
        for key, raw in node.items():
            if key != "_":
                value = Link(raw["#"]) if type(raw) is dict else raw
                cells.append(Cell(soul, key, value, states[key]))
    return cells


def write_graph(cells: Sequence[Cell]) -> dict[str, Any]:
    """Cells as the ``put`` of a message."""
    graph: dict[str, Any] = {}
    for soul, key, value, state in cells:
        node = graph.setdefault(soul, {"_": {"#": soul, ">": {}}})
        node[key] = {"#": value.soul} if isinstance(value, Link) else value
        node["_"][">"][key] = state
    return graph
