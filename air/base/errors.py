"""Every error Air raises, with a stable code a program can act on. (core)

A code is text such as ``gun.bad-json``: the place, a dot, the reason. Codes never change their
meaning; peers, logs, metrics and callers all see the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AirError",
    "Closed",
    "ConfigError",
    "Corrupt",
    "Denied",
    "Full",
    "LimitReached",
    "Misuse",
    "Reset",
    "StoreError",
    "SyncFailed",
    "Unreachable",
    "Violation",
]


class AirError(Exception):
    """The root of the tree. ``code`` is stable, the text is for people."""

    code = "air.error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self)


class ConfigError(AirError):
    """A setting is unknown or has a value that cannot work."""

    code = "config.invalid"


class Misuse(AirError):
    """Our caller broke a documented rule."""

    code = "air.misuse"


class Violation(AirError):
    """The peer broke the protocol. ``code`` is what the peer is told.

    ``fatal`` is true when nothing sensible can follow on the connection, so it is closed after the code.
    """

    code = "protocol.violation"

    def __init__(self, message: str = "", *, code: str | None = None, fatal: bool = False) -> None:
        super().__init__(message, code=code)
        self.fatal = fatal


class LimitReached(Violation):
    """A named ceiling was hit; the name is the last part of the code."""

    code = "limit.reached"


class Unreachable(AirError):
    """No address of a peer answered. ``attempts`` holds (address, reason) in the order tried."""

    code = "dial.unreachable"

    def __init__(self, message: str, attempts: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.attempts = tuple(attempts)


class Closed(AirError):
    """The stream or session has ended in good order."""

    code = "link.closed"


class Reset(Closed):
    """The stream or session was cut."""

    code = "link.reset"


class Denied(AirError):
    """A policy said no."""

    code = "access.denied"


class StoreError(AirError):
    """The store could not do its work."""

    code = "store.error"


class Corrupt(StoreError):
    """A record failed its checksum. It is never served as data."""

    code = "store.corrupt"


class Full(StoreError):
    """There is no space to write to. Reading goes on."""

    code = "store.full"


class SyncFailed(StoreError):
    """The disk refused to make a write durable; what was written since the last commit is unknown."""

    code = "store.sync-failed"
