"""Who is connected, who wants what, and what was said already. (core)

The mesh knows links and ids, not data: message ids seen before, the way an answer takes back to its
asker, and which links asked for which fields. Every table has a ceiling.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, TypeAlias, TypeVar

from air.base.errors import LimitReached
from air.model.cell import Key, Soul

__all__ = ["PREFIX_MAX", "Fading", "Interest", "LinkId", "LinkState", "Role"]

LinkId: TypeAlias = int
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Role(Enum):
    """Which end of a link we are, which decides what the other end is told."""

    INBOUND = "inbound"
    """They dialled us: they are told what they asked for."""
    OUTBOUND = "outbound"
    """We dialled them: they are told every write, and asked for what we are asked for."""
    PEER = "peer"
    """Both ends hold everything: each is told every write once it is durable, and repairs what it missed."""
    LOCAL = "local"
    """A watcher in this program."""


@dataclass(slots=True)
class LinkState:
    """What the mesh keeps of one link."""

    id: LinkId
    role: Role
    name: str = ""
    """Stable name of the peer behind an outbound link: what is owed to it outlives the link."""
    peer: str = ""
    """The peer id it told, or ""."""
    wants: dict[Soul, set[Key] | None] = field(default_factory=dict)
    """What it asked for: a set of keys, or None for the whole node."""
    wants_count: int = 0
    prefixes: set[str] = field(default_factory=set)
    """Beginnings of souls: it wants every node whose soul starts with one of them."""
    relays: bool = False
    """A peer that asks relays for what it is asked for."""
    asked: set[Soul] = field(default_factory=set)
    """What it was asked for because it may have written before it came."""
    greeted: bool = False
    ephemeral: float = 0.0
    """Messages that nobody keeps which it may send now; grows with time up to a rate."""
    ephemeral_at: float = float("-inf")


class Fading(Generic[K, V]):
    """A map that forgets: an entry lives between one and two periods after it was last set.

    Two generations are kept and the older one is dropped whole, so no entry needs a timer.
    ``entries_max`` bounds each generation; a flood shortens the memory instead of growing it.
    """

    __slots__ = ("_entries_max", "_old", "_period", "_turned", "_young")

    def __init__(self, period_seconds: float, entries_max: int) -> None:
        self._period, self._entries_max = period_seconds, entries_max
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._turned = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        value = self._young.get(key)
        return value if value is not None else self._old.get(key)

    def set(self, key: K, value: V, monotonic: float) -> None:
        if len(self._young) >= self._entries_max or monotonic - self._turned >= self._period:
            self._turn(monotonic)
        self._young[key] = value

    def tick(self, monotonic: float) -> None:
        """Forget what is old although nothing new comes: a flood must not stay in memory when it is over."""
        if self and monotonic - self._turned >= self._period:
            self._turn(monotonic)

    def _turn(self, monotonic: float) -> None:
        periods = (monotonic - self._turned) // self._period
        # Two periods without a word: the young ones are old too.
        self._old = self._young if periods < 2 else {}
        self._young = {}
        self._turned += periods * self._period

    def pop(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)


class Interest:
    """Which links want which fields. Asking is subscribing, and lasts as long as the link."""

    __slots__ = ("_by_prefix", "_by_soul", "_lengths", "_wants_max")

    def __init__(self, wants_max: int) -> None:
        self._by_soul: dict[Soul, dict[LinkId, LinkState]] = {}
        self._by_prefix: dict[str, dict[LinkId, LinkState]] = {}
        self._lengths: tuple[int, ...] = ()
        """Lengths of the prefixes that somebody wants, so that a soul is cut to these and looked up."""
        self._wants_max = wants_max

    def __len__(self) -> int:
        return len(self._by_soul)

    def add(self, link: LinkState, soul: Soul, key: Key | None) -> bool:
        """Note that ``link`` wants a field, or with key None the whole node. True when that is new.

        Raises LimitReached ``limit.subscriptions`` beyond the ceiling for one link.
        """
        keys = link.wants.get(soul, _ABSENT)
        if keys is None or (key is not None and keys is not _ABSENT and key in keys):
            return False
        self._check(link)
        if keys is _ABSENT:
            link.wants[soul] = None if key is None else {key}
            self._by_soul.setdefault(soul, {})[link.id] = link
            link.wants_count += 1
        elif key is None:
            link.wants[soul] = None
            link.wants_count -= len(keys) - 1
        else:
            keys.add(key)
            link.wants_count += 1
        return True

    def add_prefix(self, link: LinkState, prefix: str) -> bool:
        """Note that ``link`` wants every node whose soul starts with ``prefix``. True when that is new.

        Raises LimitReached as :meth:`add`, or ``limit.prefixes`` beyond PREFIX_MAX characters.
        """
        if prefix in link.prefixes:
            return False
        if len(prefix) > PREFIX_MAX:
            raise LimitReached(f"a prefix longer than {PREFIX_MAX} characters", code="limit.prefixes")
        self._check(link)
        link.prefixes.add(prefix)
        link.wants_count += 1
        self._by_prefix.setdefault(prefix, {})[link.id] = link
        self._lengths = tuple(sorted({*self._lengths, len(prefix)}))
        return True

    def drop_prefix(self, link: LinkState, prefix: str) -> None:
        """Forget that ``link`` wants ``prefix``."""
        if prefix not in link.prefixes:
            return
        link.prefixes.remove(prefix)
        link.wants_count -= 1
        links = self._by_prefix[prefix]
        del links[link.id]
        if not links:
            del self._by_prefix[prefix]
            self._lengths = tuple(sorted({len(one) for one in self._by_prefix}))

    def drop_key(self, link: LinkState, soul: Soul, key: Key) -> None:
        """Forget that ``link`` wants one field."""
        keys = link.wants.get(soul)
        if keys is None or key not in keys:
            return
        if len(keys) == 1:
            self.drop(link, soul)
            return
        keys.remove(key)
        link.wants_count -= 1

    def _check(self, link: LinkState) -> None:
        if link.wants_count >= self._wants_max:
            raise LimitReached(
                f"more than {self._wants_max} subscriptions on one link", code="limit.subscriptions"
            )

    def drop(self, link: LinkState, soul: Soul | None = None) -> None:
        """Forget what ``link`` wants of one soul, or of all."""
        for prefix in list(link.prefixes) if soul is None else ():
            self.drop_prefix(link, prefix)
        for name in [soul] if soul is not None else list(link.wants):
            keys = link.wants.pop(name, _ABSENT)
            if keys is _ABSENT:
                continue
            link.wants_count -= 1 if keys is None else len(keys)
            links = self._by_soul[name]
            del links[link.id]
            if not links:
                del self._by_soul[name]

    def of(self, soul: Soul) -> dict[LinkId, LinkState] | None:
        """The links that want something of ``soul``."""
        return self._by_soul.get(soul)

    def of_prefixes(self, soul: Soul) -> Iterator[LinkState]:
        """The links that want every node of which ``soul`` is one. A link may come more than once."""
        for length in self._lengths:
            if length > len(soul):
                break
            links = self._by_prefix.get(soul[:length])
            if links is not None:
                yield from links.values()

    @property
    def has_prefixes(self) -> bool:
        return bool(self._lengths)

    def souls(self) -> Iterator[Soul]:
        """Everything anybody wants, the newest wish last."""
        return iter(self._by_soul)

    def newest(self, count: int) -> Iterator[Soul]:
        """The ``count`` souls that were first asked for most recently."""
        for soul, _ in zip(reversed(self._by_soul), range(count), strict=False):
            yield soul


PREFIX_MAX: Final = 256
"""Characters of a prefix that a link may want. Each length in use costs a look-up per change."""

_ABSENT: Final[set[Key]] = set()
