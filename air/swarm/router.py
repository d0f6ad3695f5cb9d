"""Who serves which protocol, and what becomes of an inbound stream. (shell)"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from air.base.env import Env
from air.base.errors import AirError, Closed, LimitReached, Misuse, Violation
from air.base.metrics import Counters
from air.mux.api import MuxedStream, ResetCode
from air.negotiate.multistream import MultistreamConfig
from air.negotiate.select import answer
from air.swarm.api import StreamHandler
from air.swarm.limits import StreamHold
from air.swarm.stream import Stream

if TYPE_CHECKING:
    from air.swarm.session import Session

__all__ = ["Router"]

_LOG = logging.getLogger("air.swarm.router")


class Router:
    """The handlers of a node, by protocol.

    ``counters`` receives ``streams_in`` by protocol, and ``streams_failed`` by code.
    """

    def __init__(
        self, env: Env, counters: Counters, config: MultistreamConfig, *, logged_per_minute: int = 10
    ) -> None:
        self._env, self._counters, self._config = env, counters, config
        self._handlers: dict[str, StreamHandler] = {}
        self._protocols: tuple[str, ...] = ()
        self._log_max = logged_per_minute
        self._logged, self._logged_since = 0, 0.0
        counters.describe("streams_in", "Streams that peers opened, by protocol.", "protocol")
        counters.describe("streams_failed", "Inbound streams that were reset here, by code.", "code")

    @property
    def protocols(self) -> tuple[str, ...]:
        """Everything that is served, sorted."""
        return self._protocols

    @contextmanager
    def handle(self, protocol: str, handler: StreamHandler) -> Iterator[None]:
        """Serve ``protocol`` inside a block. Raises Misuse when it is served already."""
        if protocol in self._handlers:
            raise Misuse(f"{protocol} has a handler already", code="swarm.two-handlers")
        self._handlers[protocol] = handler
        self._protocols = tuple(sorted(self._handlers))
        try:
            yield
        finally:
            del self._handlers[protocol]
            self._protocols = tuple(sorted(self._handlers))

    async def serve(self, session: Session, muxed: MuxedStream, hold: StreamHold) -> None:
        """Negotiate and run the handler. Ends with the stream closed or reset, and raises nothing."""
        stream: Stream | None = None
        try:
            agreed = await answer(
                muxed,
                self._protocols,
                env=self._env,
                config=self._config,
                speaks=self._handlers.__contains__,
            )
            handler = self._handlers.get(agreed.protocol)
            stream = Stream(session, muxed, agreed.stream, agreed.protocol, hold)
            session.live.add(stream)
            hold.negotiated(agreed.protocol)
            if handler is None:
                raise Closed("the protocol is not served any more")
            self._counters.add("streams_in", label=agreed.protocol)
            await handler(stream)
            await stream.aclose()
        except Closed:
            # The peer left or cut its stream; that is how streams end.
            await _reset(muxed, ResetCode.NONE)
        except Exception as error:
            # Supervision: a fault of one stream must not end the others.
            self._failed(session, stream, error)
            await _reset(muxed, _reset_code(error))
        except BaseException:
            await _reset(muxed, ResetCode.SHUTDOWN)
            raise
        finally:
            hold.release()
            if stream is not None:
                session.live.discard(stream)

    def _failed(self, session: Session, stream: Stream | None, error: Exception) -> None:
        code = error.code if isinstance(error, AirError) else "stream.handler-failed"
        self._counters.add("streams_failed", label=code)
        if isinstance(error, Violation) and not isinstance(error, LimitReached):
            session.offended(1.0)
        if isinstance(error, AirError):
            return
        now = self._env.clock.now().monotonic
        if now - self._logged_since >= 60.0:
            self._logged, self._logged_since = 0, now
        self._logged += 1
        if self._logged <= self._log_max:
            protocol = "?" if stream is None else stream.protocol
            _LOG.error("%s: the handler of %s failed", code, protocol, exc_info=error)


def _reset_code(error: Exception) -> ResetCode:
    if isinstance(error, LimitReached):
        return ResetCode.RESOURCE_LIMIT
    if isinstance(error, Violation):
        return ResetCode.VIOLATION
    return ResetCode.NONE


async def _reset(muxed: MuxedStream, code: ResetCode) -> None:
    with anyio.CancelScope(shield=True):
        try:
            await muxed.reset(code)
        except AirError:
            return
