"""Asking other peers: one question, and one search. (shell)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import anyio

from air.base.errors import AirError, Closed, Reset, Violation
from air.base.peer_id import PeerId
from air.codec.frame import FrameReader, encode_frame
from air.dht.codec import decode, encode
from air.dht.config import KadConfig
from air.dht.key import place
from air.dht.lookup import Lookup
from air.dht.message import Contact, Kind, Message
from air.dht.table import RoutingTable
from air.swarm.api import Host
from air.swarm.peerbook import Source
from air.swarm.stream import Stream

__all__ = ["Heard", "Querier"]

Heard: TypeAlias = Callable[[Contact, Message], bool]
"""Told of each answer of a search; True when that is enough."""


class Querier:
    """Asks on behalf of a node, and keeps its table up to date with who answers."""

    def __init__(
        self, host: Host, table: RoutingTable, config: KadConfig, joined: Callable[[], None]
    ) -> None:
        """``joined`` is called when a peer has come into the table."""
        self._host, self._table, self._config, self._joined = host, table, config, joined
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
        answer = await self._request(contact, message)
        if answer is None or answer.kind is not message.kind:
            raise Violation("an answer to another question", code="kad.wrong-answer")
        return answer

    async def tell(self, contact: Contact, message: Message) -> None:
        """Send what nobody answers: ADD_PROVIDER. Raises as :meth:`ask`."""
        await self._request(contact, message, answered=False)

    async def search(
        self, key: bytes, kind: Kind = Kind.FIND_NODE, *, settle: int, heard: Heard | None = None
    ) -> Lookup:
        """Ask peers ever closer to ``key``, until the ``settle`` closest have answered, ``heard`` has heard
        enough, or ``query_seconds`` are over."""
        host, config, target = self._host, self._config, place(key)
        self._table.searched(target, host.env.clock.now())
        host.counters.add("kad_searches")
        seeds = self.contacts(self._table.closest(target, config.k))
        lookup = Lookup(target, host.peer, seeds, config, settle=settle)
        question = Message(kind, key)
        changed = anyio.Event()

        async def one(contact: Contact) -> None:
            nonlocal changed
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
        """Send one message to several peers, a few at a time; returns how many took it."""
        taken, room = 0, anyio.Semaphore(self._config.alpha)

        async def one(contact: Contact) -> None:
            nonlocal taken
            async with room:
                try:
                    await (self.ask if answered else self.tell)(contact, message)
                except AirError:
                    return
                taken += 1

        async with anyio.create_task_group() as tasks:
            for contact in contacts:
                tasks.start_soon(one, contact)
        return taken

    async def _request(self, contact: Contact, message: Message, *, answered: bool = True) -> Message | None:
        host, peer, clock = self._host, contact.peer, self._host.env.clock
        try:
            with anyio.fail_after(self._config.request_seconds):
                answer = await self._exchange(contact, message, answered)
        except (AirError, TimeoutError) as error:
            code = error.code if isinstance(error, AirError) else "kad.timeout"
            host.counters.add("kad_requests_out", label=code)
            self._table.failed(peer, clock.now())
            if isinstance(error, AirError):
                raise
            raise Violation("no answer in time", code=code) from None
        host.counters.add("kad_requests_out", label="ok")
        self._table.answered(peer, clock.now())
        if answered and peer not in self._table:
            # Who answers is a server, and lives. It counts in the network where it really is: it may claim
            # to be in any other.
            session = host.session(peer)
            where = () if session is None else (session.remote_address,)
            if self._table.add(peer, where, clock.now()):
                self._joined()
        return answer

    async def _exchange(self, contact: Contact, message: Message, answered: bool) -> Message | None:
        if contact.addresses:
            # Whoever told them may be wrong or lie: the handshake shows who is there.
            self._host.discovered(contact.peer, contact.addresses, Source.HINT)
        session = await self._host.dial(contact.peer)
        async with await session.open_stream(self._config.protocol) as stream:
            await stream.send(encode_frame(encode(message, self._config)))
            await stream.send_eof()
            return await self._answer(stream) if answered else None

    async def _answer(self, stream: Stream) -> Message:
        reader = FrameReader(self._config.message_bytes_max, frames_max=1)
        frames: list[bytes] = []
        while not frames:
            try:
                data = await stream.receive()
            except Reset:
                raise
            except Closed:
                raise Violation("the peer left without an answer", code="kad.no-answer") from None
            frames = reader.receive(data)
        return decode(frames[0], self._config)
