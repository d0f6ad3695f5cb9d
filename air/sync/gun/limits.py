"""What a GUN message may hold, and names that no JavaScript peer survives. (core)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FORBIDDEN", "RELAY_KILLERS", "GunLimits"]

# Kept as one text: a list of names is read as a list, not as forty strings.
_STRING_METHODS: Final = """
    anchor at big blink bold charAt charCodeAt codePointAt concat endsWith fixed fontcolor fontsize
    includes indexOf italics lastIndexOf length link localeCompare match matchAll normalize padEnd padStart
    repeat replace replaceAll search slice small split startsWith strike sub substr substring sup toLowerCase
    toUpperCase trim trimEnd trimLeft trimRight trimStart
"""
_OBJECT_PROPERTIES: Final = """
    __proto__ constructor prototype hasOwnProperty isPrototypeOf propertyIsEnumerable toLocaleString
    toString valueOf __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__
"""

RELAY_KILLERS: Final = frozenset(name for name in _STRING_METHODS.split())
"""Souls that stop a stock relay (gun-wire F5). Air keeps them and never sends them to one."""

FORBIDDEN: Final = frozenset(name for name in _OBJECT_PROPERTIES.split())
"""Souls that mean a property of every JavaScript object: refused, since no gun.js peer survives them."""


@dataclass(frozen=True, slots=True)
class GunLimits:
    """What one message may hold. Lengths of names count Unicode characters, of values too."""

    messages_max: int = 20_000
    """Messages in one frame: ``limit.messages``."""
    cells_max: int = 20_000
    """Fields in one put: ``limit.cells``."""
    id_chars_max: int = 128
    """Length of an id: ``gun.bad-id``."""
    soul_chars_max: int = 8_192
    """Length of a soul: ``limit.soul``."""
    key_chars_max: int = 8_192
    """Length of a key: ``limit.key``. One long key stops every ack of a stock relay (gun-wire F14)."""
    value_chars_max: int = 16 * 1024 * 1024
    """Length of a text value: ``limit.value``."""
    extra_bytes_max: int = 4_096
    """Fields of a message that we do not know travel on up to this size, and are dropped beyond."""
    part_bytes: int = 24 * 1024
    """An answer is cut into parts of about this size; a stock relay damages frames from 32,768 on (F1)."""
    part_fields: int = 250
    """Fields in one part of an answer."""
