"""Base 58, and the other spellings that a peer id may come in. (core)

Source: multiformats multibase; base58btc is Bitcoin's alphabet.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from air.base.errors import Violation

__all__ = ["base58", "unbase", "unbase58"]

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_VALUES58: Final = {letter: value for value, letter in enumerate(_BASE58)}
_VALUES36: Final = {letter: value for value, letter in enumerate(_BASE36)}

_WORD: Final = 58**10
_PAIRS: Final = [a + b for a in _BASE58 for b in _BASE58]

TEXT_MAX: Final = 256
"""Longer texts are refused: reading a number in an odd base takes quadratic time."""


def base58(data: bytes) -> str:
    """``data`` in base58 as Bitcoin writes it (multibase ``base58btc`` without its prefix letter)."""
    number = int.from_bytes(data, "big")
    words = []
    while number:
        # Ten digits at a time fit into a machine word, which divides much faster than a long number.
        number, word = divmod(number, _WORD)
        pairs = []
        for _ in range(5):
            word, pair = divmod(word, 3364)
            pairs.append(_PAIRS[pair])
        words += pairs
    digits = "".join(reversed(words)).lstrip("1")
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def unbase58(text: str) -> bytes:
    """What :func:`base58` wrote. Raises Violation ``base.bad-text``."""
    return _number(text, _VALUES58, "1")


def unbase(text: str) -> bytes:
    """The bytes of a multibase text, the first letter of which names the base.

    Known are base 16, 32 and 36 in either case, 58, and 64 with either alphabet and with or without
    padding. Raises Violation ``base.bad-text``.
    """
    kind, body = text[:1], text[1:]
    if kind == "z":
        return unbase58(body)
    if kind in ("k", "K"):
        return _number(_one_case(body, kind), _VALUES36, "0")
    try:
        if kind in ("f", "F"):
            return base64.b16decode(_one_case(body, kind).upper())
        if kind in ("b", "B"):
            body = _one_case(body, kind).upper()
            data = base64.b32decode(body + "=" * (-len(body) % 8))
            written = base64.b32encode(data).decode().rstrip("=")
        elif kind in ("m", "M", "u", "U"):
            letters = b"-_" if kind in ("u", "U") else b"+/"
            padded = kind in ("M", "U")
            data = base64.b64decode(body + ("" if padded else "=" * (-len(body) % 4)), letters, validate=True)
            written = base64.b64encode(data, letters).decode()
            written = written if padded else written.rstrip("=")
        else:
            raise Violation("a base nobody knows", code="base.bad-text")
    except (binascii.Error, ValueError) as error:
        raise Violation(f"not in the base it names: {error}", code="base.bad-text") from None
    # Bits beyond the last whole byte must be zero, else one value would have several spellings.
    if written != body:
        raise Violation("not the shortest spelling in its base", code="base.bad-text")
    return data


def _one_case(body: str, kind: str) -> str:
    if body != (body.lower() if kind.islower() else body.upper()):
        raise Violation("letters of the other case than the base's", code="base.bad-text")
    return body.lower()


def _number(text: str, values: dict[str, int], zero: str) -> bytes:
    if len(text) > TEXT_MAX:
        raise Violation(f"more than {TEXT_MAX} characters", code="base.bad-text")
    number, base = 0, len(values)
    try:
        for letter in text:
            number = number * base + values[letter]
    except KeyError:
        raise Violation("a letter that is not of the alphabet", code="base.bad-text") from None
    zeros = len(text) - len(text.lstrip(zero))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
