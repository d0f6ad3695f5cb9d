"""The admin interface: what the operator and the command line may ask. (shell)

``docs/admin-api.md`` describes it for its users.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from air.base.clock import Clock
from air.base.errors import AirError, LimitReached, Violation
from air.daemon.guard import AUTHORISED, Asgi, Guard, error_json, status_of
from air.daemon.ports import Hub, Receipt
from air.daemon.query import flag_of, limit_of, read_query, soul_of
from air.daemon.stream import NodeResponse, WatchResponse
from air.model.cell import Fields
from air.model.lex import Lex
from air.model.value import Value, canonical, number_text, text_json
from air.node.config import AdminConfig

__all__ = ["admin_app"]

_CODES: Final = {404: "admin.no-such-path", 405: "admin.bad-method"}


def admin_app(
    hub: Hub,
    *,
    config: AdminConfig,
    token: str,
    bound: str,
    info: Mapping[str, object],
    stop: Callable[[], None],
    closing: anyio.Event,
    clock: Clock,
    more: Sequence[Route] = (),
) -> Asgi:
    """The whole interface as one ASGI application, guarded.

    ``bound`` is the address it is served on, ``info`` what ``/v1/id`` tells, ``stop`` is called for
    ``/v1/stop``, and watches end when ``closing`` is set. ``more`` are further routes.
    """
    admin = _Admin(hub, config, info, stop, closing, clock)
    app = Starlette(
        routes=[
            Route("/health", admin.health),
            Route("/metrics", admin.metrics),
            Route("/v1/node", admin.get, methods=["GET"]),
            Route("/v1/node", admin.put, methods=["PUT", "POST"]),
            Route("/v1/watch", admin.watch),
            Route("/v1/peers", admin.peers),
            Route("/v1/id", admin.id),
            Route("/v1/stop", admin.stop, methods=["POST"]),
            *more,
        ],
        exception_handlers={HTTPException: _http_error, AirError: _air_error, Exception: _internal},
    )
    return Guard(app, config=config, token=token, bound=bound)


class _Admin:
    def __init__(
        self,
        hub: Hub,
        config: AdminConfig,
        info: Mapping[str, object],
        stop: Callable[[], None],
        closing: anyio.Event,
        clock: Clock,
    ) -> None:
        self._hub, self._config, self._info = hub, config, info
        self._stop, self._closing, self._clock = stop, closing, clock
        self._watches = 0

    async def health(self, request: Request) -> Response:
        health = dict(self._hub.health())
        # What is damaged is missing, and all else is served: to send clients elsewhere would mend nothing.
        status = 200 if health.get("status") in ("ok", "damaged") else 503
        if not request.scope[AUTHORISED]:
            health = {"status": health.get("status")}
        return _json(health, status)

    async def metrics(self, request: Request) -> Response:
        # The first import takes 60 ms, which the peers need not notice.
        metrics = await anyio.to_thread.run_sync(importlib.import_module, "air.daemon.metrics")
        return Response(metrics.exposition(self._hub.counters), media_type=metrics.CONTENT_TYPE)

    async def get(self, request: Request) -> Response:
        query = read_query(request, "soul", "key", "prefix", "from", "to", "limit", "reverse")
        soul, lex, limit = soul_of(query), _lex(query), limit_of(query)
        pages = aiter(self._hub.pages(soul, lex))
        first = await _first(pages)
        if first is None:
            what = f"field {query['key']} of {soul}" if "key" in query else f"node {soul}"
            return _error(404, "node.not-found", f"there is no {what}")
        return NodeResponse(soul, first, pages, limit)

    async def put(self, request: Request) -> Response:
        soul = soul_of(read_query(request, "soul"))
        fields = _fields(await request.body(), self._config.fields_max)
        receipt: Receipt = await self._hub.put({soul: fields})
        text = f'{{"soul":{text_json(soul)},"state":{number_text(receipt.state)},"cells":{receipt.cells}}}'
        return Response(text, media_type="application/json")

    async def watch(self, request: Request) -> Response:
        query = read_query(request, "soul", "key")
        soul = soul_of(query)
        if request.method == "HEAD":
            return Response(media_type="application/x-ndjson")
        if self._watches >= self._config.watches_max:
            raise LimitReached("too many watches are open", code="admin.too-many-watches")
        self._watches += 1
        return WatchResponse(
            self._hub,
            soul,
            query.get("key"),
            heartbeat_seconds=self._config.heartbeat_seconds,
            closing=self._closing,
            clock_ms=lambda: self._clock.now().wall,
            done=self._watch_done,
        )

    def _watch_done(self) -> None:
        self._watches -= 1

    async def peers(self, request: Request) -> Response:
        return _json({"peers": [asdict(link) for link in self._hub.links()]})

    async def id(self, request: Request) -> Response:
        return _json(self._info)

    async def stop(self, request: Request) -> Response:
        self._stop()
        return _json({"stopping": True}, 202)


async def _first(pages: AsyncIterator[Fields]) -> Fields | None:
    async for page in pages:
        if page:
            return page
    return None


def _lex(query: Mapping[str, str]) -> Lex:
    reverse = flag_of(query, "reverse")
    if "key" in query:
        if query.keys() & {"prefix", "from", "to", "reverse"}:
            raise Violation("key goes without prefix, from, to and reverse", code="admin.bad-query")
        return Lex(exact=query["key"])
    return Lex(
        prefix=query.get("prefix", ""),
        start=query.get("from"),
        end=query.get("to"),
        reverse=reverse,
    )


def _fields(body: bytes, fields_max: int) -> dict[str, Value]:
    try:
        raw: Any = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Violation("the body is not JSON", code="admin.bad-json") from None
    if not isinstance(raw, dict) or not raw:
        raise Violation("the body is an object with at least one field", code="admin.bad-json")
    if len(raw) > fields_max:
        raise LimitReached(f"one put has at most {fields_max} fields", code="admin.too-many-fields")
    fields: dict[str, Value] = {}
    for key, given in raw.items():
        value = canonical(given)
        if value is None:
            shown = key[:40].encode("utf-8", "replace").decode()
            raise Violation(
                f"the field {shown} may hold null, true, false, a number, text or a link",
                code="admin.bad-value",
            )
        fields[key] = value[0]
    return fields


def _no_constant(word: str) -> None:
    raise ValueError(word)  # NaN and the infinities are not JSON, whatever Python thinks


def _json(content: Mapping[str, object], status: int = 200) -> Response:
    body = json.dumps(content, default=str).encode()
    return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})


def _error(status: int, code: str, message: str) -> Response:
    return Response(error_json(code, message), status, media_type="application/json")


async def _air_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AirError)
    return _error(status_of(error), error.code, error.message)


async def _internal(request: Request, error: Exception) -> Response:
    # The guard hears of it too, and logs it; a client learns nothing of our inside.
    return _error(500, "admin.internal", "internal error")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "admin.refused")
    response = _error(error.status_code, code, error.detail)
    response.headers.update(error.headers or {})
    return response
