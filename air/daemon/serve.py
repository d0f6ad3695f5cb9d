"""Serve the admin interface on its own port, on either event loop. (shell)"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from air.base.errors import ConfigError
from air.daemon.guard import Asgi
from air.node.config import AdminConfig

__all__ = ["bind", "serving", "url_of"]

_BACKLOG: Final = 128
_GRACEFUL_SECONDS: Final = 2.0
"""How long requests under way may take once the server ends."""
_HEAD_BYTES_MAX: Final = 64 * 1024


def bind(config: AdminConfig) -> socket.socket:
    """A listening socket on ``host`` and ``port``; port 0 picks a free one.

    Raises ConfigError ``admin.not-loopback`` when others could reach it and ``allow_remote`` is not
    set, and ``admin.cannot-bind`` when the address is taken or not ours.
    """
    host, port = config.host, config.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        if (
            not config.allow_remote
            and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        ):
            raise ConfigError(
                f"admin.host {host} can be reached by others; set admin.allow_remote if that is meant",
                code="admin.not-loopback",
            )
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"admin.host {host}: {error.strerror}", code="admin.cannot-bind") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # The server sends to one that never reads without a time limit, and on trio it cannot even
            # be cancelled. The kernel can: accepted sockets inherit this.
            listener.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(config.unread_seconds * 1000)
            )
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot serve the admin interface on {host} port {port}: {error.strerror}",
            code="admin.cannot-bind",
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """``http://127.0.0.1:8766``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def serving(
    app: Asgi, listener: socket.socket, closing: anyio.Event, *, backend: str
) -> AsyncIterator[None]:
    """Serve ``app`` while the block runs, on the event loop named ``backend``. Takes ``listener`` over.

    ``closing`` is set at the end of the block, or earlier by others; requests under way may then finish.
    """
    from hypercorn.config import Config

    logger = logging.getLogger("air.daemon.http")
    logger.setLevel(logging.WARNING)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logger
    config.accesslog = None
    config.include_server_header = False
    config.graceful_timeout = _GRACEFUL_SECONDS
    config.h11_max_incomplete_size = _HEAD_BYTES_MAX
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_serve, app, config, closing, backend)
        try:
            yield
        finally:
            closing.set()


async def _serve(app: Asgi, config: Any, closing: anyio.Event, backend: str) -> None:
    serve: Any
    if backend == "trio":
        from hypercorn.trio import serve
    else:
        from hypercorn.asyncio import serve

        _expect_cut_clients()
    # The server ends by its trigger, always: cancelled, it would leave its connections behind.
    with anyio.CancelScope(shield=True):
        await serve(app, config, shutdown_trigger=closing.wait, mode="asgi")


def _expect_cut_clients() -> None:
    """Hypercorn knows clients that reset their connection, not ones the kernel gave up on."""
    import asyncio

    loop = asyncio.get_running_loop()
    otherwise = loop.get_exception_handler()

    def heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), TimeoutError) and "client_connected_cb" in context["message"]:
            return
        if otherwise is None:
            loop.default_exception_handler(context)
        else:
            otherwise(loop, context)

    loop.set_exception_handler(heard)
