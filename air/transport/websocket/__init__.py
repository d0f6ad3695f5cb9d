"""WebSocket: the core in both roles, one connection, the listener and the dialler."""

from air.transport.http import HttpResponse, Request
from air.transport.websocket.config import WebSocketConfig
from air.transport.websocket.conn import WebSocketConn
from air.transport.websocket.core import WebSocketCore
from air.transport.websocket.transport import ConnHandler, HttpHandler, WebSocketListener, dial_websocket

__all__ = [
    "ConnHandler",
    "HttpHandler",
    "HttpResponse",
    "Request",
    "WebSocketConfig",
    "WebSocketConn",
    "WebSocketCore",
    "WebSocketListener",
    "dial_websocket",
]
