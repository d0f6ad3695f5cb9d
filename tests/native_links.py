"""Two native links joined by hand: what one says, the other hears."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from air.base.clock import ManualClock
from air.base.entropy import IdSource, SeededEntropy
from air.codec.frame import encode_frame
from air.codec.zstd import Squeezer, ZstdConfig
from air.sync.native.frames import Hello, encode_hello, encode_zipped
from air.sync.native.limits import VERSION, NativeConfig
from air.sync.native.link import Event, NativeLink
from air.sync.native.rates import Rates

OURS, THEIRS = "12D3KooWOurs", "12D3KooWTheirs"


def link(
    clock: ManualClock, config: NativeConfig | None = None, *, outbound: bool = False, seed: int = 1
) -> NativeLink:
    """One link; the one that is dialled is OURS, the one that dials THEIRS."""
    config = config or NativeConfig()
    own, expected = (THEIRS, OURS) if outbound else (OURS, THEIRS)
    return NativeLink(
        own=own,
        expected=expected,
        outbound=outbound,
        ids=IdSource(SeededEntropy(seed)),
        config=config,
        rates=Rates(config.rates),
        now=clock.now(),
    )


@dataclass
class Pair:
    """``near`` and ``far``, and what each has heard."""

    near_config: NativeConfig = field(default_factory=NativeConfig)
    far_config: NativeConfig = field(default_factory=NativeConfig)
    wall: float = 1_700_000_000_000.0

    def __post_init__(self) -> None:
        self.clock = ManualClock(self.wall)
        self.near = link(self.clock, self.near_config, outbound=True, seed=1)
        self.far = link(self.clock, self.far_config, seed=2)
        self.heard: dict[NativeLink, list[Event]] = {self.near: [], self.far: []}
        self.bytes: dict[NativeLink, int] = {self.near: 0, self.far: 0}
        self.pump()
        self.heard = {self.near: [], self.far: []}

    def pump(self) -> None:
        """Carry bytes until nobody has anything to say that may be said."""
        while True:
            moved = False
            for one, other in ((self.near, self.far), (self.far, self.near)):
                data = one.take_output(self.clock.now())
                if data:
                    moved = True
                    self.bytes[one] += len(data)
                    self.heard[other] += other.receive(data, self.clock.now())
            if not moved:
                return

    def take(self, one: NativeLink, kind: type | None = None) -> list[Any]:
        """What ``one`` has heard since the last call."""
        heard, self.heard[one] = self.heard[one], []
        return [event for event in heard if kind is None or type(event) is kind]


def hello(**other: Any) -> bytes:
    """The greeting of a peer called THEIRS, framed."""
    usual = Hello(VERSION, THEIRS, True, 4096, 64 * 1024 * 1024, 10**6, 10**9, 45_000, "test")
    return encode_frame(encode_hello(replace(usual, **other)))


def zipped(plain: bytes, squeezer: Squeezer | None = None, size: int | None = None) -> bytes:
    """A frame in a Zipped, framed. ``size``: what it is said to be."""
    data = (squeezer or Squeezer(ZstdConfig())).squeeze(plain)
    return encode_frame(encode_zipped(len(plain) if size is None else size, data))
