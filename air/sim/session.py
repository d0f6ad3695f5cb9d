"""One connection that carries streams, as a swarm holds it: the real noise and yamux over virtual TCP. (core)

What stands here is what the shells of those two do without deciding anything: a reader that stops while the
streams are not read, a writer that stops while the network has no room, a timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from air.base.errors import AirError, Closed, Reset
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.mux.api import Priority, ResetCode
from air.mux.events import Cut, Data, Eof, Event, Opened
from air.mux.yamux.config import YamuxConfig
from air.mux.yamux.core import YamuxCore
from air.security.noise.core import StaticKey
from air.security.noise.frames import Opener, Sealer
from air.security.noise.payload import Credential
from air.security.noise.session import Authenticated, NoiseConfig, NoiseCore
from air.sim.dice import Dice
from air.sim.network import End
from air.sim.schedule import Scheduler, SimClock

if TYPE_CHECKING:
    from air.sim.world import World

__all__ = ["Keys", "SimSession", "SimStream", "Sink"]

_WRITE_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 32 * 1024
"""What a stream hands to yamux at once."""


class Keys:
    """Who a peer is, to noise."""

    __slots__ = ("credential", "dice", "identity", "static")

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.identity = Identity(dice.entropy.bits(256).to_bytes(32, "big"))
        self.static: StaticKey | None = None
        self.credential: Credential | None = None

    @property
    def name(self) -> str:
        return str(self.identity.peer_id)

    def core(self, *, dialer: bool, clock: SimClock, expected: PeerId | None) -> NoiseCore:
        """The handshake of one connection; its fresh key is drawn like everything else."""
        bits = self.dice.entropy.bits
        if self.static is None or self.credential is None:
            self.static = StaticKey(bits(256).to_bytes(32, "big"))
            self.credential = Credential(self.identity, self.static.public)
        return NoiseCore(
            self.static,
            self.credential,
            dialer=dialer,
            config=NoiseConfig(),
            now=clock.now(),
            expected=expected,
            ephemeral=bits(256).to_bytes(32, "big"),
        )


class Sink(Protocol):
    """What uses a stream."""

    def readable(self) -> None:
        """There is something to read."""
        ...

    def writable(self) -> None:
        """All that was given to the stream has gone into the connection."""
        ...

    def ended(self, error: Closed) -> None:
        """Nothing more comes: Closed when the other side has said all, Reset when it was cut."""
        ...


class SimStream:
    """One stream."""

    def __init__(self, session: SimSession, key: int, *, outbound: bool) -> None:
        self.session, self.key, self.outbound = session, key, outbound
        self.sink: Sink | None = None
        self.over = False
        self._in: deque[bytes] = deque()
        self._out: deque[bytes] = deque()
        self._last = False

    @property
    def peer(self) -> PeerId:
        return self.session.peer

    @property
    def clear(self) -> bool:
        """Everything that was sent has gone into the connection."""
        return not self._out

    def read(self) -> bytes | None:
        """The next bytes, None when there are none."""
        if not self._in:
            return None
        data = self._in.popleft()
        self.session.consumed(self.key, len(data))
        return data

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            self._out.append(data[start : start + _PIECE_BYTES])
        self.feed()
        self.session.stir()

    def close(self) -> None:
        """Send what is queued, then the end; whatever still comes is dropped."""
        self._last, self.sink = True, None
        self._in.clear()
        self.feed()
        self.session.stir()

    def send_eof(self) -> None:
        """Send what is queued, then the end, and go on reading."""
        self.feed()
        while self._out:
            self.session.core.send(self.key, self._out.popleft())
        self.session.core.send_eof(self.key)
        self.session.stir()

    def reset(self, code: ResetCode = ResetCode.NONE) -> None:
        self.over, self.sink = True, None
        self._out.clear()
        self.session.core.reset(self.key, code)
        self.session.stir()

    def feed(self) -> None:
        """Give yamux what it has room for."""
        core = self.session.core
        while self._out and core.room(self.key):
            core.send(self.key, self._out.popleft())
        if self._last and not self._out and not self.over:
            self.over = True
            core.close(self.key, self.session.clock.now())

    def arrived(self, data: bytes) -> None:
        self._in.append(data)
        if self.sink is not None:
            self.sink.readable()

    def lost(self, error: Closed) -> None:
        self.over = True
        if self.sink is not None:
            self.sink.ended(error)


class SimSession:
    """One connection between two Air peers."""

    def __init__(
        self,
        world: World,
        clock: SimClock,
        end: End,
        peer: PeerId,
        accept: Callable[[SimStream, bytes], None],
        began: Callable[[SimSession], None],
        over: Callable[[SimSession], None],
        *,
        dialer: bool,
        noise: NoiseCore | None = None,
    ) -> None:
        """``accept`` takes streams that the other side opened, with what they begin with. ``began``: the two
        know each other. ``over``: the connection is no more."""
        self.clock, self.end, self.peer, self.dialer = clock, end, peer, dialer
        self._scheduler: Scheduler = world.scheduler
        self._accept, self._began, self._over = accept, began, over
        self.ready = False
        """The two know each other, and streams may be opened."""
        self.began = 0.0
        """When the last link was begun on it."""
        self._dice = world.pieces
        self._noise = noise
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self.core = YamuxCore(YamuxConfig(), dialer=dialer, now=clock.now())
        self.streams: dict[int, SimStream] = {}
        self._pumping = False
        self._alarm = float("inf")
        end.events = self
        if noise is None:
            self._scheduler.after(0.0, self._begin)
            self._rearm()
        else:
            self._shake(b"")

    # -- as GraphSync sees it ------------------------------------------------------

    @property
    def remote_address(self) -> str:
        return str(self.peer)

    @property
    def open(self) -> bool:
        return self.end.open and self.core.ended is None

    def offended(self, weight: float) -> None:
        """A real swarm counts this, and bans a peer in the end."""

    def cut(self, code: str) -> None:
        """Give the connection up."""
        if self.end.open:
            self.end.close()
            self.closed(code)

    # -- streams -------------------------------------------------------------------

    def open_stream(self, first: bytes, priority: Priority = Priority.INTERACTIVE) -> SimStream | None:
        """A new stream that begins with ``first``; None when there can be none now."""
        try:
            if not self.open or not self.core.may_open():
                return None
        except AirError:
            return None
        key = self.core.open(priority, self.clock.now())
        stream = self.streams[key] = SimStream(self, key, outbound=True)
        stream.send(first)
        return stream

    def consumed(self, key: int, count: int) -> None:
        self.core.consume(key, count, self.clock.now())
        self.stir()

    def stir(self) -> None:
        """Something may be to be written: do so soon."""
        if not self._pumping and self.end.open:
            self._pumping = True
            self._scheduler.after(0.0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if not self.end.open or (self._noise is not None and self._sealer is None):
            return
        core = self.core
        while self.end.room:
            for stream in list(self.streams.values()):
                stream.feed()
            pieces = core.take_output(_WRITE_BYTES)
            if not pieces:
                break
            if self._sealer is not None:
                self.end.send([b"".join(self._sealer.seal_many(pieces))])
            else:
                self.end.send([b"".join(pieces)])
        for stream in list(self.streams.values()):
            if stream.clear and stream.sink is not None:
                stream.sink.writable()
        if core.ended is not None:
            self.end.close()
            self.closed(core.ended.code)
        self._rearm()

    # -- as the network sees it ----------------------------------------------------

    def received(self, frame: bytes) -> None:
        """Bytes have come; TCP keeps no borders, so they may come in two parts."""
        if len(frame) > 1 and self._dice.chance(0.1):
            middle = 1 + self._dice.below(len(frame) - 1)
            self._take(frame[:middle])
            self._take(frame[middle:])
        else:
            self._take(frame)

    def _take(self, data: bytes) -> None:
        if not self.end.open:
            return
        if self._noise is not None:
            if self._opener is None:
                self._shake(data)
                return
            try:
                data = b"".join(self._opener.receive(data))
                if self._opener.error is not None:
                    raise self._opener.error
            except AirError as error:
                self.cut(error.code)
                return
        self._apply(self.core.receive(data, self.clock.now()))

    def _shake(self, data: bytes) -> None:
        noise = self._noise
        assert noise is not None
        try:
            events = noise.receive(data, self.clock.now()) if data else ()
        except AirError as error:
            self.cut(error.code)
            return
        output = b"".join(noise.take_output())
        if output:
            self.end.send([output])
        if events:
            who, *rest = events
            assert isinstance(who, Authenticated)
            self.peer = who.peer
            self._sealer, self._opener = noise.split()
            left = b"".join(noise.take_output())
            if left:
                self.end.send([left])
            self._begin()
            self.stir()
            plain = b"".join(part for part in rest if isinstance(part, bytes))
            if plain:
                self._apply(self.core.receive(plain, self.clock.now()))
        else:
            self._scheduler.after(NoiseConfig().timeout_seconds, self._patience)

    def _begin(self) -> None:
        if self.end.open:
            self.ready = True
            self._began(self)

    def _patience(self) -> None:
        if self._opener is None and self.end.open:
            self.cut("noise.timeout")

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is Data:
                stream = self.streams.get(event.key)
                if stream is None:
                    continue
                if stream.sink is None and not stream.outbound and not stream.over:
                    self.consumed(event.key, 1)
                    self._accept(stream, event.data)
                else:
                    stream.arrived(event.data)
            elif type(event) is Opened:
                self.streams[event.key] = SimStream(self, event.key, outbound=False)
                self.core.accept(event.key)
            elif type(event) is Eof:
                stream = self.streams.get(event.key)
                if stream is not None and stream.sink is not None:
                    stream.sink.ended(Closed("the other side has said all"))
            elif type(event) is Cut:
                stream = self.streams.pop(event.key, None)
                if stream is not None:
                    stream.lost(Reset("the stream was reset"))
        self.streams = {
            key: stream for key, stream in self.streams.items() if not (stream.over and stream.sink is None)
        }
        self.stir()

    def writable(self) -> None:
        self.stir()

    def closed(self, reason: str) -> None:
        """The connection is over."""
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.lost(Reset(f"the connection is over: {reason}"))
        self._over(self)

    # -- time ----------------------------------------------------------------------

    def _rearm(self) -> None:
        due = self.core.deadline
        if due is not None and due < self._alarm and self.end.open:
            self._alarm = due
            self._scheduler.at(max(due, self._scheduler.time) + 0.001, self._ring)

    def _ring(self) -> None:
        self._alarm = float("inf")
        if self.end.open:
            self._apply(self.core.tick(self.clock.now()))
            self._rearm()
