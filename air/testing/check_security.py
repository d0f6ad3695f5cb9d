"""What every Security has to do, as a suite that anybody can run against their own. (shell)

    await check_security(Noise(), pair)

runs all of ``CHECKS``; with ``only="names_are_proven"`` one of them. Whatever goes wrong comes as an
AssertionError that names the check, what does not come to an end as a TimeoutError. Checks run twice: the
dialling side in the first role, then the accepting side.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from air.base.env import Env
from air.base.errors import AirError, Closed, Denied, Reset
from air.base.keys import Identity
from air.base.peer_id import PeerId
from air.security.api import SecureConn, Security
from air.testing.running import Crumbs, Lumps, cancel_as_bytes_come, run_checks
from air.transport.api import ByteStream, can_send_now

__all__ = ["CHECKS", "PairFactory", "check_security"]

PairFactory = Callable[[], Awaitable[tuple[ByteStream, ByteStream]]]
"""Makes two connected byte streams: the dialling end, the listening end."""

MIB: Final = 1024 * 1024
YAMUX: Final = "/yamux/1.0.0"


async def check_security(
    security: Security,
    pair: PairFactory,
    *,
    peer: Security | None = None,
    encrypts: bool = True,
    only: str | None = None,
    seconds: float = 60.0,
) -> None:
    """Run the suite. ``peer`` is what the listening side uses when it is another; ``encrypts`` is False for
    one that only tells names, as plaintext does: then changed bytes need not be noticed."""

    async def run(check: Callable[[_Scene], Awaitable[None]], swapped: bool) -> None:
        await check(_Scene(security, security if peer is None else peer, pair, swapped, encrypts))

    await run_checks(CHECKS, run, only=only, seconds=seconds)


class _Tap:
    """A ByteStream that changes one byte of what passes or holds it up, and remembers how many that were."""

    def __init__(self, inner: ByteStream, flip: int | None = None) -> None:
        self.inner, self._flip = inner, flip
        self.passed = 0
        self.held: bytearray | None = None
        """Where bytes go that are not to pass."""

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, data: bytes, /) -> None:
        start, self.passed = self.passed, self.passed + len(data)
        if self._flip is not None and start <= self._flip < self.passed:
            changed = bytearray(data)
            changed[self._flip - start] ^= 1
            data = bytes(changed)
        if self.held is not None:
            self.held += data
        else:
            await self.inner.send(data)

    async def catch(self, sending: Awaitable[None]) -> bytes:
        """What ``sending`` would have sent."""
        held = self.held = bytearray()
        await sending
        self.held = None
        return bytes(held)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Liar(Identity):
    """Has a key, and says that it is somebody else's."""

    def __init__(self, victim: Identity) -> None:
        super().__init__(b"\x03" * 32)
        self.peer_id, self.public_key = victim.peer_id, victim.public_key


Outcome = SecureConn | AirError
Wrap = Callable[[ByteStream], ByteStream]


def _bare(stream: ByteStream) -> ByteStream:
    return stream


class _Scene:
    def __init__(
        self, one: Security, two: Security, pair: PairFactory, swapped: bool, encrypts: bool
    ) -> None:
        self._one, self._two, self._pair = one, two, pair
        self.swapped, self.encrypts = swapped, encrypts
        self.dialer, self.listener = Identity(b"\x01" * 32), Identity(b"\x02" * 32)

    async def meet(
        self,
        *,
        expected: PeerId | None = None,
        muxers: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
        flip: tuple[int | None, int | None] = (None, None),
        patience: float = 30.0,
        through: tuple[Wrap, Wrap] = (_bare, _bare),
    ) -> tuple[Outcome, Outcome, _Tap, _Tap]:
        """Have both sides do their part; what came of it at the dialler and at the listener."""
        near, far = [wrap(stream) for wrap, stream in zip(through, await self._pair(), strict=True)]
        taps = _Tap(near, flip[0]), _Tap(far, flip[1])
        found: dict[bool, Outcome] = {}

        async def side(dialer: bool) -> None:
            security, stream = (self._one, taps[0]) if dialer else (self._two, taps[1])
            try:
                conn = await security.secure(
                    stream,
                    identity=self.dialer if dialer else self.listener,
                    dialer=dialer,
                    expected=expected if dialer else None,
                    muxers=muxers[0 if dialer else 1],
                    env=Env(),
                )
                # A dialler's last message may leave with its first data, and what a listener says at the end
                # of its handshake be read with its first data: so each says a word.
                if dialer:
                    await conn.send(b"?")
                    assert await conn.receive(1) == b"!", "the first byte did not arrive"
                else:
                    assert await conn.receive(1) == b"?", "the first byte did not arrive"
                    await conn.send(b"!")
                found[dialer] = conn
            except AirError as error:
                found[dialer] = error
                await stream.aclose()

        with anyio.move_on_after(patience):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(side, True)
                tasks.start_soon(side, False)
        waiting: Outcome = Closed("still waiting for the other side")
        return found.get(True, waiting), found.get(False, waiting), *taps

    async def joined(self, through: tuple[Wrap, Wrap] = (_bare, _bare)) -> tuple[SecureConn, SecureConn]:
        """Two ends that trust each other: in the order dialler, listener, or the other when swapped."""
        near, far, *_ = await self.meet(expected=self.listener.peer_id, through=through)
        assert not isinstance(near, AirError), f"the dialler failed: {near!r}"
        assert not isinstance(far, AirError), f"the listener failed: {far!r}"
        return (far, near) if self.swapped else (near, far)


async def _take(stream: ByteStream, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        data = await stream.receive(min(size, 65536))
        assert data, "receive returned nothing, where the end is told by Closed"
        assert len(data) <= size, "receive returned more than was asked for"
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


# The checks


async def names_are_proven(scene: _Scene) -> None:
    """Each side knows the other's name and key."""
    near, far, *_ = await scene.meet(expected=scene.listener.peer_id)
    assert not isinstance(near, AirError), f"the dialler failed: {near!r}"
    assert not isinstance(far, AirError), f"the listener failed: {far!r}"
    assert near.peer == scene.listener.peer_id, "the dialler sees another peer"
    assert far.peer == scene.dialer.peer_id, "the listener sees another peer"
    assert near.key == scene.listener.public_key
    assert far.key == scene.dialer.public_key


async def another_peer_is_refused(scene: _Scene) -> None:
    """A dialler that expects somebody else raises ``security.wrong-peer``, and the listener gets no peer it
    could talk to."""
    near, far, *_ = await scene.meet(expected=Identity(b"\x03" * 32).peer_id)
    assert isinstance(near, Denied), f"a wrong peer was accepted: {near!r}"
    assert near.code == "security.wrong-peer", f"code {near.code}"
    if not isinstance(far, AirError):
        try:
            await far.receive()
            raise AssertionError("the dialler goes on talking to a peer it refused")
        except AirError:
            pass


async def nobody_passes_for_another(scene: _Scene) -> None:
    """Who shows somebody else's key, and proves it with its own, is not taken for the other."""
    if not scene.encrypts:
        return
    liar = scene.dialer if scene.swapped else scene.listener
    expected = scene.listener.peer_id
    if scene.swapped:
        scene.dialer = _Liar(scene.dialer)
    else:
        scene.listener = _Liar(scene.listener)
    near, far, *_ = await scene.meet(expected=expected, patience=5.0)
    deceived = far if scene.swapped else near
    assert isinstance(deceived, AirError) or deceived.peer != liar.peer_id, "a stolen name was believed"


async def bytes_come_in_any_pieces(scene: _Scene) -> None:
    """A handshake and what follows may arrive in crumbs, and as one lump."""
    lumps: tuple[Wrap, Wrap] = (Lumps, _bare) if scene.swapped else (_bare, Lumps)
    for through in ((Crumbs, Crumbs), lumps):
        a, b = await scene.joined(through)
        for size in (1, 700, 5000):
            data = random.Random(size).randbytes(size)
            await a.send(data)
            assert await _take(b, size) == data, f"{size} bytes were changed by how they came"
            await b.send(data)
            assert await _take(a, size) == data, f"{size} bytes were changed by how they came"


async def bytes_go_both_ways(scene: _Scene) -> None:
    """Any length, in order, also several pieces at once."""
    a, b = await scene.joined()
    for size in (1, 2, 1000, 65_519, 65_520, 200_000):
        data = random.Random(size).randbytes(size)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.send, data)
            assert await _take(b, size) == data, f"{size} bytes did not arrive as they were sent"
    await b.send_many([b"one", memoryview(b"-two-"), bytearray(b"three")])
    assert await _take(a, 13) == b"one-two-three", "pieces did not arrive in order"
    if can_send_now(b):
        b.send_now([b"at", memoryview(b" once")])  # type: ignore[attr-defined]
        assert await _take(a, 7) == b"at once", "what was sent at once did not arrive"
    await a.send(b"")
    await a.send(b"!")
    assert await _take(b, 1) == b"!", "an empty send disturbed the next"


async def nothing_is_lost(scene: _Scene) -> None:
    """Four MiB each way at once."""
    a, b = await scene.joined()
    there, back = (random.Random(seed).randbytes(4 * MIB) for seed in (1, 2))

    async def write(stream: SecureConn, data: bytes) -> None:
        dice, at = random.Random(4), 0
        while at < len(data):
            size = dice.choice((1, 300, 20_000, 300_000))
            await stream.send(data[at : at + size])
            at += size

    async def read(stream: SecureConn, data: bytes) -> None:
        assert await _take(stream, len(data)) == data, "bytes were changed, lost or swapped"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, a, there)
        tasks.start_soon(write, b, back)
        tasks.start_soon(read, a, back)
        tasks.start_soon(read, b, there)


async def a_cancelled_receive_loses_nothing(scene: _Scene) -> None:
    """The next call gets the bytes."""
    a, b = await scene.joined()
    for number in range(20):
        with anyio.move_on_after(0.001 * (number % 3)):
            await b.receive()
            raise AssertionError("something was received that nobody has sent")
        await a.send(b"abc")
        assert await _take(b, 3) == b"abc", "bytes got lost with a cancelled receive"
    await cancel_as_bytes_come(a, b)
    await cancel_as_bytes_come(*await scene.joined((Crumbs, Crumbs)))


async def the_end_is_an_orderly_one(scene: _Scene) -> None:
    """After ``send_eof`` the other side reads what was sent, then Closed that is no Reset, and can answer."""
    a, b = await scene.joined()
    await a.send(b"the last words")
    await a.send_eof()
    assert await _take(b, 14) == b"the last words"
    try:
        await b.receive()
        raise AssertionError("bytes after the end")
    except Reset as error:
        raise AssertionError(f"an orderly end was reported as {error!r}") from error
    except Closed:
        pass
    try:
        await b.send(b"an answer")
        assert await _take(a, 9) == b"an answer"
    except Closed as error:
        raise AssertionError("send_eof has ended the other direction too") from error
    await a.aclose()
    await a.aclose()
    await b.aclose()


async def a_muxer_is_chosen_only_together(scene: _Scene) -> None:
    """With an offer from both sides either both have a muxer, the same one, or neither; with one, neither."""
    for muxers in (((YAMUX,), (YAMUX,)), ((YAMUX,), ()), ((), (YAMUX,)), ((), ())):
        near, far, *_ = await scene.meet(muxers=muxers)
        assert not isinstance(near, AirError), f"the dialler failed: {near!r}"
        assert not isinstance(far, AirError), f"the listener failed: {far!r}"
        assert near.muxer == far.muxer, f"{near.muxer} here and {far.muxer} there"
        assert near.muxer in (None, YAMUX)
        if not all(muxers):
            assert near.muxer is None, "a muxer that one side did not offer"


async def a_changed_byte_of_the_handshake_is_noticed(scene: _Scene) -> None:
    """Whichever byte is changed, on either way: no two sides that both believe to be joined."""
    if not scene.encrypts:
        return
    _, _, near_tap, far_tap = await scene.meet()
    total = (far_tap if scene.swapped else near_tap).passed
    # Every byte of short handshakes, a sample of long ones: each takes a handshake.
    for at in range(total) if total <= 256 else sorted(random.Random(5).sample(range(total), 128)):
        flip = (None, at) if scene.swapped else (at, None)
        # A changed length may make both wait for more.
        near, far, *_ = await scene.meet(flip=flip, patience=0.5)
        failed = [one for one in (near, far) if isinstance(one, AirError)]
        assert failed, f"byte {at} of the handshake was changed, and nobody noticed"


async def a_changed_byte_of_data_ends_the_connection(scene: _Scene) -> None:
    """Data whose encryption was touched is not delivered, and neither is what follows."""
    if not scene.encrypts:
        return
    _, _, *taps = await scene.meet()
    at = taps[1 if scene.swapped else 0].passed + 25
    near, far, *_ = await scene.meet(flip=(None, at) if scene.swapped else (at, None))
    assert not isinstance(near, AirError)
    assert not isinstance(far, AirError)
    sender, receiver = (far, near) if scene.swapped else (near, far)
    await sender.send(bytes(1000))
    got = b""
    try:
        await sender.send(b"behind")
        while len(got) < 1006:
            got += await receiver.receive()
        raise AssertionError("changed bytes were delivered")
    except AirError:
        assert b"behind" not in got, "what follows changed bytes was delivered"


async def what_is_repeated_left_out_or_swapped_is_noticed(scene: _Scene) -> None:
    """Nobody on the way can have a piece delivered twice, out of turn, or after one that is missing."""
    if not scene.encrypts:
        return
    for how in ("repeated", "left out", "swapped"):
        near, far, *taps = await scene.meet()
        assert not isinstance(near, AirError)
        assert not isinstance(far, AirError)
        sender, receiver = (far, near) if scene.swapped else (near, far)
        tap = taps[1 if scene.swapped else 0]
        await sender.send(b"first ")
        second, third = [await tap.catch(sender.send(word)) for word in (b"second ", b"third ")]
        sent = {"repeated": [second, second, third], "left out": [third], "swapped": [third, second]}[how]
        await tap.inner.send(b"".join(sent))
        await tap.inner.send_eof()
        got = b""
        try:
            while True:
                got += await receiver.receive()
        except AirError:
            pass
        assert b"first second third ".startswith(got), f"what was {how} on the way was delivered: {got!r}"
        await sender.aclose()
        await receiver.aclose()


async def a_peer_that_leaves_ends_the_handshake(scene: _Scene) -> None:
    """Wherever it leaves, and whatever it said until then: an AirError, and the stream is closed."""
    for left, noise in ((left, noise) for left in range(0, 400, 37) for noise in (False, True)):
        near, far = await scene._pair()
        mine, other = (far, near) if scene.swapped else (near, far)
        security = scene._two if scene.swapped else scene._one
        outcome: list[object] = []

        async def side(stream: ByteStream, security: Security, outcome: list[object]) -> None:
            try:
                await security.secure(
                    stream, identity=scene.dialer, dialer=not scene.swapped, muxers=(), env=Env()
                )
                outcome.append("joined")
            except AirError as error:
                outcome.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(side, mine, security, outcome)
            await other.send(random.Random(left).randbytes(left) if noise else bytes(left))
            await other.send_eof()
        assert isinstance(outcome[0], AirError), f"joined with a peer that said {left} bytes and left"
        try:
            await mine.send(b"x")
            raise AssertionError("the stream is open after a failed handshake")
        except AirError:
            pass
        await other.aclose()


CHECKS: Final[dict[str, Callable[[_Scene], Awaitable[None]]]] = {
    check.__name__: check
    for check in (
        names_are_proven,
        another_peer_is_refused,
        nobody_passes_for_another,
        bytes_come_in_any_pieces,
        bytes_go_both_ways,
        nothing_is_lost,
        a_cancelled_receive_loses_nothing,
        the_end_is_an_orderly_one,
        a_muxer_is_chosen_only_together,
        a_changed_byte_of_the_handshake_is_noticed,
        a_changed_byte_of_data_ends_the_connection,
        what_is_repeated_left_out_or_swapped_is_noticed,
        a_peer_that_leaves_ends_the_handshake,
    )
}
"""Name -> check, in the order in which they run."""
