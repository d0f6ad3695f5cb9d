"""Answering other peers: the streams they open. (shell)"""

from __future__ import annotations

from collections import OrderedDict

import anyio

from air.base.bucket import TokenBucket
from air.base.env import Env
from air.base.errors import Closed, LimitReached, Reset
from air.base.metrics import Counters
from air.base.peer_id import PeerId
from air.codec.frame import FrameReader, encode_frames
from air.dht.codec import decode, encode
from air.dht.config import KadConfig
from air.dht.message import Kind
from air.dht.responder import Responder
from air.swarm.stream import Stream

__all__ = ["Server"]

_TOGETHER = 16
"""Questions answered in one write."""
_WRITE_COST = 10.0
_WRITES = frozenset({Kind.PUT_VALUE, Kind.ADD_PROVIDER})


class _Account:
    """How fast one peer goes, and how many streams it has."""

    __slots__ = ("bucket", "streams")

    def __init__(self, config: KadConfig) -> None:
        self.bucket = TokenBucket(config.requests_burst, config.requests_per_second)
        self.streams = 0


class Server:
    """Serves streams of questions with a responder: each answered in its order, at a bounded rate."""

    def __init__(self, responder: Responder, env: Env, counters: Counters, config: KadConfig) -> None:
        self._responder, self._env, self._counters, self._config = responder, env, counters, config
        self._accounts: OrderedDict[PeerId, _Account] = OrderedDict()
        counters.describe("kad_requests_in", "Questions of peers to the DHT, by kind.", "kind")

    async def serve(self, stream: Stream) -> None:
        """Answer one stream until its end. Raises LimitReached ``kad.streams``, or Violation."""
        account = self._account(stream.peer)
        if account.streams >= self._config.inbound_max:
            raise LimitReached(f"{stream.peer} has its streams", code="kad.streams")
        account.streams += 1
        try:
            await self._answer(stream, account.bucket)
        finally:
            account.streams -= 1

    async def _answer(self, stream: Stream, bucket: TokenBucket) -> None:
        config = self._config
        reader = FrameReader(config.message_bytes_max)
        while True:
            frames: list[bytes] = []
            # For a whole question: a byte now and then does not keep a stream.
            with anyio.move_on_after(config.idle_seconds) as idle:
                while not frames:
                    try:
                        data = await stream.receive()
                    except Reset:
                        raise
                    except Closed:
                        reader.receive_eof()
                        return
                    frames = reader.receive(data)
            if idle.cancelled_caught:
                reader.receive_eof()
                return
            # One read may hold thousands of questions, and an answer is longer than its question.
            for start in range(0, len(frames), _TOGETHER):
                answers = [
                    answer
                    for frame in frames[start : start + _TOGETHER]
                    if (answer := self._one(frame, stream.peer, bucket)) is not None
                ]
                wait = bucket.wait(self._env.clock.now().monotonic)
                if wait:
                    await anyio.sleep(wait)
                if answers:
                    with anyio.move_on_after(config.idle_seconds) as unread:
                        await stream.send(encode_frames(answers))
                    if unread.cancelled_caught:
                        raise LimitReached("nobody reads the answers", code="kad.unread")

    def _one(self, frame: bytes, peer: PeerId, bucket: TokenBucket) -> bytes | None:
        message = decode(frame, self._config, question=True)
        bucket.level -= _WRITE_COST if message.kind in _WRITES else 1.0
        self._counters.add("kad_requests_in", label=message.kind.name)
        answer = self._responder.answer(message, peer, self._env.clock.now())
        return None if answer is None else encode(answer, self._config)

    def _account(self, peer: PeerId) -> _Account:
        accounts = self._accounts
        account = accounts.get(peer)
        if account is None:
            account = accounts[peer] = _Account(self._config)
            if len(accounts) > self._config.accounts_max:
                for other, entry in accounts.items():
                    if not entry.streams and other != peer:
                        del accounts[other]
                        break
        accounts.move_to_end(peer)
        return account
