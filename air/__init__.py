"""Air: a peer-to-peer graph database that speaks GUN."""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from air import sync
    from air.base.errors import AirError
    from air.graph.api import Change, Entry, Node, Receipt
    from air.graph.chain import Graph, Ref
    from air.model.value import Link
    from air.sync.opening import ConnectConfig, OpenConfig, connect, open

__all__ = [
    "AirError",
    "Change",
    "ConnectConfig",
    "Entry",
    "Graph",
    "Link",
    "Node",
    "OpenConfig",
    "Receipt",
    "Ref",
    "connect",
    "open",
    "sync",
]

__version__ = "0.1.0"

_PLACES = {
    "AirError": "air.base.errors",
    "Change": "air.graph.api",
    "ConnectConfig": "air.sync.opening",
    "Entry": "air.graph.api",
    "Graph": "air.graph.chain",
    "Link": "air.model.value",
    "Node": "air.graph.api",
    "OpenConfig": "air.sync.opening",
    "Receipt": "air.graph.api",
    "Ref": "air.graph.chain",
    "connect": "air.sync.opening",
    "open": "air.sync.opening",
}


def __getattr__(name: str) -> "Any":
    # The command line starts faster without the graph, and a program that uses one part pays for that part.
    if name == "sync":
        return import_module("air.sync")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'air' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
