"""What a field may hold, and its text exactly as JavaScript would write it. (core)

Replicas agree only if all of them order values alike, and GUN orders them by their JSON text as
JavaScript prints and compares it (gun-wire section 4). So numbers are kept as JavaScript keeps them:
a double, shown here as ``int`` when it is whole and exact, and as ``float`` otherwise.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, TypeAlias

import orjson

__all__ = [
    "SAFE_INTEGER",
    "Link",
    "Value",
    "canonical",
    "canonical_number",
    "number_text",
    "text_json",
    "unit_bytes",
    "units_from_bytes",
    "value_bytes",
    "value_text",
]

SAFE_INTEGER: Final = 2**53
"""Whole numbers up to here are exact as doubles and kept as ``int``."""


class Link:
    """A pointer to another node. On the wire: ``{"#": soul}``."""

    __slots__ = ("soul",)

    def __init__(self, soul: str) -> None:
        self.soul = soul

    def __eq__(self, other: object) -> bool:
        return type(other) is Link and other.soul == self.soul

    def __hash__(self) -> int:
        return hash((Link, self.soul))

    def __repr__(self) -> str:
        return f"Link({self.soul!r})"


Value: TypeAlias = bool | int | float | str | Link | None


def canonical_number(number: int | float) -> int | float | None:
    """The one Python spelling of a double: ``int`` when whole and exact, else ``float``.

    Returns None for what JSON cannot carry: infinities and NaN, and integers beyond every double.
    """
    if isinstance(number, int):
        if -SAFE_INTEGER <= number <= SAFE_INTEGER:
            return number
        try:
            number = float(number)
        except OverflowError:
            return None
    if number.is_integer() and -SAFE_INTEGER <= number <= SAFE_INTEGER:
        return int(number)  # minus zero too: JavaScript prints it as 0
    return number if math.isfinite(number) else None


def canonical(raw: object) -> tuple[Value] | None:
    """Turn parsed JSON into a value: a 1-tuple holding it, or None when a node may not hold it.

    Valid are null, booleans, finite numbers, text, and ``{"#": soul}`` with exactly that one field
    and a soul that is non-empty text (gun-wire section 3).
    """
    kind = type(raw)
    if kind is str or raw is None or kind is bool:
        return (raw,)  # type: ignore[return-value]
    if kind is int or kind is float:
        number = canonical_number(raw)  # type: ignore[arg-type]
        return None if number is None else (number,)
    if kind is dict and len(raw) == 1:  # type: ignore[arg-type]
        soul = raw.get("#")  # type: ignore[attr-defined]
        if type(soul) is str and soul:
            return (Link(soul),)
    if kind is Link:
        return (raw,)  # type: ignore[return-value]
    return None


def number_text(number: int | float) -> str:
    """A number as ECMAScript's Number::toString writes it.

    Plain digits for 1e-6 <= abs < 1e21, else an exponent with its sign. ``number`` must be finite.
    """
    if type(number) is int:
        if -SAFE_INTEGER <= number <= SAFE_INTEGER:
            return str(number)
        number = float(number)
    if number == 0:
        return "0"
    sign, shortest = ("-", repr(-number)) if number < 0 else ("", repr(number))
    mantissa, _, exponent = shortest.partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    # digits x 10**point is the number, with digits read as 0.DIGITS
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power > 0 else '-'}{abs(power)}"


def text_json(text: str) -> str:
    """Text in quotes with JavaScript's escapes; lone surrogates become ``\\udXXX``."""
    try:
        return orjson.dumps(text).decode()
    except (orjson.JSONEncodeError, UnicodeEncodeError):
        # orjson refuses half a surrogate pair. The standard library writes it raw, as it does all the rest.
        return _LONE.sub(lambda lone: f"\\u{ord(lone[0]):04x}", json.dumps(_paired(text), ensure_ascii=False))


_LONE: Final = re.compile("[\ud800-\udfff]")


def _paired(text: str) -> str:
    """Join surrogate pairs, so that what is left of surrogates stands alone."""
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


def value_text(value: Value) -> str:
    """The JSON text of a value as JavaScript writes it, without blanks."""
    if type(value) is str:
        return text_json(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) is Link:
        return f'{{"#":{text_json(value.soul)}}}'
    return number_text(value)  # type: ignore[arg-type]


def unit_bytes(text: str) -> bytes:
    """Bytes that compare as JavaScript compares text: by UTF-16 code unit.

    The coding is CESU-8: UTF-8 of each UTF-16 unit by itself. It equals UTF-8 for everything below
    U+10000, costs half of UTF-16 for Latin text, and keeps lone surrogates.
    """
    if text.isascii():
        return text.encode()
    units = text.encode("utf-16-be", "surrogatepass")
    if len(units) != 2 * len(text):  # something beyond U+FFFF takes two units
        text = "".join([chr(units[i] << 8 | units[i + 1]) for i in range(0, len(units), 2)])
    return text.encode("utf-8", "surrogatepass")


def units_from_bytes(data: bytes) -> str:
    """The text that :func:`unit_bytes` coded. Raises UnicodeDecodeError when ``data`` is not such bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _paired(data.decode("utf-8", "surrogatepass"))


def value_bytes(value: Value) -> bytes:
    """Canonical JSON in the coding of :func:`unit_bytes`: comparing these decides GUN's ties."""
    if type(value) is str and value.isascii():
        return orjson.dumps(value)
    return unit_bytes(value_text(value))
