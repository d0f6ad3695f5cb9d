"""Which value under a key is valid, and which of several is the best. (core)

Source: libp2p kad-dht. A key is ``/namespace/rest``; what may stand under it is the namespace's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from air.base.errors import AirError, ConfigError, Misuse, Violation
from air.base.peer_id import PeerId
from air.base.public_key import PublicKey

__all__ = ["Anything", "Namespaces", "PublicKeys", "Validator"]


class Validator(Protocol):
    """The rules of one namespace."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Raises Violation ``kad.bad-value`` when ``value`` may not stand under ``key``."""
        ...

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The index of the best of ``values``, which are one or more and all valid.

        The value chosen must not depend on the order they come in, or replicas never agree.
        """
        ...


class PublicKeys:
    """The namespace ``pk``: ``/pk/`` and a peer id's multihash hold the key that the id is made of.

    A key has one spelling (see :class:`PublicKey`), so no two valid values differ.
    """

    __slots__ = ()

    def validate(self, key: bytes, value: bytes) -> None:
        try:
            owner = PeerId.of(PublicKey.from_bytes(value))
        except Violation as error:
            raise Violation(f"no public key: {error.message}", code="kad.bad-value") from None
        if owner.multihash != _split(key)[1]:
            raise Violation("the public key of another peer", code="kad.bad-value")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return 0


class Anything:
    """Takes any value; the greatest bytes are the best. For tests and private networks."""

    __slots__ = ()

    def validate(self, key: bytes, value: bytes) -> None:
        pass

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return max(range(len(values)), key=values.__getitem__)


class Namespaces:
    """The namespaces that a peer knows. A value under any other is neither taken nor told."""

    __slots__ = ("_validators",)

    def __init__(self, validators: Mapping[str, Validator]) -> None:
        """Raises ConfigError ``config.invalid`` for a name that no key can have."""
        for name in validators:
            if not name or not name.isascii() or "/" in name:
                raise ConfigError(f"{name!r} cannot be the namespace of a key")
        self._validators = {name.encode(): validator for name, validator in validators.items()}

    def of(self, key: bytes) -> Validator:
        """Who decides about ``key``. Raises Violation ``kad.bad-key`` or ``kad.no-validator``."""
        name, _ = _split(key)
        validator = self._validators.get(name)
        if validator is None:
            raise Violation(f"no rules for the namespace {name[:64].decode()!r}", code="kad.no-validator")
        return validator

    def validate(self, key: bytes, value: bytes) -> None:
        """Raises Violation ``kad.bad-value``, or what :meth:`of` raises."""
        validator = self.of(key)
        try:
            validator.validate(key, value)
        except AirError:
            raise
        except Exception as error:
            # It reads what strangers wrote. What it breaks on must not end a search, or the upkeep.
            reason = f"{type(validator).__name__} broke on it: {type(error).__name__}: {error}"
            raise Violation(reason, code="kad.bad-value") from error

    def best(self, key: bytes, values: Sequence[bytes]) -> int:
        """The index of the best of ``values``, all of them valid. Raises what :meth:`of` raises."""
        index = self.of(key).select(key, values) if values else -1
        if not 0 <= index < len(values):
            raise Misuse(f"choice {index} of {len(values)} values", code="kad.bad-choice")
        return index


def _split(key: bytes) -> tuple[bytes, bytes]:
    empty, *parts = key.split(b"/", 2)
    if empty or len(parts) != 2 or not all(parts) or not parts[0].isascii():
        raise Violation(f"{key[:64]!r} is not /namespace/rest", code="kad.bad-key")
    return parts[0], parts[1]
