"""The unit of everything: one field of one node, with its value and state. (core)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from air.model.value import Value

__all__ = ["Cell", "Fields", "Key", "Soul", "State"]

Soul: TypeAlias = str
"""Name of a node."""
Key: TypeAlias = str
"""Name of a field."""
State: TypeAlias = int | float
"""When a field was written: Unix time in ms with an optional fraction, a double spelled as in ``value``."""
Fields: TypeAlias = Mapping[Key, tuple[Value, State]]
"""Some fields of one node."""


class Cell(NamedTuple):
    """One field of one node."""

    soul: Soul
    key: Key
    value: Value
    state: State
