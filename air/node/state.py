"""What a running node waits for, in words: for looking into one that hangs. (root)"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import CoroutineType

from air.node.node import Node

__all__ = ["tell_state", "waiting_calls"]


def tell_state(node: Node) -> Iterator[str]:
    """Every session with its streams, then every suspended coroutine from its beginning to its wait."""
    for session in node.sessions:
        yield f"{session} {session.security} {session.muxer} ends {session.reason or 'never'}"
        yield from (f"  {line}" for line in session.tell_state())
    yield from waiting_calls()


def waiting_calls() -> Iterator[str]:
    """Works the same on asyncio and trio: it looks at coroutines, not at tasks."""
    chains: dict[int, list[str]] = {}
    awaited: set[int] = set()
    for one in gc.get_objects():
        if not isinstance(one, CoroutineType) or one.cr_running or one.cr_frame is None:
            continue
        words, at = [], one
        while isinstance(at, CoroutineType) and at.cr_frame is not None:
            words.append(f"{at.cr_code.co_qualname}:{at.cr_frame.f_lineno}")
            if at is not one:
                awaited.add(id(at))
            at = at.cr_await  # type: ignore[assignment]
        chains[id(one)] = words
    for key, words in chains.items():
        if key not in awaited:
            yield "waits: " + " > ".join(words)
