"""Identify: peers tell each other who they are, when they meet and when that changes. (shell)

Whoever is asked answers with one message about itself; push is the same unasked. Source: libp2p identify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from air import __version__
from air.base.address import Multiaddr
from air.base.errors import AirError, Closed, LimitReached, Misuse, Reset, Violation
from air.codec.envelope import seal_peer_record
from air.codec.frame import FrameReader, encode_frame
from air.mux.api import Priority
from air.protocols.presentation import MESSAGES_MAX, READ_BYTES_MAX, Presentation, decode, encode
from air.swarm.api import Host, StreamHandler
from air.swarm.peerbook import Source
from air.swarm.session import Session
from air.swarm.stream import Stream

__all__ = ["PROTOCOL", "PUSH", "Identify", "IdentifyConfig"]

PROTOCOL: Final = "/ipfs/id/1.0.0"
PUSH: Final = "/ipfs/id/push/1.0.0"


@dataclass(frozen=True, slots=True)
class IdentifyConfig:
    agent: str = f"air/{__version__}"
    """Program and version, for people."""
    protocol_version: str = "ipfs/0.1.0"
    """The family of networks; informative."""
    timeout_seconds: float = 5.0
    """For one exchange (go-libp2p and js-libp2p: 5 s)."""
    watch_seconds: float = 1.0
    """How often it is looked whether there is something new to push."""
    pushes_max: int = 32
    """Pushes under way at a time, in each direction."""
    inbound_max: int = 4
    """Identify and push streams of one session at a time."""


class _Asking:
    __slots__ = ("done", "error", "found")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.found: Presentation | None = None
        self.error: AirError | None = None
        """Neither of the two when whoever asked was cancelled."""


class Identify:
    """Presents this peer, asks others, and writes what they say into the peer book."""

    def __init__(self, config: IdentifyConfig | None = None) -> None:
        self._config = IdentifyConfig() if config is None else config
        self._host: Host | None = None
        self._asking: dict[int, _Asking] = {}
        self._inbound: dict[int, int] = {}
        self._pushes_in = 0
        self._told: set[tuple[tuple[Multiaddr, ...], tuple[str, ...]]] = set()
        """What peers may take for the present state: a state that lasted a moment was told, too."""
        self._sealed: tuple[tuple[Multiaddr, ...], bytes] | None = None
        self._seq = 0

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        return {PROTOCOL: self._answer, PUSH: self._pushed}

    async def run(self, host: Host, *, task_status: Any) -> None:
        self._host = host
        with host.attend(self._greet):
            task_status.started()
            self._told = {(host.addresses, host.protocols)}
            while True:
                await anyio.sleep(self._config.watch_seconds)
                now = {(host.addresses, host.protocols)}
                if now != self._told:
                    self._told = now
                    await self.push()

    def present(self, session: Session | None = None) -> Presentation:
        """What this peer says of itself, to the peer of ``session``."""
        host = self._here()
        addresses, protocols = host.addresses, host.protocols
        self._told.add((addresses, protocols))
        return Presentation(
            public_key=host.identity.public_key,
            addresses=addresses,
            protocols=protocols,
            observed=None if session is None else session.remote_address,
            protocol_version=self._config.protocol_version,
            agent=self._config.agent,
            record=self.record(addresses),
        )

    def record(self, addresses: tuple[Multiaddr, ...]) -> bytes:
        """The signed peer record for ``addresses``: a new one, with a higher number, when they changed."""
        host = self._here()
        if self._sealed is None or self._sealed[0] != addresses:
            self._seq = max(self._seq + 1, int(host.env.clock.now().wall))
            self._sealed = (addresses, seal_peer_record(host.identity, self._seq, addresses))
        return self._sealed[1]

    async def ask(self, session: Session) -> Presentation:
        """Have the peer present itself. Two who ask at once share an answer: js-libp2p allows one stream.

        Raises Violation ``identify.…``, and what opening a stream raises.
        """
        while (asking := self._asking.get(session.number)) is not None:
            await asking.done.wait()
            if asking.found is not None:
                return asking.found
            if asking.error is not None:
                raise type(asking.error)(str(asking.error), code=asking.error.code)
        asking = self._asking[session.number] = _Asking()
        try:
            asking.found = await self._ask(session)
            return asking.found
        except AirError as error:
            asking.error = error
            raise
        finally:
            asking.done.set()
            del self._asking[session.number]

    async def push(self) -> None:
        """Tell all peers that take pushes what is new. Peers that do not answer are left out."""
        host = self._here()
        room = anyio.Semaphore(self._config.pushes_max)
        async with anyio.create_task_group() as tasks:
            for session in host.sessions:
                info = host.peerbook.info(session.peer)
                if info is not None and PUSH in info.protocols:
                    tasks.start_soon(self._push, session, room)

    # Inside

    def _here(self) -> Host:
        if self._host is None:
            raise Misuse("identify belongs to no running node")
        return self._host

    async def _greet(self, session: Session) -> None:
        await self.ask(session)

    async def _ask(self, session: Session) -> Presentation:
        try:
            with anyio.fail_after(self._config.timeout_seconds):
                stream = await session.open_stream(PROTOCOL, priority=Priority.CONTROL)
                async with stream:
                    said = await _read(stream)
        except TimeoutError:
            raise Violation("the peer does not present itself in time", code="identify.timeout") from None
        self._take(session, said, source=Source.IDENTIFY)
        return said

    async def _answer(self, stream: Stream) -> None:
        with _Counted(self._inbound, stream.session.number, self._config.inbound_max):
            stream.priority = Priority.CONTROL
            with anyio.move_on_after(self._config.timeout_seconds):
                await stream.send(encode_frame(encode(self.present(stream.session))))

    async def _pushed(self, stream: Stream) -> None:
        if self._pushes_in >= self._config.pushes_max:
            raise LimitReached("too many pushes at a time", code="identify.pushes")
        self._pushes_in += 1
        try:
            with _Counted(self._inbound, stream.session.number, self._config.inbound_max):
                with anyio.fail_after(self._config.timeout_seconds):
                    said = await _read(stream)
                self._take(stream.session, said, source=Source.IDENTIFY)
        except TimeoutError:
            raise Violation("a push that does not end", code="identify.timeout") from None
        finally:
            self._pushes_in -= 1

    async def _push(self, session: Session, room: anyio.Semaphore) -> None:
        try:
            async with room:
                with anyio.move_on_after(self._config.timeout_seconds):
                    async with await session.open_stream(PUSH, priority=Priority.CONTROL) as stream:
                        await stream.send(encode_frame(encode(self.present(session))))
        except AirError:
            # It will ask, or hear of the next change.
            return

    def _take(self, session: Session, said: Presentation, *, source: Source) -> None:
        host, peer = self._here(), session.peer
        if said.public_key is not None and said.public_key != session.public_key:
            raise Violation("a peer presents itself with another's key", code="identify.wrong-key")
        now = host.env.clock.now()
        info = host.peerbook.present(
            peer,
            protocols=said.protocols or None,
            agent=said.agent,
            protocol_version=said.protocol_version,
        )
        info.identified = True
        if said.record is not None:
            try:
                host.peerbook.record(said.record, now, expected=peer)
                return
            except Violation as error:
                # rust-libp2p may send a record in the form of an old draft: the rest is still good.
                host.counters.add("identify_records_refused", label=error.code)
        if said.addresses:
            host.peerbook.replace(peer, said.addresses, source, now)


class _Counted:
    """A place among a few, by session."""

    __slots__ = ("_counts", "_key", "_most")

    def __init__(self, counts: dict[int, int], key: int, most: int) -> None:
        self._counts, self._key, self._most = counts, key, most

    def __enter__(self) -> None:
        here = self._counts.get(self._key, 0)
        if here >= self._most:
            raise LimitReached("too many identify streams at a time", code="identify.streams")
        self._counts[self._key] = here + 1

    def __exit__(self, *_: object) -> None:
        left = self._counts[self._key] - 1
        if left:
            self._counts[self._key] = left
        else:
            del self._counts[self._key]


async def _read(stream: Stream) -> Presentation:
    reader, found = FrameReader(READ_BYTES_MAX), []
    while True:
        try:
            data = await stream.receive(READ_BYTES_MAX)
        except Reset:
            raise
        except Closed:
            reader.receive_eof()
            break
        found += reader.receive(data)
        if len(found) > MESSAGES_MAX:
            raise LimitReached(f"more than {MESSAGES_MAX} identify messages", code="identify.too-many")
    if not found:
        raise Violation("a peer that says nothing of itself", code="identify.empty")
    return decode(found)
