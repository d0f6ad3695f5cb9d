"""A peer of bad will on the native wire: false credit, forged marks, lies about ranges, garbage. (core)"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from air.base.errors import AirError, Closed
from air.codec.frame import FrameReader, encode_frame, encode_frames
from air.codec.zstd import Expander, ZstdConfig
from air.model.cell import Cell
from air.model.mark import Mark
from air.model.message import Get
from air.sim.mender import REPAIR
from air.sim.native import GRAPH
from air.sim.network import End
from air.sim.session import SimSession, SimStream
from air.store.api import Bound, Position
from air.store.items import Item
from air.sync.native.frames import (
    Batch,
    Credit,
    Hello,
    Part,
    encode_ack,
    encode_answer,
    encode_credit,
    encode_get,
    encode_hello,
    encode_put,
)
from air.sync.native.limits import VERSION, NativeLimits
from air.sync.native.reader import decode
from air.sync.repair.config import FRAME_BYTES_MAX
from air.sync.repair.initiator import Initiator
from air.sync.repair.responder import Responder

if TYPE_CHECKING:
    from air.sim.liar import Liar

__all__ = ["NativeLine"]

_GARBAGE: Final = (
    b"\x00",
    b"\xff" * 12,
    b"\x02\xff\xff",
    b"\x05hello",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x03\x0a\x05a",
)
_REPLAYS: Final = 50
_ROUNDS: Final = 400
"""What a liar says in one comparison before it tires of it."""


class NativeLine:
    """One connection of a liar, and what it says on it."""

    def __init__(self, liar: Liar, target: int, end: End) -> None:
        self._liar, self.target, self.end = liar, target, end
        keys, other = liar.world.keys[liar.index], liar.world.keys[target]
        assert keys is not None
        assert other is not None
        self._name, self._other = keys.name, other.name
        expected = other.identity.peer_id
        noise = None
        if liar.world.plan.peers[target].noise:
            noise = keys.core(dialer=True, clock=liar.clock, expected=expected)
        self._stream: SimStream | None = None
        self._heard: list[bytes] = []
        self._number = 0
        self._reader = FrameReader(NativeLimits().wire_bytes_max)
        self._expander = Expander(ZstdConfig())
        self.session = SimSession(
            liar.world,
            liar.clock,
            end,
            expected,
            self._serve,
            lambda session: self._begin(),
            lambda session: liar.line_over(self),
            dialer=True,
            noise=noise,
        )

    # -- the link --------------------------------------------------------------------

    def _begin(self) -> None:
        liar, dice = self._liar, self._liar.dice
        self._stream = self.session.open_stream(GRAPH)
        if self._stream is None:
            return
        self._stream.sink = self
        if liar.silent and dice.chance(0.5):
            return
        name = self._name if dice.chance(0.95) else self._other
        credit = dice.pick((1, 1, 50, 50, 32_768, 32_768, 0))
        self._say(
            encode_hello(
                Hello(
                    VERSION,
                    name,
                    dice.chance(0.8),
                    dice.pick((0, 1, 4_096, 4_096)),
                    2**20 if dice.chance(0.9) else 64,
                    credit,
                    credit * 100,
                    dice.pick((0, 45_000, 45_000, 2**31)),
                )
            )
        )
        if not liar.silent:
            self._keep_talking()

    def _keep_talking(self) -> None:
        liar = self._liar
        if self._stream is None or not self.end.open or liar.world.ending:
            return
        liar.dice.pick(self._tricks())()
        liar.world.scheduler.after(liar.dice.wait(1.0), self._keep_talking)

    def _tricks(self) -> Sequence[Any]:
        say = self._say
        dice, liar = self._liar.dice, self._liar
        tricks: list[Any] = [
            partial(say, encode_credit(Credit(dice.pick((0, 1, 2**40)), dice.pick((0, 1, 2**40))))),
            partial(say, encode_ack((dice.below(5) + 1,), dice.pick((None, "store.full: no")))),
            partial(say, encode_get(Get(liar.ids(), dice.pick(liar.world.souls or ["s"])))),
            self._put,
            self._put,
            self._put,
            self._replay,
            self._compare,
        ]
        if dice.chance(0.1):
            tricks.append(lambda: self._raw(dice.pick(_GARBAGE)))
        return tricks

    def _raw(self, data: bytes) -> None:
        if self._stream is not None and self._stream.clear and self.end.open:
            self._stream.send(data)

    def _say(self, frame: bytes) -> None:
        self._raw(encode_frame(frame))

    def _cells(self) -> list[Cell]:
        liar, dice = self._liar, self._liar.dice
        cells = []
        for cell in dice.some(liar.cells, 1 + dice.below(3)):
            if dice.chance(0.7):
                ahead = dice.pick((-10_000, -1, 500, 20_000, 3_600_000 * 12))
                state = cell.state if dice.chance(0.3) else float(int(liar.clock.wall)) + ahead
                cell = Cell(cell.soul, cell.key, dice.pick((1, "lie", None, True, "zzz")), state)
            cells.append(cell)
        liar.world.oracle.wrote(liar.index, cells)
        return cells

    def _marks(self, count: int) -> list[Mark]:
        """Dots of its own, of others, of nobody; old, new, and from the future."""
        dice = self._liar.dice
        names = (self._name, self._other, "nobody")
        return [
            tuple((name, 1 + dice.below(10 ** dice.below(9))) for name in dice.some(names, dice.below(3)))
            for _ in range(count)
        ]

    def _put(self) -> None:
        dice, cells = self._liar.dice, self._cells()
        if cells:
            self._number += 1 if dice.chance(0.97) else 2
            marks = self._marks(len(cells)) if dice.chance(0.8) else None
            self._say(encode_put(self._number, cells, marks, dice.pick((0, 0, 0, 1, 10**6))))

    def _replay(self) -> None:
        if self._heard:
            self._raw(self._liar.dice.pick(self._heard))

    def readable(self) -> None:
        stream, liar = self._stream, self._liar
        while stream is not None and (data := stream.read()) is not None:
            if len(self._heard) < _REPLAYS:
                self._heard.append(data)
            for frame in self._reader.receive(data):
                item = decode(frame, self._expander, NativeLimits())
                if isinstance(item, Batch | Part):
                    liar.learn(item.cells)
                elif isinstance(item, Get) and not liar.silent and liar.dice.chance(0.5):
                    self._say(encode_answer(item.id, self._cells(), more=liar.dice.chance(0.1)))

    def writable(self) -> None: ...

    def ended(self, error: Closed) -> None:
        self._stream = None

    # -- comparing -------------------------------------------------------------------

    def _compare(self) -> None:
        stream = self.session.open_stream(REPAIR)
        if stream is not None:
            salt = self._liar.dice.entropy.bits(128).to_bytes(16, "big")
            _Compared(self, stream, Initiator(salt)).turn()

    def _serve(self, stream: SimStream, first: bytes) -> None:
        if first[:1] != REPAIR or self._liar.silent:
            return
        talk = _Compared(self, stream, Responder())
        if len(first) > 1:
            stream.arrived(first[1:])
        talk.turn()

    # -- lies about ranges -------------------------------------------------------------

    def fingerprint(self, low: Bound, high: Bound, /) -> tuple[int, int]:
        dice = self._liar.dice
        return dice.below(10 ** dice.below(7)), dice.entropy.bits(128)

    def split(self, low: Bound, high: Bound, parts: int, /) -> Sequence[Position]:
        places = [place for place, _ in self.items(low, high, parts)]
        return [place for place in places if low is None or place > low][: parts - 1]

    def items(self, low: Bound, high: Bound, limit: int, /) -> Sequence[Item]:
        dice = self._liar.dice
        places = {(cell.soul.encode(), cell.key.encode()) for cell in self._liar.cells}
        places.update((b"soul", b"%05d" % dice.below(10_000)) for _ in range(20))
        inside = sorted(
            place for place in places if (low is None or place >= low) and (high is None or place < high)
        )
        return [(place, dice.entropy.bits(128)) for place in inside[:limit]]

    def cells(self, positions: Sequence[Position], /) -> tuple[Sequence[Cell], Sequence[Mark]]:
        cells = self._cells()
        return cells, self._marks(len(cells))

    def refresh(self, cells_max: int, /) -> bool:
        return False


class _Compared:
    """A comparison in which one side makes everything up."""

    def __init__(self, line: NativeLine, stream: SimStream, side: Initiator | Responder) -> None:
        self._line, self._stream, self._side = line, stream, side
        self._reader = FrameReader(FRAME_BYTES_MAX)
        self._left = _ROUNDS
        stream.sink = self

    def turn(self) -> None:
        side, stream = self._side, self._stream
        try:
            while side.busy and self._left > 0:
                self._left -= 1
                side.work(self._line)
            while (taken := side.take_received()) is not None:
                side.merged(taken[2])
        except AirError:
            stream.close()
            return
        output = side.take_output()
        if output and not stream.over:
            stream.send(encode_frames(output))
        if self._left <= 0:
            stream.reset()

    def readable(self) -> None:
        try:
            while (data := self._stream.read()) is not None:
                for frame in self._reader.receive(data):
                    self._side.receive(frame)
        except AirError:
            self._stream.reset()
            return
        self.turn()

    def writable(self) -> None: ...

    def ended(self, error: Closed) -> None: ...
