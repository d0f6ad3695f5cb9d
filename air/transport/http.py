"""The little HTTP a WebSocket port needs: one request, one answer, then the end. (core)"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

__all__ = ["HttpResponse", "Request", "chunk", "last_chunk", "plain", "response_head"]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of an HTTP request. A body is never read."""

    method: str
    path: str
    """As it came: still percent-encoded, with its query."""
    headers: Mapping[str, str]
    """Names in lower case; values of a repeated name are joined by a comma and a blank."""
    upgrade: bool = False
    """Asks to become a WebSocket."""
    protocol: str = "HTTP/1.1"

    @property
    def route(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def origin(self) -> str | None:
        """Where a browser says the page came from; None for programs that are no browsers."""
        return self.headers.get("origin")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer. ``Date``, ``Connection`` and the length are added where it is written."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] = b""
    """Pieces of a body are sent as they come; give ``Content-Length`` in the headers when it is known."""


def plain(status: int, text: str = "", headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A short answer in plain text; without ``text`` it is the name of the status."""
    body = (text or HTTPStatus(status).phrase) + "\n"
    return HttpResponse(
        status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, body.encode("utf-8")
    )


def response_head(response: HttpResponse, date: str, *, chunked: bool) -> bytes:
    """The status line and headers. Names and values must not hold a line break: that would be our own fault,
    and is refused with ValueError rather than written."""
    lines = [f"HTTP/1.1 {response.status} {_phrase(response.status)}"]
    headers = {"Date": date, **response.headers}
    known = {name.lower() for name in headers}
    # 1xx, 204 and 304 have no body and say nothing of its length (RFC 9110, 8.6).
    if response.status >= 200 and response.status not in (204, 304) and "content-length" not in known:
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif isinstance(response.body, bytes):
            headers["Content-Length"] = str(len(response.body))
    headers["Connection"] = "close"
    for name, value in headers.items():
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"header {name!r} holds a control character")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body (RFC 9112, 7.1). ``data`` must not be empty: that would be the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk() -> bytes:
    """The end of a chunked body."""
    return b"0\r\n\r\n"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
