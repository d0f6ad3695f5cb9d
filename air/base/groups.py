"""Errors out of the groups that tasks wrap them in. (core)"""

from __future__ import annotations

from typing import TypeVar, cast

__all__ = ["first", "lone"]

E = TypeVar("E", bound=BaseException)


def first(error: BaseExceptionGroup[E]) -> E:
    """The first error in a group of groups, for whoever has to tell one reason."""
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return cast(E, found)


def lone(error: BaseException) -> BaseException:
    """The only error in a group of groups; where there are several, the group that holds them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
