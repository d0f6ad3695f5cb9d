"""Who may speak to the admin interface, and how every refusal looks. (shell)

A page of any web site can send requests to a port of this machine. Three things stop it: the request
must be addressed to us by a name that is ours (a foreign name that was made to point here is not),
it must not come from a page of another origin, and it must carry the token, which no page can read.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

import anyio

from air.base.errors import (
    AirError,
    Closed,
    ConfigError,
    Denied,
    Full,
    LimitReached,
    Misuse,
    Unreachable,
    Violation,
)
from air.node.config import AdminConfig

__all__ = ["AUTHORISED", "Asgi", "Guard", "error_json", "is_own_host", "status_of"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

AUTHORISED: Final = "air.authorised"
"""Key of the scope: True when the request carried the token."""

_PUBLIC: Final = frozenset({("GET", "/health"), ("HEAD", "/health")})
_LOG: Final = logging.getLogger("air.daemon.admin")

_STATUS_BY_CODE: Final = {
    "admin.no-token": 401,
    "admin.bad-token": 401,
    "admin.body-too-large": 413,
    "admin.too-many-fields": 413,
    "admin.body-too-slow": 408,
    "admin.too-many-watches": 503,
    "node.not-found": 404,
    "journal.no-conflict": 404,
}
_STATUS_BY_KIND: Final[tuple[tuple[type[AirError], int], ...]] = (
    (Denied, 403),
    (Full, 507),
    (LimitReached, 429),
    (Violation, 400),
    (Misuse, 400),
    (ConfigError, 400),
    (Closed, 503),
    (Unreachable, 502),
)


def status_of(error: AirError) -> int:
    """The HTTP status of an error."""
    known = _STATUS_BY_CODE.get(error.code)
    return known or next((status for kind, status in _STATUS_BY_KIND if isinstance(error, kind)), 500)


def error_json(code: str, message: str) -> bytes:
    """The body of every refusal."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def is_own_host(header: str, bound: str, names: Iterable[str] = ()) -> bool:
    """True when a Host header names us: loopback, ``localhost``, what we are bound to, or ``names``.

    When bound to every interface, any address is ours: only a *name* can be made to point here by others.
    """
    host = header.rpartition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
    host = host.rstrip(".").lower()
    if not host:
        return False
    if host in {"localhost", bound.lower(), *(name.lower() for name in names)}:
        return True
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or ipaddress.ip_address(bound).is_unspecified
    except ValueError:
        return False


class Guard:
    """Lets a request through to ``app``, or answers it with a code.

    ``app`` gets a request whose body has arrived whole, within the limits. So it never answers while
    the server still holds parts of the body for it, which the server could then not get rid of.
    """

    def __init__(self, app: Asgi, *, config: AdminConfig, token: str, bound: str) -> None:
        self._app, self._config, self._bound = app, config, bound
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        started = gone = False

        async def tracked(message: Message) -> None:
            nonlocal started, gone
            started = True
            try:
                await send(message)
            except OSError:
                gone = True
                raise

        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _replay(body, receive), tracked)
        except AirError as error:
            if not started:
                _LOG.info(
                    "refused a request",
                    extra={"code": error.code, "method": scope["method"], "path": scope["path"]},
                )
                await _refuse(status_of(error), error_json(error.code, error.message), receive, send)
        except Exception as error:
            if gone:
                return  # cut by the kernel while we were sending: not our failure
            _LOG.error(
                "a request failed", exc_info=error, extra={"code": "admin.internal", "path": scope["path"]}
            )
            if not started:
                await _refuse(500, error_json("admin.internal", "internal error"), receive, send)

    def _admit(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = headers.get(b"host", "")
        if not is_own_host(host, self._bound, self._config.names):
            raise Denied("this is not the host you are looking for", code="admin.foreign-host")
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise Denied("pages of another origin may not use this interface", code="admin.foreign-origin")
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            if not hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token):
                raise Denied("this is not the token of this daemon", code="admin.bad-token")
            scope[AUTHORISED] = True
            return
        scope[AUTHORISED] = False
        if (scope["method"], scope["path"]) not in _PUBLIC:
            raise Denied("send the token: Authorization: Bearer …", code="admin.no-token")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._config.body_bytes_max if scope["method"] in ("PUT", "POST") else 0
        parts: list[bytes] = []
        length = 0
        with anyio.move_on_after(self._config.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Closed("the client has gone")
                part = message.get("body", b"")
                length += len(part)
                if length > limit:
                    raise LimitReached(f"a body has at most {limit} bytes", code="admin.body-too-large")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        raise LimitReached("the body took too long to arrive", code="admin.body-too-slow")


def _headers(scope: Scope) -> Mapping[bytes, str]:
    # Of a repeated header the first counts for none of our questions: two Hosts are refused by the server.
    return {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(status: int, body: bytes, receive: Receive, send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))

    async def discard() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    # The server hands us the body through a short queue and closes only once that is empty, so what
    # still comes in must be thrown away while we answer.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(discard)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        tasks.cancel_scope.cancel()
