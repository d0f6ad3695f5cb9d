"""One GUN connection: its greeting, its control messages, its framing, its patience. (core)

Frames come in and messages for the engine come out; messages go in and frames come out. What concerns
only the two ends of a connection (``dam`` messages, malformed input) is answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from air.base.clock import Now
from air.base.errors import Violation
from air.base.metrics import Counters
from air.model.message import Ack, Answer, Ephemeral, Get, Message, Put
from air.store.memory import Memory, Node
from air.sync.gun.guard import GuardConfig, LinkGuard
from air.sync.gun.limits import GunLimits
from air.sync.gun.reader import Control, parse_frame, read_message
from air.sync.gun.writer import (
    encode_ack,
    encode_answer,
    encode_control,
    encode_ephemeral,
    encode_get,
    encode_put,
)

__all__ = ["KEEP_ALIVE", "Greeting", "GunCodec", "GunConfig", "GunLink"]

KEEP_ALIVE: Final = b"[]"
"""What a relay says when it has nothing to say."""

_REFUSED_CONTROLS: Final = frozenset(["mob", "opt", "service", "tag"])
"""Requests to go elsewhere, to dial somebody, or to run maintenance: no peer may order that."""


@dataclass(frozen=True, slots=True)
class GunConfig:
    limits: GunLimits = field(default_factory=GunLimits)
    keep_alive_seconds: float = 20.0
    """A quiet connection that we accepted hears ``[]`` this often, as from a stock relay."""
    frame_bytes: int = 24 * 1024
    """Messages that are waiting are joined into arrays up to this size (below F1's 32,768)."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    route_names_max: int = 7
    """Peers named in the ``><`` of a put."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The other end has told its peer id, or only that it is there ("")."""

    peer: str = ""


class GunCodec:
    """Encodes what many connections are told alike, so that it is done once.

    There are two: one for clients, and one for peers that we dial, which may be stock relays. Links that
    share a codec share the bytes.
    """

    __slots__ = ("_config", "_for_relay", "_ids", "_memory")

    def __init__(self, config: GunConfig, ids: Callable[[], str], memory: Memory, *, for_relay: bool) -> None:
        self._config, self._ids, self._memory, self._for_relay = config, ids, memory, for_relay

    def encode(self, message: Message, targets: Sequence[str] = ()) -> list[bytes]:
        """``message`` as GUN messages. ``targets``: peer ids of all who are told, for ``><``."""
        if type(message) is Put:
            route = self._route(message.seen_by, targets)
            return [encode_put(message, route, for_relay=self._for_relay)]
        if type(message) is Ephemeral:
            return [encode_ephemeral(message, self._route(message.seen_by, targets))]
        if type(message) is Ack:
            return [encode_ack(message)]
        if type(message) is Get:
            return [encode_get(message)]
        assert isinstance(message, Answer)
        node = message.memo
        if type(node) is not Node:
            return encode_answer(message, self._config.limits, self._ids)[0]
        encoded, body = encode_answer(message, self._config.limits, self._ids, node.encoded)
        if body is not None and node.encoded is None:
            self._memory.remember_encoded(node, body)
        return encoded

    def _route(self, seen_by: Sequence[str], targets: Sequence[str]) -> str:
        """The ``><`` for peers that may pass a message on; clients do not."""
        if not self._for_relay:
            return ""
        names = dict.fromkeys(name for name in (*seen_by, *targets) if name)
        return ",".join(list(names)[: self._config.route_names_max])


class GunLink:
    """The protocol state of one connection."""

    __slots__ = (
        "_acks",
        "_config",
        "_counters",
        "_ids",
        "_pid",
        "_queue",
        "_sent",
        "dialer",
        "guard",
        "peer",
        "queued_bytes",
    )

    def __init__(
        self, *, dialer: bool, pid: str, ids: Callable[[], str], config: GunConfig, counters: Counters
    ) -> None:
        self.dialer, self._pid, self._ids = dialer, pid, ids
        self._config, self._counters = config, counters
        self.guard = LinkGuard(config.guard)
        self._acks = self._sent = 0
        self._queue: list[bytes] = []
        self.queued_bytes = 0
        self.peer = ""
        if not dialer:
            # The accepting side asks first (gun-wire 1.5).
            self.queue([encode_control(Control("?", ids(), peer=pid))])

    def receive(self, frame: bytes) -> Iterator[Message | Greeting]:
        """The messages of one frame. Malformed ones are answered and skipped.

        Raises Violation when the connection must be closed.
        """
        limits, guard = self._config.limits, self.guard
        try:
            parsed = parse_frame(frame, limits)
        except Violation as error:
            guard.wasted(len(frame))
            self._refuse_frame(error)
            return
        if not parsed:
            guard.idled()
            guard.wasted(len(frame))
            return
        for raw in parsed:
            try:
                message = read_message(raw, limits, self._ids() if "#" not in raw else "")
            except Violation as error:
                guard.wasted(len(frame) // len(parsed))
                self.refuse(raw.get("#") if "put" in raw or "get" in raw else None, error)
                continue
            if message is None:
                guard.idled()
                guard.wasted(len(frame) // len(parsed))
                continue
            kind = type(message)
            if kind is Control:
                guard.idled()
                guard.wasted(len(frame) // len(parsed))
                greeting = self._control(message)  # type: ignore[arg-type]
                if greeting is not None:
                    yield greeting
                continue
            if kind is Ack:
                self._acks += 1
                if self._acks > self._sent + self._config.guard.acks_ahead_max:
                    guard.idled()
                    guard.wasted(len(frame) // len(parsed))
            yield message  # type: ignore[misc]

    def receive_all(self, frames: Iterable[bytes]) -> Iterator[Message | Greeting]:
        """The messages of several frames, as :meth:`receive` has those of one."""
        for frame in frames:
            yield from self.receive(frame)

    def refuse(self, id: Any, error: Violation) -> None:
        """Answer a message that could not be accepted: ``err`` starts with the stable code."""
        if type(id) not in (str, int, float):
            self._refuse_frame(error)
            return
        self._count(error)
        self.queue([encode_ack(Ack(self._ids(), id, f"{error.code}: {error}"))])

    def _refuse_frame(self, error: Violation) -> None:
        self._count(error)
        self.queue([encode_control(Control("!", self._ids(), error=f"{error.code}: {error}"))])

    def _count(self, error: Violation) -> None:
        self._counters.add("air_refused_total", 1, error.code)
        last = self.guard.failed()
        if last is not None or error.fatal:
            raise last or error

    def pace(self, now: Now) -> float:
        """Seconds to wait before reading on; a peer that is slowed down is told why.

        Raises LimitReached when it goes on regardless.
        """
        wait, told = self.guard.check(now)
        if told is not None:
            self._counters.add("air_slowed_total", 1, told.code)
            self.queue([encode_control(Control("!", self._ids(), error=f"{told.code}: {told}"))])
        return wait

    def _control(self, control: Control) -> Greeting | None:
        kind = control.kind
        if kind == "?":
            if self.dialer and control.peer == self._pid:
                raise Violation("connected to itself", code="gun.self", fatal=True)
            self.peer = control.peer or self.peer
            if control.re is None:
                self.queue([encode_control(Control("?", self._ids(), control.id, self._pid))])
            return Greeting(self.peer)
        if kind == "hi":
            return Greeting(self.peer)
        if kind == "!":
            self._counters.add("air_peer_errors_total", 1)
        elif kind in _REFUSED_CONTROLS:
            self._refuse_frame(Violation(f"{kind} is not obeyed", code=f"gun.refused-{kind}"))
        # Any other is unknown to us, as to a stock relay: no answer.
        return None

    # -- sending ---------------------------------------------------------------

    def queue(self, messages: list[bytes]) -> None:
        """Add encoded messages to what is waiting to be sent."""
        self._queue += messages
        self._sent += len(messages)
        for message in messages:
            self.queued_bytes += len(message)

    def forget(self) -> None:
        """Drop what is waiting: the connection is gone, and nobody shall keep that alive."""
        self._queue, self.queued_bytes = [], 0

    @property
    def waiting(self) -> bool:
        return bool(self._queue)

    def take_frames(self) -> list[bytes]:
        """Everything that is waiting, joined into as few frames as their size allows."""
        queue, self._queue, self.queued_bytes = self._queue, [], 0
        if len(queue) == 1:
            return queue
        frames: list[bytes] = []
        run: list[bytes] = []
        size = 0
        limit = self._config.frame_bytes
        for message in queue:
            if run and size + len(message) > limit:
                frames.append(run[0] if len(run) == 1 else b"[" + b",".join(run) + b"]")
                run, size = [], 0
            run.append(message)
            size += len(message) + 1
        if run:
            frames.append(run[0] if len(run) == 1 else b"[" + b",".join(run) + b"]")
        return frames
