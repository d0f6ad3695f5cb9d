"""Asking other peers: one question, and one search. (shell)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import anyio

from air.base.address import Multiaddr
from air.base.errors import AirError, Closed, Reset, Unreachable, Violation
from air.base.peer_id import PeerId
from air.codec.frame import FrameReader, encode_frames
from air.dht.codec import decode, encode
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.message import Contact, Kind, Message
from air.dht.paths import Paths
from air.dht.table import RoutingTable
from air.swarm.api import Host
from air.swarm.peerbook import Source
from air.swarm.stream import Stream

__all__ = ["Heard", "Querier"]

Heard: TypeAlias = Callable[[Contact, Message], bool]
"""Told of each answer of a search; True when that is enough."""


@dataclass(eq=False, slots=True)
class _Turns:
    """The questions under way to one peer, and those that wait."""

    room: anyio.Semaphore
    wanted: int = 0


class Querier:
    """Asks on behalf of a node, and keeps its table up to date with who answers."""

    def __init__(
        self, host: Host, table: RoutingTable, config: KadConfig, joined: Callable[[], None]
    ) -> None:
        """``joined`` is called when a peer has come into the table."""
        self._host, self._table, self._config, self._joined = host, table, config, joined
        self._turns: dict[PeerId, _Turns] = {}
        counters = host.counters
        counters.describe("kad_requests_out", "Questions to peers of the DHT, by result.", "result")
        counters.describe("kad_searches", "Searches begun in the DHT.")

    def contacts(self, peers: Iterable[PeerId]) -> list[Contact]:
        """The peers with the addresses that are known of them."""
        now = self._host.env.clock.now()
        return [Contact(peer, tuple(self._host.peerbook.addresses(peer, now))) for peer in peers]

    async def ask(self, contact: Contact, message: Message) -> Message:
        """The answer of one peer, which is dialled if need be.

        Raises Violation ``kad.…`` when it does not answer, or not as it should, and what ``Host.dial`` and
        opening a stream raise.
        """
        return await self._request(contact, [message])

    async def tell(self, contact: Contact, message: Message) -> None:
        """Have a peer take what nobody answers: ADD_PROVIDER. Raises as :meth:`ask`.

        A question follows it on the same stream. Its answer shows that the peer has come past what it was
        told, which would be lost if this side left before.
        """
        await self._request(contact, [message, Message(Kind.FIND_NODE, message.key)])

    async def search(
        self, key: bytes, kind: Kind = Kind.FIND_NODE, *, settle: int, heard: Heard | None = None
    ) -> Paths:
        """Ask peers ever closer to ``key``, until the ``settle`` closest have answered, ``heard`` has heard
        enough, or ``query_seconds`` are over."""
        host, config, target = self._host, self._config, place(key)
        self._table.searched(target, host.env.clock.now())
        host.counters.add("kad_searches")
        seeds = self.contacts(self._table.closest(target, config.k))
        lookup = Paths(target, host.peer, seeds, config, settle=settle)
        question = Message(kind, key)
        changed = anyio.Event()

        async def one(contact: Contact) -> None:
            try:
                answer = await self.ask(contact, question)
            except AirError:
                lookup.failed(contact.peer)
            else:
                lookup.answered(contact.peer, answer.closer)
                if heard is not None and heard(contact, answer):
                    lookup.stop()
            changed.set()

        with anyio.move_on_after(config.query_seconds):
            async with anyio.create_task_group() as tasks:
                while not lookup.done:
                    changed = anyio.Event()
                    for contact in lookup.take():
                        tasks.start_soon(one, contact)
                    if not lookup.done:
                        await changed.wait()
                # Those still under way cannot change the result.
                tasks.cancel_scope.cancel()
        return lookup

    async def spread(self, contacts: Sequence[Contact], message: Message, *, answered: bool = True) -> int:
        """Send one message to several peers, a few at a time, for ``query_seconds`` at the most.

        Returns how many took it.
        """
        taken, room = 0, anyio.Semaphore(self._config.alpha)

        async def one(contact: Contact) -> None:
            nonlocal taken
            async with room:
                try:
                    await (self.ask if answered else self.tell)(contact, message)
                except AirError:
                    return
                taken += 1

        with anyio.move_on_after(self._config.query_seconds):
            async with anyio.create_task_group() as tasks:
                for contact in contacts:
                    tasks.start_soon(one, contact)
        return taken

    async def _request(self, contact: Contact, messages: Sequence[Message]) -> Message:
        host, peer, clock = self._host, contact.peer, self._host.env.clock
        # First of all: what cannot be sent is not the fault of whom it was meant for.
        data = encode_frames([encode(message, self._config) for message in messages])
        try:
            async with self._turn(peer):
                with anyio.fail_after(self._config.request_seconds):
                    answer, where = await self._exchange(contact, data, messages)
        except (AirError, TimeoutError) as error:
            code = error.code if isinstance(error, AirError) else "kad.timeout"
            host.counters.add("kad_requests_out", label=code)
            # A reset is how a server refuses a value: it lives.
            refused = messages[-1].kind is Kind.PUT_VALUE and isinstance(error, Reset)
            if not refused and not _is_ours(error):
                self._table.failed(peer, clock.now())
            if isinstance(error, AirError):
                raise
            raise Violation("no answer in time", code=code) from None
        host.counters.add("kad_requests_out", label="ok")
        self._table.answered(peer, clock.now())
        # Who answers is a server, and lives. It counts in the network where it really is: it may claim to be
        # in any other, or have come from another before.
        if self._table.add(peer, (where,), clock.now()):
            self._joined()
        return answer

    @asynccontextmanager
    async def _turn(self, peer: PeerId) -> AsyncIterator[None]:
        turns = self._turns.get(peer)
        if turns is None:
            turns = self._turns[peer] = _Turns(anyio.Semaphore(self._config.outbound_max))
        turns.wanted += 1
        try:
            async with turns.room:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._turns[peer]

    async def _exchange(
        self, contact: Contact, data: bytes, messages: Sequence[Message]
    ) -> tuple[Message, Multiaddr]:
        """The answer, and where it came from: the session may be gone a moment later."""
        # Whoever told them may be wrong or lie: the handshake shows who is there. What the book itself has
        # told is no news: it would never end.
        book = self._host.peerbook.addresses(contact.peer, self._host.env.clock.now())
        news = [address for address in contact.addresses if address not in book]
        if news:
            self._host.discovered(contact.peer, news, Source.HINT)
        session = await self._host.dial(contact.peer)
        async with await session.open_stream(self._config.protocol) as stream:
            await stream.send(data)
            # The end is said behind the answer: py-libp2p resets a stream when it reads one, and its answer
            # would be lost with that.
            return await self._answer(stream, messages), session.remote_address

    async def _answer(self, stream: Stream, messages: Sequence[Message]) -> Message:
        """The answer to the last of ``messages``; nobody but py-libp2p answers those before it."""
        reader = FrameReader(self._config.message_bytes_max)
        silent = {message.kind for message in messages[:-1]}
        while True:
            try:
                data = await stream.receive()
            except Reset:
                raise
            except Closed:
                raise Violation("the peer left without an answer", code="kad.no-answer") from None
            for frame in reader.receive(data):
                answer = decode(frame, self._config)
                if answer.kind is messages[-1].kind:
                    return answer
                if answer.kind not in silent:
                    raise Violation("an answer to another question", code="kad.wrong-answer")
                silent.remove(answer.kind)


def _is_ours(error: AirError | TimeoutError) -> bool:
    """Whether a request failed at a ceiling of this node. Otherwise, whoever fills the node's connections
    would empty its table too."""
    reasons = [error.code] if isinstance(error, AirError) else []
    if isinstance(error, Unreachable):
        reasons = [reason for _, reason in error.attempts]
    return any(reason.startswith("limit.") for reason in reasons)
