"""Parts that other packages bring: found by entry point, made by name. (shell)

A package that offers a transport puts into its ``pyproject.toml``::

    [project.entry-points."air.transports"]
    carrier-pigeon = "pigeons.air:Pigeon"

and ``plugins.load("transports", "carrier-pigeon")`` gives what stands there, usually a class. Nothing is
imported before that.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from air.base.errors import ConfigError

__all__ = ["KINDS", "find", "load"]

KINDS: Final = ("transports", "security", "muxers", "stores", "services")
"""What can be extended; the group of the entry points is ``air.`` and one of these words."""


def find(kind: str) -> Mapping[str, EntryPoint]:
    """Everything installed of one kind, by name. Raises ConfigError ``plugin.no-kind``."""
    if kind not in KINDS:
        raise ConfigError(f"there are no plug-ins of kind {kind!r}", code="plugin.no-kind")
    return {entry.name: entry for entry in sorted(entry_points(group=f"air.{kind}"))}


def load(kind: str, name: str) -> Any:
    """The object behind a name. Raises ConfigError ``plugin.unknown`` or ``plugin.broken``."""
    found = find(kind)
    entry = found.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, found, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no package brings the {kind} {name!r}{hint}", code="plugin.unknown")
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        # Broad on purpose: an import runs whatever its author wrote.
        raise ConfigError(f"{kind} {name}: {error}", code="plugin.broken") from error
