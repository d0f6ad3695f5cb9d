"""One native link: its greeting, its credit, its patience. (core)

Bytes come in and messages for the engine come out; messages go in and bytes come out. What concerns only the
two ends of a link (credit, acks of batches, signs of life) is dealt with here. A frame that is malformed ends
the link: who speaks this wire has no excuse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Final, TypeAlias

from air.base.clock import Now
from air.base.errors import Closed, LimitReached, Violation
from air.codec.frame import FrameReader, encode_frame
from air.codec.zstd import Expander
from air.graph.mesh import Role
from air.model.message import Ack, Answer, Get, Message, Put, refused_for_now
from air.sync.native.frames import (
    Acked,
    Batch,
    Bye,
    Credit,
    Hello,
    Part,
    Wish,
    encode_ack,
    encode_answer,
    encode_bye,
    encode_credit,
    encode_get,
    encode_hello,
    encode_wishes,
)
from air.sync.native.intake import Intake
from air.sync.native.limits import VERSION, NativeConfig
from air.sync.native.outlet import Outlet
from air.sync.native.rates import Rates
from air.sync.native.reader import decode

__all__ = ["Event", "NativeLink"]

Event: TypeAlias = Put | Get | Answer | Ack | Hello | Wish | Bye

_BALANCE_MAX: Final = 2**41
_HELD_AT_ONCE: Final = 64
"""Questions that waited and are asked before it is looked again how much waits to be sent."""


class NativeLink:
    """The protocol state of one link."""

    __slots__ = (
        "_acked",
        "_config",
        "_controls",
        "_controls_bytes",
        "_expander",
        "_expected",
        "_heard",
        "_held",
        "_ids",
        "_intake",
        "_listening",
        "_outlet",
        "_over",
        "_own",
        "_reader",
        "_spoke",
        "hello",
        "needs_repair",
        "outbound",
        "rates",
    )

    def __init__(
        self,
        *,
        own: str,
        expected: str,
        outbound: bool,
        ids: Callable[[], str],
        config: NativeConfig,
        rates: Rates,
        now: Now,
        relays: bool = False,
    ) -> None:
        """``own`` and ``expected`` are the peer ids of the two ends; ``outbound``: this side has dialled.
        ``relays``: it asks relays for what it is asked for."""
        self.outbound, self._own, self._expected = outbound, own, expected
        self._config, self._ids, self.rates = config, ids, rates
        self.hello: Hello | None = None
        """What the other side has said of itself."""
        self.needs_repair = False
        """More waited for this peer than may wait, or its disk was full: the two must be compared."""
        self._reader = FrameReader(config.limits.wire_bytes_max)
        self._expander = Expander(config.zstd)
        self._intake, self._outlet = Intake(config, expected), Outlet(config, own)
        self._heard = self._spoke = now.monotonic
        self._over, self._listening = False, True
        self._held: deque[Get] = deque()
        self._acked: list[int] = []
        self._controls: list[bytes] = []
        self._controls_bytes = 0
        self._control(encode_hello(_hello(config, own, relays)))

    @property
    def role(self) -> Role:
        """How the engine is to treat the other side, once it has said hello."""
        if self._config.everything and self.hello is not None and self.hello.everything:
            return Role.PEER
        return Role.OUTBOUND if self.outbound else Role.INBOUND

    # -- receiving -------------------------------------------------------------

    def receive(self, data: bytes, now: Now) -> Iterator[Event]:
        """What ``data`` completes. Raises Violation when the link must be closed."""
        self._heard = now.monotonic
        self.rates.received(len(data))
        for frame in self._reader.receive(data):
            item = decode(frame, self._expander, self._config.limits)
            kind = type(item)
            if kind is Hello:
                yield self._greet(item)  # type: ignore[arg-type]
            elif kind is Bye:
                yield item  # type: ignore[misc]
            elif self.hello is None:
                raise Violation("the first frame is a hello", code="native.no-hello", fatal=True)
            elif kind is Batch:
                yield self._batch(item, now)  # type: ignore[arg-type]
            elif kind is Part:
                yield self._part(item)  # type: ignore[arg-type]
            elif kind is Acked:
                yield from self._acknowledged(item)  # type: ignore[arg-type]
            elif kind is Credit:
                self._credited(item)  # type: ignore[arg-type]
            elif kind is tuple:
                self.rates.asked(len(item))  # type: ignore[arg-type]
                yield from item  # type: ignore[misc]
            elif not self._hold(item):  # type: ignore[arg-type]
                yield item  # type: ignore[misc]

    def _greet(self, hello: Hello) -> Hello:
        if self.hello is not None:
            raise Violation("a second hello", code="native.hello-again", fatal=True)
        if hello.version != VERSION:
            raise Violation(f"version {hello.version} of the native wire", code="native.version", fatal=True)
        if hello.peer == self._own:
            raise Violation("connected to itself", code="native.self", fatal=True)
        if hello.peer != self._expected:
            raise Violation("a hello by another name", code="native.wrong-peer", fatal=True)
        self.hello = hello
        # Nobody here asks what became of what an inbound peer is told.
        self._outlet.open(hello, receipts=self.role is not Role.INBOUND)
        return hello

    def _batch(self, batch: Batch, now: Now) -> Put:
        self.rates.put(batch.size)
        id = self._ids()
        self._intake.batch(batch, id, now)
        return Put(id, batch.cells, marks=batch.marks)

    def _part(self, part: Part) -> Answer | Ack:
        self.rates.put(part.size)
        self._intake.part(part)
        if part.error is not None:
            return Ack(self._ids(), part.re, part.error)
        nodes: dict[str, dict[str, tuple[object, float]]] = {}
        for soul, key, value, state in part.cells:
            nodes.setdefault(soul, {})[key] = (value, state)
        return Answer(self._ids(), part.re, list(nodes.items()), part.more)  # type: ignore[arg-type]

    def _acknowledged(self, acked: Acked) -> Iterator[Ack]:
        receipts = self._outlet.receipts
        for number in acked.numbers:
            if not 0 < number <= receipts.last:
                raise Violation("an ack of what was never sent", code="native.ack", fatal=True)
            done = receipts.acknowledged(number, taken=acked.error is None)
            if refused_for_now(acked.error) and self.role is Role.PEER:
                # Nothing is owed to a peer; comparing finds what it lacks.
                self.needs_repair = True
            if done is None:
                self.rates.idled()
                continue
            for id in done:
                yield Ack(self._ids(), id, acked.error)

    def _credited(self, credit: Credit) -> None:
        outlet = self._outlet
        outlet.credits_due -= 1
        if outlet.credits_due < 0:
            outlet.credits_due = 0
            self.rates.idled()
        outlet.balance[0] += credit.cells
        outlet.balance[1] += credit.bytes
        if max(outlet.balance) > _BALANCE_MAX:
            raise Violation("more credit than anybody has room for", code="native.credit", fatal=True)

    def _hold(self, get: Get) -> bool:
        """Let a question wait while the other side has much to read, and every later one behind it."""
        self.rates.asked()
        if not self._held and self.queued_bytes <= self._config.high_bytes:
            return False
        if len(self._held) >= self._config.gets_waiting_max:
            raise LimitReached("this peer asks for more and does not read", code="limit.unread", fatal=True)
        self._held.append(get)
        return True

    def take_held(self) -> list[Get]:
        """Questions that have waited and may be asked now: call it whenever something was sent."""
        if not self._held or self.queued_bytes > self._config.high_bytes:
            return []
        return [self._held.popleft() for _ in range(min(len(self._held), _HELD_AT_ONCE))]

    def taken(self) -> None:
        """The answers that came are on their way to the store: their credit goes back."""
        self._intake.taken()

    # -- sending ---------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Take a message of the engine. Raises LimitReached ``limit.outbox`` when too much waits, unless the
        other side is a peer that can be repaired."""
        kind = type(message)
        if self._over:
            return
        outbox = self._outlet.outbox
        if kind is Ack:
            self._answer_put(message)  # type: ignore[arg-type]
        elif kind is Put:
            outbox.put(message)  # type: ignore[arg-type]
        elif kind is Answer:
            outbox.answer(message)  # type: ignore[arg-type]
        elif kind is Get:
            self._control(encode_get(message))  # type: ignore[arg-type]
        # Messages that nobody keeps stay on the GUN wire.
        if outbox.full:
            if self.role is not Role.PEER:
                raise LimitReached(
                    "this peer does not read what it asked for", code="limit.outbox", fatal=True
                )
            self._outlet.clear()
            self.needs_repair = True

    def _answer_put(self, ack: Ack) -> None:
        number = self._intake.answered(ack.re)
        if number and ack.error is None:
            self._acked.append(number)
        elif number:
            self._control(encode_ack((number,), ack.error))
        elif ack.error is not None:
            # A question that the store could not answer.
            self._control(encode_answer(ack.re, (), more=False, error=ack.error))

    def wish(self, wishes: Sequence[Wish]) -> None:
        """Subscribe, or no longer: all of ``wishes`` begin, or all of them end."""
        most = self._config.limits.wishes_max
        for start in range(0, len(wishes), most):
            self._control(encode_wishes(wishes[start : start + most]))

    def say_bye(self, code: str, text: str = "") -> None:
        """These are the last words; what waited is dropped."""
        if not self._over:
            self._over = True
            self.forget()
            self._control(encode_bye(Bye(code, text)))

    def forget(self) -> None:
        """Drop what is waiting: the link is gone, and nobody shall keep that alive."""
        self._outlet.clear()
        self._held.clear()

    def _control(self, frame: bytes) -> None:
        self._controls.append(encode_frame(frame))
        self._controls_bytes += len(frame)

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent, about."""
        return self._outlet.waiting_bytes + self._controls_bytes

    @property
    def queued_cells(self) -> int:
        """Cells of puts that wait to be sent."""
        return len(self._outlet.outbox)

    @property
    def cells_out(self) -> int:
        """Cells sent so far."""
        return self._outlet.cells

    @property
    def coalesced(self) -> int:
        """Cells that were never sent, because a newer one of their field was."""
        return self._outlet.outbox.coalesced

    @property
    def too_large(self) -> int:
        """Cells that were dropped because the other side takes no frame of their size."""
        return self._outlet.too_large

    @property
    def ready(self) -> bool:
        """Something can be sent now."""
        return bool(self._controls or self._acked) or self._intake.owes or self._outlet.ready

    def take_output(self, now: Now) -> bytes:
        """What is to be sent next, the most urgent first; about ``flush_bytes``, b"" when nothing may go."""
        # Our hello was the first of these.
        out, self._controls, self._controls_bytes = self._controls, [], 0
        if self._acked:
            most = self._config.limits.acks_max
            for start in range(0, len(self._acked), most):
                out.append(encode_frame(encode_ack(self._acked[start : start + most])))
            self._acked = []
        credit = self._intake.take_credit()
        if credit is not None:
            out.append(encode_frame(encode_credit(credit)))
        size = 0
        while size < self._config.flush_bytes and not self._over:
            frame = self._outlet.take()
            if frame is None:
                break
            out.append(frame)
            size += len(frame)
        if out:
            self._spoke = now.monotonic
        return b"".join(out)

    # -- time ------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do, on the monotonic clock."""
        return min(self.silent_at, self._spoke + self._beat, self._intake.deadline)

    @property
    def silent_at(self) -> float:
        """When the other side is given up unless it says something."""
        if not self._listening:
            return inf
        config = self._config
        return self._heard + (config.hello_seconds if self.hello is None else config.silent_seconds)

    def pause(self) -> None:
        """Nobody reads for a while: silence is not the fault of the other side."""
        self._listening = False

    def resume(self, now: Now) -> None:
        """It is read on; whoever was silent meanwhile has all the time again."""
        self._listening, self._heard = True, now.monotonic

    @property
    def _beat(self) -> float:
        beat = self._config.heartbeat_seconds
        return beat if self.hello is None else min(beat, self.hello.silent_ms / 3000)

    def tick(self, now: Now) -> None:
        """Do what is due. Raises Closed ``link.silent``, and Violation ``native.no-hello``."""
        if now.monotonic >= self.silent_at:
            if self.hello is None:
                raise Violation("no hello", code="native.no-hello", fatal=True)
            raise Closed("nothing was heard for too long", code="link.silent")
        self._intake.tick(now)
        if now.monotonic - self._spoke >= self._beat and not self.ready:
            self._control(encode_credit(Credit(0, 0)))


def _hello(config: NativeConfig, own: str, relays: bool) -> Hello:
    limits = config.limits
    return Hello(
        VERSION,
        own,
        config.everything,
        limits.cells_max,
        limits.bytes_max,
        config.credit_cells,
        config.credit_bytes,
        round(config.silent_seconds * 1000),
        config.agent,
        relays,
    )
