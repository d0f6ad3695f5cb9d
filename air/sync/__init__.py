"""The bridge: one engine behind every wire. ``air.sync.open`` and ``air.sync.connect`` need no await."""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from air.sync.blocking import connect, open

__all__ = ["connect", "open"]


def __getattr__(name: str) -> "Any":
    # Every wire imports this package; the thread and its loop are for those who call these.
    if name in __all__:
        return getattr(import_module("air.sync.blocking"), name)
    raise AttributeError(f"module 'air.sync' has no attribute {name!r}")
